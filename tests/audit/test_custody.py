"""Custody: what is written when a learner forgets, that nothing in it tells who, and that a crash changes nothing."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audit_tools import LEARNER, NAME, World, flips, killed_at, owned_digits, places

from expunge.audit import custody as custody_module
from expunge.audit import keys as keys_module
from expunge.audit import log as log_module
from expunge.audit.custody import Custody, Order, read_manifest, read_nonce
from expunge.audit.encoding import blinded
from expunge.audit.keys import KeyFolder
from expunge.audit.log import Log
from expunge.audit.manifest import Manifest
from expunge.audit.statement import Entry, Statement, unseal
from expunge.audit.verify import verify
from expunge.data.records import Records
from expunge.errors import RequestError, RunError, TamperedEvidence
from expunge.methods import durable as durable_module
from expunge.methods.durable import DurableLearner

MODULES = (custody_module, keys_module, log_module, durable_module)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != "lock"
    }


def told_by(certificate: Path) -> dict[str, Any]:
    envelope = json.loads(certificate.read_text())["envelope"]
    predicate: dict[str, Any] = json.loads(Statement.read(unseal(envelope)[0]).payload)["predicate"]
    return predicate


def test_a_fit_and_two_forgettings_are_three_entries_in_a_chain(made: World, records: Records) -> None:
    log = Log(made.audit / "log", made.keys.trusted.public)
    entries = [Entry.read(leaf) for leaf in log.entries]
    assert [entry.kind for entry in entries] == ["fit", "forget", "forget"]
    assert entries[0].previous is None
    assert [e.previous for e in entries[1:]] == [e.state for e in entries[:-1]]
    assert [e.manifest.size for e in entries] == [40, 37, 36]
    assert made.keys.trusted.owns(log.origin) and log.origin != NAME


def test_the_manifest_is_that_of_a_learner_that_never_knew_the_rows(made: World, records: Records) -> None:
    state = made.open().state
    assert sorted(set(records.ids) - set(state.rows.records().ids)) == sorted(records.ids[[0, 3, 4, 30]])
    fresh = Manifest.of(state.rows.records(), made.keys.held_keys)
    assert read_manifest(made.model).root == fresh.root


def test_the_certificate_says_what_was_done(made: World) -> None:
    told = told_by(made.first)
    assert told["method"]["name"] == "sisa" and told["guaranteeClass"] == {"class": "exact", "equality": "bitwise"}
    assert len(told["forgetSet"]) == 3 and told["requestIds"][0].startswith("request-")
    assert told["outOfScope"] and told["levels"]["copies elsewhere"] == "not reached"
    assert {"python", "numpy", "torch", "processor", "threads"} <= set(told["environment"])
    assert told["changed"] == [n for n in told["changed"] if told["after"]["parts"][n] != told["before"]["parts"][n]]
    assert "rows" in told["changed"]
    assert set(told["destroyed"]) == {told["before"]["parts"][name] for name in told["changed"]}
    assert told["after"]["state"] == told_by(made.second)["before"]["state"]
    assert told["after"]["parts"] == told_by(made.second)["before"]["parts"]


def test_an_order_stands_in_the_certificate(world: World, records: Records) -> None:
    order = Order(
        ids=("R-7", "R-8"),
        policy="GDPR Art. 17",
        due_at="2026-06-25T12:00:00Z",
        metrics=({"name": "accuracy", "value": 0.9},),
        out_of_scope=("the mirror in the other building",),
    )
    DurableLearner(world.model, witness=Custody(world.keys).under(order)).forget([records.ids[9]])
    told = told_by(world.audit / "certificates" / "0003.json")
    assert (told["requestIds"], told["policy"], told["dueAt"]) == (["R-7", "R-8"], "GDPR Art. 17", order.due_at)
    assert told["metrics"] == [{"name": "accuracy", "value": 0.9}]
    assert "the mirror in the other building" in told["outOfScope"] and len(told["outOfScope"]) > 1
    with pytest.raises(RequestError, match="no time with a zone"):
        Order(due_at="soon")


def test_nothing_written_tells_who_or_can_be_tested_by_a_guess(world: World, records: Records) -> None:
    """Not names, not ids, not rows, and not the digest of any state or part, before or after."""
    plain: set[str] = set()
    model = world.open()

    def note() -> None:
        document = json.loads((world.model / "state.json").read_text())
        plain.update({document["digest"], *document["parts"].values()})

    note()
    gone = records.ids[[9, 10]].tolist()
    model.forget(gone)
    note()
    from expunge.audit.encoding import from_base64

    written = b"".join(content for name, content in contents(world.audit).items())
    leaves = Log(world.audit / "log", world.keys.trusted.public).entries
    payloads = [from_base64(json.loads(p.read_text())["envelope"]["payload"]) or b"" for p in world.audit.glob("c*/*")]
    written += b"".join(leaves) + b"".join(payloads)
    assert len(payloads) == 3 and all(payloads)
    for secret in (*records.ids.tolist(), *set(records.owners.tolist()), "Lovelace", *plain):  # type: ignore[union-attr]
        assert secret.encode() not in written, secret


def test_the_nonce_is_destroyed_with_its_state(world: World, records: Records) -> None:
    old, commitment = read_nonce(world.model), told_by(world.second)["after"]["state"]
    before = json.loads((world.model / "state.json").read_text())["digest"]
    names = '[["0","1","2","3","4","5","6","7","8","9"],[]]'
    assert blinded(old, "state", before, names) == commitment
    world.open().forget([records.ids[9]])
    assert read_nonce(world.model) != old
    assert not any(old.hex().encode() in content for content in contents(world.path).values())


def test_the_old_nonce_is_overwritten_where_it_lay(world: World, records: Records, tmp_path: Path) -> None:
    """A second name of the same blocks sees what a disk would still hold."""
    blocks = tmp_path / "blocks"
    os.link(world.audit / "nonce.json", blocks)
    length = len(blocks.read_bytes())
    world.open().forget([records.ids[9]])
    assert blocks.read_bytes() == bytes(length)


def test_a_manifest_changed_while_a_request_is_carried_out_is_refused(
    world: World, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_manifest(world.model)
    fewer = manifest.without([manifest.leaves[7, :32].tobytes()])

    def meddle(name: str) -> None:
        if name == "destroyed":
            fewer.save(world.audit / "manifest.safetensors")

    monkeypatch.setattr(durable_module, "step", meddle)
    with pytest.raises(TamperedEvidence, match="not the one that was logged"):
        world.open().forget([records.ids[9]])
    manifest.save(world.audit / "manifest.safetensors")
    monkeypatch.setattr(durable_module, "step", lambda name: None)
    world.open().recover()
    third = world.audit / "certificates" / "0003.json"
    assert verify(third, folder=world.model, keys=world.keys.trusted).outcome == "pass"


def test_a_row_whose_values_were_not_committed_to_is_refused(
    world: World, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = custody_module.commitments

    def other_values(rows: Records, keys: Any) -> Any:
        leaves = real(rows, keys).copy()
        leaves[:, 40] ^= 1
        return leaves

    monkeypatch.setattr(custody_module, "commitments", other_values)
    with pytest.raises(TamperedEvidence, match="not the one that was committed to"):
        world.open().forget([records.ids[9]])


def test_killed_anywhere_the_rerun_logs_once_and_the_certificate_verifies(
    made: World, records: Records, tmp_path: Path
) -> None:
    gone = records.ids[[9, 20]].tolist()

    def copy(name: str) -> World:
        shutil.copytree(made.path, tmp_path / name)
        return World(tmp_path / name)

    whole = copy("whole")
    names = places(MODULES, lambda: whole.open().forget(gone))
    ours = ["manifest written", "nonce destroyed", "truncated", "half a line", "entry written", "checkpoint written"]
    ours += ["forgetting logged", "certificate written"]
    assert set(ours) <= set(names) and names.index("destroyed") < names.index("manifest written")
    for place, name in enumerate(names):
        if name not in ours:
            continue  # those of the learner's own steps are in tests/methods/test_durable.py
        world = copy(str(place))
        assert killed_at(place, MODULES, lambda world=world: world.open().forget(gone))
        pending = world.model / "pending.json"
        begun = json.loads(pending.read_text()) if pending.exists() else None
        world.open().recover()
        model = world.open()
        if begun is None:
            model.forget([i for i in gone if i in model.state.rows])
        log = Log(world.audit / "log", world.keys.trusted.public)
        assert len(log) == 4, name
        certificates = sorted(p.name for p in (world.audit / "certificates").iterdir())
        assert certificates == ["0001.json", "0002.json", "0003.json"], name
        if begun is not None:
            assert told_by(world.audit / "certificates/0003.json")["requestIds"] == begun["note"]["requestIds"]
        verdict = verify(
            world.audit / "certificates/0003.json", folder=world.model, keys=world.keys.trusted, owner_keys=world.keys
        )
        assert verdict.outcome == "pass", (name, verdict.failed)
        shutil.rmtree(world.path)


def test_told_twice_it_writes_the_same_bytes(world: World, records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a crash between the witness and the end of the request."""
    calls = []
    custody = Custody(world.keys)
    real = custody.forgotten

    def twice(*arguments: Any) -> None:
        real(*arguments)
        calls.append(contents(world.audit))
        custody.keys.rotate()  # what is signed already is not signed again
        real(*arguments)
        calls.append(contents(world.audit))

    monkeypatch.setattr(custody, "forgotten", twice)
    DurableLearner(world.model, witness=custody).forget([records.ids[9]])
    assert calls[0] == calls[1]


