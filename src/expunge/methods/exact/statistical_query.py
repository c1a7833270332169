"""Logistic regression by statistical queries: forgetting restarts from the old weights and converges again."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from expunge.data.records import Array, Records
from expunge.errors import DataError, ModelError, NonFiniteLoss, RequestError
from expunge.guarantee import Empirical, Guarantee
from expunge.methods.learner import Job, Learned, Learner, State
from expunge.methods.summation import chunks, class_count, flat

Floats = npt.NDArray[np.float64]

WEIGHTS = "weights"


@dataclass(frozen=True, kw_only=True)
class StatisticalQuery(Learner):
    """w minimises L(w) = (1/n) Σ_i −log softmax(W (x_i, 1))_{y_i} + (λ/2) ‖W‖², all of W, the intercepts too.

    An adaptive learner from sums: it asks for Σ_i ∇ℓ_i(w) and Σ_i ∇²ℓ_i(w) v at a w that the answers before determined.
    Newton's method with conjugate gradients asks until ‖∇L(w)‖ ≤ `tolerance`. To forget, it goes on from the old w with
    queries over what remains, which are fewer, and takes at least one step.

    The end depends on the start, and the old w had seen what must be forgotten: this is not exact. What it has is a
    bound. L is λ-strongly convex, hence ‖w − w*‖ ≤ ‖∇L(w)‖/λ, w* being the minimum without the forgotten records;
    whoever trains afresh has such a bound too, and the two differ by at most the sum. It is reported as
    ``distance_bound`` (Euclidean, in weights) in the facts of the state and in the trace; `bound_in_nats` turns it into
    log-probabilities. It counts the computed gradient, not the rounding in it, which is near 1e-15 of a feature's size.

    Paper: Cao & Yang, Towards Making Systems Forget with Machine Unlearning (IEEE S&P 2015), adaptive summation form.

    Args:
        l2: λ > 0. tolerance: > 0, of the gradient's Euclidean norm. iterations: of Newton's method, at most.

    Raises:
        ModelError: not converged, or other features than those that were learned from. NonFiniteLoss: the features
            overflow.

    This differs from the paper (code of the authors could not be found) in:
        1. Newton's method with conjugate gradients, scaled by the diagonal of the second derivative, instead of descent
           by the gradient: each is a sequence of sums over the records, and this one is short.
        2. The bound. The paper argues that a single point is converged to from anywhere.
        3. At least one step is taken, however short the gradient at the old weights is.
    """

    name: ClassVar[str] = "statistical_query"
    summary: ClassVar[str] = (
        "Logistic regression that converges again from the old weights, with a bound on the distance"
    )
    paper: ClassVar[str] = "Cao & Yang, IEEE S&P 2015"
    guarantee: ClassVar[type[Guarantee]] = Empirical
    equality: ClassVar[str | None] = None

    l2: float = 1e-2
    tolerance: float = 1e-8
    iterations: int = 100

    def __post_init__(self) -> None:
        if not (0 < self.l2 < math.inf and 0 < self.tolerance < math.inf) or self.iterations < 1:
            raise RequestError(
                "statistical_query needs finite l2 and tolerance > 0 and iterations of at least 1; got "
                f"{self.l2}, {self.tolerance} and {self.iterations}",
                "Correct its hyper-parameters: without the penalty there is no bound",
            )

    def reached(self, learned: Learned) -> Guarantee:
        return Empirical()

    def learn(self, records: Records, *, seed: int, job: Job) -> Learned:
        x, y = flat(records.x), records.y
        if y.ndim != 1:
            raise DataError(f"labels have shape {y.shape}, expected (n,)", "Give one class number a record")
        declared = len(records.classes)
        start = np.zeros((class_count(y, declared), x.shape[1] + 1))
        return self.converge(Queries(x, y, len(start), self.l2), start, declared, steps=0)

    def remove(self, state: State, ids: tuple[str, ...], *, job: Job) -> Learned:
        keep = state.rows.alive.copy()
        keep[state.rows.at(ids)] = False
        x, y = flat(state.rows.column("x"))[keep], state.rows.column("y")[keep]
        declared = int(state.facts["declared_classes"])
        # Without its last class, if that lost all records and is not declared by name, as a fresh fit would be.
        start = np.asarray(state.parts[WEIGHTS]["w"])[: class_count(y, declared)]
        return self.converge(Queries(x, y, len(start), self.l2), start, declared, steps=1)

    def converge(self, queries: Queries, w: Floats, declared: int, *, steps: int) -> Learned:
        """Newton's method from `w`, of at least `steps` steps; a step is halved until the gradient is shorter."""
        with np.errstate(over="ignore", invalid="ignore"):  # `length` refuses what overflows
            return self.newton(queries, w, declared, steps)

    def newton(self, queries: Queries, w: Floats, declared: int, steps: int) -> Learned:
        gradient = queries.gradient(w)
        norm, done = length(gradient, 0), 0
        while done < steps or norm > self.tolerance:
            if done == self.iterations:
                raise ModelError(
                    f"statistical_query has a gradient of norm {norm:.3g} after {done} iterations, expected "
                    f"{self.tolerance:.3g}",
                    "Raise `iterations` or `l2`, or scale the features to a variance near 1",
                )
            direction = conjugate_gradients(*queries.curvature(w), -gradient, min(0.5, math.sqrt(norm)) * norm)
            share = 1.0
            while True:
                trial = w + share * direction
                found = queries.gradient(trial)
                shorter = length(found, done)
                # Near the floor of rounding a step need not make the gradient shorter, and there is no need to.
                if shorter <= (1 - 1e-4 * share) * norm or shorter <= self.tolerance:
                    break
                share /= 2
                if share < 1e-10:
                    raise ModelError(
                        f"statistical_query is stuck at a gradient of norm {norm:.3g}, expected {self.tolerance:.3g}",
                        "Raise `tolerance`, or scale the features to a variance near 1: rounding forbids more",
                    )
            w, gradient, norm = trial, found, shorter
            done += 1
        facts: dict[str, Any] = {
            "declared_classes": declared,
            "gradient_norm": norm,
            "distance_bound": norm / self.l2,
        }
        trace = ({"stage": "converge", "iterations": done, "queries": queries.asked, **facts},)
        return Learned(parts={WEIGHTS: {"w": w}}, facts=facts, examples=queries.asked * len(queries.y), trace=trace)

    def predict(self, state: State, x: Array) -> Array:
        return np.asarray(np.argmax(self.scores(state, x), axis=1))

    def scores(self, state: State, x: Array) -> Array:
        """(n, classes) log-probabilities in nats, float64.

        Raises:
            ModelError: see the class.
        """
        w = np.asarray(state.parts[WEIGHTS]["w"])
        x = flat(x)
        if x.shape[1] + 1 != w.shape[1]:
            raise ModelError(
                f"records have {x.shape[1]} features and statistical_query learned from {w.shape[1] - 1}",
                "Give the same features in the same order",
            )
        logits = x.astype(np.float64) @ w[:, :-1].T + w[:, -1]
        logits -= logits.max(axis=1, keepdims=True)
        return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))

    def bound_in_nats(self, state: State, x: Array) -> Floats:
        """(n,) how far any log-probability of x (n, ...) can be from that of the minimum w*: √2 ‖(x, 1)‖ ‖w − w*‖.

        √2 is the largest norm of a gradient of log softmax.
        """
        wide = np.sqrt((flat(x).astype(np.float64) ** 2).sum(axis=1) + 1)
        return np.asarray(math.sqrt(2) * wide * state.facts["distance_bound"])


