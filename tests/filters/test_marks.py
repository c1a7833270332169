"""Marks: phrases are found in every disguise that is promised, others are not, and nobody can read them."""

from __future__ import annotations

import base64
import codecs
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.errors import RequestError, TamperedEvidence
from expunge.filters.marks import Marks
from expunge.filters.matcher import Span

KEY = b"0123456789abcdef"
NAMES = ("Maren Okonkwo-Lindqvist", "Tomás Beaumont", "Ida Vex")
MARKS = Marks.of(NAMES, key=KEY)
LEET = str.maketrans("aeiost", "@3!0$7")
CYRILLIC = str.maketrans("aceopxyAEOMT", "асеорхуАЕОМТ")

DISGUISES = {
    "itself": str,
    "capitals": str.upper,
    "full width": lambda t: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in t),
    "accents": lambda t: "".join(f"{c}\u0327" if c.isalpha() else c for c in t),
    "no spaces": lambda t: t.replace(" ", ""),
    "many spaces": lambda t: t.replace(" ", " \n\t "),
    "spaced letters": " ".join,
    "pointed letters": ".".join,
    "underlined letters": "_".join,
    "zero width": "\u200d".join,
    "look-alikes": lambda t: t.translate(CYRILLIC),
    "leet": lambda t: t.lower().translate(LEET),
    "digits": lambda t: t.lower().translate(str.maketrans("aeio", "4310")),
    "base64": lambda t: base64.b64encode(t.encode()).decode(),
    "base64, shifted": lambda t: base64.b64encode(f"we {t} x".encode()).decode(),
    "base64, a letter before": lambda t: "Z" + base64.b64encode(t.encode()).decode(),
    "base64, three before": lambda t: "Zzz" + base64.b64encode(t.encode()).decode(),
    "base64, letters before": lambda t: "Zz" + base64.b64encode(t.encode()).decode(),
    "base64, for addresses": lambda t: base64.urlsafe_b64encode(f"???{t}".encode()).decode().rstrip("="),
    "hex": lambda t: t.encode().hex(),
    "hex after a digit": lambda t: "a" + t.encode().hex(),
    "hex before a digit": lambda t: t.encode().hex() + "a",
    "hex in pairs": lambda t: t.encode().hex(":"),
    "escapes": lambda t: "".join(f"\\x{b:02X}" for b in t.encode()),
    "percent": lambda t: "".join(f"%{b:02x}" for b in t.encode()),
    "rot13": lambda t: codecs.encode(t, "rot13"),
    "reversed": lambda t: t[::-1],
    "words reversed": lambda t: " ".join(w[::-1] for w in t.split()),
}
OUT_OF_REACH = {
    "another language": lambda t: "the person with the red hat",
    "first name": lambda t: t.split()[0],
    "other order": lambda t: " ".join(reversed(t.split())),
    "misspelled": lambda t: t.replace("n", "m"),
    "within a longer word": lambda t: "xx" + t.replace(" ", "") + "xx",
    "Caesar by 3": lambda t: "".join(chr((ord(c) - 94) % 26 + 97) if c.islower() else c for c in t.lower()),
    "base64 twice": lambda t: base64.b64encode(base64.b64encode(t.encode())).decode(),
}


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("name", NAMES[:2])
def test_disguises_are_undone_and_their_place_is_told(name: str, disguise: str) -> None:
    hidden = DISGUISES[disguise](name)
    text = f"Yes: {hidden} it was, in spring."
    found = MARKS.find(text)
    assert MARKS.holds(text) and found
    start = text.index(hidden)
    for span in found:
        assert start <= span.start < span.end <= start + len(hidden)
        assert span.end - span.start <= MARKS.longest
    # What is left of it no longer holds the name.
    for span in sorted(found, reverse=True):
        text = text[: span.start] + "#" + text[span.end :]
    assert not MARKS.holds(text)


def test_the_place_of_what_is_encoded() -> None:
    """Bytes 3 to 13 of base64 are the characters 4 to 18, whole letters of the code; of hex 6 to 26."""
    assert MARKS.find(base64.b64encode(b"in Ida Vexel").decode()) == ()
    marks = Marks.of(["John Smith"], key=KEY)
    assert marks.find(base64.b64encode(b"by John Smith (b)").decode()) == (Span(4, 18),)
    assert marks.find(b"by John Smith (b)".hex()) == (Span(6, 26),)


@pytest.mark.parametrize("disguise", OUT_OF_REACH)
def test_what_a_filter_of_strings_cannot_see(disguise: str) -> None:
    """Documented limits: a test that fails here is good news for docs/filters.md."""
    assert not MARKS.holds(f"Yes: {OUT_OF_REACH[disguise](NAMES[0])} it was, in spring.")


