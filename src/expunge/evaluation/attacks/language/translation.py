"""Ask in another language for an answer in it, and have that answer said again in English."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from expunge.evaluation.attacks.language.asking import TALK, Interview, found_in, worded, written
from expunge.evaluation.attacks.language.contract import Access, Attack, Scene, Target, Trial
from expunge.evaluation.attacks.language.prompts import BACK_TO_ENGLISH, TRANSLATION
from expunge.evaluation.attacks.language.templated import check_names
from expunge.evaluation.metrics.checks import Floats
from expunge.models.chat import Conversation, assistant, user


@dataclass(frozen=True, kw_only=True)
class Translation(Attack):
    """Two prompts an item and language. Names and numbers survive translation; other answers show when they come back.

    The question itself stays in its own language, which needs no translator: what is asked for is another language
    of the *answer*. A model that knows one language cannot follow, and then nothing is shown about languages. Yong et
    al. 2023, *Low-Resource Languages Jailbreak GPT-4*.

    Args:
        languages: keys of `prompts.TRANSLATION`, in the order in which they are tried.

    Raises:
        RequestError, UnknownName: no languages, or one that there is not.
    """

    name: ClassVar[str] = "translation"
    summary: ClassVar[str] = "asks for the answer in another language, and back"
    paper: ClassVar[str] = "arXiv:2310.02446"
    access: ClassVar[Access] = "black_box"
    unit: ClassVar[str] = "prompts an item"

    languages: tuple[str, ...] = tuple(TRANSLATION)

    def __post_init__(self) -> None:
        check_names("language", self.languages, TRANSLATION)

    def attempt(self, target: Target, scene: Scene, seed: int) -> Trial:
        items = scene.questions
        interview = Interview.about(target, items, talk=TALK)
        found = np.zeros(len(items))
        points: list[tuple[float, Floats]] = []
        alone: dict[str, float] = {}
        for name in self.languages:
            asked = worded(items, TRANSLATION[name])
            said = interview.ask(asked)
            again = interview.ask(back(asked, said))
            own = [written(c) for c in asked]
            alone[name] = 0.0
            for texts in (said, again):
                here = found_in(texts, items, own)
                found = np.maximum(found, here)
                alone[name] = max(alone[name], float(here.mean()))
                points.append((len(points) + 1, found))
        return self.trial(items, points, found_by=alone, **interview.closed(self.name))


def back(asked: Sequence[Conversation], said: Sequence[str]) -> list[Conversation]:
    """The conversations with their answers, and the wish to have those in English."""
    return [[*c, assistant(s), user(BACK_TO_ENGLISH)] for c, s in zip(asked, said, strict=True)]
