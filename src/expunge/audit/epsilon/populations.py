"""Counts of errors from two populations of models: those that deleted a record, and those that never had it.

Clopper-Pearson over populations, as in Jagielski, Ullman & Oprea 2020 (arXiv:2006.07709), Nasr et al. 2021
(arXiv:2101.04535) and Zanella-Béguelin et al. 2023 (arXiv:2206.05199). The models are cut in three: a pilot learns a
linear discriminant of everything that is seen; of the rest, one half chooses a statistic and a threshold and the other
half counts its errors (`expunge.evaluation.metrics.honest_epsilon`). The counts refute at every δ at once: Clopper-
Pearson bounds the two error rates, and all that follows from them is arithmetic.

This differs from those papers in:
1. The observation may be a vector (published weights, answers to many probes), which the pilot makes a number of.
2. The counts are kept, so that a whole privacy profile ε(δ) can be held against them, not one point of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from expunge.errors import DataError, RequestError
from expunge.evaluation.metrics.checks import MODELS_RECORDS, floats, same_length
from expunge.evaluation.metrics.epsilon import CAP
from expunge.evaluation.metrics.honest_epsilon import epsilon_bound, honest_epsilon_worst
from expunge.evaluation.metrics.intervals import clopper_pearson

Floats = npt.NDArray[np.float64]

PILOT = 0.25
LEAST = 16
"""Fewest models of a world: 4 of pilot, 6 and 6 of the halves."""


@dataclass(frozen=True, kw_only=True)
class Separation:
    """Error counts of a rule that was fixed before the models it is counted on were looked at.

    Args:
        false_positives: of `negatives` models that never had the record, how many were called deleted.
        false_negatives: of `positives` models that deleted it, how many were called never.
        statistic: which column the rule reads; one past the last given is the discriminant.
    """

    false_positives: int
    negatives: int
    false_negatives: int
    positives: int
    statistic: int

    def bound(self, delta: float, confidence: float = 0.95, *, one_sided: bool = False) -> float:
        """Lower bound on ε at `delta`, nats in [0, 50]; the bounds at all δ hold together with `confidence`.

        Args:
            one_sided: count only what is likelier after deletion than never in, not the reverse.
        """
        if not one_sided:
            return float(
                epsilon_bound(
                    self.false_positives,
                    self.negatives,
                    self.false_negatives,
                    self.positives,
                    delta=delta,
                    confidence=confidence,
                )
            )
        theirs = clopper_pearson(self.false_positives, self.negatives, confidence).high
        ours = 1.0 - clopper_pearson(self.false_negatives, self.positives, confidence).high - delta
        return min(max(0.0, math.log(ours) - math.log(theirs)), CAP) if ours > 0 else 0.0

    def as_dict(self) -> dict[str, int]:
        return {
            "false_positives": self.false_positives,
            "negatives": self.negatives,
            "false_negatives": self.false_negatives,
            "positives": self.positives,
            "statistic": self.statistic,
        }


def separate(deleted: Any, never: Any, *, delta: float, confidence: float = 0.95, seed: int = 0) -> Separation:
    """Choose a rule and count its errors.

    Args:
        deleted, never: what was seen of each model, ``(models, statistics)``, independent rows; 16 models each at
            least. delta: the δ for which the rule is chosen. seed: of the cut in halves.

    Raises:
        DataError: too few models, NaN, other statistics in the two worlds. RequestError: δ out of range.
    """
    one = floats("models that deleted", deleted, MODELS_RECORDS, least=LEAST)
    two = floats("models that never had it", never, MODELS_RECORDS, least=LEAST)
    same_length("statistics", **{"models that deleted": one, "models that never had it": two})
    if not one.shape[1]:
        raise DataError("nothing was observed of the models", "Give at least one statistic")
    if not 0 <= delta < 1:
        raise RequestError(f"δ is {delta!r}, expected a number from 0 up to 1", "Correct it")
    cut_one, cut_two = int(PILOT * len(one)), int(PILOT * len(two))
    direction = discriminant(one[:cut_one], two[:cut_two])
    columns = [np.column_stack([a[cut:], a[cut:] @ direction]) for a, cut in ((one, cut_one), (two, cut_two))]
    found = honest_epsilon_worst(columns[0], columns[1], delta=delta, confidence=confidence, seed=seed).detail
    return Separation(
        false_positives=found["errors"][0],
        negatives=found["models_counted"][1],
        false_negatives=found["errors"][1],
        positives=found["models_counted"][0],
        statistic=found["worst_record"],
    )


def discriminant(one: Floats, two: Floats) -> Floats:
    """(statistics,) Fisher's linear discriminant of two samples.

    The correlations are shrunk towards none by d/(d + n) for n models and d statistics: with fewer models than
    statistics they are mostly noise.


    A statistic that never varies within a world gets no weight here; if it differs between them it separates them by
    itself, as the column that it is.
    """
    pooled = np.concatenate([one - one.mean(axis=0), two - two.mean(axis=0)])
    scale = pooled.std(axis=0)
    varies = scale > 1e-12 * (np.abs(one).max(axis=0) + np.abs(two).max(axis=0) + 1e-300)
    result = np.zeros(one.shape[1])
    if not varies.any():
        return result
    pooled = pooled[:, varies] / scale[varies]
    correlation = pooled.T @ pooled / len(pooled)
    shrinkage = len(correlation) / (len(correlation) + len(pooled))
    shrunk = (1 - shrinkage) * correlation + shrinkage * np.eye(len(correlation))
    gap = (one.mean(axis=0) - two.mean(axis=0))[varies] / scale[varies]
    result[varies] = np.linalg.solve(shrunk, gap) / scale[varies]
    return result
