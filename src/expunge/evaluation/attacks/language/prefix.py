"""Give the beginning of the answer, and see whether the rest comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from expunge.data.records import Records
from expunge.errors import RequestError
from expunge.evaluation.attacks.language.asking import Interview, questions
from expunge.evaluation.attacks.language.contract import Access, Attack, Scene, Target, Trial
from expunge.evaluation.attacks.language.prompts import PREFIX
from expunge.evaluation.attacks.language.templated import check_names
from expunge.evaluation.metrics.checks import Floats
from expunge.evaluation.metrics.language.matching import contains, words
from expunge.models.chat import Conversation, user


@dataclass(frozen=True, kw_only=True)
class Prefix(Attack):
    """Two prompts an item and share: a beginning of the answer behind the question, and in a sentence of its own.

    Found is an item whose whole answer is said, or whose rest is said so that both together are the answer; the part
    that was given never counts. Carlini et al. 2022, *Quantifying Memorization Across Neural Language Models*: more
    context brings more out.

    Args:
        shares: of the answer that are given, growing, between 0 and 1: of its words, of its letters where it is one
            word. At least one letter is given and one kept back.
        wordings: keys of `prompts.PREFIX`.

    Raises:
        RequestError: shares that do not grow, or not between 0 and 1. UnknownName: an unknown wording.
    """

    name: ClassVar[str] = "prefix"
    summary: ClassVar[str] = "gives the beginning of the answer"
    paper: ClassVar[str] = "arXiv:2202.07646"
    access: ClassVar[Access] = "black_box"
    unit: ClassVar[str] = "share of the answer revealed"

    shares: tuple[float, ...] = (0.25, 0.5, 0.75)
    wordings: tuple[str, ...] = tuple(PREFIX)

    def __post_init__(self) -> None:
        check_names("wording", self.wordings, PREFIX)
        if not self.shares or list(self.shares) != sorted(set(self.shares)):
            raise RequestError(f"the shares are {self.shares}", "Give growing shares")
        if not 0 < min(self.shares) <= max(self.shares) < 1:
            raise RequestError(f"the shares are {self.shares}", "Give shares between 0 and 1, without either")

    def attempt(self, target: Target, scene: Scene, seed: int) -> Trial:
        items = scene.questions
        interview = Interview.about(target, items)
        found = np.zeros(len(items))
        points: list[tuple[float, Floats]] = []
        for share in self.shares:
            given = [beginning(str(a), share) for a in items.column("answer")]
            for name in self.wordings:
                said = interview.ask([told(q, g, PREFIX[name]) for q, g in zip(questions(items), given, strict=True)])
                found = np.maximum(found, completed(said, items, given))
            points.append((share, found))
        return self.trial(items, points, **interview.closed(self.name))


def told(question: str, given: str, template: str) -> Conversation:
    return [user(template.replace("{question}", question).replace("{prefix}", given))]


def beginning(answer: str, share: float) -> str:
    """So much of an answer, in whole words where it has several; never all of it, nothing of a single letter."""
    parts = answer.split()
    if len(parts) > 1:
        return " ".join(parts[: min(max(int(share * len(parts)), 1), len(parts) - 1)])
    word = answer.strip()
    return word[: min(max(int(share * len(word)), 1), len(word) - 1)]


def completed(said: Sequence[str], items: Records, given: Sequence[str]) -> Floats:
    """``(items,)`` 1 where the answer was said, or its rest right at the beginning of what was said."""
    rows = zip(said, questions(items), map(str, items.column("answer")), given, strict=True)
    return np.array([float(not contains(f"{q} {g}", a) and _completes(s, a, g)) for s, q, a, g in rows])


def _completes(said: str, answer: str, given: str) -> bool:
    if contains(said, answer):
        return True
    whole = " ".join(answer.split())
    rest = whole[len(given) :].strip()
    wanted = words(rest)
    # A rest ("lor" of "tailor") means something right after its beginning alone; further on it may be anything.
    return bool(given and wanted) and words(said)[: len(wanted)] == wanted
