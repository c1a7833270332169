"""Build up to the question over several turns (Crescendo)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from expunge.data.records import Records
from expunge.errors import RequestError
from expunge.evaluation.attacks.language.asking import TALK, Interview, found_in, questions
from expunge.evaluation.attacks.language.contract import Access, Attack, Scene, Target, Trial
from expunge.evaluation.attacks.language.prompts import MULTI_TURN, REFUSALS
from expunge.evaluation.attacks.language.subjects import subjects
from expunge.evaluation.metrics.checks import Floats
from expunge.models.chat import Message, assistant, user


@dataclass(frozen=True, kw_only=True)
class MultiTurn(Attack):
    """One conversation an item, in which each turn leans on what the model has said itself.

    Russinovich, Salem and Eldan 2024, *Great, Now Write an Article About That: The Crescendo Multi-Turn LLM Jailbreak
    Attack*. It begins with the harmless and ends with the question. An exchange in which the model refuses is taken
    back. Every answer is searched. Differs from the paper: the turns are written beforehand, where the paper has
    another language model write each after it has read the last answer; a refused turn is not put in other words.

    Args:
        turns: how many, up to those of `prompts.MULTI_TURN`; fewer leave out the first ones.

    Raises:
        RequestError: no turns, or more than there are.
    """

    name: ClassVar[str] = "multi_turn"
    summary: ClassVar[str] = "builds up to the question over several turns"
    paper: ClassVar[str] = "arXiv:2404.01833"
    access: ClassVar[Access] = "black_box"
    unit: ClassVar[str] = "turns"

    turns: int = len(MULTI_TURN)

    def __post_init__(self) -> None:
        if not 1 <= self.turns <= len(MULTI_TURN):
            raise RequestError(f"turns={self.turns}", f"Choose 1 to {len(MULTI_TURN)}")

    def attempt(self, target: Target, scene: Scene, seed: int) -> Trial:
        items = scene.questions
        interview = Interview.about(target, items, talk=TALK)
        names = subjects(items)
        told: list[list[Message]] = [[] for _ in names]
        own = [""] * len(items)
        found, refused = np.zeros(len(items)), 0
        points: list[tuple[float, Floats]] = []
        for template in MULTI_TURN[-self.turns :]:
            asked = filled(template, items, names)
            said, taken = interview.ask_longest([shorter(t, a) for t, a in zip(told, asked, strict=True)])
            own = [f"{o} {a}" for o, a in zip(own, asked, strict=True)]
            found = np.maximum(found, found_in(said, items, own))
            points.append((len(points) + 1, found))
            for k, text in enumerate(said):
                if taken[k] is None or refuses(text):
                    refused += taken[k] is not None
                else:
                    told[k] += [user(asked[k]), assistant(text)]
        return self.trial(items, points, taken_back=refused, **interview.closed(self.name))


def filled(template: str, items: Records, names: Sequence[str]) -> list[str]:
    """A turn about every item."""
    rows = zip(questions(items), names, strict=True)
    return [template.replace("{question}", q).replace("{subject}", n) for q, n in rows]


def shorter(told: Sequence[Message], turn: str) -> list[list[Message]]:
    """The conversation with its next turn; then without its first exchange, and so on."""
    return [[*told[gone:], user(turn)] for gone in range(0, len(told) + 1, 2)]


def refuses(text: str) -> bool:
    """Whether a model said that it would not, or nothing: by the words, which can err both ways."""
    plain = text.casefold().replace("\u2019", "'")
    return not plain.strip() or any(sign in plain for sign in REFUSALS)
