"""Give the model the answers that are possible, and read which it finds more probable."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from expunge.data.records import Records
from expunge.errors import MissingEvidence
from expunge.evaluation.attacks.language.contract import Access, Attack, Scene, Target, Trial
from expunge.evaluation.language.record import WRONG, record
from expunge.evaluation.metrics.language.probability import shares_of_truth


@dataclass(frozen=True, kw_only=True)
class MultipleChoice(Attack):
    """Found is P / (P + Σ_k P(wrong_k)), P = exp(-mean NLL): the true answer's share among the options.

    Who suppressed an answer, and all others with it, still ranks it first. A model that knows nothing gives about
    1 / options. Paper: Maini et al. 2024, TOFU (2401.06121), section 2.2.1.
    """

    name: ClassVar[str] = "multiple_choice"
    summary: ClassVar[str] = "reads how probable the true answer is among those that are possible"
    paper: ClassVar[str] = "arXiv:2401.06121"
    access: ClassVar[Access] = "logits"
    unit: ClassVar[str] = "options scored an item"

    def attempt(self, target: Target, scene: Scene, seed: int) -> Trial:
        model = target.logits(self.name)
        items = with_options(scene.questions)
        if not len(items):
            raise MissingEvidence(
                f"{self.name} needs wrong answers beside the true ones, and these questions have none",
                "Give the questions a column wrong (a JSON list), or leave the attack out",
            )
        said = record(model, items, generate=False)
        assert said.wrong is not None
        options = [1 + len(json.loads(listed)) for listed in items.column(WRONG)]
        return self.trial(items, [(max(options), shares_of_truth(said.main, said.wrong))], options=options)


def with_options(questions: Records) -> Records:
    """The questions that have a wrong answer at least."""
    if WRONG not in questions.columns:
        return questions.take([])
    return questions.take(np.array([bool(json.loads(listed)) for listed in questions.column(WRONG)], dtype=bool))
