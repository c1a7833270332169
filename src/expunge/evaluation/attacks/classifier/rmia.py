"""A record's probability against that of a population, and of models that never saw it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from expunge.errors import RequestError
from expunge.evaluation.attacks.classifier.contract import ClassifierAttack, ClassifierScene, ClassifierTarget, margins
from expunge.evaluation.attacks.language.contract import Access, Trial
from expunge.evaluation.attacks.membership import rmia_scores


@dataclass(frozen=True, kw_only=True)
class Rmia(ClassifierAttack):
    """Found is the RMIA score: the share of unseen records z with [p(x|θ)/p(x)] / [p(z|θ)/p(z)] >= γ.

    Its offline form: the attacker's own models never saw the record. More of them cost more and leave less to chance; a
    point a number of models. Paper: Zarifzadeh et al. 2024 (2312.03262).

    Args:
        gamma: γ, at least 1. offline_a: a in [0, 1], see `expunge.evaluation.attacks.membership.rmia_scores`.
    """

    name: ClassVar[str] = "rmia"
    summary: ClassVar[str] = "tells them by the record's probability against that of a population"
    paper: ClassVar[str] = "arXiv:2312.03262"
    access: ClassVar[Access] = "logits"
    unit: ClassVar[str] = "models asked a record"
    needs: ClassVar[tuple[str, ...]] = ("holdout", "shadows")

    gamma: float = 1.0
    offline_a: float = 0.3

    def __post_init__(self) -> None:
        if not self.gamma >= 1.0 or not 0.0 <= self.offline_a <= 1.0:
            raise RequestError(f"gamma is {self.gamma} and offline_a {self.offline_a}", "Give 1 or more, and 0 to 1")

    def attempt(self, target: ClassifierTarget, scene: ClassifierScene, seed: int) -> Trial:
        mine, others = margins(target.model, scene.forget), margins(target.model, scene.holdout)
        shadow = np.stack([margins(m, scene.forget) for m in scene.shadows])
        population = np.stack([margins(m, scene.holdout) for m in scene.shadows])
        points = [
            (
                1 + count,
                rmia_scores(
                    mine[None],
                    others[None],
                    shadow[:count],
                    population[:count],
                    gamma=self.gamma,
                    offline_a=self.offline_a,
                )[0],
            )
            for count in _doubling(len(scene.shadows))
        ]
        return self.trial(scene.forget, points, holdout=len(scene.holdout))


def _doubling(most: int) -> list[int]:
    """1, 2, 4, … up to `most`, which is the last."""
    found: list[int] = []
    while not found or 2 * found[-1] < most:
        found.append(2 * found[-1] if found else 1)
    return found if found[-1] == most else [*found, most]
