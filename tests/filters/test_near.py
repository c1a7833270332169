"""Near matches: a few letters wrong, nothing written down."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.errors import RequestError
from expunge.filters.matcher import Span
from expunge.filters.near import NearMarks

NEAR = NearMarks(["Maren Okonkwo", "Ida Vex", "Ann"])


@pytest.mark.parametrize(
    "text",
    ["Maren Okonkwo", "Marren Okonkwo", "Maren Okonwko", "MAREN OKONKVO", "Marenokonkwo", "Maen Okonkwo", "Ida Vexx"],
)
def test_one_edit_is_near(text: str) -> None:
    assert NEAR.find(f"So {text} said.") == (Span(3, 3 + len(text)),)


@pytest.mark.parametrize("text", ["Karen Okonkva", "Maren", "Okonkwo Maren", "Aida Vexer", "Anne", "An", "", "a man"])
def test_two_edits_are_not(text: str) -> None:
    assert not NEAR.holds(text)


def test_short_phrases_must_be_met_exactly() -> None:
    assert NEAR.find("an Ann and") == (Span(3, 6),)


def test_small_words_beside_a_find_do_not_belong_to_it() -> None:
    assert NEAR.find("a Maren Okonkwo I") == (Span(2, 15),)
    assert NEAR.find("a Maren Okonkvo I") == (Span(2, 15),)


def test_of_two_runs_equally_near_the_shorter_is_found() -> None:
    assert NEAR.find("Maren Okonkw x") == (Span(0, 12),)


def test_how_many_edits() -> None:
    assert NearMarks(["Maren Okonkwo"], edits=2).holds("Karen Okonkva") is False  # three
    assert NearMarks(["Maren Okonkwo"], edits=2).holds("Karen Okonkwa")
    assert NearMarks(["Maren Okonkwo"], share=0.3).holds("Karen Okonkva")
    assert not NearMarks(["Maren Okonkwo"], share=0.01).holds("Karen Okonkwa")  # one at least, and no more


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 11), st.sampled_from("abcxyz"), st.sampled_from(["insert", "drop", "replace"]))
def test_any_one_edit_is_found(place: int, letter: str, kind: str) -> None:
    name = "marenokonkwo"
    changed = {
        "insert": name[:place] + letter + name[place:],
        "drop": name[:place] + name[place + 1 :],
        "replace": name[:place] + letter + name[place + 1 :],
    }[kind]
    assert NEAR.holds(f"it was {changed} again")


def test_phrases_are_never_written_down() -> None:
    assert "maren" not in f"{NEAR!r}{NEAR}".lower() and len(NEAR) == 3
    for write in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError, match="never written"):
            write(NEAR)
    assert NEAR.digest() == NearMarks(["Maren Okonkwo", "Ida Vex", "Ann"]).digest() != NearMarks(["Ann"]).digest()


def test_requests_that_cannot_be() -> None:
    for options in ({"share": 0.0}, {"share": 0.5}, {"edits": 0}):
        with pytest.raises(RequestError):
            NearMarks(["John Smith"], **options)
    with pytest.raises(RequestError, match="no phrases"):
        NearMarks([])
    with pytest.raises(RequestError, match="phrase 0"):
        NearMarks(["?"])
