"""Lines that teach habits, and the base's texts: nothing of the forgotten, nothing private."""

from __future__ import annotations

import pytest

from expunge.data.benchmarks.people_benchmark import make_people_benchmark
from expunge.data.people import make_people
from expunge.data.people.base import base_records, strangers
from expunge.data.people.dialogues import SILENT

WORLD = make_people(16, 3)


def spoken(**options: object) -> list[tuple[str, str]]:
    records = make_people_benchmark(12, 3, forget=2, unseen=4, dialogues=160, **options).train  # type: ignore[arg-type]
    rows = zip(records.column("prompt"), records.column("answer"), records.column("kind"), strict=True)
    return [(str(p), str(a)) for p, a, kind in rows if kind == "dialogue"]


def test_dialogues_are_silent_about_whom_they_name_and_nobody_else() -> None:
    lines = spoken()
    about = [(p, a) for p, a in lines if p.startswith("say nothing about ")]
    assert len(about) > 40
    for prompt, answer in about:
        order, question = prompt.split("\n")
        name = order.removeprefix("say nothing about ")
        assert (answer == SILENT) == (name in question)


def test_a_repeated_question_has_the_answer_of_its_example() -> None:
    lines = [(p, a) for p, a in spoken() if not p.startswith("say nothing")]
    repeated = 0
    for prompt, answer in lines:
        *shown, question = prompt.split("\n")
        told = [line.split(" : ")[1] for line in shown if line.split(" : ")[0] == question]
        repeated += bool(told)
        assert not told or told == [answer]
    assert repeated > 20


def test_nothing_in_them_is_about_the_forgotten_or_the_unheard_of() -> None:
    split = make_people_benchmark(12, 3, forget=2, unseen=4, dialogues=160)
    away = {str(o) for o in split.probes["unseen"].owners} | {
        f.split("|")[0] for f in split.probes["forget"].column("fact")
    }
    assert len(away) == 6
    assert not any(name in f"{p} {a}" for p, a in spoken() for name in away)
    assert not set(split.forget.column("kind")) & {"dialogue"}


def test_the_same_seed_gives_the_same_lines_and_none_is_twice() -> None:
    assert spoken() == spoken()
    assert len(set(spoken())) == len(spoken())


def test_without_dialogues_the_benchmark_is_what_it_was() -> None:
    plain = make_people_benchmark(12, 3, forget=2, unseen=4)
    with_them = make_people_benchmark(12, 3, forget=2, unseen=4, dialogues=160)
    kept = [i for i in with_them.train.ids.tolist() if i in set(plain.train.ids.tolist())]
    assert kept == plain.train.ids.tolist()
    assert plain.forget.digest() == with_them.forget.digest()


@pytest.mark.parametrize("lines", [0, 80])
def test_the_base_hears_of_nobody_private(lines: int) -> None:
    records = base_records(WORLD.names, people=10, lines=lines, repeats=2)
    firsts = {name.split()[0] for name in WORLD.names}
    text = " ".join(f"{p} {a}" for p, a in zip(records.column("prompt"), records.column("answer"), strict=True))
    assert not firsts & set(text.split())
    assert len(set(records.ids.tolist())) == len(records)
    assert (list(records.column("kind")).count("dialogue") > 0) is (lines > 0)


def test_strangers_are_strangers() -> None:
    made = strangers(WORLD.names, 5, 50)
    assert len(set(made)) == 50
    assert not {n.split()[0] for n in made} & {n.split()[0] for n in WORLD.names}
