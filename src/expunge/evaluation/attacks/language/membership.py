"""What attacks that read probabilities have in common: forgotten texts against texts like them that nobody trained on.

An item is a forgotten training text. It is found by the share of the holdout texts that look less like members of the
training data than it does, ties counting a half, so that the mean over items is the area under the ROC curve. Half is a
guess; a retrained model need not be there, since forgotten and holdout texts may differ by more than who saw them.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from expunge.data.records import Records
from expunge.errors import MissingEvidence, RequestError
from expunge.evaluation.attacks.language.contract import Access, Attack, Scene, Target, Trial
from expunge.evaluation.language.record import score
from expunge.evaluation.metrics.checks import Floats
from expunge.evaluation.metrics.language.membership import attack
from expunge.evaluation.metrics.language.outputs import TextOutputs
from expunge.evaluation.metrics.roc import placements
from expunge.models.language import LanguageModel
from expunge.result import Measurement

LEAST = 2  # of holdout texts: one of them ranks nothing


class MembershipAttack(Attack):
    """One pass over every text; a subclass writes `scores`, higher for members."""

    access: ClassVar[Access] = "logits"
    unit: ClassVar[str] = "texts scored an item"
    needs: ClassVar[tuple[str, ...]] = ("forget", "holdout")
    passes: ClassVar[int] = 1

    @abstractmethod
    def scores(self, model: LanguageModel, records: Records) -> Floats:
        """``(records,)`` how much each text looks like one that `model` was trained on."""

    def attempt(self, target: Target, scene: Scene, seed: int) -> Trial:
        model = target.logits(self.name)
        if len(scene.holdout) < LEAST or len(scene.forget) < LEAST:
            raise MissingEvidence(
                f"{self.name} ranks {len(scene.forget)} forgotten texts among {len(scene.holdout)} that nobody "
                "trained on",
                f"Give {LEAST} of each at least",
            )
        members, others = self.scores(model, scene.forget), self.scores(model, scene.holdout)
        found = placements(members, others)[0]
        measured = attack(self.name, members, others, self.name, seed=seed)
        shown = {name: [m.value, m.low, m.high] for name, m in measured.items() if isinstance(m, Measurement)}
        return self.trial(scene.forget, [(self.passes, found)], holdout=len(scene.holdout), **shown)


def read(model: LanguageModel, records: Records) -> TextOutputs:
    """Log-probabilities of the texts' answers given their prompts, and the texts themselves."""
    return score(model, records, answers=tuple(str(a) for a in records.column("answer")))


def check_share(k: float) -> None:
    """Raise `RequestError` where `k` is no share of the tokens."""
    if not (isinstance(k, int | float) and np.isfinite(k) and 0 < k <= 1):
        raise RequestError(f"k is {k!r}", "Give the share of a text's tokens that is read, above 0 and at most 1")