@pytest.mark.slow
def test_killed_while_it_is_fitted_the_rerun_ends_in_one_entry(records: Records, tmp_path: Path) -> None:
    keys = KeyFolder.make(tmp_path / "keys", NAME)

    def create(folder: Path) -> DurableLearner:
        return DurableLearner.create(folder, LEARNER, records, witness=Custody(keys))

    create(tmp_path / "first")  # after it the owners have their keys
    names = places(MODULES, lambda: create(tmp_path / "whole"))
    ours = ["nonce written", "manifest written", "lineage written", "log made", "checkpoint written", "fit logged"]
    assert set(ours) <= set(names)
    for place, name in enumerate(names):
        folder = tmp_path / str(place)
        assert killed_at(place, MODULES, lambda folder=folder: create(folder)), name
        model = create(folder)
        log = Log(folder / "audit" / "log", keys.trusted.public)
        assert len(log) == 1, name
        model.forget([records.ids[0]])
        verdict = verify(folder / "audit/certificates/0001.json", folder=folder, keys=keys.trusted)
        assert verdict.outcome == "pass", (name, verdict.failed)
        shutil.rmtree(folder)


def test_a_learner_made_without_custody_is_taken_into_it(records: Records, tmp_path: Path) -> None:
    keys = KeyFolder.make(tmp_path / "keys", NAME)
    model = DurableLearner.create(tmp_path / "m", LEARNER, records)
    with pytest.raises(RunError, match="not in custody"):
        DurableLearner(tmp_path / "m", witness=Custody(keys)).forget([records.ids[0]])
    model.forget([records.ids[1]])
    Custody(keys).fitted(tmp_path / "m", model.learner, model.state)
    DurableLearner(tmp_path / "m", witness=Custody(keys)).forget([records.ids[0]])
    verdict = verify(tmp_path / "m/audit/certificates/0001.json", folder=tmp_path / "m", keys=keys.trusted)
    assert verdict.outcome == "pass", verdict.failed


