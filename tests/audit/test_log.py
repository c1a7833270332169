"""The log: what was appended stays, a crash leaves it old or new, and an altered one is not continued."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import pytest
from audit_tools import flips, killed_at, places
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.audit import log as log_module
from expunge.audit.log import Log, encode_entry
from expunge.audit.merkle import root, verify_consistency, verify_inclusion
from expunge.audit.note import Checkpoint, split, verify
from expunge.audit.signing import SigningKey
from expunge.errors import RequestError, RunError, TamperedEvidence

KEY = SigningKey.make()
ORIGIN = "example.com/log"


def log_of(folder: Path, entries: list[bytes]) -> Log:
    log = Log.create(folder, ORIGIN, KEY)
    for entry in entries:
        log.append(entry, KEY)
    return log


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    log_of(tmp_path / "log", [b"one", b"two", b"three"])
    return tmp_path / "log"


@settings(deadline=None, max_examples=15)
@given(st.lists(st.binary(max_size=20), max_size=8, unique=True))
def test_every_prefix_can_be_shown(tmp_path_factory: pytest.TempPathFactory, entries: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("log")
    log = Log.create(folder, ORIGIN, KEY)
    heads = [log.head]
    for number, entry in enumerate(entries):
        assert log.append(entry, KEY) == number
        heads.append(log.head)
    again = Log(folder, [KEY.public])
    assert again.entries == entries and again.head == heads[-1] and again.origin == ORIGIN
    for old, head in enumerate(heads):
        assert head == Checkpoint(origin=ORIGIN, size=old, root=root(entries[:old]))
        assert verify(again.checkpoint_at(old, KEY), ORIGIN, [KEY.public])[0] == head.text
        assert verify_consistency(old, len(entries), head.root, again.head.root, again.consistency(old))
        for index in range(old):
            assert verify_inclusion(entries[index], index, old, again.inclusion(index, old), head.root)


def test_an_entry_stands_there_once(folder: Path) -> None:
    before = (folder / "entries.jsonl").read_bytes(), (folder / "checkpoint").read_bytes()
    log = Log(folder, [KEY.public])
    assert log.append(b"two", KEY) == 1 and log.find(b"two") == 1 and log.find(b"four") is None
    assert before == ((folder / "entries.jsonl").read_bytes(), (folder / "checkpoint").read_bytes())


def test_the_files_are_lines_of_base64_and_a_signed_note(folder: Path) -> None:
    lines = (folder / "entries.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == ["b25l", "dHdv", "dGhyZWU="]
    text, signatures = split((folder / "checkpoint").read_text())
    assert text.startswith(f"{ORIGIN}\n3\n") and [name for name, _ in signatures] == [ORIGIN]


def test_killed_anywhere_it_is_old_or_new_and_the_rerun_ends_in_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "whole")
    names = places((log_module,), lambda: Log(tmp_path / "whole", [KEY.public]).append(b"four", KEY))
    assert names == ["truncated", "half a line", "entry written", "checkpoint written"]
    wanted = {name: (tmp_path / "whole" / name).read_bytes() for name in ("entries.jsonl", "checkpoint")}
    sizes = []
    for place in range(len(names)):
        copy = tmp_path / str(place)
        shutil.copytree(folder, copy)
        assert killed_at(place, (log_module,), lambda copy=copy: Log(copy, [KEY.public]).append(b"four", KEY))
        left = Log(copy, [KEY.public])
        assert left.entries in ([b"one", b"two", b"three"], [b"one", b"two", b"three", b"four"])
        sizes.append(len(left))
        assert left.append(b"four", KEY) == 3
        assert {name: (copy / name).read_bytes() for name in wanted} == wanted
    assert sizes == [3, 3, 3, 4]


def test_killed_while_it_is_made_it_can_be_made_again(tmp_path: Path) -> None:
    names = places((log_module,), lambda: Log.create(tmp_path / "whole", ORIGIN, KEY))
    assert names == ["entries made", "log made"]
    for place in range(len(names)):
        folder = tmp_path / str(place)
        assert killed_at(place, (log_module,), lambda folder=folder: Log.create(folder, ORIGIN, KEY))
        assert Log.create(folder, ORIGIN, KEY).append(b"one", KEY) == 0


def test_after_a_crash_another_entry_may_come_first(folder: Path) -> None:
    """What was never committed leaves no trace, however much of it was written."""
    line = encode_entry(b"never committed")
    whole = (folder / "entries.jsonl").read_bytes()
    for left in (line, line + encode_entry(b"nor this"), *(line[:cut] for cut in range(1, len(line)))):
        (folder / "entries.jsonl").write_bytes(whole + left)
        log = Log(folder, [KEY.public])
        assert log.entries == [b"one", b"two", b"three"]
        copy = folder.with_name("copy")
        shutil.copytree(folder, copy)
        Log(copy, [KEY.public]).append(b"four", KEY)
        assert (copy / "entries.jsonl").read_bytes() == whole + encode_entry(b"four")
        shutil.rmtree(copy)


def refused(folder: Path) -> str:
    """Why the log can be neither read nor continued; its files stay as they are."""
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "lock"}
    log = None
    with contextlib.suppress(TamperedEvidence):
        log = Log(folder, [KEY.public])
    assert log is None
    with pytest.raises(TamperedEvidence) as raised:
        Log.create(folder, ORIGIN, KEY).append(b"four", KEY)
    assert before == {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "lock"}
    return str(raised.value)


def test_one_changed_byte_anywhere_is_found(folder: Path) -> None:
    for name in ("entries.jsonl", "checkpoint"):
        content = (folder / name).read_bytes()
        for changed in flips(content, len(content)):
            (folder / name).write_bytes(changed)
            assert "Restore" in refused(folder)
        (folder / name).write_bytes(content)
    Log(folder, [KEY.public]).append(b"four", KEY)


def test_dropped_reordered_and_replaced_entries_are_found(folder: Path) -> None:
    one, two, three = (folder / "entries.jsonl").read_bytes().splitlines(keepends=True)
    for lines, why in (
        ([one, two], "were dropped"),
        ([one, three], "were dropped"),
        ([], "were dropped"),
        ([two, one, three], "was changed, moved or replaced"),
        ([one, three, two], "was changed, moved or replaced"),
        ([one, one, three], "was changed, moved or replaced"),
        ([encode_entry(b"zero"), one, two], "was changed, moved or replaced"),
    ):
        (folder / "entries.jsonl").write_bytes(b"".join(lines))
        assert why in refused(folder)


def test_files_that_are_gone_are_found(folder: Path) -> None:
    (folder / "entries.jsonl").rename(folder / "away")
    assert "are gone" in refused(folder)
    (folder / "away").rename(folder / "entries.jsonl")
    (folder / "checkpoint").unlink()
    assert "has entries and no checkpoint" in refused(folder)


def test_a_log_is_continued_only_by_those_who_trust_its_key(folder: Path) -> None:
    other = SigningKey.make()
    with pytest.raises(TamperedEvidence, match="none of the trusted keys"):
        Log(folder, [other.public])
    log = Log(folder, [KEY.public, other.public])
    assert log.append(b"four", other) == 3
    assert len(Log(folder, [other.public])) == 4


def test_two_writers_see_each_other(folder: Path) -> None:
    first, second = Log(folder, [KEY.public]), Log(folder, [KEY.public])
    assert first.append(b"four", KEY) == 3
    assert second.append(b"five", KEY) == 4
    assert first.append(b"five", KEY) == 4
    assert Log(folder, [KEY.public]).entries == [b"one", b"two", b"three", b"four", b"five"]


def test_a_log_set_back_is_whole_in_itself_and_not_a_continuation(folder: Path) -> None:
    """Only somebody who has seen the later checkpoint can tell: that is what certificates carry it for."""
    old = folder.with_name("old")
    shutil.copytree(folder, old)
    later = Log(folder, [KEY.public])
    later.append(b"four", KEY)
    back = Log(old, [KEY.public])
    assert not verify_consistency(4, 3, later.head.root, back.head.root, [])
    back.append(b"other", KEY)
    assert not verify_consistency(4, 4, later.head.root, back.head.root, [])


def test_where_there_is_no_log_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no log"):
        Log(tmp_path, [KEY.public])
    with pytest.raises(RequestError, match="cannot name a key"):
        Log.create(tmp_path / "log", "two words", KEY)