class Queries:
    """Sums over the records, asked for at weights (classes, d + 1).

    Args:
        x: (n, d). y: (n,) class numbers. classes: of the model. l2: λ.
    """

    def __init__(self, x: Array, y: Array, classes: int, l2: float) -> None:
        self.x, self.y, self.classes, self.l2 = x, y, classes, l2
        self.asked = 0

    def gradient(self, w: Floats) -> Floats:
        """∇L(w), (classes, d + 1)."""
        self.asked += 1
        total = np.zeros_like(w)
        for part in chunks(len(self.x), w.shape[1]):
            x = self.wide(part)
            p = softmax(x @ w.T)
            p[np.arange(len(p)), self.y[part]] -= 1
            total += p.T @ x
        return total / len(self.x) + self.l2 * w

    def curvature(self, w: Floats) -> tuple[Callable[[Floats], Floats], Floats]:
        """v ↦ ∇²L(w) v for v (classes, d + 1), and the diagonal of ∇²L(w) in the same shape."""
        self.asked += 1
        p = np.empty((len(self.x), self.classes))
        diagonal = np.zeros_like(w)
        for part in chunks(len(self.x), w.shape[1]):
            x = self.wide(part)
            p[part] = softmax(x @ w.T)
            diagonal += (p[part] * (1 - p[part])).T @ x**2

        def product(v: Floats) -> Floats:
            self.asked += 1
            total = np.zeros_like(w)
            for part in chunks(len(self.x), w.shape[1]):
                x = self.wide(part)
                along = p[part] * (x @ v.T)
                along -= p[part] * along.sum(axis=1, keepdims=True)
                total += along.T @ x
            return total / len(self.x) + self.l2 * v

        return product, diagonal / len(self.x) + self.l2

    def wide(self, part: slice) -> Floats:
        """(rows, d + 1) float64 features and a one."""
        rows = self.x[part]
        out = np.ones((len(rows), self.x.shape[1] + 1))
        out[:, :-1] = rows
        return out


def softmax(logits: Floats) -> Floats:
    """(n, classes) probabilities; the argument is overwritten."""
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    return logits


def length(gradient: Floats, step: int) -> float:
    """Euclidean norm.

    Raises:
        NonFiniteLoss: it is not finite.
    """
    norm = float(np.linalg.norm(gradient))
    if not math.isfinite(norm):
        raise NonFiniteLoss("statistical_query", step)
    return norm


def conjugate_gradients(product: Callable[[Floats], Floats], diagonal: Floats, right: Floats, enough: float) -> Floats:
    """An a with ‖H a − right‖ ≤ `enough`, or the best of as many steps as there are unknowns.

    Args:
        product: a ↦ H a, H positive definite. diagonal: of H, by which the unknowns are scaled.
    """
    solution, rest = np.zeros_like(right), right.copy()
    scaled = rest / diagonal
    direction, power = scaled.copy(), float(np.vdot(rest, scaled))
    for _ in range(right.size):
        if float(np.linalg.norm(rest)) <= enough:
            break
        image = product(direction)
        step = power / float(np.vdot(direction, image))
        solution += step * direction
        rest -= step * image
        scaled = rest / diagonal
        power, before = float(np.vdot(rest, scaled)), power
        direction = scaled + power / before * direction
    return solution
