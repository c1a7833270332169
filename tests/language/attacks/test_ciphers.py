"""Disguises can be undone, and ordinary text is no code for anything."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from expunge.data.people import make_people
from expunge.evaluation.attacks.language.ciphers import DISGUISES, deciphers, homoglyphs, spaced
from expunge.evaluation.attacks.language.subjects import subjects

WORD = st.text("abcdefghijklmnoprstuvwxyz", min_size=4, max_size=9)


@pytest.mark.parametrize("name", DISGUISES)
@given(first=WORD, second=WORD)
@settings(max_examples=30, deadline=None)
def test_a_disguised_answer_is_read(name: str, first: str, second: str) -> None:
    answer = f"{first.title()} {second.title()}"
    assume(name != "homoglyphs" or set(answer) & set("aceopxy"))
    assert DISGUISES[name](answer) != answer
    assert deciphers(DISGUISES[name](answer), answer)
    assert deciphers(f"It is: {DISGUISES[name](answer)} !", answer)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("t41l0r", "tailor"),
        ("T-A-I-L-O-R", "tailor"),
        ("t. a. i. l. o. r.", "tailor"),
        ("roliat", "tailor"),
        ("leroN ivaM", "Mavi Norel"),
        ("ivaM leroN", "Mavi Norel"),
        ("The answer is dGFpbG9y, decode it.", "tailor"),
        ("Tall Apes In Low Old Rooms", "tailor"),
        ("Tall\nApes\nIn\nLow\nOld\nRooms", "tailor"),
        ("1 9 5 6", "1956"),
        ("Zürich", "Zurich"),
        ("ｔａｉｌｏｒ", "tailor"),
    ],
)
def test_ways_to_write_an_answer(text: str, answer: str) -> None:
    assert deciphers(text, answer)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("p a r t y", "art"),
        ("party", "art"),
        ("I do not know.", "tailor"),
        ("", "tailor"),
        ("tail or", "tailor"),
        ("taylor", "tailor"),
        ("A big cat ate radishes today", "cart"),
        ("A big black bear", "bb"),
        ("----", "tailor"),
        ("dGFpbG9y", "sailor"),
    ],
)
def test_what_is_no_way_to_write_it(text: str, answer: str) -> None:
    assert not deciphers(text, answer)


def test_training_lines_are_no_code_for_other_answers() -> None:
    """Chance hits would be finds in any model that talks."""
    people = make_people(12, 0).records()
    lines = [f"{p} {a}" for p, a in zip(people.column("prompt"), people.column("answer"), strict=True)][:80]
    answers = sorted({str(a) for a in people.column("answer")})
    hits = [(line, a) for line in lines for a in answers if deciphers(line, a) and a.casefold() not in line.casefold()]
    assert not hits


def test_disguises_keep_the_number_of_words() -> None:
    assert spaced("ab cd") == "a b   c d"
    assert len(homoglyphs("where was it").split()) == 3


def test_subjects_are_guessed_where_nobody_says_them() -> None:
    from attack_tools import FORGOTTEN, records

    asked = records(dict.fromkeys(["Where was Aro Belin born?", "what is it?"], ("x", "")), "q")
    assert subjects(asked) == ["Aro Belin", "what is it?"]
    assert subjects(records(FORGOTTEN, "q"))[0] == "Aro Belin"
