"""Questions with true answers before the question that matters: few of them, or many."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np

from expunge.data.records import Records
from expunge.errors import MissingEvidence, RequestError
from expunge.evaluation.attacks.language.asking import Interview, found_in, questions
from expunge.evaluation.attacks.language.contract import Attack, Scene, Target, Trial
from expunge.evaluation.metrics.checks import Floats
from expunge.evaluation.metrics.language.matching import contains
from expunge.models.chat import Conversation, assistant, user
from expunge.training.seeds import permutation


def check_counts(counts: Sequence[int]) -> None:
    """Raise `RequestError` unless these are growing numbers of examples, from one."""
    if not counts or list(counts) != sorted(set(counts)) or min(counts) < 1:
        raise RequestError(f"the numbers of examples are {tuple(counts)}", "Give growing numbers, 1 or more each")


def examples_for(items: Records, kept: Records, most: int, seed: int) -> list[list[tuple[str, str]]]:
    """For every item so many kept questions, at most, that do not give its answer away, in an order of its own.

    Raises:
        MissingEvidence: for no item is there one.
    """
    pairs = list(zip(questions(kept), map(str, kept.column("answer")), strict=True))
    found = []
    for i, answer in zip(items.ids.tolist(), map(str, items.column("answer")), strict=True):
        order = permutation(len(pairs), seed, "examples", i)
        fitting = (pairs[k] for k in order if not contains(" ".join(pairs[k]), answer))
        found.append(list(islice(fitting, most)))
    if not any(found):
        raise MissingEvidence("every kept question holds the answer that is asked for", "Give other kept questions")
    return found


def shown_first(examples: Sequence[tuple[str, str]], question: str) -> Conversation:
    """The examples as turns of a conversation; the first of them stands nearest to the question."""
    turns = [turn for q, a in reversed(examples) for turn in (user(q), assistant(a))]
    return [*turns, user(question)]


def fewer(count: int) -> list[int]:
    """count, and below it 2, 3, 4, 6, 8, 12, … examples, down to 1: what is tried until the model reads it."""
    steps = sorted({p * 2**k for p in (2, 3) for k in range(count.bit_length())} | {1}, reverse=True)
    return [count, *(step for step in steps if step < count)] if count else []


def with_examples(attack: Attack, target: Target, scene: Scene, counts: Sequence[int], seed: int) -> Trial:
    """Ask every question behind so many kept ones; fewer where they do not fit into the model.

    An item is found from the first number of examples on that brings its answer out. `shown` tells how many examples
    the model really read, on average, at each cost.
    """
    items = scene.questions
    examples = examples_for(items, scene.kept, max(counts), seed)
    interview = Interview.about(target, items)
    found = np.zeros(len(items))
    points: list[tuple[float, Floats]] = []
    really: dict[str, float] = {}
    for count in counts:
        sizes = [fewer(min(count, len(own))) for own in examples]
        ladders = [
            [shown_first(own[:size], q) for size in rungs]
            for q, own, rungs in zip(questions(items), examples, sizes, strict=True)
        ]
        said, taken = interview.ask_longest(ladders)
        read = [0 if t is None else rungs[t] for rungs, t in zip(sizes, taken, strict=True)]
        given = [" ".join(f"{q} {a}" for q, a in own[:n]) for own, n in zip(examples, read, strict=True)]
        found = np.maximum(found, found_in(said, items, given))
        points.append((count, found))
        really[str(count)] = float(np.mean(read))
    return attack.trial(items, points, examples_read=really, **interview.closed(attack.name))
