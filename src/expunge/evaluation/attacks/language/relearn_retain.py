"""Train on nothing but what was kept, and see whether the forgotten comes back by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.errors import RequestError
from expunge.evaluation.attacks.language.contract import Scene, Target, Trial
from expunge.evaluation.attacks.language.finetuning import FineTuning


@dataclass(frozen=True, kw_only=True)
class RelearnRetain(FineTuning):
    """Fine-tune on retained texts only, none of which tells anything forgotten; ask about all that was forgotten.

    Paper: 2505.22310, which found it on image classifiers: accuracy on forgotten examples went from 50% back to nearly
    100% with not one of them in training, and stayed at 50% in a retrained model.

    Args:
        steps, learning_rate, batch_size, optimiser: see `FineTuning`. retain_weight: must stay 0.

    This differs from the authors' code in:
        1. A language model and its answers, instead of an image classifier.
    """

    name: ClassVar[str] = "relearn_retain"
    summary: ClassVar[str] = "trains on retained texts only and asks for the forgotten"
    paper: ClassVar[str] = "arXiv:2505.22310"
    needs: ClassVar[tuple[str, ...]] = ("retain",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.retain_weight:
            raise RequestError("relearn_retain trains on retained texts only", "Leave retain_weight at 0")

    def attempt(self, target: Target, scene: Scene, seed: int) -> Trial:
        return self.train(self.copied(target), scene, scene.retain, scene.questions, seed)
