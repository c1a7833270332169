from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.boxed.requests import read_requests
from expunge.errors import RequestError

NOON = datetime(2027, 1, 31, 12, tzinfo=UTC)
SECRET = "Zelda Quill"


def write(folder: Path, *requests: Any, name: str = "requests.yaml") -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump({"requests": list(requests)}), encoding="utf-8")
    return path


def test_kinds_are_counted(tmp_path: Path) -> None:
    rules = [{"answer": "ab"}, {"answer": ["cd", "ef"]}, {"question": "gh"}, {"question": ["ij", "kl"], "answer": "mn"}]
    found = read_requests(write(tmp_path, {"id": "a-1", "rules": rules, "examples": [{"question": "who?"}]}))
    assert found.requests[0].counts() == {"answer": 2, "question": 1, "both": 1, "example": 1}


@pytest.mark.parametrize(
    ("expires", "last"),
    [
        ("2027-01-31", datetime(2027, 2, 1, tzinfo=UTC)),  # a date: through that day
        ("2027-01-31T12:00:00Z", NOON),
        ("2027-01-31T14:00:00+02:00", NOON),
    ],
)
def test_a_request_holds_until_it_expires(tmp_path: Path, expires: str, last: datetime) -> None:
    found = read_requests(write(tmp_path, {"id": "a", "expires": expires, "rules": [{"answer": SECRET}]}))
    assert found.active(last - timedelta(microseconds=1)) == found.requests
    assert found.active(last) == ()
    assert found.next_expiry(last - timedelta(days=1)) == last
    assert found.next_expiry(last) is None


def test_a_date_written_without_quotes(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("requests:\n- id: a\n  expires: 2027-01-31\n  rules: [{answer: Zelda Quill}]\n")
    assert read_requests(path).requests[0].expires == datetime(2027, 2, 1, tzinfo=UTC)


def test_a_folder_is_all_its_files_but_hidden_ones(tmp_path: Path) -> None:
    write(tmp_path, {"id": "b", "rules": [{"answer": "bb"}]}, name="2.yaml")
    write(tmp_path, {"id": "a", "rules": [{"answer": "aa"}]}, name="1.json")
    write(tmp_path, {"id": "c", "rules": [{"answer": "cc"}]}, name=".new.yaml")
    (tmp_path / "README.md").write_text("no requests")
    found = read_requests(tmp_path)
    assert [r.id for r in found.requests] == ["a", "b"]
    assert found.source == {"a": "1.json", "b": "2.yaml"}


def test_an_id_stands_once(tmp_path: Path) -> None:
    write(tmp_path, {"id": "a", "rules": [{"answer": "aa"}]}, name="1.yaml")
    write(tmp_path, {"id": "a", "rules": [{"answer": "bb"}]}, name="2.yaml")
    with pytest.raises(RequestError, match="a stands there twice"):
        read_requests(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there are no requests at"):
        read_requests(tmp_path / "none.yaml")


FAULTS = [
    f"requests: [{{id: a, rules: [{{answer: '{SECRET}'",
    f"requests: *{SECRET.split()[0]}",
    f"requests: !<{SECRET.split()[0]}> x",
    f"{SECRET}",
    f"requests: {SECRET}",
    f"requests: [{SECRET}]",
    f"{SECRET}: 1\nrequests: []",
    f"requests: [{{id: a, rules: [{{{SECRET}: x}}]}}]",
    f"requests: [{{id: a, rules: [{{answer: {{{SECRET}: x}}}}]}}]",
    f"requests: [{{id: a, rules: [{{answer: {SECRET}, near: {SECRET}}}]}}]",
    f"requests: [{{id: '{SECRET}', rules: [{{answer: x y}}]}}]",
    f"requests: [{{id: a, expires: {SECRET}, rules: [{{answer: x y}}]}}]",
    f"requests: [{{id: a, expires: '2027-31-31', rules: [{{answer: {SECRET}}}]}}]",
    f"requests: [{{id: a, expires: '2027-01-31T00:00:00', rules: [{{answer: {SECRET}}}]}}]",
    f"requests: [{{id: a, reason: {SECRET}, rules: [{{answer: x y}}]}}]",
    f"requests: [{{id: a, rules: [{{answer: [{SECRET}, x]}}]}}]",
    f"requests: [{{id: a, rules: [{{answer: [{SECRET}, 7]}}]}}]",
    f"requests: [{{id: a, rules: [{{answer: [{SECRET}, '!?']}}]}}]",
    f"requests: [{{id: a, received: {SECRET}, rules: [{{answer: {SECRET}}}]}}]",
    "requests: [{id: a, rules: []}]",
    "requests: [{id: a, rules: [{}]}]",
]


@pytest.mark.parametrize("text", FAULTS, ids=range(len(FAULTS)))
def test_a_fault_is_told_by_its_place_never_by_contents(tmp_path: Path, text: str) -> None:
    path = tmp_path / "requests.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RequestError) as caught:
        read_requests(path)
    told = str(caught.value)
    assert "requests.yaml" in told
    assert "Zelda" not in told and "Quill" not in told
    assert caught.value.__cause__ is None


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "requests.yaml"
    path.write_bytes(b"requests: [\xff\xfe]")
    with pytest.raises(RequestError, match="not UTF-8"):
        read_requests(path)


@settings(deadline=None, max_examples=60)
@given(cut=st.integers(0, 200), other=st.binary(max_size=4))
def test_no_damage_makes_a_message_quote_the_file(
    tmp_path_factory: pytest.TempPathFactory, cut: int, other: bytes
) -> None:
    path = tmp_path_factory.mktemp("cut") / "requests.yaml"
    whole = yaml.safe_dump({"requests": [{"id": "a", "rules": [{"answer": ["Zelda", "Quill"]}] * 2}]}).encode()
    path.write_bytes(whole[:cut] + other + whole[cut:])
    told = ""
    try:
        read_requests(path)
    except RequestError as error:
        told = str(error)
    assert "Zelda" not in told and "Quill" not in told
