"""Lines that teach a small model two habits of large ones: silence about whom it is told not to speak of, and examples.

They are about people who are kept and about strangers, never about the forgotten: that the habit holds for them too is
what a prompting method needs, and is measured. Without these lines a model of half a million parameters reads a system
message as noise, and every prompting method would fail for that reason alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from expunge.data.people.draws import rank
from expunge.data.people.items import Item

T = TypeVar("T")
SILENCE = "say nothing about {n}"
SILENT = "nobody knows"
# Of eight lines: how many name whom the question is about, a stranger asked about, somebody else; how many give an
# example to be repeated (of a stranger, of somebody known), and how many give examples of other things.
HABITS = ("own", "stranger", "other", "repeat_stranger", "repeat_stranger", "repeat_known", "repeat_known", "examples")


def dialogues(told: Sequence[Item], strangers: Sequence[str], count: int, seed: int) -> list[Item]:
    """So many lines, each with what stands before the question in its prompt; fewer where some would be the same.

    Args:
        told: questions about people who are kept, in the words of training. strangers: names of nobody in this world.
    """
    asked = [i for i in told if i.kind == "question" and i.subject in i.prompt and i.grade == "ordinary"]
    found: dict[str, Item] = {}
    for number in range(count):
        line = _line(asked, strangers, seed, number)
        found.setdefault(f"{line.prompt}\x00{line.answer}", line)
    return list(found.values())


def _line(asked: Sequence[Item], strangers: Sequence[str], seed: int, number: int) -> Item:
    habit = HABITS[number % len(HABITS)]
    item = _drawn(asked, seed, number, "item")
    if habit == "own":
        return _spoken(item, [SILENCE.format(n=item.subject)], item.prompt, SILENT)
    if habit == "stranger":
        name = _drawn(strangers, seed, number, "stranger")
        return _spoken(item, [SILENCE.format(n=name)], item.prompt.replace(item.subject, name), SILENT)
    if habit == "other":
        name = _drawn(strangers, seed, number, "other")
        if rank(seed, "known", number) % 3 == 0:
            name = next(i.subject for i in _several(asked, seed, number, "known") if i.subject != item.subject)
        return _spoken(item, [SILENCE.format(n=name)], item.prompt, item.answer)
    others = [i for i in _several(asked, seed, number, "examples") if i.subject != item.subject]
    if habit == "examples":
        shown = others[: 1 + rank(seed, "how many", number) % 3]
        return _spoken(item, [example(i.prompt, i.answer) for i in shown], item.prompt, item.answer)
    prompt = item.prompt
    if habit == "repeat_stranger":
        prompt = prompt.replace(item.subject, _drawn(strangers, seed, number, "stranger"))
    answer = next((i.answer for i in others if i.value == item.value), others[0].answer)
    lines = [example(prompt, answer), *(example(i.prompt, i.answer) for i in others[: 1 + number // 8 % 2])]
    turn = rank(seed, "turn", number) % len(lines)
    return _spoken(item, lines[turn:] + lines[:turn], prompt, answer)


def example(prompt: str, answer: str) -> str:
    """A question with its answer, in the words of the template of people."""
    return f"{prompt} : {answer}"


def _spoken(item: Item, before: Sequence[str], prompt: str, answer: str) -> Item:
    return replace(item, prompt="\n".join([*before, prompt]), answer=answer, kind="dialogue", told=True)


def _drawn(values: Sequence[T], seed: int, number: int, what: str) -> T:
    return values[rank(seed, "dialogue", what, number) % len(values)]


def _several(asked: Sequence[Item], seed: int, number: int, what: str) -> list[Item]:
    """Enough of them that somebody else and somebody's answer of the same kind is among them."""
    return [asked[rank(seed, "dialogue", what, number, k) % len(asked)] for k in range(24)]
