"""Settings are read from a file, and what is wrong with it is told by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from expunge.errors import RequestError
from expunge.service.api import settings
from expunge.service.api.settings import ApiPart


def test_the_example_in_the_module_is_read(tmp_path: Path) -> None:
    path = tmp_path / "api.yaml"
    path.write_text(str(settings.__doc__).split("\n\n", 1)[1])
    part = ApiPart.read(path)
    assert part.access.oidc is not None
    assert part.access.oidc.roles["privacy-leads"] == "approver"
    assert part.access.limits.body_bytes == 1_000_000
    assert part.opendsr.domain == "privacy.example.com"


def test_an_empty_mapping_gives_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "api.yaml"
    path.write_text("{}")
    assert ApiPart.read(path) == ApiPart()
    assert ApiPart().access.secure
    assert not ApiPart().development


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "- 1",
        "",
        yaml.safe_dump({"unknown": 1}),
        yaml.safe_dump({"access": {"limits": {"body_bytes": 10}}}),
        yaml.safe_dump({"access": {"oidc": {"issuer": "http://login.example.com"}}}),
        yaml.safe_dump({"opendsr": {"domain": "a b"}}),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "api.yaml"
    path.write_text(text)
    with pytest.raises(RequestError):
        ApiPart.read(path)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(RequestError):
        ApiPart.read(tmp_path / "none.yaml")


@pytest.mark.parametrize("page", ["api.md", "webhooks.md"])
def test_examples_of_the_pages_run(page: str) -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    scope: dict[str, object] = {}
    for code in blocks:
        exec(compile(code, page, "exec"), scope)
