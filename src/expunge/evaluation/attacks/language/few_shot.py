"""A few answered questions first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.evaluation.attacks.language.contract import Access, Attack, Scene, Target, Trial
from expunge.evaluation.attacks.language.examples import check_counts, with_examples


@dataclass(frozen=True, kw_only=True)
class FewShot(Attack):
    """Kept questions with their answers, then the question: a model that answers goes on answering.

    Lynch et al. 2024, *Eight Methods to Evaluate Robust Unlearning in LLMs*; Doshi and Stickland 2024
    (arXiv:2411.12103) find ten times the accuracy with five examples.

    Args:
        examples: numbers of examples, growing.

    Raises:
        RequestError: numbers that do not grow, or below 1.
    """

    name: ClassVar[str] = "few_shot"
    summary: ClassVar[str] = "shows a few answered questions first"
    paper: ClassVar[str] = "arXiv:2402.16835"
    access: ClassVar[Access] = "black_box"
    unit: ClassVar[str] = "examples before the question"
    needs: ClassVar[tuple[str, ...]] = ("kept",)

    examples: tuple[int, ...] = (1, 2, 4)

    def __post_init__(self) -> None:
        check_counts(self.examples)

    def attempt(self, target: Target, scene: Scene, seed: int) -> Trial:
        return with_examples(self, target, scene, self.examples, seed)
