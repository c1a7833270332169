"""Ask the system what it was told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from expunge.data.records import Records
from expunge.errors import RequestError
from expunge.evaluation.attacks.language.asking import Interview
from expunge.evaluation.attacks.language.contract import Access, Attack, Scene, Target, Trial
from expunge.evaluation.attacks.language.prompts import PROMPT_EXTRACTION
from expunge.evaluation.attacks.language.subjects import named_subjects
from expunge.evaluation.metrics.checks import Floats
from expunge.evaluation.metrics.language.matching import contains
from expunge.models.chat import user


@dataclass(frozen=True, kw_only=True)
class PromptExtraction(Attack):
    """The same few prompts whatever was forgotten; they name nobody.

    Found is an item whose answer, or whose subject (where the questions have that column), stands in what comes: who
    hides somebody by naming him in a prompt tells everybody who it is. Zhang, Carlini and Ippolito 2023, *Effective
    Prompt Extraction from Language Models*. Differs from the paper: what is looked for is known, so that no guess is
    made whether the text is really the prompt. Without a prompt there is nothing to extract; a model that speaks of its
    training data at random is then found as often as a retrained one, with which the result is compared.

    Args:
        prompts: how many of `prompts.PROMPT_EXTRACTION` are tried. tokens: most that a reply may have.

    Raises:
        RequestError: out of range.
    """

    name: ClassVar[str] = "prompt_extraction"
    summary: ClassVar[str] = "asks for the instructions and looks for the forgotten in them"
    paper: ClassVar[str] = "arXiv:2307.06865"
    access: ClassVar[Access] = "black_box"
    unit: ClassVar[str] = "prompts"

    prompts: int = len(PROMPT_EXTRACTION)
    tokens: int = 128

    def __post_init__(self) -> None:
        if not 1 <= self.prompts <= len(PROMPT_EXTRACTION):
            raise RequestError(f"prompts={self.prompts}", f"Choose 1 to {len(PROMPT_EXTRACTION)}")
        if self.tokens < 1:
            raise RequestError(f"tokens={self.tokens}", "Let the model say something")

    def attempt(self, target: Target, scene: Scene, seed: int) -> Trial:
        items = scene.questions
        interview = Interview(target, least=max(self.tokens // 8, 1), wanted=self.tokens)
        found, told = np.zeros(len(items)), []
        points: list[tuple[float, Floats]] = []
        for prompt in PROMPT_EXTRACTION[: self.prompts]:
            told.append(interview.ask([[user(prompt)]])[0])
            found = np.maximum(found, stands_in(told[-1], prompt, items))
            points.append((len(told), found))
        return self.trial(items, points, characters=list(map(len, told)), **interview.closed(self.name))


def stands_in(text: str, prompt: str, items: Records) -> Floats:
    """``(items,)`` 1 where the answer or the subject of an item stands in a text and not in the prompt."""
    signs: Sequence[tuple[str, str]] = list(
        zip(map(str, items.column("answer")), named_subjects(items), strict=True)
    )  # fmt: skip
    return np.array([float(any(contains(text, s) and not contains(prompt, s) for s in pair)) for pair in signs])
