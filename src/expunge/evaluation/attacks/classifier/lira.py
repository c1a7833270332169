"""A likelihood ratio a record, between models of the attacker's own that hold it and that never saw it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import special

from expunge.errors import MissingEvidence, RequestError
from expunge.evaluation.attacks.classifier.contract import ClassifierAttack, ClassifierScene, ClassifierTarget, margins
from expunge.evaluation.attacks.language.contract import Access, Trial
from expunge.evaluation.attacks.membership import PRIOR_DEGREES, ulira_scores

LEAST = 3  # a Gaussian that leaves one out


@dataclass(frozen=True, kw_only=True)
class Lira(ClassifierAttack):
    """Found is the probability, with even odds before, that the model holds the record: σ(log N_in(φ) - log N_out(φ)).

    Gaussians of the margin φ, one pair a record, from the attacker's own models that hold the record and that never saw
    it. He does not know how the model was made to forget; who does, and repeats it, is `ulira` of the report, over many
    models. Paper: Carlini et al. 2022 (2112.03570).

    Args:
        prior_degrees: how far a record's variance is shrunk towards the mean one, in degrees of freedom.
    """

    name: ClassVar[str] = "lira"
    summary: ClassVar[str] = "tells them by a likelihood ratio per record between models of one's own"
    paper: ClassVar[str] = "arXiv:2112.03570"
    access: ClassVar[Access] = "logits"
    unit: ClassVar[str] = "models asked a record"
    needs: ClassVar[tuple[str, ...]] = ("holders", "shadows")

    prior_degrees: float = PRIOR_DEGREES

    def __post_init__(self) -> None:
        if not self.prior_degrees >= 0:
            raise RequestError(f"prior_degrees is {self.prior_degrees}", "Give 0 or more")

    def attempt(self, target: ClassifierTarget, scene: ClassifierScene, seed: int) -> Trial:
        held, free = len(scene.holders), len(scene.shadows)
        if min(held, free) < LEAST:
            raise MissingEvidence(
                f"{self.name} fits Gaussians to {held} models that hold the records and {free} that never saw them",
                f"Give {LEAST} of each at least",
            )
        everyone = [target.model, *scene.holders, *scene.shadows]
        values = np.stack([margins(m, scene.forget) for m in everyone])
        # The model under attack stands in an arm only to be left out of its Gaussian.
        member = np.arange(len(everyone))[:, None] <= held
        scores = ulira_scores(values, np.broadcast_to(member, values.shape), prior_degrees=self.prior_degrees)[0]
        return self.trial(scene.forget, [(len(everyone), special.expit(scores))])