def test_it_is_taken_into_custody_once(world: World) -> None:
    model = world.open()
    with pytest.raises(RunError, match="in custody already"):
        Custody(world.keys).fitted(world.model, model.learner, model.state)


@pytest.mark.parametrize("name", ["log/entries.jsonl", "log/checkpoint", "manifest.safetensors", "nonce.json"])
def test_altered_evidence_is_refused_before_anything_changes(world: World, records: Records, name: str) -> None:
    path = world.audit / name
    for changed in flips(path.read_bytes(), 5):
        path.write_bytes(changed)
        before = contents(world.path)
        with pytest.raises((TamperedEvidence, RunError)):
            world.open().forget([records.ids[9]])
        assert contents(world.path) == before


def test_rows_under_replaced_keys_are_refused(world: World, records: Records) -> None:
    from expunge.audit.keys import owner

    world.keys.destroy(owner(str(records.owners[9])))  # type: ignore[index]
    with pytest.raises(TamperedEvidence, match="owner's key was replaced"):
        world.open().forget([records.ids[9]])


def test_other_keys_cannot_continue_the_log(world: World, records: Records, other: World) -> None:
    with pytest.raises(TamperedEvidence, match="none of the trusted keys"):
        DurableLearner(world.model, witness=Custody(other.keys)).forget([records.ids[9]])


def test_records_without_owners_are_committed_one_by_one(tmp_path: Path) -> None:
    table = owned_digits()
    table = Records(ids=table.ids, columns=table.columns, classes=table.classes)
    keys = KeyFolder.make(tmp_path / "keys", NAME)
    model = DurableLearner.create(tmp_path / "m", LEARNER, table, witness=Custody(keys))
    model.forget(table.ids[:2].tolist())
    assert (keys.folder / "owners.bin").stat().st_size == 64 * 40
    verdict = verify(tmp_path / "m/audit/certificates/0001.json", folder=tmp_path / "m", keys=keys.trusted)
    assert verdict.outcome == "pass" and verdict.says["forgotten"] == 2


def test_lineage_names_what_the_first_state_was_made_of(made: World) -> None:
    lineage = json.loads((made.audit / "lineage.json").read_text())
    assert lineage["learner"] == "sisa" and lineage["seed"] == 0
    assert lineage["parameters"] == json.loads(json.dumps(LEARNER.parameters()))
    assert {"python", "numpy", "torch", "processor", "threads"} <= set(lineage["environment"])
    assert lineage["state"]["manifest"]["size"] == 40 and len(lineage["rowOrder"]) == 64


def test_a_request_begun_without_custody_is_not_finished_by_it(
    world: World, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(name: str) -> None:
        if name == "committed":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(durable_module, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            DurableLearner(world.model).forget([records.ids[9]])
    with pytest.raises(RunError, match="begun without custody"):
        world.open().recover()


def test_the_order_of_rows_is_committed_to(records: Records, tmp_path: Path) -> None:
    keys = KeyFolder.make(tmp_path / "keys", NAME)
    DurableLearner.create(tmp_path / "m", LEARNER, records, witness=Custody(keys))
    lineage = json.loads((tmp_path / "m/audit/lineage.json").read_text())
    nonce = read_nonce(tmp_path / "m")
    assert lineage["rowOrder"] == blinded(nonce, "order", *records.ids.tolist())
    assert lineage["rowOrder"] != blinded(nonce, "order", *records.ids[np.arange(40)[::-1]].tolist())
