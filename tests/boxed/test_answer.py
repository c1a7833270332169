"""How an answer is cut into pieces and ended: the same however it arrives."""

from __future__ import annotations

from itertools import pairwise

from boxes import Stub
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.boxed.answer import LONGEST_PIECE, Cut, Stops, Words
from expunge.boxed.upstream import LIMIT, RoughCount

TEXT = st.text(alphabet="ab .\nä中", max_size=60)


def chunks(text: str, cuts: list[int]) -> list[str]:
    places = sorted({min(c, len(text)) for c in cuts} | {0, len(text)})
    return [text[a:b] for a, b in pairwise(places)]


CUTS = st.lists(st.integers(0, 60), max_size=8)


@settings(deadline=None)
@given(text=TEXT, cuts=CUTS)
def test_pieces_depend_on_the_text_alone(text: str, cuts: list[int]) -> None:
    def cut(parts: list[str]) -> list[str]:
        words = Words()
        return [p for part in parts for p in words.push(part)] + words.finish()

    found = cut(chunks(text, cuts))
    assert "".join(found) == text.strip()
    assert found == cut([text])
    assert all(len(p.strip()) <= LONGEST_PIECE for p in found)
    assert all(found)


def test_a_piece_is_a_word() -> None:
    words = Words()
    assert words.push("  One two") == ["One"]
    assert words.push(" three" + "e" * 20) == [" two", " three" + "e" * 11]
    assert words.finish() == ["e" * 9]


@settings(deadline=None)
@given(text=TEXT, cuts=CUTS, stops=st.lists(st.text(alphabet="ab .", min_size=1, max_size=4), max_size=3))
def test_stops_end_where_the_first_would_begin(text: str, cuts: list[int], stops: list[str]) -> None:
    one = Stops(stops)
    found = "".join([one.push(part) for part in chunks(text, cuts)] + [one.finish()])
    ends = [text.find(s) for s in stops if s in text]
    if len(stops) < 2:
        assert found == (text[: min(ends)] if ends else text)
    whole = Stops(stops)
    assert found == whole.push(text) + whole.finish()
    assert text.startswith(found) and not any(s in found for s in stops)
    assert one.met == bool(ends)


def test_an_untouched_answer_ends_at_the_mark_and_a_changed_one_by_count() -> None:
    cut = Cut(Stub(), 2)
    for piece in ("aaaaaaaa", " bbbb", LIMIT, " cccc"):
        cut.model_told(piece)
    assert cut.push("aaaaaaaa") == "aaaaaaaa"  # two tokens by count; the model said it was one
    assert cut.push(" bbbb cccc") == " bbbb"
    assert cut.reached and cut.reason == "length"
    cut = Cut(Stub(), 2)
    cut.touched = True
    assert cut.push("aaaa") + cut.push("bb cc") == "aaaabb"
    assert cut.reason == "length"


def test_rough_count() -> None:
    count = RoughCount()
    assert count.count("Hello, world") == 5
    assert [count.first("Hello, world", k) for k in (0, 1, 2, 3, 9)] == ["", "Hell", "Hello", "Hello,", "Hello, world"]
