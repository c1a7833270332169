"""Naive Bayes: sums of each feature in each class, from which a record's own summand is subtracted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt

from expunge.data.records import Array, Records
from expunge.errors import DataError, ModelError, RequestError
from expunge.methods.learner import Job, Learned, Learner, Part, State
from expunge.methods.summation import (
    STEP,
    VALUE_DIGITS,
    Sums,
    check_range,
    chunks,
    class_count,
    class_sums,
    flat,
    row_sums,
    square_digits,
    value_digits,
    whole,
)

Likelihood = Literal["gaussian", "multinomial", "bernoulli"]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class NaiveBayes(Learner):
    """score_c(x) = log P(c) + Σ_j log p(x_j | c), all of it a function of exact sums over the records of each class.

    ``gaussian``: p(x_j | c) is normal with mean Σx/n_c and variance Σx²/n_c − (Σx/n_c)² + `var_smoothing` · (largest
    variance of a feature over all records) + step²/12, the last being the variance of rounding to the step.
    ``multinomial``: features are counts ≥ 0, Σ_j x_j log θ_cj with θ_cj = (Σx_j + α) / (Σ_j Σx_j + α d).
    ``bernoulli``: a feature is present where it is above `threshold`; θ_cj = (records with it + α) / (n_c + 2α).

    To forget a record costs O(d): the digits of its features are subtracted from the sums of its class. Means and
    variances are made of the sums when predicting, in whole numbers up to one last division: no digit cancels, however
    small the variance is against the mean.

    Paper: Cao & Yang, Towards Making Systems Forget with Machine Unlearning (IEEE S&P 2015).

    Args:
        likelihood: one of the three. alpha: α, Laplace's smoothing, > 0; unused by ``gaussian``.
        var_smoothing: ≥ 0, unused but by ``gaussian``. threshold: used by ``bernoulli`` alone.
        prior_smoothing: a > 0 in P(c) = (n_c + a) / (n + a · classes).
        step: what real features are rounded to a multiple of, a power of 2. A mean is off by at most step/2 and so is a
            standard deviation; a feature must be below 2⁷² steps. Unused by ``bernoulli``.

    A class without records is as unlikely as the least likely of the others, times its prior: it is never predicted,
    and its score stays finite.

    Raises:
        DataError: a feature is out of range, or negative where counts are expected. ModelError: other features than
            those that were learned from.

    This differs from the paper (code of the authors could not be found) in:
        1. Real features too, by sums in fixed point: the paper's classifier counts, which is exact by nature.
        2. There is no selection of features before: it would be another function of the same sums.
        3. Scores of a class without records, and the smoothed prior.
    """

    name: ClassVar[str] = "naive_bayes"
    summary: ClassVar[str] = "Class sums in exact integers, from which a record's features are subtracted"
    paper: ClassVar[str] = "Cao & Yang, IEEE S&P 2015"

    likelihood: Likelihood = "gaussian"
    alpha: float = 1.0
    var_smoothing: float = 1e-9
    prior_smoothing: float = 1.0
    threshold: float = 0.0
    step: float = STEP

    def __post_init__(self) -> None:
        if self.likelihood not in get_args(Likelihood):
            raise RequestError(
                f"naive_bayes has no likelihood {self.likelihood!r}", f"Choose one of {', '.join(get_args(Likelihood))}"
            )
        if not (0 < self.alpha < math.inf and 0 < self.prior_smoothing < math.inf):
            raise RequestError(
                f"naive_bayes needs finite alpha and prior_smoothing > 0, got {self.alpha} and {self.prior_smoothing}",
                "Smooth by at least a little: an unseen feature or class has no logarithm",
            )
        if not (0 <= self.var_smoothing < math.inf and math.isfinite(self.threshold)):
            raise RequestError(
                f"naive_bayes needs finite var_smoothing ≥ 0 and threshold; got {self.var_smoothing} and "
                f"{self.threshold}",
                "Correct its hyper-parameters",
            )
        if not 2.0**-300 <= self.step <= 2.0**300 or math.frexp(self.step)[0] != 0.5:
            raise RequestError(
                f"naive_bayes needs a step that is a power of 2 from 2^-300 to 2^300, got {self.step}",
                "Take the next lower power of 2: dividing by it is exact",
            )

    def learn(self, records: Records, *, seed: int, job: Job) -> Learned:
        x, y = records.x, records.y
        if y.ndim != 1:
            raise DataError(f"labels have shape {y.shape}, expected (n,)", "Give one class number a record")
        if self.likelihood != "bernoulli":
            check_range(x, self.step)
        self.check_counts(x)
        classes = class_count(y, len(records.classes))
        sums = class_sums(self.terms, x, y, classes)
        counts = np.bincount(y, minlength=classes)
        parts = {part_name(c): {"count": counts[c : c + 1], "sums": sums[c].copy()} for c in range(classes)}
        return Learned(parts=parts, facts={"declared_classes": len(records.classes)}, examples=len(records))

    def remove(self, state: State, ids: tuple[str, ...], *, job: Job) -> Learned:
        at = state.rows.at(ids)
        x, y = state.rows.column("x")[at], state.rows.column("y")[at]
        parts = dict(state.parts)
        for c in np.unique(y).tolist():
            own = y == c
            old = parts[part_name(c)]
            parts[part_name(c)] = {
                "count": old["count"] - int(own.sum()),
                "sums": old["sums"] - row_sums(self.terms, x[own]),
            }
        # A fresh fit would not know of a last class that lost its last record, unless it is declared by name.
        while len(parts) > state.facts["declared_classes"] and not parts[part_name(len(parts) - 1)]["count"][0]:
            del parts[part_name(len(parts) - 1)]
        return Learned(parts=parts, facts=state.facts, examples=len(ids))

    def terms(self, x: Array) -> Array:
        """g(x): (rows, d) float64 → (k, rows, d) whole numbers."""
        if self.likelihood == "bernoulli":
            return (x > self.threshold).astype(np.float64)[None]
        return square_digits(x, self.step) if self.likelihood == "gaussian" else value_digits(x, self.step)

    def predict(self, state: State, x: Array) -> Array:
        return np.asarray(np.argmax(self.scores(state, x), axis=1))

    def scores(self, state: State, x: Array) -> Array:
        """(n, classes) log P(c, x) in nats, float64.

        Raises:
            DataError, ModelError: see the class.
        """
        counts, sums = tables(state.parts)
        x = flat(x)
        if x.shape[1] != sums.shape[2]:
            raise ModelError(
                f"records have {x.shape[1]} features and naive_bayes learned from {sums.shape[2]}",
                "Give the same features in the same order",
            )
        self.check_counts(x)
        seen = counts > 0
        prior = np.log((counts + self.prior_smoothing) / (counts.sum() + self.prior_smoothing * len(counts)))
        out = np.empty((len(x), len(counts)))
        if self.likelihood == "gaussian":
            mean, variance = moments(counts[seen], sums[seen], self.step, self.var_smoothing)
        else:
            on, off = self.log_odds(counts[seen], sums[seen])
        for part in chunks(len(x), x.shape[1]):
            rows = x[part].astype(np.float64)
            if self.likelihood == "gaussian":
                found = np.stack([log_normal(rows, m, v) for m, v in zip(mean, variance, strict=True)], axis=1)
            else:
                features = (rows > self.threshold).astype(np.float64) if self.likelihood == "bernoulli" else rows
                found = features @ on.T + off
            out[part] = found.min(axis=1, keepdims=True)
            out[part, seen] = found
        return np.asarray(out + prior)

    def log_odds(self, counts: Array, sums: Sums) -> tuple[Floats, Floats]:
        """Of present classes: (classes, d) weights of the features and (classes,) constants, in nats."""
        if self.likelihood == "bernoulli":
            theta = (sums[:, 0] + self.alpha) / (counts[:, None] + 2 * self.alpha)
            return np.log(theta) - np.log1p(-theta), np.log1p(-theta).sum(axis=1)
        total = np.array([[float(v) for v in row] for row in whole(sums)]) * self.step + self.alpha
        return np.log(total) - np.log(total.sum(axis=1, keepdims=True)), np.zeros(len(counts))

    def check_counts(self, x: Array) -> None:
        """Refuse negative features where counts are expected, see `DataError` of the class."""
        if self.likelihood == "multinomial" and x.size and float(x.min()) < 0:
            raise DataError(f"a feature is {float(x.min()):g}, expected a count ≥ 0", "Use likelihood='gaussian'")


def part_name(number: int) -> str:
    return f"class {number}"


def tables(parts: Mapping[str, Part]) -> tuple[npt.NDArray[np.int64], Sums]:
    """(classes,) records and (classes, k, d) sums."""
    ordered = [parts[part_name(c)] for c in range(len(parts))]
    return np.concatenate([p["count"] for p in ordered]), np.stack([p["sums"] for p in ordered])


def moments(counts: Array, sums: Sums, step: float, var_smoothing: float) -> tuple[Floats, Floats]:
    """(classes, d) means and smoothed variances of classes that have records.

    Σx² n − (Σx)² is a whole number, and Python divides whole numbers with one rounding.
    """
    n = counts.astype(object)[:, None]
    first, second = whole(sums[:, :VALUE_DIGITS]), whole(sums[:, VALUE_DIGITS:])
    mean = (first / n).astype(np.float64) * step
    variance = ((second * n - first * first) / (n * n)).astype(np.float64) * step**2
    all_n, all_first, all_second = int(counts.sum()), first.sum(axis=0), second.sum(axis=0)
    pooled = ((all_second * all_n - all_first * all_first) / all_n**2).astype(np.float64) * step**2
    return mean, variance + var_smoothing * pooled.max(initial=0.0) + step**2 / 12


def log_normal(x: Array, mean: Floats, variance: Floats) -> Floats:
    """(n,) Σ_j log N(x_j; mean_j, variance_j) in nats, for (n, d)."""
    squares = ((x - mean) ** 2 / variance).sum(axis=1)
    return np.asarray(-0.5 * (squares + np.log(2 * math.pi * variance).sum()))
