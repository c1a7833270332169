"""Projected descent contracts as it says, and moves no more than it says when rows go."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.errors import DataError, RequestError
from expunge.methods import projected
from expunge.methods.convex import Objective, normal
from expunge.methods.projected import Descent

CASES = st.tuples(
    st.sampled_from(["logistic", "squared"]),
    st.sampled_from([1e-3, 1e-2, 0.3, 2.0]),
    st.sampled_from([0.3, 1.0, 2.0]),
    st.integers(0, 10**6),
)


def instance(loss: str, regularisation: float, clip: float, seed: int, *, vectors: int = 2, n: int = 12) -> tuple:
    rng = np.random.default_rng(seed)
    objective = Objective(loss=loss, regularisation=regularisation, clip_norm=clip)  # type: ignore[arg-type]
    z = objective.features(rng.normal(size=(n, 3)) * rng.choice([0.1, 1.0, 30.0]))
    t = rng.choice([-1.0, 1.0], size=(n, vectors))
    return objective, z, t, rng


def inside(descent: Descent, rng: np.random.Generator, d: int) -> np.ndarray:
    return descent.project(rng.normal(size=(descent.vectors, d)) * descent.constants.radius)


@given(case=CASES, share=st.floats(0.01, 0.99))
@settings(max_examples=60, deadline=None)
def test_a_step_brings_any_two_points_closer_by_c(case: tuple, share: float) -> None:
    objective, z, t, rng = instance(*case)
    for step in (None, share * 2 / objective.constants().smoothness):
        descent = Descent(objective=objective, vectors=2, step_size=step)
        assert 0 <= descent.contraction < 1
        u, v = inside(descent, rng, 4), inside(descent, rng, 4)
        apart = np.linalg.norm(descent.run(u, z, t, 1) - descent.run(v, z, t, 1))
        assert apart <= descent.contraction * np.linalg.norm(u - v) * (1 + 1e-12) + 1e-12
        # the default is the best step there is
        assert Descent(objective=objective).contraction <= descent.contraction + 1e-15


@given(case=CASES, removed=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_minimisers_lie_in_the_ball_and_move_no_more_than_stated(case: tuple, removed: int) -> None:
    objective, z, t, rng = instance(*case)
    descent = Descent(objective=objective, vectors=2)
    before = objective.solve(z, t, tolerance=1e-9).weights
    after = objective.solve(z[removed:], t[removed:], tolerance=1e-9).weights
    assert np.linalg.norm(before) <= descent.reach + 1e-9
    assert np.linalg.norm(before - after) <= descent.minimiser_shift(removed, len(z) - removed) + 1e-6
    w = inside(descent, rng, 4)
    gradients = [objective.gradient(w, a, b) / len(a) for a, b in ((z, t), (z[removed:], t[removed:]))]
    assert np.linalg.norm(gradients[0] - gradients[1]) <= descent.gradient_shift(removed, len(z) - removed) + 1e-12


def test_the_shift_of_the_minimiser_is_not_stated_far_too_large() -> None:
    """One row against many: with a strong penalty a minimiser moves by a third of the bound."""
    objective = Objective(loss="squared", regularisation=1.0, intercept=0.0)
    z, t = np.ones((11, 1)), np.ones((11, 1))
    t[0] = -1
    moved = abs(objective.solve(z, t).weights - objective.solve(z[1:], t[1:]).weights).item()
    assert moved > 0.3 * Descent(objective=objective).minimiser_shift(1, 10)


@pytest.mark.parametrize("loss", ["logistic", "squared"])
def test_without_noise_it_is_projected_gradient_descent(loss: str) -> None:
    objective, z, t, rng = instance(loss, 0.1, 1.0, 3)
    descent = Descent(objective=objective, vectors=2)
    w = start = inside(descent, rng, 4)
    for _ in range(5):
        w = w - descent.step * objective.gradient(w, z, t) / len(z)
        size = np.linalg.norm(w, axis=1, keepdims=True)
        w = np.where(size > descent.constants.radius, w / size * descent.constants.radius, w)
    np.testing.assert_allclose(descent.run(start, z, t, 5), w, atol=1e-14)
    # and converges to the minimiser at the rate it states
    found = objective.solve(z, t, tolerance=1e-12).weights
    steps = descent.steps_for(1e-6 / descent.reach)
    assert np.linalg.norm(descent.run(np.zeros((2, 4)), z, t, steps) - found) <= 1e-6
    assert np.linalg.norm(descent.run(np.zeros((2, 4)), z, t, steps // 4) - found) > 1e-6


def test_noise_is_added_before_the_projection_and_fresh_at_every_step() -> None:
    objective, z, t, _ = instance("logistic", 0.1, 1.0, 4)
    descent = Descent(objective=objective, vectors=2)
    w = np.zeros((2, 4))
    got = descent.run(w, z, t, 2, noise=0.3, key=(7, "here"))
    for k in range(2):
        w = w - descent.step * objective.gradient(w, z, t) / len(z) + 0.3 * normal((2, 4), 7, "here", k)
        w = descent.project(w)
    np.testing.assert_allclose(got, w, atol=1e-14)
    loud = descent.run(w, z, t, 1, noise=1e9, key=(7,))
    np.testing.assert_allclose(np.linalg.norm(loud, axis=1), descent.constants.radius)
    assert np.linalg.norm(loud) == pytest.approx(descent.reach)
    # a start outside the ball is brought into it before the first gradient is taken there
    np.testing.assert_array_equal(descent.run(3 * loud, z, t, 4), descent.run(descent.project(3 * loud), z, t, 4))
    assert np.linalg.norm(descent.run(3 * loud, z, t, 0)) <= descent.reach * (1 + 1e-15)


def test_rows_in_pieces_are_the_same_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    objective, z, t, _ = instance("logistic", 0.1, 1.0, 5, n=37)
    descent = Descent(objective=objective, vectors=2)
    whole = descent.run(np.zeros((2, 4)), z, t, 9)
    monkeypatch.setattr(projected, "CHUNK", 5)
    np.testing.assert_allclose(descent.run(np.zeros((2, 4)), z, t, 9), whole, rtol=1e-12)
    monkeypatch.setattr(projected, "MOST", 36)
    with pytest.raises(DataError, match="at most 36"):
        descent.run(np.zeros((2, 4)), z, t, 1)


@pytest.mark.parametrize("loss", ["logistic", "squared"])
def test_rounding_stays_within_its_bound(loss: str) -> None:
    objective, z, t, rng = instance(loss, 1e-3, 1.0, 6, n=50)
    descent = Descent(objective=objective, vectors=2)
    start = inside(descent, rng, 4)
    exact, z_, t_ = start.astype(np.longdouble), z.astype(np.longdouble), t.astype(np.longdouble)
    for _ in range(400):
        s = exact @ z_.T
        slopes = -t_.T / (1 + np.exp(t_.T * s)) if loss == "logistic" else s - t_.T
        exact = exact - descent.step * (slopes @ z_ / len(z) + objective.regularisation * exact)
        size = np.linalg.norm(exact, axis=1, keepdims=True)
        exact = exact * (descent.constants.radius / np.maximum(size, descent.constants.radius))
    error = float(np.linalg.norm(descent.run(start, z, t, 400) - exact))
    assert 0 < error <= descent.rounding(4) < 1e-7


def test_steps_for_is_the_least_number() -> None:
    descent = Descent(objective=Objective(regularisation=0.05))
    for share in (0.9, 0.5, 1e-3, 1e-12):
        steps = descent.steps_for(share)
        assert descent.contraction**steps <= share * (1 + 1e-9) and descent.contraction ** (steps - 1) > share
    assert descent.steps_for(1.0) == descent.steps_for(2.0) == 0


def test_refuses_a_step_that_does_not_contract() -> None:
    objective = Objective(regularisation=0.05)
    for step in (0.0, -1.0, 2 / objective.constants().smoothness, float("nan")):
        with pytest.raises(RequestError, match="step_size"):
            Descent(objective=objective, step_size=step)
