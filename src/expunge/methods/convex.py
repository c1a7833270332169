"""Clipped, L2-regularised linear classifiers: value, gradient, Hessian, Newton solve, and constants that are proved.

A row is turned into a vector z with ‖z‖ ≤ C whatever it holds (`Objective.features`), and the loss of one row is

    f_i(w) = ℓ(w·z_i, t_i) + λ/2 ‖w‖²,    F(w) = Σ_i f_i(w)    (a sum over n rows, not a mean),               (1)

    logistic:  ℓ(s, t) = ln(1 + e^{−ts}),  |ℓ'| ≤ 1,   0 < ℓ'' ≤ 1/4,   |ℓ'''| ≤ √3/18
    squared:   ℓ(s, t) = (s − t)²/2,                    ℓ'' = 1,         ℓ''' = 0

with t = ±1. Two classes are one vector w; K > 2 classes are K vectors, one class against the rest each (`targets`), so
weights are always (K or 1, d).

`Objective.constants` derives what certified unlearning asks for from C and λ alone, never from rows: rows may be
deleted, and a constant that was read off them would tell of them.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from expunge.data.records import Array, Records
from expunge.errors import DataError, ModelError, NonFiniteLoss, RequestError
from expunge.training.seeds import derive

Float = npt.NDArray[np.float64]

LOSSES = ("logistic", "squared")
UNIT = float(np.finfo(np.float64).eps) / 2
STEPS, HALVINGS = 100, 60
CHUNK = 4096


@dataclass(frozen=True, kw_only=True)
class Constants:
    """What is known of every f_i of (1) before a row is seen.

    Args:
        clip_norm: C, the bound of ‖z‖. regularisation: λ.
        radius: R; minimisers of F lie in ‖w‖ ≤ R, whatever the rows are.
        lipschitz: L, of f_i on that ball. data_lipschitz: of ℓ(w·z, t) alone there, |ℓ'| C.
        smoothness: M, the largest eigenvalue of ∇²f_i. strong_convexity: m = λ, the smallest.
        curvature: sup ℓ''. curvature_lipschitz: γ = sup |ℓ'''|, of a number.
        hessian_lipschitz: γ C³, of w → ∇²f_i in the spectral norm.
    """

    clip_norm: float
    regularisation: float
    radius: float
    lipschitz: float
    data_lipschitz: float
    smoothness: float
    strong_convexity: float
    curvature: float
    curvature_lipschitz: float
    hessian_lipschitz: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Solution:
    """A minimiser as far as it was found.

    Args:
        weights: (K, d). residual: (K,) bounds of ‖∇F‖ there, rounding included. steps: Newton steps of all K together.
    """

    weights: Float
    residual: Float
    steps: int


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The loss (1).

    Args:
        loss: ``logistic`` or ``squared``.
        regularisation: λ > 0, of one row; F has λn/2 ‖w‖².
        clip_norm: C > 0; no row has a larger norm, its constant feature included.
        intercept: the constant feature is this share of C, in [0, 1); 0 for no intercept. The other features of a row
            are scaled down, where need be, to norm C √(1 − intercept²).
    """

    loss: Literal["logistic", "squared"] = "logistic"
    regularisation: float = 1e-3
    clip_norm: float = 1.0
    intercept: float = 0.5

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise RequestError(f"loss is {self.loss!r}, expected one of {', '.join(LOSSES)}", "Name one of them")
        for name in ("regularisation", "clip_norm"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise RequestError(f"{name} is {value!r}, expected a finite number > 0", "Try 1e-3 and 1")
        if not 0 <= self.intercept < 1:
            raise RequestError(
                f"intercept is {self.intercept!r}, expected a share in [0, 1)", "Give 0 for no intercept"
            )

    # --- rows ---------------------------------------------------------------------------------------------------------

    def features(self, x: Array) -> Float:
        """(n, d) float64 vectors z of (n, ...) features, each a function of its own row: clipped, with the constant."""
        flat = np.asarray(x, np.float64).reshape(len(x), math.prod(x.shape[1:]))
        # norms of large numbers overflow and those of tiny ones vanish: take them of rows whose largest entry is 1
        largest = np.abs(flat).max(axis=1, initial=0.0)
        scaled = flat / np.where(largest > 0, largest, 1.0)[:, None]
        norms = np.sqrt(np.einsum("ij,ij->i", scaled, scaled))
        bound = self.clip_norm * math.sqrt(1 - self.intercept**2)
        size = np.minimum(largest, bound / np.maximum(norms, 1.0))
        clipped = scaled * size[:, None]
        if not self.intercept:
            return np.asarray(clipped)
        return np.hstack([clipped, np.full((len(flat), 1), self.clip_norm * self.intercept)])

    def targets(self, y: Array, classes: int) -> Float:
        """(n, K) float64 of ±1 for (n,) class numbers: K = 1 for two classes, else one column a class.

        Raises:
            DataError: a class number that is not below `classes`.
        """
        if len(y) and int(y.max()) >= classes:
            raise DataError(
                f"there is a label {int(y.max())} and there are {classes} classes", "Number the classes from 0"
            )
        if classes == 2:
            return np.where(y == 1, 1.0, -1.0)[:, None]
        return np.where(y[:, None] == np.arange(classes), 1.0, -1.0)

    # --- the loss, summed over rows -----------------------------------------------------------------------------------

    def value(self, weights: Float, z: Float, t: Float) -> Float:
        """(K,) F in nats (or squared units) for weights (K, d), vectors (n, d) and targets (n, K)."""
        s = z @ weights.T
        losses = np.logaddexp(0.0, -t * s) if self.loss == "logistic" else (s - t) ** 2 / 2
        return np.asarray(losses.sum(axis=0) + self.regularisation * len(z) / 2 * (weights**2).sum(axis=1))

    def slopes(self, s: Float, t: Float) -> Float:
        """ℓ' at margins and targets of one shape."""
        return np.asarray(-t * expit(-t * s) if self.loss == "logistic" else s - t)

    def curvatures(self, s: Float) -> Float:
        """ℓ'' at margins, whatever the targets."""
        return np.asarray(expit(s) * expit(-s) if self.loss == "logistic" else np.ones_like(s))

    def gradient(self, weights: Float, z: Float, t: Float, *, count: int | None = None) -> Float:
        """(K, d) ∇F; divide by n for the mean. `count` is n where rows of `z` are holes: zeros, as in `t`."""
        n = len(z) if count is None else count
        return np.asarray(self.slopes(z @ weights.T, t).T @ z + self.regularisation * n * weights)

    def hessian(self, weights: Float, z: Float, *, count: int | None = None) -> Float:
        """(K, d, d) ∇²F; divide by n for the mean. `count` as in `gradient`."""
        curvatures = self.curvatures(z @ weights.T)
        hessian = np.zeros((len(weights), z.shape[1], z.shape[1]))
        for first in range(0, len(z), CHUNK):  # the weighted copy stays in the processor's cache
            rows = z[first : first + CHUNK]
            for k, c in enumerate(curvatures[first : first + CHUNK].T):
                hessian[k] += (rows * c[:, None]).T @ rows
        hessian[:, np.arange(z.shape[1]), np.arange(z.shape[1])] += self.regularisation * (
            len(z) if count is None else count
        )
        return hessian

    def rounding(self, weights: Float, z: Float) -> Float:
        """(K,) how far the norm of a computed `gradient` (K, d) may be from the true one's, for any order of summing.

        Sums of k products err by at most k u/(1−ku) of the sum of their sizes (Higham 2002, *Accuracy and Stability of
        Numerical Algorithms*, section 3.1), u = 2⁻⁵³: margins by (d+2)u of C‖w‖, so slopes by sup ℓ'' times that and a
        few u of their size, and n of them together by (n+8)u of n C sup|ℓ'|; doubled, for what is of second order.
        """
        n, d = z.shape
        size = np.sqrt((weights**2).sum(axis=1))
        slope = 1.0 if self.loss == "logistic" else self.clip_norm * size + 1.0
        margins = (d + 2) * self.constants().curvature * self.clip_norm * size
        sums = (n + 8) * slope
        return np.asarray(2 * UNIT * n * (self.clip_norm * (margins + sums) + 8 * self.regularisation * size))

    def solve(
        self,
        z: Float,
        t: Float,
        *,
        noise: Float | None = None,
        start: Float | None = None,
        tolerance: float = 1e-8,
    ) -> Solution:
        """Minimise F(w) + noise·w by Newton's method, damped so that the norm of the gradient falls at every step.

        Args:
            z: (n, d). t: (n, K). noise: (K, d), 0 by default. start: (K, d), 0 by default.
            tolerance: of ‖∇(F + noise·w)‖, ≥ 0; it ends as well where rounding lets nothing fall any more.

        Raises:
            ModelError: the tolerance is out of reach, by more than rounding. NonFiniteLoss.
        """
        K, d = t.shape[1], z.shape[1]
        weights = np.zeros((K, d)) if start is None else np.array(start, np.float64)
        steps, residual = 0, np.zeros(K)
        for k in range(K):
            b = 0.0 if noise is None else noise[k]
            w, column = weights[k], t[:, k : k + 1]
            gradient = self.gradient(w[None], z, column)[0] + b
            size = float(np.linalg.norm(gradient))
            for _ in range(STEPS):
                if not math.isfinite(size):
                    raise NonFiniteLoss("the convex solver", steps)
                if size <= tolerance:
                    break
                step = np.linalg.solve(self.hessian(w[None], z)[0], gradient)
                steps += 1
                for halving in range(HALVINGS):
                    trial = w - step / 2**halving
                    slope = self.gradient(trial[None], z, column)[0] + b
                    length = float(np.linalg.norm(slope))
                    if length < (1 - 1e-4 / 2**halving) * size:
                        w, gradient, size = trial, slope, length
                        break
                else:
                    break
            floor = float(self.rounding(w[None], z)[0]) + 4 * UNIT * float(np.linalg.norm(b))
            if size > max(tolerance, 4 * floor):
                raise ModelError(
                    f"Newton's method ended at a gradient of norm {size:.1e}, asked for {tolerance:.1e}",
                    "Raise the regularisation or the tolerance",
                )
            weights[k], residual[k] = w, size + floor
        return Solution(weights=weights, residual=residual, steps=steps)

    # --- constants ----------------------------------------------------------------------------------------------------

    def constants(self) -> Constants:
        """See `Constants`.

        R: at a minimiser nλ/2 ‖w‖² ≤ F(w) ≤ F(0), which is n ln 2 (logistic) or n/2 (squared); and nλ‖w‖ = ‖Σ ℓ' z‖,
        which is at most nC (for the squared loss because the mean of |s − t| is at most the root of 2F(0)/n = 1).
        """
        C, lam = self.clip_norm, self.regularisation
        logistic = self.loss == "logistic"
        radius = min(C / lam, math.sqrt((2 * math.log(2) if logistic else 1.0) / lam))
        data_lipschitz = C if logistic else C * (C * radius + 1)
        curvature, third = (0.25, math.sqrt(3) / 18) if logistic else (1.0, 0.0)
        return Constants(
            clip_norm=C,
            regularisation=lam,
            radius=radius,
            lipschitz=data_lipschitz + lam * radius,
            data_lipschitz=data_lipschitz,
            smoothness=curvature * C**2 + lam,
            strong_convexity=lam,
            curvature=curvature,
            curvature_lipschitz=third,
            hessian_lipschitz=third * C**3,
        )


def normal(shape: tuple[int, ...], seed: int, *purpose: str | int) -> Float:
    """Independent standard normal numbers, a function of the seed and the purpose alone (Philox)."""
    return np.random.Generator(np.random.Philox(key=derive(seed, *purpose))).standard_normal(shape)


def class_scores(weights: Float, z: Float) -> Float:
    """(n, classes) scores in nats: margins one against the rest, or ∓ half the margin of two classes."""
    s = z @ weights.T
    return np.hstack([-s / 2, s / 2]) if s.shape[1] == 1 else s


def linear_scores(objective: Objective, weights: Float, x: Array) -> Float:
    """`class_scores` of a linear model for (n, ...) features, as a learner answers them.

    Raises:
        ModelError: the features are not those that the weights were fitted on.
    """
    z = objective.features(x)
    if z.shape[1] != weights.shape[1]:
        raise ModelError(
            f"features have shape {x.shape} and the model has {weights.shape[1] - bool(objective.intercept)} of a row",
            "Give the columns that the model was fitted on",
        )
    return class_scores(weights, z)


def class_count(records: Records, declared: int | None = None) -> int:
    """How many classes there are: as declared, else as the records name, else the largest number seen.

    The last is read off rows: then the number of classes is public, for a deletion does not change it.

    Raises:
        DataError: more classes in the records than declared. RequestError: fewer than two declared.
    """
    seen = int(records.y.max()) + 1
    if declared is not None and declared < 2:
        raise RequestError(
            f"classes is {declared!r}, expected at least 2", "Leave it out to take what the records name"
        )
    if declared is not None and seen > declared:
        raise DataError(f"there is a label {seen - 1} and {declared} classes were declared", "Declare more classes")
    return declared or max(len(records.classes), seen, 2)


def spectral_norm_bound(z: Float) -> float:
    """A number ≥ ‖z‖₂ for (n, d) z, from the eigenvalues of the smaller Gram matrix.

    Power iteration approaches ‖z‖₂ from below, and a bound built on it is none. Here the error of the product (Higham
    2002, section 3.5) and of the eigen-solver (backward stable: Weyl's inequality) are added, then Frobenius' norm caps
    the sum.
    """
    n, d = z.shape
    if not z.size:
        return 0.0
    squares = float(np.einsum("ij,ij->", z, z)) * (1 + 4 * n * d * UNIT)
    gram = z.T @ z if d <= n else z @ z.T
    largest = float(np.linalg.eigvalsh(gram)[-1])
    slack = 2 * (max(n, d) + 64 * min(n, d)) * UNIT * squares
    return math.sqrt(min(max(largest, 0.0) + slack, squares)) * (1 + 4 * UNIT)
