"""As many answered questions first as the model reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.evaluation.attacks.language.contract import Access, Attack, Scene, Target, Trial
from expunge.evaluation.attacks.language.examples import check_counts, with_examples


@dataclass(frozen=True, kw_only=True)
class ManyShot(Attack):
    """`few_shot` with so many examples that they outweigh what the model was taught to do instead of answering.

    Anil et al. 2024, *Many-shot Jailbreaking*: success grows as a power of the number of examples.

    Args:
        examples: numbers of examples, growing; where they do not fit, fewer are shown.

    Raises:
        RequestError: numbers that do not grow, or below 1.
    """

    name: ClassVar[str] = "many_shot"
    summary: ClassVar[str] = "shows many answered questions first"
    paper: ClassVar[str] = "Anil et al. 2024, Many-shot Jailbreaking, NeurIPS 2024"
    access: ClassVar[Access] = "black_box"
    unit: ClassVar[str] = "examples before the question"
    needs: ClassVar[tuple[str, ...]] = ("kept",)

    examples: tuple[int, ...] = (8, 16, 32, 64)

    def __post_init__(self) -> None:
        check_counts(self.examples)

    def attempt(self, target: Target, scene: Scene, seed: int) -> Trial:
        return with_examples(self, target, scene, self.examples, seed)
