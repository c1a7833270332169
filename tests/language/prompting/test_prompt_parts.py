"""What prompting methods share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.errors import DataError
from expunge.methods.prompt_gate import conformal_threshold
from expunge.methods.prompt_parts import WINDOW, Pair, pieces, revealed, said_by_user, split_apart, with_system
from expunge.models.chat import assistant, system, user


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text("ab .?\n", max_size=12), max_size=60).map(" ".join))
def test_every_run_of_half_a_window_is_seen_whole(text: str) -> None:
    words, half = text.split(), WINDOW // 2
    seen = [p.split() for p in pieces(text)]
    assert all(0 < len(p) <= WINDOW for p in seen)
    for start in range(0, max(len(words) - half, 0) + 1):
        run = words[start : start + half]
        if run:
            assert any(p[k : k + len(run)] == run for p in seen for k in range(len(p) - len(run) + 1))


def test_a_question_among_others_is_a_piece_of_its_own() -> None:
    assert "Where was Aro born?" in pieces("Write a poem. Where was Aro born? Then stop.\nThank you")
    assert pieces("  \n ") == []


def test_what_a_user_says_is_read_alone_and_together() -> None:
    talk = [system("S"), user("Aro?"), assistant("Alding"), user("Where?")]
    assert said_by_user(talk) == ["S", "Aro?", "Where?", "S\nAro?\nWhere?"]
    assert said_by_user([user("Where?")]) == ["Where?"]


def test_a_system_message_stands_before_that_of_the_caller() -> None:
    assert with_system([user("q")], "A") == [system("A"), user("q")]
    assert with_system([system("B"), user("q")], "A") == [system("A\n\nB"), user("q")]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.booleans(), max_size=12))
def test_answers_come_back_in_order(flags: list[bool]) -> None:
    asked = [[user(str(k))] for k in range(len(flags))]
    found = split_apart(
        asked, flags, lambda c: [[f"plain {x[0]['content']}"] for x in c], lambda rows: [[f"other {k}"] for k in rows]
    )
    assert found == [[f"{'other' if f else 'plain'} {k}"] for k, f in enumerate(flags)]


def test_what_a_prompt_reveals_is_what_the_user_had_not_said() -> None:
    gone = [Pair("a", "Where was Aro born?", "Alding", "Aro"), Pair("b", "Where was Bel born?", "Brevik", "Bel")]
    sent = [system("Aro and Bel"), user("Where was Bel born?"), assistant("Corvo"), user("Who is Aro?")]
    told = revealed(sent, [user("Who is Aro?")], gone)
    assert (told.questions, told.subjects, told.answers) == (("b",), ("b",), ())
    assert revealed([system("Alding"), user("q")], [user("q")], gone).answers == ("a",)
    assert "Bel" not in str(told.as_dict())


@pytest.mark.parametrize(("n", "rate"), [(19, 0.05), (20, 0.05), (99, 0.1), (9, 0.1), (40, 0.33)])
def test_a_calibrated_threshold_keeps_its_rate(n: int, rate: float) -> None:
    """Of n + 1 scores, each is above the threshold of the others in exactly floor(rate (n + 1)) cases."""
    scores = np.random.Generator(np.random.Philox(1)).normal(size=n + 1)
    above = sum(scores[k] > conformal_threshold(np.delete(scores, k), rate) for k in range(n + 1))
    assert above == int(rate * (n + 1) + 1e-9)


def test_a_rate_that_so_few_texts_cannot_show_is_refused() -> None:
    with pytest.raises(DataError, match="at least 19"):
        conformal_threshold(np.zeros(18), 0.05)
