"""Normal forms and readings: what is written differently and means the same is the same."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.filters.lookalikes import CAPITALS, LOOKALIKES
from expunge.filters.normal import INVISIBLE_RUN, fold, normal_form, readings, undisguised, words

ANY = st.text(st.characters(codec=None), max_size=60)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("Ｊｏｈｎ　Ｓｍｉｔｈ", "john smith"),
        ("𝐉𝐨𝐡𝐧 𝓢𝓶𝓲𝓽𝓱", "john smith"),
        ("Ⓙⓞⓗⓝ", "john"),
        ("🅹🅾🅷🅽", "john"),
        ("Jоhn Smіth", "john smith"),  # Cyrillic
        ("Jοhη", "john"),  # Greek
        ("ᴊᴏʜɴ", "john"),
        ("J\u200bo\u00adh\u2060n", "john"),
        ("J\u0301o\u0308hn\u20dd", "john"),
        ("José Łódź Øre", "jose lodz ore"),
        ("ﬁne oﬃce", "fine office"),
        (" two \t\n words\u3000", "two words"),
        ("\ud835\udc09ohn", "john"),  # two surrogates that belong together
        ("J\ud835ohn", "john"),  # one that belongs to nothing
        ("٣४", "34"),
        ("МОСКВА", normal_form("москва")),
        ("ΝΙΚΟΣ", normal_form("νικος")),
    ],
)
def test_writings_that_mean_the_same(written: str, meant: str) -> None:
    assert normal_form(written) == meant


def test_letters_that_differ_stay_different() -> None:
    assert (
        len({normal_form(w) for w in ("kim", "kam", "का", "कि", "ка́м", "김", "금", "가")}) == 7
    )  # Cyrillic ка́м is kam
    assert len({normal_form(w) for w in ("क", "कु", "के", "क्", "क़")}) == 5  # vowel signs and points that are letters
    assert normal_form("don't") == "don't"


@settings(deadline=None, max_examples=200)
@given(ANY)
def test_a_normal_form_is_its_own(text: str) -> None:
    once = normal_form(text)
    assert normal_form(once) == once
    assert once == " ".join(once.split())


@settings(deadline=None, max_examples=200)
@given(ANY)
def test_words_tell_their_places(text: str) -> None:
    found = words(text)
    for word in found:
        assert word.letters and 0 <= word.start < word.end <= len(text)
        assert word.letters in normal_form(text[word.start : word.end]).replace(" ", "")
    assert [w.start for w in found] == sorted(w.start for w in found)


def test_words_of_plain_text_are_those_of_any_text() -> None:
    text = "It's 3 o'clock, said Ann-Marie (b. 1958)\tat_home."
    plain = words(text)
    assert " ".join(w.letters for w in plain) == "it s 3 o clock said ann marie b 1958 at home"
    assert words(text + "\u200b") == plain  # the long way round


def test_scripts_without_spaces_have_a_word_a_character() -> None:
    assert [w.letters for w in words("张伟 ist ไท 김")] == ["张", "伟", "ist", "ไ", "ท", "김"]


def test_many_invisible_characters_part_words() -> None:
    assert len(words("ab" + "\u200b" * INVISIBLE_RUN + "cd")) == 1
    assert len(words("ab" + "\u200b" * (INVISIBLE_RUN + 1) + "cd")) == 2


def test_the_table_maps_letters_to_ascii_and_case_to_itself() -> None:
    assert all(len(v) == 1 and v.isascii() and v.isalnum() for v in LOOKALIKES.values())
    assert not any(k.isascii() for k in LOOKALIKES)
    for letter in LOOKALIKES:
        if len(letter.upper()) == 1 and not letter.upper().isascii():
            assert fold(letter.upper()) == fold(letter)
    assert all(fold(k) != v for k, v in CAPITALS.items())


def test_symbols_are_letters_before_letters_and_may_be_at_the_end() -> None:
    assert undisguised("$mith pays 5 $!") == ("smith pays 5 $!",)
    assert undisguised("bo$$ $!") == ("bo$$ $!", "boss $!")
    assert all(len(form) == 9 for form in undisguised("a!!!!!!!b"))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("tell of J o h n  S m i t h", "tell of johnsmith"),
        ("J.o.h.n", "john"),
        ("j0hn $m1th", "john smith"),
        ("B1LL", "bill"),
        ("a110y", "alloy"),
        ("see " + base64.b64encode(b"about John Smith").decode(), "about john smith"),
        ("x" + base64.urlsafe_b64encode("über John Smith".encode()).decode().rstrip("="), "uber john smith"),
        (b"John Smith".hex(), "john smith"),
        (r"\x4a\x6f\x68\x6e\x20\x53\x6d\x69\x74\x68", "john smith"),
        ("4A 6F 68 6E 20 53 6D", "john sm"),
        ("Wbua Fzvgu", "john smith"),
        ("htimS nhoJ", "john smith"),
        ("ΝOEL", "noel"),
    ],
)
def test_readings_undo_disguises(text: str, meant: str) -> None:
    found = readings(text)
    assert found[0] == normal_form(text)
    assert meant in found
    assert len(set(found)) == len(found)


def test_nothing_has_one_reading() -> None:
    assert readings("") == ("",)
