"""Linear models before and after single deletions, each fitted to the end: what `attacks.reconstruction` reads.

Every "after" is what exact unlearning yields, since it is what a fit without the row yields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from expunge.data.records import Array, Records
from expunge.errors import ModelError
from expunge.evaluation.attacks.reconstruction import LinearFit
from expunge.evaluation.metrics.checks import Floats

if TYPE_CHECKING:
    from expunge.methods.exact.ridge import Ridge


class Pairs(NamedTuple):
    """``before`` (features + 1, outputs) and ``after`` (deletions, features + 1, outputs), intercepts last; the fit."""

    before: Floats
    after: Floats
    fit: LinearFit


def ridge_pairs(learner: Ridge, records: Records, ids: Sequence[str]) -> Pairs:
    """A ridge learner before and after it forgot each of `ids`, one at a time.

    Raises:
        ModelError: the learner fits no intercept.
    """
    if not learner.fit_intercept:
        raise ModelError("this ridge regression has no intercept", "Call `attacks.reconstruction` on its coefficients")
    state = learner.fit(records)

    def weights(model: Mapping[str, Array]) -> Floats:
        return np.append(model["coefficients"], model["intercept"])[:, None]

    after = [weights(learner.forget(state.copy(), [i])[0].parts["model"]) for i in ids]
    fit = LinearFit(rows=len(records) - 1, regularization=learner.alpha)
    return Pairs(weights(state.parts["model"]), np.stack(after), fit)


def softmax_pairs(x: Floats, y: Array, rows: Sequence[int], *, regularization: float) -> Pairs:
    """Softmax regression before and after each of `rows` was left out.

    Args:
        x: ``(n, d)`` features, or a frozen embedding of them. y: ``(n,)`` class numbers. rows: row numbers to delete.
        regularization: λ > 0 on the weights, not on the intercepts.

    Raises:
        ModelError: a fit does not converge.
    """
    wanted = np.eye(int(y.max()) + 1)[y]
    before = softmax_fit(x, wanted, regularization)
    step = _Newton(x, before, regularization)
    after = [step.refit(np.delete(x, r, 0), np.delete(wanted, r, 0)) for r in rows]
    fit = LinearFit(rows=len(x) - 1, regularization=regularization, link="softmax")
    return Pairs(before, np.stack(after), fit)


def softmax_fit(x: Floats, wanted: Floats, regularization: float) -> Floats:
    """Minimiser ``(d + 1, classes)`` of Σ cross-entropy + (λ/2)‖W‖², the intercepts unpenalised.

    Args:
        x: ``(n, d)``. wanted: ``(n, classes)`` one-hot.

    Raises:
        ModelError: the gradient does not vanish.
    """
    shape = (x.shape[1] + 1, wanted.shape[1])

    def flat(weights: Floats) -> tuple[float, Floats]:
        value, gradient = _loss(x, wanted, regularization, weights.reshape(shape))
        return value, gradient.ravel()

    options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 0.0, "gtol": 1e-5, "maxcor": 30}
    found = minimize(flat, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options=options).x.reshape(shape)
    return _Newton(x, found, regularization).refit(x, wanted)


class _Newton:
    """Newton's method whose first factor of the Hessian serves all fits near `weights`.

    What a deletion changes is as small as the gradient of one well-answered row: a fit has to end far below that.
    """

    def __init__(self, x: Floats, weights: Floats, regularization: float) -> None:
        self.start, self.regularization = weights, regularization
        self.factor = self._factor(x, weights)

    def refit(self, x: Floats, wanted: Floats) -> Floats:
        """The minimiser on these rows.

        Raises:
            ModelError: the gradient does not fall below 1e-9.
        """
        weights, factor = self.start, self.factor
        value, gradient = _loss(x, wanted, self.regularization, weights)
        for _ in range(200):
            largest = float(np.abs(gradient).max())
            if largest < 1e-9:
                return weights
            step = cho_solve(factor, gradient.ravel()).reshape(weights.shape)
            share = 1.0
            while share > 1e-6:
                value_after, gradient_after = _loss(x, wanted, self.regularization, weights - share * step)
                if value_after <= value + 1e-13 * abs(value):  # at the end it is rounding that decides
                    break
                share /= 2
            weights, value, gradient = weights - share * step, value_after, gradient_after
            if not float(np.abs(gradient).max()) < largest / 2:
                factor = self._factor(x, weights)
        raise ModelError(
            f"softmax regression did not converge: largest gradient {largest:.1e}",
            "Scale the features, or raise the regularization",
        )

    def _factor(self, x: Floats, weights: Floats) -> Any:
        """Cholesky factor of the Hessian at `weights`."""
        design = _design(x)
        said = _probabilities(design @ weights)
        width, classes = weights.shape
        hessian = np.zeros((width, classes, width, classes))
        for a in range(classes):
            for b in range(classes):
                weight = said[:, a] * ((a == b) - said[:, b])
                hessian[:, a, :, b] = design.T @ (weight[:, None] * design)
        # Moving all intercepts alike changes nothing: that direction gets a curvature, as the gradient has none in it.
        hessian[-1, :, -1, :] += 1.0
        square = hessian.reshape(width * classes, width * classes)
        square.flat[:: len(square) + 1] += np.broadcast_to(_penalty(width, self.regularization), weights.shape).ravel()
        return cho_factor(square)


def _design(x: Floats) -> Floats:
    return np.hstack([x, np.ones((len(x), 1))])


def _penalty(width: int, regularization: float) -> Floats:
    penalty = np.full((width, 1), regularization)
    penalty[-1] = 0.0
    return penalty


def _probabilities(logits: Floats) -> Floats:
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def _loss(x: Floats, wanted: Floats, regularization: float, weights: Floats) -> tuple[float, Floats]:
    design, penalty = _design(x), _penalty(len(weights), regularization)
    logits = design @ weights
    logits -= logits.max(axis=1, keepdims=True)
    value = np.log(np.exp(logits).sum(axis=1)).sum() - (logits * wanted).sum() + 0.5 * (penalty * weights**2).sum()
    return float(value), design.T @ (_probabilities(logits) - wanted) + penalty * weights
