"""Langevin unlearning: the stated divergence holds against closed forms, decays with steps, and survives sequences."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from expunge.accounting.concentrated import largest_rho
from expunge.accounting.ledger import Ledger
from expunge.data.records import Records
from expunge.errors import ModelError, RequestError
from expunge.guarantee import Certified
from expunge.methods.certified.langevin import Langevin, amplified
from expunge.methods.learner import State
from expunge.methods.projected import Descent


def table(n: int, *, classes: int = 2, seed: int = 0, d: int = 3) -> Records:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    x = rng.normal(size=(n, d)) * 0.3 + np.eye(classes, d)[y]
    ids = np.array([f"row-{k}" for k in range(n)])
    return Records(ids=ids, columns={"x": x, "y": y}, classes=tuple("abcdef"[:classes]))


def weights(state: State) -> np.ndarray:
    return np.asarray(state.parts["published.model"]["weights"])


@given(
    c=st.floats(0.0, 1.0),
    distance=st.floats(0.01, 10.0),
    noise=st.floats(0.01, 10.0),
    steps=st.integers(1, 60),
)
@settings(max_examples=80, deadline=None)
def test_amplification_is_that_of_a_linear_map_which_attains_it(
    c: float, distance: float, noise: float, steps: int
) -> None:
    """Points Z apart under w ← c w + noise end as two Gaussians c^K Z apart: their divergence is the bound itself."""
    variance = noise**2 * sum(c ** (2 * t) for t in range(steps))
    exact = (c**steps * distance) ** 2 / (2 * variance)
    assert amplified(distance, c, noise, steps) == pytest.approx(exact, rel=1e-6, abs=1e-300)


def test_it_decays_geometrically_and_like_one_over_k_without_strong_convexity() -> None:
    rhos = [amplified(1.0, 0.9, 1.0, k) for k in range(1, 80)]
    assert all(b < a for a, b in itertools.pairwise(rhos))
    assert rhos[70] / rhos[69] == pytest.approx(0.81, rel=1e-5)
    assert amplified(2.0, 1.0, 1.0, 50) == pytest.approx(4 / 100)
    assert amplified(1.0, 1 - 1e-13, 1.0, 50) == pytest.approx(1 / 100, rel=1e-6)
    assert amplified(0.0, 0.9, 1.0, 5) == 0


@given(
    seed=st.integers(0, 10**6),
    regularisation=st.sampled_from([0.1, 0.5, 2.0]),
    noise=st.sampled_from([0.02, 0.3]),
    share=st.sampled_from([0.3, 1.0, 1.5]),
    requests=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    least=st.integers(1, 4),
)
@settings(max_examples=50, deadline=None)
def test_a_quadratic_in_one_dimension_never_exceeds_the_stated_divergence(
    seed: int, regularisation: float, noise: float, share: float, requests: list[int], least: int
) -> None:
    """Gaussian laws of one variance, a ball that nothing reaches: exact Rényi divergence over a sequence of requests.

    Features are ±1, so that the curvature is the same for all rows: elsewhere the law of an unbounded Gaussian has
    another width, and it is the ball that bounds the distance.
    """
    rng = np.random.default_rng(seed)
    smoothness = 1 + regularisation
    learner = Langevin(
        loss="squared",
        regularisation=regularisation,
        noise=noise,
        fit_steps=400,
        intercept=0.0,
        step_size=share / smoothness,
    )
    descent = learner.descent()
    pulls = rng.choice([-1.0, 1.0], 20, p=[0.2, 0.8])
    factor = 1 - descent.step * smoothness
    variance = 2 * descent.step * noise**2 / (1 - factor**2)

    def mean(start: float, rows: int, steps: int) -> float:
        for _ in range(steps):
            start = factor * start + descent.step * float(pulls[-rows:].mean())
        return start

    left, now, before = 20, mean(0.0, 20, 400), 0.0
    for removed in requests:
        left -= removed
        now = mean(now, left, least)
        rho = learner.rho(least, removed, left, before=before)
        assert (now - mean(0.0, left, 400)) ** 2 / (2 * variance) <= rho * (1 + 1e-9) + 1e-15
        before = descent.contraction**least * learner.distance(least, removed, left, before=before)


def test_coupled_runs_stay_within_the_stated_distance() -> None:
    """Under common noise, a fit on fewer rows and the model before the request are never farther apart than Z."""
    learner = Langevin(regularisation=0.1, noise=0.1, fit_steps=60)
    descent = learner.descent()
    records = table(30)
    z, t = learner.objective.features(records.x), learner.objective.targets(records.y, 2)
    for removed, steps in ((1, 10), (5, 30), (20, 59), (1, 59)):
        for seed in range(8):
            noise = math.sqrt(2 * descent.step) * 0.1
            start = descent.run(np.zeros((1, 4)), z, t, steps, noise=noise, key=(seed, "head"))
            rest = learner.fit_steps - steps
            trained = descent.run(start, z, t, rest, noise=noise, key=(seed, "tail"))
            fresh = descent.run(np.zeros((1, 4)), z[removed:], t[removed:], rest, noise=noise, key=(seed, "tail"))
            assert np.linalg.norm(trained - fresh) <= learner.distance(steps, removed, 30 - removed)


def test_steps_are_the_fewest_within_the_budget() -> None:
    learner = Langevin(noise=0.05)
    most = largest_rho(1.0, 1e-5)
    steps = learner.steps_of(3, 1000)
    assert steps is not None and steps > 1
    assert learner.rho(steps, 3, 1000) <= most < learner.rho(steps - 1, 3, 1000)

    def taken(removed: int = 3, left: int = 1000, before: float = 0.0, **changes: object) -> int:
        found = Langevin(**{"noise": 0.05, **changes}).steps_of(removed, left, before=before)  # type: ignore[arg-type]
        assert found is not None
        return found

    assert taken(removed=30) > steps and taken(before=1.0) > steps and taken(left=100) > steps
    assert taken(noise=0.5) < steps and taken(epsilon=5.0) < steps and taken(delta=1e-2) < steps
    assert taken(least_steps=300) == 300


@given(seed=st.integers(0, 1000), requests=st.lists(st.integers(1, 10), min_size=1, max_size=4))
@settings(max_examples=8, deadline=None)
def test_a_sequence_never_exceeds_its_budget_and_carries_its_distance(seed: int, requests: list[int]) -> None:
    learner, records = Langevin(fit_steps=300, regularisation=0.05), table(80, seed=seed)
    state = learner.fit(records, seed=seed)
    assert Ledger.from_dict(state.facts["ledger"]).spent == 0 and state.facts["distance"] == 0
    for size in requests:
        before = state.facts["distance"]
        state, unlearned = learner.forget(state, state.rows.records().ids[:size].tolist())
        event, ledger = unlearned.trace[0], Ledger.from_dict(state.facts["ledger"])
        assume(not event["retrained"])
        assert not ledger.exhausted and 0 < ledger.spent <= 1.0
        assert event["epsilon_of_this_model"] == ledger.spent
        assert event["distance"] >= before
        shrunk = learner.descent().contraction ** event["steps"] * event["distance"]
        assert state.facts["distance"] == pytest.approx(shrunk, rel=1e-12)
        assert isinstance(unlearned.guarantee, Certified) and unlearned.guarantee.epsilon == 1.0
        assert event["constants"] == state.facts["constants"]


def test_forgetting_is_the_stated_number_of_noisy_steps_on_what_remains() -> None:
    learner, records = Langevin(noise=0.02), table(100, classes=3)
    state = learner.fit(records, seed=1)
    after, unlearned = learner.forget(state.copy(), ["row-5"])
    steps = unlearned.trace[0]["steps"]
    rest = after.rows.records()
    z, t = learner.objective.features(rest.x), learner.objective.targets(rest.y, 3)
    descent = learner.descent(3)
    quiet = descent.run(weights(state), z, t, steps)
    # each number differs from descent without noise by about the noise that is left of all steps
    flat = 1 - descent.step * learner.regularisation
    spread = descent.constants.smoothness**-0.5 * math.sqrt(2) * 0.02 / math.sqrt(1 - flat**2)
    size = np.abs(weights(after) - quiet)
    assert size.min() > 0 and size.max() < 6 * spread
    assert unlearned.cost.examples == 99 * steps
    assert learner.forget(state.copy(), ["row-5"])[0].digest() == after.digest()
    # two requests from one state do not share their noise: it would vanish from the difference of what they publish
    other, _ = learner.forget(state.copy(), ["row-6"])
    rest = other.rows.records()
    z, t = learner.objective.features(rest.x), learner.objective.targets(rest.y, 3)
    still = descent.run(weights(state), z, t, steps)
    one, two = weights(after) - quiet, weights(other) - still
    assert np.linalg.norm(one - two) > 0.5 * np.linalg.norm(one)


def test_with_next_to_no_noise_it_is_projected_gradient_descent() -> None:
    learner, records = Langevin(noise=1e-8, epsilon=1e20, fit_steps=6, least_steps=4), table(30)
    state = learner.fit(records)
    z, t = learner.objective.features(records.x), learner.objective.targets(records.y, 2)
    descent = learner.descent()
    plain = descent.run(np.zeros((1, 4)), z, t, 6)
    np.testing.assert_allclose(weights(state), plain, atol=1e-6)
    state, _ = learner.forget(state, ["row-0", "row-1", "row-2"])
    np.testing.assert_allclose(weights(state), descent.run(plain, z[3:], t[3:], 4), atol=1e-6)
    assert np.abs(weights(state) - descent.run(plain, z[3:], t[3:], 3)).max() > 1e-4


def test_it_learns_with_little_noise_and_its_state_is_what_is_published() -> None:
    records = table(300, classes=3)
    learner = Langevin(noise=0.003)
    state, _ = learner.forget(learner.fit(records), ["row-0"])
    assert (learner.predict(state, records.x) == records.y).mean() > 0.9
    assert set(state.parts) == {"published.model"} and learner.extra_bytes(state) == 0
    targets = learner.objective.targets(records.y, 3)
    best = learner.objective.solve(learner.objective.features(records.x), targets).weights
    assert np.linalg.norm(weights(state) - best) < 0.3 * np.linalg.norm(best)
    with pytest.raises(ModelError, match="columns"):
        learner.predict(state, np.zeros((2, 9)))


def test_where_no_number_of_steps_is_enough_it_fits_again_and_says_so() -> None:
    learner, records = Langevin(regularisation=1e-3, noise=1e-4, fit_steps=20), table(50)
    state = learner.fit(records, seed=2)
    after, unlearned = learner.forget(state, ["row-1"])
    event = unlearned.trace[0]
    assert event["retrained"] and "no number of steps" in event["why"] and event["steps"] == 20
    assert after.facts["distance"] == 0
    ledger = Ledger.from_dict(after.facts["ledger"])
    assert ledger.spent == 0 and ledger.retrains == 1
    np.testing.assert_array_equal(weights(after), weights(learner.fit(records.without(["row-1"]), seed=2)))


def test_fits_on_other_rows_do_not_share_their_noise() -> None:
    learner, records = Langevin(noise=10.0, fit_steps=5, regularisation=1.0), table(40)
    one = weights(learner.fit(records, seed=1))
    other = weights(learner.fit(records.without(["row-0"]), seed=1))
    assert np.abs(one - other).max() > 0.05


def test_releases_differ_by_no_more_than_the_claim_and_less_noise_is_caught() -> None:
    """One dimension, one odd row among six: Clopper-Pearson at 95% against the claim."""
    y = np.array([1, 1, 1, 1, 1, 0])
    ids = np.array([*(f"row-{k}" for k in range(5)), "odd"])
    records = Records(ids=ids, columns={"x": np.ones((6, 1)), "y": y}, classes=("a", "b"))
    rest = records.without(["odd"])
    # at a step of 1/M this instance would be solved by a single step
    learner = Langevin(
        loss="squared", regularisation=1.0, noise=0.3, fit_steps=30, intercept=0.0, delta=1e-2, step_size=0.2
    )
    unlearned, retrained = [], []
    for seed in range(250):
        state, _ = learner.forget(learner.fit(records, seed=seed), ["odd"])
        unlearned.append(weights(state).item())
        retrained.append(weights(learner.fit(rest, seed=10**6 + seed)).item())
    assert lower_bound(unlearned, retrained, 1e-2) <= 1.0
    descent = learner.descent()
    z, t = learner.objective.features(rest.x), learner.objective.targets(rest.y, 2)
    before = learner.objective.solve(learner.objective.features(records.x), learner.objective.targets(y, 2)).weights
    fresh = learner.objective.solve(z, t).weights
    cut = [
        [descent.run(w, z, t, 1, noise=0.002, key=(k, name)).item() for k in range(250)]
        for w, name in ((before, "a"), (fresh, "b"))
    ]
    assert lower_bound(*cut, 1e-2) > 1.0


def lower_bound(one: list[float], other: list[float], delta: float) -> float:
    half = len(one) // 2
    a, b = np.array(one), np.array(other)
    sign = 1 if a[:half].mean() > b[:half].mean() else -1
    at = sign * (a[:half].mean() + b[:half].mean()) / 2
    hits, alarms, m = int((sign * a[half:] > at).sum()), int((sign * b[half:] > at).sum()), len(a) - half
    low = stats.beta.ppf(0.025, hits, m - hits + 1) if hits else 0.0
    high = stats.beta.ppf(0.975, alarms + 1, m - alarms) if alarms < m else 1.0
    return math.log(max(low - delta, 1e-12) / high)


def test_the_constants_follow_the_hyperparameters() -> None:
    learner = Langevin(regularisation=0.1, clip_norm=2.0)
    constants = learner.objective.constants()
    descent = learner.descent(4)
    assert descent.step == 1 / constants.smoothness
    told = learner.fit(table(20), seed=0).facts["constants"]
    assert told["step_noise"] == pytest.approx(math.sqrt(2 / constants.smoothness) * learner.noise)
    assert told["contraction"] == learner.descent().contraction and told["smoothness"] == constants.smoothness
    assert descent.contraction == pytest.approx(1 - 0.1 / 1.1)
    halved = Langevin(step_size=0.5 / constants.smoothness, regularisation=0.1, clip_norm=2.0).descent()
    assert halved.contraction == pytest.approx(1 - 0.05 / 1.1)
    far = learner.distance(1, 10**6, 1)
    assert far == 2 * Descent(objective=learner.objective).reach


@pytest.mark.parametrize(
    "wrong",
    [
        {"noise": 0.0},
        {"noise": float("nan")},
        {"epsilon": -1.0},
        {"delta": 0.0},
        {"fit_steps": 1},
        {"fit_steps": 10.0},
        {"least_steps": 0},
        {"least_steps": 1000},
        {"step_size": 1e9},
        {"regularisation": -1.0},
        {"classes": 1},
    ],
)
def test_refuses_hyperparameters_out_of_range(wrong: dict) -> None:
    with pytest.raises(RequestError):
        Langevin(**wrong)
