"""Ridge regression whose inverse is downdated: forgetting m of n rows in d features costs O(m d²), whatever n is.

Cao & Yang 2015, *Towards Making Systems Forget with Machine Unlearning* (IEEE S&P, doi 10.1109/SP.2015.35): a model
that is a function of sums forgets by subtracting. Here the sums are the means μ and the scatter
S = Σ (v−μ)(v−μ)ᵀ of v = (x, y), and the model solves

    A w = b,  A = S_xx + αI,  b = S_xy,  intercept = μ_y − μ_x·w,                                            (1)

which is the least-squares solution with an intercept that is not penalised. Without the rows U, with D = U − μ,
s = Σ D and m = |U| (Welford 1962, Technometrics 4(3), and Chan, Golub & LeVeque 1979, STAN-CS-79-773, run backwards),

    μ' = μ − s/(n−m),   S' = S − DᵀD − ssᵀ/(n−m) = S − VᵀV,   V = [D; s/√(n−m)],                              (2)

and with P = A⁻¹ (Woodbury 1950; Sherman & Morrison 1950 for one row)

    P' = P + P Vᵀ (I − V P Vᵀ)⁻¹ V P,   w' = P' b'.                                                           (3)

**Exact in real arithmetic only.** Three things are measured at every `forget`, each in O(d²):

- `smallest_remainder`, the least eigenvalue of I − VPVᵀ (1 − vᵀPv for one row): near 0, (3) divides rounding errors
  by it. Below the hyper-parameter of that name P' is factored anew from A'.
- `inverse_residual`, A'P'Z against Z for four fixed vectors of signs Z, and `coefficient_drift`, what one step of
  iterative refinement still moves w': the first-order distance from a fresh solve. Above `tolerance`, P' and w' are
  made anew from A'.
- `sum_drift`: SZ is also kept as Σ (v−μ)((v−μ)ᵀZ), summed by another route, as checksums of a matrix are (Huang &
  Abraham 1984, IEEE Trans. Computers C-33(6)). The two differ by the rounding that S has gathered since the last fit,
  and no counter is kept that would tell of the past. Above `tolerance`, all is made anew from the remaining rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from expunge.data.records import Array, Records
from expunge.data.splits import unit_hash
from expunge.errors import DataError, ModelError, RequestError
from expunge.methods.learner import Job, Learned, Learner, Part, State

Float = npt.NDArray[np.float64]

CHUNK = 8192
PROBES = 4
ROUNDING = float(np.finfo(np.float64).eps)
SMALLEST = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, kw_only=True)
class _Sums:
    """What the model is a function of.

    Args:
        alpha: the penalty. count: n. mean: (2, d+1), μ as the sum of two rows, which has twice the digits: rounding
            errors of μ would grow with the mean and not with the spread, and no checksum of S would show them.
        scatter: (d+1, d+1), S. signs: (d+1, PROBES), Z. checksum: (d+1, PROBES), SZ.
    """

    alpha: float
    count: int
    mean: Float
    scatter: Float
    signs: Float
    checksum: Float

    @property
    def features(self) -> int:
        return len(self.scatter) - 1

    @cached_property
    def matrix(self) -> Float:
        """(d, d) A."""
        matrix = self.scatter[:-1, :-1].copy()
        matrix.flat[:: len(matrix) + 1] += self.alpha
        return matrix

    @property
    def target(self) -> Float:
        """(d,) b."""
        return self.scatter[:-1, -1]

    @cached_property
    def sizes(self) -> Float:
        """(d+1,) root of the diagonal of A and of S_yy, not below what rounding the mean alone does to it."""
        diagonal = self.scatter.diagonal() + (self.count * ROUNDING**2) * self.mean[0] ** 2
        diagonal[:-1] += self.alpha
        return np.asarray(np.sqrt(np.maximum(diagonal, SMALLEST, out=diagonal), out=diagonal))

    def drift(self) -> float:
        """Largest difference between SZ and its checksum, as a share of what a row of S can add up to."""
        error = np.abs(self.scatter @ self.signs - self.checksum) / self.sizes[:, None]
        return float(error.max() / self.sizes.sum())


@dataclass(frozen=True, kw_only=True)
class Ridge(Learner):
    """Linear regression with a quadratic penalty.

    Args:
        alpha: weight of the penalty α‖w‖², ≥ 0; with 0 the features must be linearly independent.
        fit_intercept: fit an intercept, unpenalised; otherwise it is 0 and nothing is centred.
        smallest_remainder: in (0, 1); below it the inverse is not downdated but factored anew.
        tolerance: > 0; drift (see above; relative) above which things are made anew.

    This differs from a plain fit in:
        1. Libraries that were weighed: scikit-learn's `Ridge` and river's `BayesianLinearRegression` (which adds rows
           by Sherman-Morrison) cannot take a row away; neither SciPy nor NumPy downdates a Cholesky factor.
        2. The scatter is kept about the mean, not as sums of products: the latter lose as many digits again as the
           mean is larger than the spread.
    """

    name: ClassVar[str] = "ridge"
    summary: ClassVar[str] = "Ridge regression: the inverse and the sums are downdated, with a guard against drift"
    paper: ClassVar[str] = "Cao & Yang 2015 (IEEE S&P); Sherman & Morrison 1950; Woodbury 1950"
    equality: ClassVar[str | None] = "real_arithmetic"
    task: ClassVar[str] = "regression"

    alpha: float = 1.0
    fit_intercept: bool = True
    smallest_remainder: float = 1e-3
    tolerance: float = 1e-9

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < math.inf:
            raise RequestError(f"alpha is {self.alpha!r}, expected a finite number ≥ 0", "Give 0 for no penalty")
        if not 0 < self.smallest_remainder < 1:
            raise RequestError(
                f"smallest_remainder is {self.smallest_remainder!r}, expected a number between 0 and 1", "Try 1e-3"
            )
        if not 0 < self.tolerance < math.inf:
            raise RequestError(f"tolerance is {self.tolerance!r}, expected a finite number > 0", "Try 1e-9")

    def check(self, records: Records) -> None:
        super().check(records)
        if records.x.ndim != 2 or not records.x.shape[1]:
            raise DataError(
                f"features have shape {records.x.shape}, expected (n, d)", "Give a flat row of numbers each"
            )
        if not np.issubdtype(records.y.dtype, np.number):
            raise DataError(f"targets are {records.y.dtype}, expected numbers", "Give one number a record")

    def learn(self, records: Records, *, seed: int, job: Job) -> Learned:
        sums = self._sum(records, seed)
        inverse = self._factor(sums)
        coefficients = self._solve(sums, inverse, np.zeros(sums.features), {})
        return self._learned(sums, inverse, coefficients, len(records), ())

    def remove(self, state: State, ids: tuple[str, ...], *, job: Job) -> Learned:
        where = state.rows.at(ids)
        gone = _values(state.rows.column("x")[where], state.rows.column("y")[where])
        sums, vectors = self._downdate(self._sums(state), gone)
        event: dict[str, Any] = {"event": "downdate", "rows": len(ids), "sum_drift": sums.drift()}
        # comparisons are written so that NaN, too, makes things anew
        if not event["sum_drift"] <= self.tolerance:
            return self._from_rows(state, ids, event, job)
        old = state.parts["model"]["coefficients"]
        inverse, remainder = self._woodbury(state.parts["inverse"]["inverse"], vectors)
        if remainder is not None:
            event["smallest_remainder"] = remainder
        if inverse is not None:
            coefficients = self._solve(sums, inverse, old, event)
            if max(event["inverse_residual"], event["coefficient_drift"]) <= self.tolerance:
                event["made_again"] = "nothing"
                return self._learned(sums, inverse, coefficients, len(ids), (event,))
        try:
            inverse = self._factor(sums)
        except ModelError:
            # the sums may have lost what the rows still have; if they have not, this refuses as well
            return self._from_rows(state, ids, event, job)
        coefficients = self._solve(sums, inverse, old, event)
        event["made_again"] = "inverse"
        return self._learned(sums, inverse, coefficients, len(ids), (event,))

    def _from_rows(self, state: State, ids: tuple[str, ...], event: dict[str, Any], job: Job) -> Learned:
        remaining = state.rows.without(ids)
        fresh = self.learn(remaining, seed=state.seed, job=job)
        if not math.isfinite(event["sum_drift"]):
            event["sum_drift"] = None  # JSON has no NaN
        return replace(fresh, trace=({**event, "made_again": "everything"},))

    def predict(self, state: State, x: Array) -> Float:
        """(n,) float64 for (n, d) features.

        Raises:
            ModelError: another number of features.
        """
        model = state.parts["model"]
        if x.ndim != 2 or x.shape[1] != len(model["coefficients"]):
            raise ModelError(
                f"features have shape {x.shape}, expected (n, {len(model['coefficients'])})",
                "Give the columns that the model was fitted on",
            )
        return np.asarray(np.asarray(x, np.float64) @ model["coefficients"] + model["intercept"][0], np.float64)

    def drift(self, state: State, fresh: Mapping[str, Part]) -> float:
        """Largest difference from a fresh fit on what remains, free of the units of the columns.

        Coefficients count by what a feature's spread then changes in a prediction, as a share of y's root mean square;
        the intercept by the same at the means; entries of matrices as shares of the sizes of their row and column.
        """
        scale = {**state.parts, **fresh}
        sums = self._sums(replace(state, parts=scale))
        sizes = sums.sizes.copy()
        sizes[-1] = math.sqrt(max(sums.scatter[-1, -1], 0.0) + sums.count * sums.mean[0, -1] ** 2) or 1.0
        effects = sizes[-1] / sizes[:-1]
        reach = sizes[-1] / math.sqrt(sums.count) + float(np.abs(sums.mean[0, :-1]) @ effects)
        means = np.sqrt(sizes**2 / sums.count + sums.mean[0] ** 2)
        inverse = np.sqrt(np.diag(scale["inverse"]["inverse"]))
        units = {
            ("model", "coefficients"): effects,
            ("model", "intercept"): reach,
            ("sums", "mean"): means,
            ("sums", "scatter"): np.outer(sizes, sizes),
            ("inverse", "inverse"): np.outer(inverse, inverse),
            ("check", "signs"): 1.0,
            ("check", "checksum"): sizes[:, None] * sizes.sum(),
        }
        if len(sizes) != len(state.parts["sums"]["scatter"]):
            return math.inf
        worst = 0.0
        for (part, key), unit in units.items():
            if part not in fresh:
                continue
            mine, theirs = np.asarray(state.parts[part][key]), np.asarray(fresh[part][key])
            worst = max(worst, float(np.max(np.abs(mine - theirs) / unit)))
        return worst

    def extra_bytes(self, state: State) -> int:
        return state.stored_bytes - sum(array.nbytes for array in state.parts["model"].values())

    # --- the steps ----------------------------------------------------------------------------------------------------

    def _sum(self, records: Records, seed: int) -> _Sums:
        """Means, then the scatter about them, in float64 and in chunks of rows."""
        x, y, n = records.x, records.y, len(records)
        chunks = [slice(i, i + CHUNK) for i in range(0, n, CHUNK)]
        width = x.shape[1] + 1
        mean = np.zeros((2, width))
        if self.fit_intercept:
            for rows in chunks:
                mean[0, :-1] += x[rows].sum(axis=0, dtype=np.float64)
                mean[0, -1] += y[rows].sum(dtype=np.float64)
            mean[0] /= n
        names = np.array([f"{i} {k}" for i in range(width) for k in range(PROBES)])
        signs = np.where(unit_hash(names, f"ridge {seed}") < 0.5, -1.0, 1.0).reshape(width, PROBES)
        scatter, checksum, left = np.zeros((width, width)), np.zeros((width, PROBES)), np.zeros(width)
        for rows in chunks:
            centred = _values(x[rows], y[rows]) - mean[0]
            scatter += centred.T @ centred
            checksum += centred.T @ (centred @ signs)
            left += centred.sum(axis=0)
        if self.fit_intercept:
            mean = _moved(mean, left / n)  # by what rounding left of it
            scatter -= np.outer(left, left / n)
            checksum -= np.outer(left, (left / n) @ signs)
        if not np.isfinite(scatter).all():
            raise DataError("sums of squares of the features or targets overflow", "Scale those columns down")
        return _Sums(alpha=self.alpha, count=n, mean=mean, scatter=scatter, signs=signs, checksum=checksum)

    def _sums(self, state: State) -> _Sums:
        sums, check = state.parts["sums"], state.parts["check"]
        return _Sums(
            alpha=self.alpha,
            count=len(state.rows),
            mean=sums["mean"],
            scatter=sums["scatter"],
            signs=check["signs"],
            checksum=check["checksum"],
        )

    def _downdate(self, sums: _Sums, gone: Float) -> tuple[_Sums, Float]:
        """Equation (2): the sums without the values `gone` (m, d+1), and V (m or m+1, d+1)."""
        n, m = sums.count, len(gone)
        vectors, mean = gone, sums.mean
        if self.fit_intercept:
            vectors = (gone - mean[0]) - mean[1]
            total = vectors.sum(axis=0) if m > 1 else vectors[0]
            mean = _moved(mean, total / (m - n))
            # of one row the two rows of V are parallel, and their sum is one row
            factor = math.sqrt(n / (n - 1))
            vectors = vectors * factor if m == 1 else np.vstack([vectors, total / math.sqrt(n - m)])
        after = _Sums(
            alpha=self.alpha,
            count=n - m,
            mean=mean,
            scatter=sums.scatter - _products(vectors.T),
            signs=sums.signs,
            checksum=sums.checksum - vectors.T @ (vectors @ sums.signs),
        )
        return after, vectors

    def _woodbury(self, inverse: Float, vectors: Float) -> tuple[Float | None, float | None]:
        """Equation (3) and the smallest remainder; no inverse where a factorisation is cheaper or safer."""
        v = vectors[:, :-1]
        if len(v) > len(inverse):
            return None, None
        image = inverse @ v.T
        if len(v) == 1:
            values, axes = 1.0 - (v @ image)[0], None
        else:
            values, axes = np.linalg.eigh(np.eye(len(v)) - v @ image)
        remainder = float(values[0])
        if not remainder >= self.smallest_remainder:
            return None, remainder
        step = (image if axes is None else image @ axes) / np.sqrt(values)
        return inverse + _products(step), remainder

    def _factor(self, sums: _Sums) -> Float:
        """(d, d) A⁻¹ by Cholesky, of A scaled to a unit diagonal.

        Raises:
            ModelError: A is singular as far as float64 can tell.
        """
        d = sums.features
        size = sums.sizes[:-1]
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # a negative diagonal, of sums gone bad, has no size
                triangle = np.linalg.cholesky(sums.matrix / np.outer(size, size))
        except np.linalg.LinAlgError:
            triangle = np.zeros((d, d))
        # a pivot is the share of a column's variance that the columns before it do not explain
        if not (triangle.diagonal() ** 2 > 4 * (d + 1) * ROUNDING).all():
            raise ModelError(
                f"the {d} features of {sums.count} records are linearly dependent and alpha is {self.alpha:g}",
                "Give a larger alpha, more records, or drop the features that repeat others",
            )
        half = np.linalg.solve(triangle, np.eye(d)) / size
        return np.asarray(half.T @ half)

    def _solve(self, sums: _Sums, inverse: Float, start: Float, event: dict[str, Any]) -> Float:
        """Coefficients by (1); what was measured of them and of the inverse goes into `event`."""
        solved = start + inverse @ (sums.target - sums.matrix @ start)
        step = inverse @ (sums.target - sums.matrix @ solved)
        sizes, signs = sums.sizes[:-1], sums.signs[:-1]
        # y's own size is the floor: where y does not depend on x the coefficients are nothing but rounding
        largest = max(np.abs(solved * sizes).max(), sums.sizes[-1])
        event["coefficient_drift"] = float(np.abs(step * sizes).max() / largest)
        units = sizes[:, None]
        image = sums.matrix @ (inverse @ (units * signs))
        event["inverse_residual"] = float(np.abs(image / units - signs).max())
        return np.asarray(solved + step)

    def _learned(
        self, sums: _Sums, inverse: Float, coefficients: Float, examples: int, trace: tuple[Mapping[str, Any], ...]
    ) -> Learned:
        mean = sums.mean.sum(axis=0)
        intercept = mean[-1] - mean[:-1] @ coefficients
        return Learned(
            parts={
                "model": {"coefficients": coefficients, "intercept": np.array([intercept])},
                "sums": {"mean": sums.mean, "scatter": sums.scatter},
                "inverse": {"inverse": inverse},
                "check": {"signs": sums.signs, "checksum": sums.checksum},
            },
            examples=examples,
            trace=trace,
        )


def _values(x: Array, y: Array) -> Float:
    """(m, d+1) float64: features and target side by side."""
    values = np.empty((len(x), x.shape[1] + 1))
    values[:, :-1], values[:, -1] = x, y
    return values


def _products(half: Float) -> Float:
    """(q, q) H Hᵀ for (q, m) H; the broadcast product is twice as fast for a single column."""
    return np.asarray(half * half.T if half.shape[1] == 1 else half @ half.T)


def _moved(mean: Float, by: Float) -> Float:
    """(2, q) the two-part numbers `mean` plus `by`, exact to twice the digits (Knuth's two-sum)."""
    high, low = mean
    total = high + by
    moved = total - high
    low = low + ((high - (total - moved)) + (by - moved))
    result = np.empty_like(mean)
    np.add(total, low, out=result[0])
    np.subtract(low, result[0] - total, out=result[1])
    return result
