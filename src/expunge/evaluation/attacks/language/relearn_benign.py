"""Train on texts that tell nothing forgotten, and see whether it comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from expunge.errors import MissingEvidence, RequestError
from expunge.evaluation.attacks.language.benign_texts import common_knowledge, without_facts
from expunge.evaluation.attacks.language.contract import Scene, Target, Trial
from expunge.evaluation.attacks.language.finetuning import FineTuning


@dataclass(frozen=True, kw_only=True)
class RelearnBenign(FineTuning):
    """Fine-tune on texts that tell none of the forgotten facts, like those that did or unrelated; ask about all of it.

    Paper: Hu et al., 2406.13356. That it is above all the likeness of form that brings back what was suppressed:
    2602.03379.

    Args:
        texts: ``alike``, the scene's texts that nobody trained on, or ``unrelated``, a few lines of common knowledge.
            Whichever tells a forgotten fact is left out first. steps, learning_rate, batch_size, optimiser,
            retain_weight: see `FineTuning`.

    Raises:
        MissingEvidence: every text tells a forgotten fact.

    This differs from the authors' code in:
        1. The texts are of other, equally unknown subjects, instead of public articles about the same ones.
    """

    name: ClassVar[str] = "relearn_benign"
    summary: ClassVar[str] = "trains on texts that tell nothing forgotten and asks for the forgotten"
    paper: ClassVar[str] = "arXiv:2406.13356"
    needs: ClassVar[tuple[str, ...]] = ("holdout",)

    texts: Literal["alike", "unrelated"] = "alike"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.texts not in ("alike", "unrelated"):
            raise RequestError(f"texts is {self.texts!r}", "Choose alike or unrelated")
        if self.texts == "unrelated":
            object.__setattr__(self, "needs", ())  # it brings its own

    def attempt(self, target: Target, scene: Scene, seed: int) -> Trial:
        model = self.copied(target)
        offered = scene.holdout if self.texts == "alike" else common_knowledge()
        texts = without_facts(offered, scene.questions, scene.kept)
        if not len(texts):
            raise MissingEvidence(
                f"all {len(offered)} texts that {self.name} would train on tell a forgotten fact",
                "Give other holdout texts, or texts='unrelated'",
            )
        return self.train(model, scene, texts, scene.questions, seed, left_out=len(offered) - len(texts))
