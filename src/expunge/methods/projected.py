"""Projected gradient descent on the losses of `expunge.methods.convex`, with what is proved of its contraction.

With the mean F/n of n rows, step η and a ball ‖w‖ ≤ R for each of the K vectors (P projects to the product of balls),

    w ← P(w − η ∇F(w)/n + s ξ),   ξ ~ N(0, I), s ≥ 0.                                                          (1)

Without its noise (1) is a contraction by c = max(|1 − ηm|, |1 − ηM|) < 1 for 0 < η < 2/M, since every Hessian lies
between m and M and P moves no two points apart; η = 2/(m+M) has the smallest c, (M−m)/(M+m). The minimiser lies in the
ball whatever the rows are (`Constants.radius`). Lengths below are of all K vectors as one: the constants of one vector
times √K.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from expunge.errors import DataError, RequestError
from expunge.methods.convex import UNIT, Constants, Float, Objective, normal

CHUNK = 4096
MOST = CHUNK * CHUNK  # rows: a sum of as many sums of as many products, whose rounding `rounding` bounds


@dataclass(frozen=True, kw_only=True)
class Descent:
    """The map (1) for K vectors of d features.

    Args:
        objective: the loss. vectors: K ≥ 1.
        step_size: η in (0, 2/M); None takes 2/(m+M).

    Raises:
        RequestError: η out of range.
    """

    objective: Objective
    vectors: int = 1
    step_size: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.step < 2 / self.constants.smoothness:
            raise RequestError(
                f"step_size is {self.step:g}, expected a number between 0 and 2/M = {2 / self.constants.smoothness:g}",
                "Leave it out, or lower it: beyond 2/M descent does not contract",
            )

    @cached_property
    def constants(self) -> Constants:
        return self.objective.constants()

    @property
    def step(self) -> float:
        c = self.constants
        return 2 / (c.strong_convexity + c.smoothness) if self.step_size is None else self.step_size

    @property
    def contraction(self) -> float:
        """c in [0, 1)."""
        return max(abs(1 - self.step * self.constants.strong_convexity), abs(1 - self.step * self.constants.smoothness))

    @property
    def reach(self) -> float:
        """No minimiser is farther from 0."""
        return self.constants.radius * math.sqrt(self.vectors)

    def minimiser_shift(self, removed: int, left: int) -> float:
        """How far the minimiser moves when `removed` rows go and `left` remain: at most r L √K / (m n).

        The sum over what is left is nm-strongly convex, and at the old minimiser its gradient is minus that of the
        removed rows (in the ball: by the variational inequalities of both minimisers).
        """
        return removed * self.constants.lipschitz * math.sqrt(self.vectors) / (self.constants.strong_convexity * left)

    def gradient_shift(self, removed: int, left: int) -> float:
        """How far ∇F/n moves anywhere in the ball: at most 2 r G √K / (n + r), G the bound of ‖∇ℓ‖; λw cancels."""
        return 2 * removed * self.constants.data_lipschitz * math.sqrt(self.vectors) / (removed + left)

    def steps_for(self, share: float) -> int:
        """The least J ≥ 0 with c^J ≤ `share`, rounded up."""
        if share >= 1:
            return 0
        if self.contraction == 0:
            return 1
        return math.ceil(math.log(share) / math.log(self.contraction) * (1 + 1e-12))

    def rounding(self, features: int) -> float:
        """How far the computed iterates may stay from those of real numbers, in total: the error of a step over 1 − c.

        Margins err by (d+2)u of C‖w‖, sums over rows (cut into pieces of `CHUNK`) by 2·`CHUNK` u, doubled for what is
        of second order; see `Objective.rounding`.
        """
        c = self.constants
        margins = (features + 2) * c.curvature * c.clip_norm * c.radius
        gradient = c.clip_norm * margins + (2 * CHUNK + 16) * c.data_lipschitz + 8 * c.regularisation * c.radius
        one = 2 * UNIT * (self.step * gradient + 8 * (c.radius + self.step * c.lipschitz))
        return one * math.sqrt(self.vectors) / (1 - self.contraction)

    def project(self, weights: Float) -> Float:
        """(K, d) each vector scaled down to the ball, where it is outside."""
        size = np.linalg.norm(weights, axis=1, keepdims=True)
        return np.asarray(weights * (self.constants.radius / np.maximum(size, self.constants.radius)))

    def run(
        self,
        weights: Float,
        z: Float,
        t: Float,
        steps: int,
        *,
        noise: float = 0.0,
        key: tuple[int, *tuple[str | int, ...]] = (0,),
    ) -> Float:
        """`steps` times (1).

        Args:
            weights: (K, d), where it begins, projected first. z: (n, d). t: (n, K).
            noise: s, standard deviation a step. key: seed and purpose of the noise.

        Raises:
            DataError: more rows than the bound of rounding covers.
        """
        if len(z) > MOST:
            raise DataError(f"there are {len(z)} rows and at most {MOST} are covered", "Learn from a sample of them")
        weights = self.project(weights)
        pieces = [slice(i, i + CHUNK) for i in range(0, len(z), CHUNK)]
        for k in range(steps):
            slopes = np.zeros_like(weights)
            for rows in pieces:
                slopes += self.objective.slopes(z[rows] @ weights.T, t[rows]).T @ z[rows]
            gradient = slopes / len(z) + self.objective.regularisation * weights
            moved = weights - self.step * gradient
            if noise:
                moved = moved + noise * normal(weights.shape, key[0], *key[1:], k)
            weights = self.project(moved)
        return weights
