"""Linear and ridge regression by stochastic gradient descent: the smallest run whose steps can be forged.

    w ← w − η·(1/b·Σ_{i∈B} (x_i·w − y_i)·x_i + λ·w)

A row's gradient is its residual times its features. Rows with equal (x, y) collide at every w, and so do all rows on
the fitted line (residual 0): exchanging one for the other leaves every bit of w as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from expunge.audit.forging.log import Batch, Distance, Floats, Numbers
from expunge.errors import DataError, NonFiniteLoss, RequestError
from expunge.methods.hashed_course import Keys, row_keys
from expunge.training.seeds import permutation


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearRun:
    """A run that is a function of its arguments.

    Args:
        ids: (n,). x: (n, d). y: (n,). learning_rate: η > 0. batch_size: rows a step, the last of a pass may have fewer.
        epochs: passes, each in a permutation of its own. ridge: λ ≥ 0. seed: of the permutations.
        first: (d,) weights at the start; zeros if not given.

    Raises:
        DataError, RequestError.
    """

    ids: tuple[str, ...]
    x: Floats
    y: Floats
    learning_rate: float = 0.1
    batch_size: int = 8
    epochs: int = 1
    ridge: float = 0.0
    seed: int = 0
    first: Floats | None = None

    def __post_init__(self) -> None:
        if not self.learning_rate > 0 or not self.ridge >= 0 or min(self.batch_size, self.epochs) < 1:
            raise RequestError(
                f"learning_rate {self.learning_rate}, ridge {self.ridge}, batch_size {self.batch_size}, epochs "
                f"{self.epochs} are out of range",
                "Give a positive rate, a ridge from 0 and whole numbers from 1",
            )
        n = len(self.ids)
        if not n or self.x.ndim != 2 or self.x.shape[0] != n or self.y.shape != (n,):
            raise DataError(
                f"{n} ids, features of shape {self.x.shape} and targets of shape {self.y.shape} do not fit",
                "Give (n,) ids, (n, d) features and (n,) targets",
            )

    @cached_property
    def keys(self) -> Keys:
        return row_keys(self.ids, self.seed)

    @property
    def _per_pass(self) -> int:
        return -(-len(self.ids) // self.batch_size)

    @property
    def steps(self) -> int:
        return self.epochs * self._per_pass

    @property
    def passes(self) -> Numbers:
        return np.arange(self.steps) // self._per_pass

    @cached_property
    def _orders(self) -> list[Numbers]:
        return [permutation(len(self.ids), self.seed, "linear", epoch) for epoch in range(self.epochs)]

    def batch(self, step: int) -> Numbers:
        epoch, place = divmod(step, self._per_pass)
        return self._orders[epoch][place * self.batch_size : (place + 1) * self.batch_size]

    def start(self) -> Floats:
        return np.zeros(self.x.shape[1]) if self.first is None else np.asarray(self.first, np.float64)

    def advance(self, step: int, state: Floats, batch: Batch) -> Floats:
        terms = self.gradients(step, state, batch.rows)
        if batch.weights is not None:
            terms = terms * batch.weights[:, None]
        after = state - self.learning_rate * (terms.sum(0) / batch.size + self.ridge * state)
        if not np.isfinite(after).all():
            raise NonFiniteLoss("the squared error", step)
        return np.asarray(after)

    def gradients(self, step: int, state: Floats, rows: Numbers) -> Floats:
        # A sum for each row by itself: a matrix product may round a row differently beside other rows.
        residuals = (self.x[rows] * state).sum(1) - self.y[rows]
        return np.asarray(residuals[:, None] * self.x[rows])

    def distance(self, one: Floats, other: Floats) -> Distance:
        return Distance(float(np.linalg.norm(one - other)), 0.0)

    def finish(self, state: Any) -> None:
        """Nothing was logged elsewhere."""
