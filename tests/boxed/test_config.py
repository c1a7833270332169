from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from boxes import Stub, make_box, write_box

from expunge.boxed.box import Box
from expunge.boxed.config import BoxSettings
from expunge.boxed.worker import RuleWorker
from expunge.errors import ExpungeError, RequestError, UnknownName
from expunge.models.chat import ask

FIXED = {"kind": "rule"}


class Parrot(RuleWorker):
    """Somebody's own worker."""

    kind: str  # type: ignore[assignment]

    def answer(self, turn: Any) -> str:
        return turn.question.upper()


def test_every_part_is_replaced_by_its_entry(tmp_path: Path) -> None:
    own = {"parrot": {"kind": "test_config:Parrot"}}
    box = make_box(
        tmp_path,
        workers=own,
        router={"kind": "rule", "marked": "parrot", "otherwise": "parrot"},
        composer={"kind": "rule"},
    )
    assert ask(box, ["hello"]) == ["HELLO"]
    assert {where: part.kind for where, part in box.settings.parts()} == {
        "router": "rule", "workers.parrot": "test_config:Parrot", "composer": "rule", "output_filter.0": "rule"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "error", "told"),
    [
        ({"rooter": {}}, RequestError, "rooter: unknown field, did you mean 'router'"),
        ({"name": "no blanks please"}, RequestError, "name: "),
        ({"models": {}}, RequestError, "models: "),
        ({"models": {"main": {"folder": "x", "url": "https://y/v1"}}}, RequestError, "main: give a folder .* or a url"),
        ({"models": {"main": {"folder": "x", "devise": "cpu"}}}, RequestError, "devise: unknown field.*'device'"),
        ({"models": {"main": {"url": "http://example.org/v1", "name": "x"}}}, RequestError, "use https"),
        ({"main": "mian"}, UnknownName, "no model .*'mian'.*"),
        ({"embeddings": "other"}, UnknownName, "at embeddings"),
        ({"router": {"marked": "answer", "otherwise": "answer"}}, RequestError, "router has no kind"),
        ({"router": {"kind": "role", "marked": "a", "otherwise": "b"}}, UnknownName, "Did you mean rule"),
        ({"router": {"kind": "rule", "marked": "ignorant", "otherwise": "answr"}}, UnknownName, "Did you mean answer"),
        ({"router": {"kind": "rule", "otherwise": "answer"}}, RequestError, "router is not valid: marked: "),
        ({"workers": {"answer": {"kind": "model", "model": "man"}, "ignorant": FIXED}}, UnknownName, "mean main"),
        ({"workers": {"answer": {"kind": "nowhere:Worker"}}}, RequestError, "cannot import nowhere:Worker"),
        ({"workers": {"answer": {"kind": "pathlib:Path"}}}, RequestError, "is no Worker"),
        ({"output_filter": []}, RequestError, "no output filter of the kind rule"),
        ({"output_filter": {"kind": "rule", "on_find": "ignore"}}, RequestError, "on_find: "),
        ({"limits": {"body_bytes": 1}}, RequestError, "limits.body_bytes: "),
        ({"key_variable": "EXPUNGE_TEST_NO_SUCH_KEY"}, RequestError, "EXPUNGE_TEST_NO_SUCH_KEY holds 0 bytes"),
        ({"requests": "none.yaml"}, RequestError, "there are no requests at"),
    ],
)  # fmt: skip
def test_faults_name_place_and_remedy(
    tmp_path: Path, fields: dict[str, Any], error: type[ExpungeError], told: str
) -> None:
    path = write_box(tmp_path, **fields)
    with pytest.raises(error, match=told):
        Box.read(path, upstreams={"main": Stub()})


@pytest.mark.parametrize("text", ["- a list", "", "name: [", "name: x"])
def test_files_that_are_no_box(tmp_path: Path, text: str) -> None:
    path = tmp_path / "box.yaml"
    path.write_text(text)
    with pytest.raises(RequestError):
        BoxSettings.read(path)


def test_paths_are_meant_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_box(tmp_path)
    monkeypatch.chdir("/")
    assert BoxSettings.read(path).requests == tmp_path / "requests.yaml"


def test_an_instruction_may_not_hold_what_is_forgotten(tmp_path: Path) -> None:
    workers = {
        "answer": {"kind": "model", "model": "main", "instruction": "Never name zelda  QUILL."},
        "ignorant": {"kind": "rule"},
    }
    with pytest.raises(RequestError, match=r"the instruction of workers\.answer holds") as caught:
        make_box(tmp_path, workers=workers)
    assert "uill" not in str(caught.value)


def test_the_example_in_the_docs_is_valid(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "boxed.md"
    blocks = page.read_text(encoding="utf-8").split("```yaml\n")[1:]
    declared, requests = (yaml.safe_load(b.split("```")[0]) for b in blocks[:2])
    (tmp_path / "requests.yaml").write_text(yaml.safe_dump(requests))
    for name in ("ordinary-questions.yaml", "ordinary-answers.yaml"):
        (tmp_path / name).write_text("[one text, another text]")
    settings = BoxSettings.parse(declared, folder=tmp_path)
    Box.read(
        write_box(tmp_path, requests["requests"], **declared), upstreams={n: Stub() for n in settings.outline.models}
    )
