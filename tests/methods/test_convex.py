"""The convex losses against finite differences and long doubles, their constants against rows made to break them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge

from expunge.data.records import Records
from expunge.errors import DataError, ModelError, RequestError
from expunge.methods.convex import (
    Objective,
    class_count,
    class_scores,
    normal,
    spectral_norm_bound,
)

LOSSES = ("logistic", "squared")


def data(objective: Objective, n: int = 40, d: int = 5, classes: int = 2, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)) * rng.exponential(2.0, (n, 1)), rng.integers(0, classes, n)
    return objective.features(x), objective.targets(y, classes)


# --- rows -------------------------------------------------------------------------------------------------------------


@given(
    rows=st.lists(
        st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=3, max_size=3), min_size=1, max_size=5
    ),
    clip=st.sampled_from([0.5, 1.0, 7.0]),
    share=st.sampled_from([0.0, 0.5, 0.9]),
)
@settings(deadline=None, max_examples=100)
def test_no_row_is_longer_than_the_clip_norm(rows: list[list[float]], clip: float, share: float) -> None:
    objective = Objective(clip_norm=clip, intercept=share)
    x = np.array(rows)
    z = objective.features(x)
    assert z.shape == (len(x), 3 + (share > 0)) and np.isfinite(z).all()
    assert (np.linalg.norm(z, axis=1) <= clip * (1 + 1e-12)).all()
    if share:
        np.testing.assert_allclose(z[:, -1], clip * share)
    for k in range(len(x)):
        np.testing.assert_array_equal(objective.features(x[k : k + 1])[0], z[k])


def test_short_rows_stay_as_they_are_and_long_ones_keep_their_direction() -> None:
    objective = Objective(clip_norm=2.0, intercept=0.6)
    x = np.array([[0.3, -0.4], [30.0, -40.0], [0.0, 0.0]])
    z = objective.features(x)
    np.testing.assert_allclose(z, [[0.3, -0.4, 1.2], [0.96, -1.28, 1.2], [0.0, 0.0, 1.2]])
    np.testing.assert_array_equal(objective.features(x.reshape(3, 1, 2)), z)


def test_targets() -> None:
    objective = Objective()
    np.testing.assert_array_equal(objective.targets(np.array([0, 1, 1]), 2), [[-1], [1], [1]])
    np.testing.assert_array_equal(objective.targets(np.array([0, 2]), 3), [[1, -1, -1], [-1, -1, 1]])
    with pytest.raises(DataError, match="label 2 and there are 2"):
        objective.targets(np.array([0, 2]), 2)


def test_scores_of_two_classes_are_log_odds() -> None:
    scores = class_scores(np.array([[1.0, 2.0]]), np.array([[3.0, -1.0]]))
    np.testing.assert_allclose(scores, [[-0.5, 0.5]])
    np.testing.assert_allclose(class_scores(np.eye(3), np.array([[3.0, -1.0, 2.0]])), [[3, -1, 2]])


def test_how_many_classes() -> None:
    def records(labels: list[int], names: tuple[str, ...] = ()) -> Records:
        columns = {"x": np.zeros((len(labels), 1)), "y": np.array(labels)}
        return Records(ids=np.arange(len(labels)).astype(str), columns=columns, classes=names)

    assert class_count(records([0, 0])) == 2
    assert class_count(records([0, 3])) == 4
    assert class_count(records([0, 1], ("a", "b", "c"))) == 3
    assert class_count(records([0, 1]), 5) == 5
    with pytest.raises(DataError):
        class_count(records([0, 3]), 3)
    with pytest.raises(RequestError):
        class_count(records([0, 0]), 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"loss": "hinge"},
        {"regularisation": 0.0},
        {"regularisation": math.inf},
        {"clip_norm": -1.0},
        {"intercept": 1.0},
        {"intercept": -0.1},
    ],
)
def test_refuses(wrong: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        Objective(**wrong)


# --- derivatives ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("classes", [2, 4])
def test_gradient_and_hessian_are_the_derivatives_of_the_value(loss: Any, classes: int) -> None:
    objective = Objective(loss=loss, regularisation=0.05, clip_norm=3.0)
    z, t = data(objective, classes=classes)
    w = np.random.default_rng(1).normal(size=(t.shape[1], z.shape[1]))
    gradient, hessian, h = objective.gradient(w, z, t), objective.hessian(w, z), 1e-5
    for j in range(z.shape[1]):
        e = h * np.eye(z.shape[1])[j]
        rise = (objective.value(w + e, z, t) - objective.value(w - e, z, t)) / (2 * h)
        np.testing.assert_allclose(rise, gradient[:, j], rtol=1e-6, atol=1e-7)
        bend = (objective.gradient(w + e, z, t) - objective.gradient(w - e, z, t)) / (2 * h)
        np.testing.assert_allclose(bend, hessian[:, j], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("loss", LOSSES)
def test_holes_count_for_nothing(loss: Any) -> None:
    objective = Objective(loss=loss, regularisation=0.1)
    z, t = data(objective)
    w = np.random.default_rng(1).normal(size=(1, z.shape[1]))
    holes, empty = z.copy(), t.copy()
    holes[[3, 7]], empty[[3, 7]] = 0, 0
    left = np.delete(z, [3, 7], axis=0), np.delete(t, [3, 7], axis=0)
    np.testing.assert_allclose(objective.gradient(w, holes, empty, count=38), objective.gradient(w, *left), rtol=1e-12)
    np.testing.assert_allclose(objective.hessian(w, holes, count=38), objective.hessian(w, left[0]), rtol=1e-12)


def test_hessians_of_many_rows_are_sums_over_chunks() -> None:
    objective = Objective()
    z, _ = data(objective, n=9000, d=3)
    w = np.ones((1, 4))
    s = (z @ w.T)[:, 0]
    curvature = 1 / (2 + np.exp(s) + np.exp(-s))
    expected = (z * curvature[:, None]).T @ z + 1e-3 * 9000 * np.eye(4)
    np.testing.assert_allclose(objective.hessian(w, z)[0], expected, rtol=1e-12)


@given(n=st.integers(1, 60), d=st.integers(1, 8), seed=st.integers(0, 9999), size=st.sampled_from([0.1, 10.0, 1e4]))
@settings(deadline=None, max_examples=60)
def test_rounding_is_bounded(n: int, d: int, seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    for loss in LOSSES:
        objective = Objective(loss=loss, clip_norm=2.0, regularisation=0.1)  # type: ignore[arg-type]
        z, t = data(objective, n=n, d=d, seed=seed)
        w = size * rng.normal(size=(1, z.shape[1]))
        Z, T, W = z.astype(np.longdouble), t.astype(np.longdouble), w.astype(np.longdouble)
        s = Z @ W.T
        slopes = s - T
        if loss == "logistic":
            small = np.exp(-abs(s))
            slopes = -T * np.where(T * s > 0, small, 1) / (1 + small)
        exact = slopes.T @ Z + np.longdouble(objective.regularisation) * n * W
        error = float(np.linalg.norm((objective.gradient(w, z, t) - exact).astype(np.float64)))
        assert error <= float(objective.rounding(w, z)[0])


# --- the solver -------------------------------------------------------------------------------------------------------


def test_the_minimisers_are_those_of_scikit_learn() -> None:
    logistic = Objective(regularisation=0.01)
    z, t = data(logistic, n=200)
    found = logistic.solve(z, t)
    theirs = LogisticRegression(C=1 / (0.01 * 200), fit_intercept=False, tol=1e-10, max_iter=1000).fit(z, t[:, 0])
    np.testing.assert_allclose(found.weights, theirs.coef_, atol=1e-6)
    squared = Objective(loss="squared", regularisation=0.01)
    ridge = Ridge(alpha=0.01 * 200, fit_intercept=False).fit(z, t[:, 0])
    np.testing.assert_allclose(squared.solve(z, t).weights[0], ridge.coef_, atol=1e-10)


@pytest.mark.parametrize("loss", LOSSES)
def test_solves_from_anywhere_with_noise_and_says_what_is_left(loss: Any) -> None:
    objective = Objective(loss=loss, regularisation=1e-4, clip_norm=10.0)
    z, t = data(objective, n=60, classes=3)
    b = normal((3, z.shape[1]), 0, "b")
    far = 1e3 * normal(b.shape, 0, "far")
    near, other = objective.solve(z, t, noise=b), objective.solve(z, t, noise=b, start=far)
    left = np.linalg.norm(objective.gradient(near.weights, z, t) + b, axis=1)
    assert (left <= near.residual).all() and (near.residual < 1e-7).all()
    np.testing.assert_allclose(near.weights, other.weights, atol=1e-5)
    assert objective.solve(z, t, noise=b, start=near.weights, tolerance=1e-6).steps == 0
    assert (objective.solve(z, t, tolerance=0.0).residual < 1e-9).all()  # rounding ends it, not an error


def test_the_solver_refuses_what_it_cannot_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("expunge.methods.convex.STEPS", 1)
    objective = Objective()
    with pytest.raises(ModelError, match="ended at a gradient"):
        objective.solve(*data(objective))


# --- constants --------------------------------------------------------------------------------------------------------


@given(
    loss=st.sampled_from(LOSSES),
    lam=st.sampled_from([1e-4, 1e-2, 1.0, 30.0]),
    clip=st.sampled_from([0.3, 1.0, 5.0]),
    seed=st.integers(0, 9999),
    aligned=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_constants_hold_whatever_the_rows(loss: Any, lam: float, clip: float, seed: int, aligned: bool) -> None:
    rng = np.random.default_rng(seed)
    objective = Objective(loss=loss, regularisation=lam, clip_norm=clip)
    known = objective.constants()
    n, d = int(rng.integers(1, 12)), int(rng.integers(1, 4))
    x = np.full((n, d), 1e6) if aligned else rng.normal(size=(n, d)) * 10.0 ** rng.integers(-3, 3)
    z = objective.features(x)
    t = np.ones((n, 1)) if aligned else rng.choice([-1.0, 1.0], (n, 1))
    assert np.linalg.norm(objective.solve(z, t, tolerance=1e-9).weights) <= known.radius * (1 + 1e-6)
    one, target = z[:1], t[:1]
    direction = rng.normal(size=(2, 1, z.shape[1])) + 3 * one * aligned
    u, v = known.radius * direction / np.linalg.norm(direction, axis=2, keepdims=True) * rng.random((2, 1, 1))
    rise = abs(objective.value(u, one, target) - objective.value(v, one, target))[0]
    assert rise <= known.lipschitz * np.linalg.norm(u - v) * (1 + 1e-9)
    assert np.linalg.norm(objective.gradient(u, one, target)) <= known.lipschitz * (1 + 1e-9)
    eigenvalues = np.linalg.eigvalsh(objective.hessian(u, one)[0])
    assert eigenvalues[-1] <= known.smoothness * (1 + 1e-9)
    assert eigenvalues[0] >= known.strong_convexity * (1 - 1e-9) - 1e-12
    change = np.linalg.norm(objective.hessian(u, one)[0] - objective.hessian(v, one)[0], 2)
    assert change <= known.hessian_lipschitz * np.linalg.norm(u - v) * (1 + 1e-9) + 1e-12


def test_constants_are_no_larger_than_they_must_be() -> None:
    known = Objective(regularisation=0.1, clip_norm=2.0).constants()
    s = np.linspace(-6, 6, 200_001)
    curvature = Objective().curvatures(s)
    assert known.curvature == pytest.approx(curvature.max())
    assert known.curvature_lipschitz == pytest.approx(np.abs(np.gradient(curvature, s)).max(), rel=1e-5)
    assert known.hessian_lipschitz == pytest.approx(8 * known.curvature_lipschitz)
    assert known.smoothness == pytest.approx(1.1) and known.strong_convexity == 0.1
    assert known.radius == pytest.approx(math.sqrt(2 * math.log(2) / 0.1))
    assert known.lipschitz == pytest.approx(2 + 0.1 * known.radius)
    assert Objective(regularisation=10.0).constants().radius == pytest.approx(0.1)
    squared = Objective(loss="squared", regularisation=0.25).constants()
    assert (squared.radius, squared.curvature, squared.hessian_lipschitz) == (2.0, 1.0, 0.0)
    assert squared.data_lipschitz == 3.0


# --- the spectral norm ------------------------------------------------------------------------------------------------


@given(n=st.integers(1, 30), d=st.integers(1, 30), rank=st.integers(1, 3), seed=st.integers(0, 9999))
@settings(deadline=None, max_examples=80)
def test_the_spectral_norm_is_bounded_from_above(n: int, d: int, rank: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, rank)) @ rng.normal(size=(rank, d))
    true = np.linalg.norm(z, 2)
    assert true * (1 - 1e-13) <= spectral_norm_bound(z) <= true * (1 + 1e-9)


def test_where_power_iteration_is_unsound_the_bound_is_not() -> None:
    # two nearly equal singular values: a few steps of power iteration stop between them, below the larger
    z = np.diag([1.0, 0.999])
    v = np.array([0.1, 1.0])
    for _ in range(10):
        v = z.T @ (z @ v)
        v /= np.linalg.norm(v)
    assert np.linalg.norm(z @ v) < 0.9995 and spectral_norm_bound(z) >= 1.0
    assert spectral_norm_bound(np.zeros((3, 2))) == 0.0
    assert spectral_norm_bound(np.zeros((0, 2))) == 0.0


def test_normal_numbers_are_a_function_of_seed_and_purpose() -> None:
    np.testing.assert_array_equal(normal((3,), 1, "a", 0), normal((3,), 1, "a", 0))
    assert not np.array_equal(normal((3,), 1, "a", 0), normal((3,), 1, "a", 1))
    assert not np.array_equal(normal((3,), 1, "a", 0), normal((3,), 2, "a", 0))
    many = normal((20_000,), 5)
    assert abs(many.mean()) < 0.03 and many.std() == pytest.approx(1, abs=0.02)
