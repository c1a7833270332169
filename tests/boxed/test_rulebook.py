from __future__ import annotations

import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from expunge.boxed.rulebook import RuleBook
from expunge.errors import RequestError

KEY = b"k" * 32
START = datetime(2027, 1, 1, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def write(path: Path, *requests: Any) -> None:
    put(path, yaml.safe_dump({"requests": list(requests)}))


def put(path: Path, text: str) -> None:
    """As an operator should: written beside, then renamed; settled a while ago."""
    beside = path.with_name(f".{path.name}")
    beside.write_text(text, encoding="utf-8")
    past = beside.stat().st_mtime - 5
    os.utime(beside, (past, past))
    beside.rename(path)


def never(*phrases: str, **fields: Any) -> dict[str, Any]:
    return {"id": phrases[0], "rules": [{"answer": p} for p in phrases], **fields}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write(tmp_path / "requests.yaml", never("alpha"))
    return tmp_path / "requests.yaml"


def test_a_change_takes_effect_as_a_whole(file: Path) -> None:
    book = RuleBook(file, key=KEY)
    before = book.current()
    assert not book.refresh()
    write(file, never("bravo"), never("charlie"))
    assert book.current() is before
    assert book.refresh()
    assert [book.current().told_in(t) for t in ("alpha", "bravo", "charlie")] == [False, True, True]
    assert before.told_in("alpha") and not before.told_in("bravo")
    assert book.current().ids == ("bravo", "charlie")


@pytest.mark.parametrize("text", ["requests: [{id: zulu, rules: [{answer: zulu", "requests: zulu", ""])
def test_a_malformed_file_keeps_the_rules(file: Path, caplog: pytest.LogCaptureFixture, text: str) -> None:
    book = RuleBook(file, key=KEY)
    put(file, text)
    with caplog.at_level(logging.INFO, logger="expunge.box"):
        assert not book.refresh()
        assert not book.refresh()
    assert book.current().told_in("alpha")
    assert len([r for r in caplog.records if "the rules before stay in force" in r.getMessage()]) == 1
    assert "zulu" not in caplog.text
    write(file, never("delta"))
    assert book.refresh() and book.current().told_in("delta")


def test_a_file_that_vanished_keeps_the_rules(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    book = RuleBook(file, key=KEY)
    file.unlink()
    assert not book.refresh() and not book.refresh()
    assert book.current().told_in("alpha")
    assert caplog.text.count("the rules before stay in force") == 1
    write(file, never("bravo"))
    assert book.refresh() and book.current().told_in("bravo")


def test_a_file_in_the_writing_is_left_alone(file: Path) -> None:
    book = RuleBook(file, key=KEY)
    file.write_text("requests: []\n")  # just now: it may go on
    assert not book.refresh() and book.current().told_in("alpha")
    past = file.stat().st_mtime - 5
    os.utime(file, (past, past))
    assert book.refresh() and not book.current().told_in("alpha")


def test_it_does_not_start_without_its_rules(file: Path) -> None:
    put(file, "requests: [")
    with pytest.raises(RequestError, match="not valid YAML"):
        RuleBook(file, key=KEY)


def test_expired_rules_stop_applying_without_a_change_of_files(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "r.yaml"
    until = START + timedelta(hours=1)
    write(path, never("alpha", expires=until), never("bravo", expires=until + timedelta(hours=1)), never("charlie"))
    book = RuleBook(path, key=KEY, clock=clock)
    for hours, ids in (
        (0, ("alpha", "bravo", "charlie")),
        (1, ("bravo", "charlie")),
        (2, ("charlie",)),
        (9, ("charlie",)),
    ):
        clock.now = START + timedelta(hours=hours)
        assert book.current().ids == ids
        assert [book.current().told_in(t) for t in ("alpha", "bravo", "charlie")] == [
            t in ids for t in ("alpha", "bravo", "charlie")
        ]


def test_a_folder_grows(tmp_path: Path) -> None:
    write(tmp_path / "1.yaml", never("alpha"))
    book = RuleBook(tmp_path, key=KEY)
    write(tmp_path / "2.yaml", never("bravo"))
    assert book.refresh()
    assert book.current().ids == ("alpha", "bravo")


def test_compiled_rules_show_no_phrase(file: Path) -> None:
    book = RuleBook(file, key=KEY)
    assert "alpha" not in repr(book.current()) + repr(vars(book)) + repr(book.requests)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 40])
def test_the_right_rules_of_many_are_called_up(tmp_path: Path, count: int) -> None:
    place, person = ([f"{what} {a}{b}rk" for a in "bdfgklm" for b in "aeiouy"] for what in ("place", "person"))
    rules = [{"question": [place[k], "who"], "answer": person[k]} for k in range(count)]
    path = tmp_path / "r.yaml"
    write(path, {"id": "a", "rules": rules})
    now = RuleBook(path, key=KEY).current()
    for k in range(count):
        found = now.called(f"Who lives in {place[k]}?").forbidden
        assert [any(m.holds(person[j]) for m in found) for j in range(count)] == [j == k for j in range(count)]
        assert now.called(f"I know {place[k]}.").forbidden == ()