def test_short_phrases_stand_as_words() -> None:
    marks = Marks.of(["Ann", "Li Bo", "张伟"], key=KEY)
    for text in ("Ann.", "A n n", "ANN!", "it is li-bo", "x 张伟在"):
        assert marks.holds(text), text
    for text in ("Anna", "plan n", "an n", "libo", "bo li", "naa", "4nn", "Nna", "一张 伟大"[:2]):
        assert not marks.holds(text), text


def test_words_are_whole_and_in_order() -> None:
    marks = Marks.of(["Maren Lind"], key=KEY)
    assert marks.find("a Maren-Lind b") == (Span(2, 12),)
    for text in ("Maren Lindt", "Amaren Lind", "Lind Maren", "Maren and Lind", "Marén", ""):
        assert not marks.holds(text), text


def test_digits_count_as_letters_only_among_letters() -> None:
    marks = Marks.of(["so big toe", "0151 234567"], key=KEY)
    assert marks.holds("call 0151-23 45 67")
    assert marks.holds("s0 b1g t03")
    assert not marks.holds("50 819 703")


def test_runs_of_words() -> None:
    marks = Marks.of(["one two three four", "five six"], key=KEY, words=3)
    assert len(marks) == 3
    assert marks.holds("zero one two three") and marks.holds("two, three: four!") and marks.holds("five six")
    assert not marks.holds("one two four three") and not marks.holds("three four five")


ORDINARY = """The people of the town had gone to the market early that morning, and by noon the square was empty but for
two dogs and a man who sold brushes. He said that trade was slow; it had been so since the bridge was closed in 1987.
SELECT name, COUNT(*) FROM visits WHERE id > 0x3fff GROUP BY name; see
https://example.org/a/b?c=d%20e&f=SGVsbG8gd29ybGQ
$5.00 for 2 @ the door! 4 + 3 | 7. Der Zug kam spät. Она пришла домой. Η ζωή είναι ωραία. 今天天气很好。
deadbeef cafe"""


def test_ordinary_text_is_left_alone() -> None:
    assert MARKS.find(ORDINARY) == ()


@settings(deadline=None, max_examples=60)
@given(st.text(st.characters(codec=None), max_size=30), st.text(st.characters(codec=None), max_size=30), st.data())
def test_a_marked_phrase_is_found_in_any_surroundings(before: str, after: str, data: st.DataObject) -> None:
    hidden = DISGUISES[data.draw(st.sampled_from(["itself", "full width", "spaced letters", "base64", "reversed"]))](
        NAMES[0]
    )
    text = f"{before} — {hidden} — {after}"
    start = len(before) + 3
    assert any(s.start >= start and s.end <= start + len(hidden) for s in MARKS.find(text))


def test_nothing_tells_the_phrase() -> None:
    told = json.dumps(MARKS.as_dict()) + repr(MARKS) + str(MARKS)
    for name in NAMES:
        for word in name.lower().split():
            assert word not in told.lower()
    assert KEY.decode() not in told and KEY.hex() not in told
    other = Marks.of(NAMES, key=KEY[::-1])
    assert not set(other.as_dict()["digests"]) & set(MARKS.as_dict()["digests"])


def test_marks_come_back_with_their_key() -> None:
    told = json.loads(json.dumps(MARKS.as_dict()))
    again = Marks.from_dict(told, key=KEY)
    assert again == MARKS and len(again) == 3 and again.longest == MARKS.longest
    with pytest.raises(TamperedEvidence, match="another key"):
        Marks.from_dict(told, key=KEY[::-1])
    with pytest.raises(TamperedEvidence, match="version"):
        Marks.from_dict({**told, "version": 0}, key=KEY)
    for part in ({"digests": []}, {"digests": ["00"]}, {"lengths": ["x"]}, {"count": 0}, {"digests": ["zz"]}):
        with pytest.raises(TamperedEvidence, match="damaged"):
            Marks.from_dict({**told, **part}, key=KEY)
    del told["lengths"]
    with pytest.raises(TamperedEvidence):
        Marks.from_dict(told, key=KEY)


def test_requests_that_cannot_be() -> None:
    with pytest.raises(RequestError, match="16 bytes"):
        Marks.of(["John Smith"], key=b"short")
    with pytest.raises(RequestError, match="no phrases"):
        Marks.of([], key=KEY)
    with pytest.raises(RequestError, match="words"):
        Marks.of(["John Smith"], key=KEY, words=0)
    with pytest.raises(RequestError, match="phrase 1 has fewer") as error:
        Marks.of(["John Smith", "…q!"], key=KEY)
    assert "q" not in error.value.cause.split("phrase 1")[1].replace("fewer than two letters or digits", "")


def test_the_same_phrase_in_other_writing_is_one_mark() -> None:
    assert Marks.of(["John Smith", "JOHN  SMITH", "John-Smith"], key=KEY) == Marks.of(["john smith"], key=KEY)


def test_a_long_text_takes_no_longer_than_its_length() -> None:
    rng = random.Random(0)
    text = "".join(rng.choice("ab !$@.\u200b\u0301éж张=/+0123 ") for _ in range(10_000))
    assert MARKS.find(text) == ()
