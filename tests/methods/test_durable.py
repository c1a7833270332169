"""A learner in a folder: killed anywhere, damaged, asked by two at once."""

from __future__ import annotations

import json
import os
import signal
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from expunge.data.digits import load_digits
from expunge.data.records import Records
from expunge.errors import EmptyForgetSet, NonFiniteLoss, RunError, UnknownIds
from expunge.guarantee import Exact
from expunge.methods import durable
from expunge.methods.durable import Change, DurableLearner
from expunge.methods.exact.sisa import Sisa
from expunge.methods.learner import Job, Learner, State
from expunge.recipe import Recipe, Trainer
from expunge.training import files

LEARNER = Sisa(
    recipe=Recipe(
        factory="expunge.models.architectures:softmax_regression",
        kwargs={"features": [1, 8, 8], "classes": 10},
        trainer=Trainer(epochs=1, batch_size=16),
    ),
    shards=3,
    slices=2,
)


@pytest.fixture(scope="module")
def records() -> Records:
    return load_digits().take(np.arange(60))


class Diary:
    """A witness that writes what it is told into files, once each."""

    def fitted(self, folder: Path, learner: Learner, state: State) -> None:
        files.write_json(folder / "fitted.json", state.digest())

    def prepare(self, folder: Path, learner: Learner, state: State, ids: tuple[str, ...]) -> dict[str, Any]:
        return {"count": len(ids)}

    def forgotten(self, folder: Path, learner: Learner, state: State, change: Change) -> None:
        assert state.digest() == change.after
        files.write_json(folder / "forgotten.json", [change.before, change.after, list(change.destroyed), change.note])


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != "lock"
    }


def digest_on_disk(folder: Path) -> str:
    return str(json.loads((folder / "state.json").read_text())["digest"])


class Killer:
    """Counts the places where a process may be killed, and kills it at the n-th."""

    def __init__(self, at: int | None) -> None:
        self.at, self.seen, self.names = at, 0, []  # type: ignore[var-annotated]

    def __call__(self, name: str) -> None:
        self.names.append(name)
        if self.seen == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen += 1

    def install(self, patch: pytest.MonkeyPatch) -> None:
        replace, destroy = os.replace, durable.destroy

        def killing_replace(source: Any, target: Any) -> None:
            self(f"before {Path(target).name[:5]} is there")
            replace(source, target)
            self(f"after {Path(target).name[:5]} is there")

        def killing_destroy(path: Path) -> None:
            self("before destroying")
            destroy(path)

        patch.setattr(files.os, "replace", killing_replace)
        patch.setattr(durable, "destroy", killing_destroy)
        patch.setattr(durable, "step", self)


