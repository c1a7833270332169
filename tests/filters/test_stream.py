"""A text in pieces is filtered as the whole is, and nothing is let out that the whole would hold back."""

from __future__ import annotations

import base64
import codecs

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from expunge.errors import RequestError
from expunge.filters.marks import Marks
from expunge.filters.matcher import Matcher, Span, merged
from expunge.filters.near import NearMarks
from expunge.filters.stream import WITHHELD, StreamFilter, filter_text

KEY = b"0123456789abcdef"
PHRASES = ["John Smith", "张伟", "Ann", "li bo", "Basil Kuwaiti", "o no"]
MATCHERS: dict[str, list[Matcher]] = {
    "marks": [Marks.of(PHRASES, key=KEY)],
    "near": [NearMarks(PHRASES)],
    "both": [Marks.of(PHRASES, key=KEY), NearMarks(PHRASES)],
    "runs": [Marks.of(["to be or not to be that is", "John Smith"], key=KEY, words=2)],
}
ATOMS = [
    "John", "Smith", "john ", "smi", "th", "J", "o", "h", "n", " ", "  ", ".", "\u200b", "\u0301", "@", "$", "!", "0",
    "1", "张", "伟", "ann", "li", "bo", "Kuwaiti", "\ud835", "\udc09", "é", "Ν", "x", "-", " to be", " or not", "\n",
    "%4a", "%6f", "\u200b" * 35, "ﬁ", "⑴", "4a", "=", "6", "!" * 9, "q" * 150, " " * 120,
]  # fmt: skip


def dressed(text: str, how: int) -> str:
    data = text.encode("utf-8", "ignore")
    return [text, base64.b64encode(data).decode(), data.hex(), text[::-1], codecs.encode(text, "rot13")][how]


PARTS = st.one_of(
    st.sampled_from(ATOMS),
    st.sampled_from(PHRASES),
    st.builds(dressed, st.lists(st.sampled_from(ATOMS + PHRASES), max_size=5).map("".join), st.integers(0, 4)),
    st.text(st.characters(codec=None), max_size=5),
)
TEXTS = st.lists(PARTS, max_size=16).map("".join)
CUTS = st.lists(st.sampled_from([1, 1, 2, 3, 5, 8, 40]), min_size=1, max_size=30)


def pieces(text: str, sizes: list[int]) -> list[str]:
    out, at, k = [], 0, 0
    while at < len(text):
        out.append(text[at : at + sizes[k % len(sizes)]])
        at, k = at + sizes[k % len(sizes)], k + 1
    return out


@pytest.mark.parametrize("kind", MATCHERS)
@settings(deadline=None, max_examples=20)
@given(TEXTS, CUTS)
@example("I met " + base64.b64encode(b"our John Smith there").decode() + " today", [1])
@example("J\u0301ohn S\ud835\udc26ith\u200bs", [1])
@example("abcdefghijklmnop John Smithson", [27, 3])  # what is found and may yet be another word
@example("abcdefghijklmnop \ud835\udc09ohn Smith y", [1])  # what begins with half a character
@example("j0hnsmith" + "!" * 500 + "a", [1])
@example("x" + "\u200b" * 40 + "John Smith" + "\u200b" * 40 + "son", [3])
@example("a" * 400 + " John Smith", [1])
@example("John Smith to be to be to be or not to be John Smith", [2])
def test_pieces_are_filtered_as_the_whole(kind: str, text: str, sizes: list[int]) -> None:
    whole = filter_text(MATCHERS[kind], text)
    stream, said = StreamFilter(MATCHERS[kind]), ""
    for piece in pieces(text, sizes):
        said += stream.push(piece)
        assert whole.startswith(said)  # so no part of what the whole withholds has been let out
        assert stream.held <= stream.longest
    said += stream.finish()
    assert said == whole
    assert stream.blocked == any(m.find(text) for m in MATCHERS[kind])


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(["John Smith", "J o h n S m i t h", "Wbua Fzvgu", "4a6f686e20536d697468"]), CUTS)
def test_nothing_of_a_phrase_ever_leaves(hidden: str, sizes: list[int]) -> None:
    """Said once more without `filter_text`: between the words around it stands the replacement, at every moment."""
    stream, said = StreamFilter(MATCHERS["marks"]), ""
    for piece in [*pieces(f"seen ~{hidden}~ twice", sizes)]:
        said += stream.push(piece)
        assert "seen ~[withheld]~ twice".startswith(said)
    assert said + stream.finish() == "seen ~[withheld]~ twice"


def test_a_phrase_may_begin_with_a_symbol() -> None:
    marks = Marks.of(["Smith Jones"], key=KEY)
    text = "one after theotherrrrr $m1th jones went away and was not seen"
    stream = StreamFilter(marks, "#")
    said = [stream.push(c) for c in text]
    assert "".join(said) + stream.finish() == filter_text(marks, text, "#")
    assert "$" not in "".join(said) and stream.blocked


def test_ordinary_text_flows() -> None:
    """What is held back are about as many letters as the longest phrase has, not six times as many."""
    stream = StreamFilter(MATCHERS["marks"])
    text = "There was once a miller who had nothing left but his mill and the great apple tree behind it. " * 20
    held = []
    for piece in pieces(text, [4]):
        stream.push(piece)
        held.append(stream.held)
    assert max(held) < 40 and sum(held) / len(held) < 20
    assert not stream.blocked


def test_memory_is_bounded() -> None:
    for unit in ("\u200b", "!", "QUJD", "4a ", "\ud835", " to be"):
        unit = unit * 8
        stream = StreamFilter(MATCHERS["both"])
        for _ in range(60):
            stream.push(unit)
            assert stream.held <= stream.longest
            assert len(stream._text) <= stream.longest + 128 + len(unit)


def test_overlapping_finds_are_one_replacement_and_touching_ones_two() -> None:
    marks = Marks.of(["one two", "two three", "four five"], key=KEY)
    assert filter_text(marks, "a one two three b", "#") == "a # b"
    assert filter_text(marks, "one two four five", "#") == "# #"
    assert merged((Span(0, 3), Span(3, 5), Span(4, 9))) == (Span(0, 3), Span(3, 9))
    chinese = Marks.of(["张伟", "李四"], key=KEY)
    assert filter_text(chinese, "张伟李四", "#") == "##"
    stream = StreamFilter(chinese, "#")
    assert "".join(stream.push(c) for c in "张伟李四") + stream.finish() == "##"


def test_a_stream_ends_once() -> None:
    stream = StreamFilter(MATCHERS["marks"])
    assert stream.push("John Smi") == "" and stream.finish() == "John Smi" and not stream.blocked
    with pytest.raises(RequestError, match="finished"):
        stream.push("th")
    assert StreamFilter(MATCHERS["marks"]).finish() == ""
    with pytest.raises(RequestError, match="without matchers"):
        StreamFilter([])


def test_the_replacement_is_said_as_soon_as_it_is_sure() -> None:
    stream = StreamFilter(MATCHERS["marks"])
    assert stream.push("John Smith") == ""
    said = stream.push(" was born in a village by the sea")
    assert said.startswith(WITHHELD) and stream.blocked
