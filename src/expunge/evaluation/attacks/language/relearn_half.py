"""Relearn half of what was forgotten, and ask for the other half."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.evaluation.attacks.language.contract import Scene, Target, Trial
from expunge.evaluation.attacks.language.finetuning import FineTuning


@dataclass(frozen=True, kw_only=True)
class RelearnHalf(FineTuning):
    """Fine-tune on the forgotten facts that the attacker happens to have (T), ask about the others (V).

    Nothing in T tells anything of V, so that what comes back must have been in the weights: hidden, not removed. Paper:
    Deeb & Roger 2024, 2410.08827.

    Args:
        retain_weight: of as many retained texts in every step, without which what is not in T is overwritten; 0 trains
            on T alone. steps, learning_rate, batch_size, optimiser: see `FineTuning`.

    This differs from the authors' code in:
        1. One learning rate, and the best of the steps; theirs is the best of several rates and six epochs.
        2. The loss is on answers to open questions; theirs on the letter of a multiple-choice question. Retained texts
           are mixed in.
    """

    name: ClassVar[str] = "relearn_half"
    summary: ClassVar[str] = "trains on half of the forgotten facts and asks for the other half"
    paper: ClassVar[str] = "arXiv:2410.08827"
    needs: ClassVar[tuple[str, ...]] = ("relearn", "unheard", "retain")

    retain_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.retain_weight:
            object.__setattr__(self, "needs", ("relearn", "unheard"))

    def attempt(self, target: Target, scene: Scene, seed: int) -> Trial:
        return self.train(self.copied(target), scene, scene.relearn, scene.unheard, seed)