def killed_at(place: int, work: Callable[[], object]) -> bool:
    """Run `work` in a child that dies at the given place; false if it got to the end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn of forks beside threads; the child only computes and dies
        child = os.fork()
    if child == 0:
        with pytest.MonkeyPatch.context() as patch:
            Killer(place).install(patch)
            try:
                work()
            except BaseException:
                os._exit(3)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def places(work: Callable[[], object]) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        killer = Killer(None)
        killer.install(patch)
        work()
    return killer.names


def test_killed_anywhere_in_forget_the_folder_is_old_or_new_and_the_rerun_ends_in_the_same_bytes(
    records: Records, tmp_path: Path
) -> None:
    gone = records.ids[[3, 4, 30]].tolist()
    whole = DurableLearner.create(tmp_path / "whole", LEARNER, records, witness=Diary())
    old = digest_on_disk(tmp_path / "whole")
    names = places(lambda: whole.forget(gone))
    new, wanted = digest_on_disk(tmp_path / "whole"), contents(tmp_path / "whole")
    assert {"pending", "parts written", "change written", "committed", "destroyed one", "witnessed"} <= set(names)
    assert len(names) > 20
    met = set()
    for place in range(len(names)):
        folder = tmp_path / str(place)
        DurableLearner.create(folder, LEARNER, records, witness=Diary())
        assert killed_at(place, lambda folder=folder: DurableLearner(folder, witness=Diary()).forget(gone))
        found = digest_on_disk(folder)
        assert found in {old, new}
        met.add(found)
        assert DurableLearner(folder).state.digest() == found  # readable at once, whichever it is
        outcome = DurableLearner(folder, witness=Diary()).forget(gone) if (folder / "pending.json").exists() else None
        if outcome is None:  # killed before it was written down, or after it was all over
            again = DurableLearner(folder, witness=Diary())
            again.recover()
            if found == old:
                outcome = again.forget(gone)
        assert contents(folder) == wanted, names[place]
        if outcome:
            assert outcome.guarantee == Exact(equality="bitwise") and outcome.model.digest() == new
    assert met == {old, new}


def test_killed_anywhere_in_create_a_repeated_call_ends_in_the_same_bytes(records: Records, tmp_path: Path) -> None:
    names = places(lambda: DurableLearner.create(tmp_path / "whole", LEARNER, records, witness=Diary()))
    wanted = contents(tmp_path / "whole")
    for place in range(len(names)):
        folder = tmp_path / str(place)
        killed_at(place, lambda folder=folder: DurableLearner.create(folder, LEARNER, records, witness=Diary()))
        DurableLearner.create(folder, LEARNER, records, witness=Diary())
        assert contents(folder) == wanted, names[place]


def test_nothing_of_a_forgotten_record_is_left_in_the_folder(records: Records, tmp_path: Path) -> None:
    kept = DurableLearner.create(tmp_path, LEARNER, records)
    row, record_id = records.x[7].astype(np.float32).tobytes(), str(records.ids[7])
    before = contents(tmp_path)
    assert any(row in b for b in before.values()) and any(record_id.encode() in b for b in before.values())
    outcome = kept.forget([record_id])
    after = contents(tmp_path)
    assert not any(row in b for b in after.values())
    assert not any(record_id.encode() in b for b in after.values())
    destroyed = outcome.trace[-1]["destroyed"]
    assert sorted(f"parts/{name}" for name in destroyed) == sorted(set(before) - set(after))
    assert len(destroyed) == 2  # the shard and the table of records


def test_destroying_overwrites_before_it_removes(tmp_path: Path) -> None:
    path = tmp_path / "old"
    path.write_bytes(b"secret" * 300_000)
    os.link(path, tmp_path / "the same file by another name")
    durable.destroy(path)
    assert not path.exists()
    assert (tmp_path / "the same file by another name").read_bytes().strip(b"\0") == b""


def test_one_flipped_byte_is_noticed(records: Records, tmp_path: Path) -> None:
    DurableLearner.create(tmp_path, LEARNER, records)
    for path in sorted((tmp_path / "parts").iterdir()):
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(RunError):
            _ = DurableLearner(tmp_path).state
        path.write_bytes(whole)
    document = json.loads((tmp_path / "state.json").read_text())
    document["seed"] += 1
    (tmp_path / "state.json").write_text(json.dumps(document))
    with pytest.raises(RunError, match="altered"):
        _ = DurableLearner(tmp_path).state


def test_a_second_writer_waits_or_is_refused(records: Records, tmp_path: Path) -> None:
    DurableLearner.create(tmp_path, LEARNER, records)
    with FileLock(tmp_path / "lock"), pytest.raises(RunError, match="another process"):
        DurableLearner(tmp_path, wait_seconds=0.05).forget([records.ids[0]])
    assert digest_on_disk(tmp_path) == DurableLearner(tmp_path).state.digest()


def test_requests_at_the_same_time_are_carried_out_one_after_the_other(records: Records, tmp_path: Path) -> None:
    DurableLearner.create(tmp_path, LEARNER, records)
    wishes = [[str(records.ids[k])] for k in range(6)]
    threads = [threading.Thread(target=lambda w=w: DurableLearner(tmp_path).forget(w)) for w in wishes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    fresh = LEARNER.fit(records.without([w[0] for w in wishes]))
    assert DurableLearner(tmp_path).state.digest() == fresh.digest()


def test_a_learner_that_is_open_sees_what_another_one_forgot(records: Records, tmp_path: Path) -> None:
    first = DurableLearner.create(tmp_path, LEARNER, records)
    before = first.state.digest()
    DurableLearner(tmp_path).forget([records.ids[0]])
    assert first.state.digest() != before
    with pytest.raises(UnknownIds):
        first.forget([records.ids[0]])
    first.forget([records.ids[1]])


def test_a_refused_request_leaves_nothing_behind(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = DurableLearner.create(tmp_path, LEARNER, records)
    before = contents(tmp_path)
    with pytest.raises(EmptyForgetSet):
        kept.forget([])
    assert contents(tmp_path) == before

    def diverge(*_: object, **__: object) -> None:
        raise NonFiniteLoss("the objective", 3)

    monkeypatch.setattr(Sisa, "_train", diverge)
    with pytest.raises(NonFiniteLoss):
        kept.forget([records.ids[0]])
    monkeypatch.undo()
    assert contents(tmp_path) == before
    kept.forget([records.ids[0]])


def test_a_full_disk_changes_nothing_and_the_request_is_not_lost(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = DurableLearner.create(tmp_path, LEARNER, records)
    before = digest_on_disk(tmp_path)

    def full(*_: object) -> None:
        raise RunError("cannot write (No space left on device)", "Free some space")

    monkeypatch.setattr(durable, "_write", full)
    with pytest.raises(RunError, match="No space"):
        kept.forget([records.ids[0]])
    monkeypatch.undo()
    assert digest_on_disk(tmp_path) == before
    kept.recover()
    assert digest_on_disk(tmp_path) == LEARNER.fit(records.without([records.ids[0]])).digest()


def test_another_learner_or_other_records_are_refused(records: Records, tmp_path: Path) -> None:
    DurableLearner.create(tmp_path, LEARNER, records)
    with pytest.raises(RunError, match="other records"):
        DurableLearner.create(tmp_path, LEARNER, records.without([records.ids[0]]))
    with pytest.raises(RunError, match="another learner"):
        DurableLearner.create(tmp_path, LEARNER, records, seed=1)
    with pytest.raises(RunError, match="no learner"):
        _ = DurableLearner(tmp_path / "elsewhere").state


def test_training_in_pieces_goes_on_where_it_was_killed(records: Records, tmp_path: Path) -> None:
    plain = LEARNER.fit(records).digest()
    scratch = tmp_path / "scratch"
    killed_at(2, lambda: LEARNER.fit(records, job=Job(scratch=scratch)))
    assert LEARNER.fit(records, job=Job(scratch=scratch)).digest() == plain
