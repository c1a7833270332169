"""`expunge streisand` from a request's file to what it prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from language_tools import Trained
from typer.testing import CliRunner

from expunge.cli import app
from expunge.errors import DataError, ExpungeError, RequestError
from expunge.evaluation.streisand import check_naming


@pytest.fixture(scope="module")
def request_file(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A request to hide two people whom the model knows."""
    folder = tmp_path_factory.mktemp("home")
    trained.model.save(folder / "model")
    assert trained.records.owners is not None
    columns = (trained.records.column("prompt"), trained.records.column("answer"), trained.records.owners)
    rows = [dict(zip(("prompt", "answer", "owner"), row, strict=True)) for row in zip(*map(list, columns), strict=True)]
    (folder / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    document = {
        "model": "model",
        "forget": {"source": "all.jsonl", "owners": ["Aro Belin", "Cita Dovan"]},
        "method": {"name": "pretend", "public": True},
        "least_guarantee": "suppressed",
    }
    (folder / "request.yaml").write_text(yaml.safe_dump(document))
    return folder / "request.yaml"


def call(*arguments: Any, fails: type[ExpungeError] | None = None) -> str:
    done = CliRunner().invoke(app, ["streisand", *map(str, arguments)])
    if fails is not None:
        assert isinstance(done.exception, fails), done.output
        return str(done.exception)
    if done.exception is not None:
        raise done.exception
    return done.stdout


def test_it_prints_a_line_a_fact_and_writes_ids_and_numbers_alone(request_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "streisand.json"
    shown = call(request_file, "--samples", 4, "--out", out)
    lines = shown.splitlines()
    assert lines[0].startswith("record") and len(lines) == 1 + 6 + 2
    assert "should be named in no prompt" in lines[-1] and "were drawn" not in shown
    told = json.loads(out.read_text())
    assert told == json.loads(call(request_file, "--samples", 4, "--json"))
    assert (told["schema"], told["samples"], told["of"], len(told["facts"])) == ("expunge/streisand/1", 4, 6, 6)
    assert all(f["known"] > 0.5 and f["probability"] > 0.5 for f in told["facts"])
    for text in ("Aro", "Cita", "Alding", "Brevik"):
        assert text not in out.read_text() and text not in shown


def test_of_many_facts_some_are_drawn_and_it_says_so(request_file: Path) -> None:
    shown = call(request_file, "--samples", 2, "--facts", 3)
    assert "(3 of 6 facts were drawn)" in shown
    first, again, other = (
        json.loads(call(request_file, "--samples", 1, "--facts", 3, "--seed", s, "--json")) for s in (0, 0, 5)
    )
    assert first == again and first["of"] == 6
    assert [f["id"] for f in first["facts"]] != [f["id"] for f in other["facts"]]


def test_spelling_out_and_describing_reach_the_check(request_file: Path) -> None:
    told = json.loads(call(request_file, "--samples", 2, "--spell", "--facts", 2, "--json"))
    assert all(f["spelled"] is not None for f in told["facts"])
    assert "names a subject" in call(request_file, "--described", "the birth of Aro Belin", fails=RequestError)


def test_names_leave_this_machine_only_when_they_are_public(request_file: Path) -> None:
    there = ("--url", "https://models.example/v1", "--name", "large")
    assert "not on this machine" in call(request_file, *there, fails=RequestError)
    assert "and answers" in call(request_file, *there, "--public", "--spell", fails=RequestError)
    assert "has no name" in call(request_file, "--url", "https://models.example/v1", fails=RequestError)
    assert "no http" in call(request_file, "--url", "models.example", "--name", "x", fails=RequestError)


def test_texts_that_say_of_nobody_are_refused(request_file: Path, tmp_path: Path) -> None:
    (tmp_path / "bare.jsonl").write_text(json.dumps({"prompt": "Where?", "answer": "There."}) + "\n")
    document = yaml.safe_load(request_file.read_text())
    document |= {"model": str(request_file.parent / "model"), "forget": "bare.jsonl"}
    (tmp_path / "request.yaml").write_text(yaml.safe_dump(document))
    assert "owners" in call(tmp_path / "request.yaml", fails=DataError)
    with pytest.raises(RequestError, match="0 facts"):
        check_naming(None, {}, most=0)  # type: ignore[arg-type]
