"""Descent-to-Delete: the iterate stays within its bound, and what is published differs by no more than is claimed."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from expunge.accounting import gaussian
from expunge.accounting.ledger import Ledger
from expunge.data.records import Records
from expunge.errors import DataError, ModelError, RequestError
from expunge.guarantee import Certified
from expunge.methods.certified.descent_to_delete import DescentToDelete
from expunge.methods.learner import State
from expunge.methods.projected import Descent


def table(n: int, *, classes: int = 2, seed: int = 0, d: int = 3) -> Records:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    x = rng.normal(size=(n, d)) * 0.3 + np.eye(classes, d)[y]
    ids = np.array([f"row-{k}" for k in range(n)])
    return Records(ids=ids, columns={"x": x, "y": y}, classes=tuple("abcdef"[:classes]))


def optimum(learner: DescentToDelete, records: Records) -> np.ndarray:
    objective = learner.objective
    targets = objective.targets(records.y, len(records.classes))
    return objective.solve(objective.features(records.x), targets, tolerance=1e-11).weights


def weights(state: State, part: str) -> np.ndarray:
    return np.asarray(state.parts[part]["weights"])


@given(
    seed=st.integers(0, 10**6),
    loss=st.sampled_from(["logistic", "squared"]),
    regularisation=st.sampled_from([0.01, 0.1, 1.0]),
    steps=st.sampled_from([1, 5, 40]),
    classes=st.sampled_from([2, 3]),
    requests=st.lists(st.integers(1, 6), min_size=1, max_size=5),
)
@settings(max_examples=25, deadline=None)
def test_the_secret_iterate_stays_within_its_bound(
    seed: int, loss: str, regularisation: float, steps: int, classes: int, requests: list[int]
) -> None:
    learner = DescentToDelete(loss=loss, regularisation=regularisation, steps=steps)  # type: ignore[arg-type]
    records = table(40, classes=classes, seed=seed)
    state = learner.fit(records, seed=seed)
    for size in requests:
        gone = state.rows.records().ids[:size].tolist()
        state, unlearned = learner.forget(state, gone)
        rest = state.rows.records()
        iterate = weights(state, "secret.iterate")
        plan = learner.plan(len(rest), iterate.shape[1], len(iterate))
        assert np.linalg.norm(iterate - optimum(learner, rest)) <= plan.bound + 1e-8
        fresh = weights(learner.fit(rest, seed=seed), "secret.iterate")
        assert np.linalg.norm(iterate - fresh) <= plan.sensitivity
        assert unlearned.trace[0]["sensitivity"] == plan.sensitivity


def test_fewer_steps_than_planned_break_the_bound() -> None:
    """The other side of the test above, on an instance that contracts by exactly γ and no faster."""
    learner = DescentToDelete(loss="squared", regularisation=1.0, steps=12, intercept=0.0, clip_norm=1.0)
    records = one_dimension(40)
    state = learner.fit(records, seed=0)
    before = weights(state, "secret.iterate")
    rest = records.without(["odd"])
    z, t = learner.objective.features(rest.x), learner.objective.targets(rest.y, 2)
    descent = Descent(objective=learner.objective)
    bound = learner.plan(40, 1).bound
    off = [np.linalg.norm(descent.run(before, z, t, k) - optimum(learner, rest)) for k in (6, 9, 12)]
    assert off[0] > bound and off[2] <= bound


def one_dimension(n: int) -> Records:
    """n rows of one kind and one that pulls the other way: ∇² is the largest it may be, so nothing is slack there."""
    y = np.ones(n + 1, np.int64)
    y[-1] = 0
    ids = np.array([*(f"row-{k}" for k in range(n)), "odd"])
    return Records(ids=ids, columns={"x": np.ones((n + 1, 1)), "y": y}, classes=("a", "b"))


@given(left=st.integers(1, 5000), removed=st.integers(1, 500), steps=st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_the_plan_follows_its_inequalities(left: int, removed: int, steps: int) -> None:
    for variant in ("secret", "perfect"):
        learner = DescentToDelete(steps=steps, variant=variant)  # type: ignore[arg-type]
        descent = Descent(objective=learner.objective, vectors=2)
        now, before = learner.plan(left, 7, 2), learner.plan(left + removed, 7, 2)
        taken = learner.steps_of(removed, left, 7, 2)
        shift = descent.minimiser_shift(removed, left)
        floor = descent.rounding(7)
        share = descent.contraction**taken
        assert share * (before.bound + before.noise_norm + shift) + floor <= now.bound * (1 + 1e-9)
        assert taken >= steps and descent.contraction**now.fit_steps * descent.reach <= now.bound
        assert now.bound >= before.bound and now.sigma >= before.sigma
        assert (before.noise_norm > 0) == (variant == "perfect")
        if removed == 1 and variant == "secret":
            assert taken == steps


def test_more_steps_more_rows_and_more_epsilon_need_less_noise() -> None:
    def sigma(rows: int = 1000, **changes: object) -> float:
        return DescentToDelete(**changes).plan(rows, 10).sigma  # type: ignore[arg-type]

    assert sigma(steps=100) < sigma(steps=50) < sigma(steps=10)
    # geometrically: γ^50 from 50 steps to 100
    gamma = Descent(objective=DescentToDelete().objective).contraction
    assert sigma(steps=100) / sigma(steps=50) == pytest.approx(gamma**50, rel=0.05)
    assert sigma(rows=2000) == pytest.approx(sigma() / 2, rel=1e-6)
    assert sigma(epsilon=2.0) < sigma() and sigma(delta=1e-3) < sigma()
    assert sigma(fit_precision=0.01) == pytest.approx(sigma() * 1.01 / 2, rel=1e-6)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("delta", [1e-9, 1e-5, 1e-2])
def test_the_noise_spends_the_budget_exactly_and_is_below_the_papers(epsilon: float, delta: float) -> None:
    for variant, share in (("secret", 1.0), ("perfect", 0.5)):
        learner = DescentToDelete(epsilon=epsilon, delta=delta, variant=variant)  # type: ignore[arg-type]
        plan = learner.plan(500, 10, 3)
        spent = gaussian.epsilon(delta * share, plan.sigma, plan.sensitivity)
        assert epsilon * 0.999 < spent <= epsilon
        assert plan.sigma < learner.paper_sigma(500, 3)


def test_the_papers_formula_is_the_papers() -> None:
    learner = DescentToDelete(regularisation=0.05, steps=7, epsilon=2.0, delta=1e-3)
    c = learner.objective.constants()
    gamma = (c.smoothness - c.strong_convexity) / (c.smoothness + c.strong_convexity)
    width = 8 * c.lipschitz * gamma**7 / (c.strong_convexity * 300 * (1 - gamma**7))
    by_hand = width / math.sqrt(2) / (math.sqrt(math.log(1e3) + 2) - math.sqrt(math.log(1e3)))
    assert learner.paper_sigma(300) == pytest.approx(by_hand)


def test_what_is_published_is_the_iterate_under_the_planned_noise() -> None:
    learner, records = DescentToDelete(steps=20), table(200, classes=3, d=300)
    state = learner.fit(records, seed=1)
    for gone in (None, "row-3", "row-4"):
        if gone:
            state, _ = learner.forget(state, [gone])
        noise = weights(state, "published.model") - weights(state, "secret.iterate")
        plan = learner.plan(len(state.rows), noise.shape[1], 3)
        ratio = float((noise**2).sum()) / plan.sigma**2
        assert stats.chi2(noise.size).sf(ratio) > 1e-3 and stats.chi2(noise.size).cdf(ratio) > 1e-3
    other = learner.fit(records, seed=2)
    again = learner.fit(records, seed=1)
    np.testing.assert_array_equal(weights(other, "secret.iterate"), weights(again, "secret.iterate"))
    assert np.abs(weights(other, "published.model") - weights(again, "published.model")).min() > 0


def test_no_two_releases_share_their_noise() -> None:
    learner, records = DescentToDelete(steps=20), table(100)
    first = learner.fit(records, seed=1)
    noises = [weights(first, "published.model") - weights(first, "secret.iterate")]
    for gone in (["row-1"], ["row-2"], ["row-2", "row-1"]):
        state, _ = learner.forget(first.copy(), gone)
        noises.append(weights(state, "published.model") - weights(state, "secret.iterate"))
    for i, one in enumerate(noises):
        for other in noises[:i]:
            assert np.abs(one / np.linalg.norm(one) - other / np.linalg.norm(other)).max() > 1e-3


def test_predictions_read_the_published_part_alone() -> None:
    learner, records = DescentToDelete(), table(60)
    state, _ = learner.forget(learner.fit(records), ["row-0"])
    shown = dataclasses.replace(state, parts={"published.model": state.parts["published.model"]})
    np.testing.assert_array_equal(learner.scores(shown, records.x), learner.scores(state, records.x))
    with pytest.raises(ModelError, match="columns"):
        learner.predict(state, np.zeros((2, 9)))


def test_the_perfect_state_is_what_is_published() -> None:
    learner, records = DescentToDelete(variant="perfect", steps=30), table(150, classes=3)
    state = learner.fit(records, seed=3)
    assert set(state.parts) == {"published.model"} and learner.extra_bytes(state) == 0
    after, unlearned = learner.forget(state, ["row-7", "row-8"])
    rest = after.rows.records()
    steps = unlearned.trace[0]["steps"]
    assert steps > DescentToDelete(steps=30).steps_of(2, 148, 4, 3)
    z, t = learner.objective.features(rest.x), learner.objective.targets(rest.y, 3)
    iterate = Descent(objective=learner.objective, vectors=3).run(weights(state, "published.model"), z, t, steps)
    plan = learner.plan(148, 4, 3)
    assert np.linalg.norm(iterate - optimum(learner, rest)) <= plan.bound
    noise = weights(after, "published.model") - iterate
    assert 0 < np.linalg.norm(noise) <= plan.noise_norm


def test_the_norm_of_the_noise_stays_below_its_bound_all_but_the_stated_share() -> None:
    learner = DescentToDelete(variant="perfect", delta=0.4)
    plan, draws = learner.plan(1, 3), 4000
    share = 3 * 0.4 / math.pi**2
    beyond = sum(
        np.linalg.norm(np.random.default_rng(k).normal(size=3)) * plan.sigma > plan.noise_norm for k in range(draws)
    )
    assert stats.binomtest(int(beyond), draws, share).pvalue > 1e-3
    assert sum(3 * 0.4 / (math.pi * n) ** 2 for n in range(1, 10**5)) <= 0.4 / 2


def test_perfect_steps_grow_no_faster_than_the_papers() -> None:
    """I + ln ln(4di/δ)/ln(1/γ): only a loglog of the number of requests, here of the rows."""
    learner = DescentToDelete(variant="perfect", steps=60)
    gamma = Descent(objective=learner.objective).contraction
    few, many = (learner.steps_of(1, n, 10) for n in (100, 10**8))
    assert 60 < few < many
    growth = math.log(math.log(40 * 10**8 / 1e-5) / math.log(40 * 100 / 1e-5)) / math.log(1 / gamma)
    assert many - few <= growth + 1


def test_zero_deletions_cost_nothing_and_each_request_what_was_claimed() -> None:
    learner, records = DescentToDelete(epsilon=0.5, delta=1e-6), table(80)
    state = learner.fit(records)
    assert Ledger.from_dict(state.facts["ledger"]).spent == 0
    for gone in (["row-1"], ["row-2", "row-3"], ["row-4"]):
        state, unlearned = learner.forget(state, gone)
        ledger = Ledger.from_dict(state.facts["ledger"])
        assert 0.499 < ledger.spent <= 0.5 and not ledger.exhausted
        assert isinstance(unlearned.guarantee, Certified)
        assert (unlearned.guarantee.epsilon, unlearned.guarantee.delta) == (0.5, 1e-6)
        assert any("seed" in a for a in unlearned.guarantee.assumptions)
        assert unlearned.trace[0]["constants"] == state.facts["constants"]


def test_one_request_of_many_takes_fewer_steps_than_many_of_one() -> None:
    learner = DescentToDelete(steps=50)
    assert learner.steps_of(1, 1000, 10) == 50
    assert 50 < learner.steps_of(100, 1000, 10) < 50 + 70


def observed_epsilon(with_: np.ndarray, without: np.ndarray, delta: float) -> float:
    """95% lower bound of ε: a threshold chosen on one half, Clopper-Pearson bounds on the other."""
    half = len(with_) // 2
    sign = 1 if with_[:half].mean() > without[:half].mean() else -1
    at = float(np.mean([with_[:half].mean(), without[:half].mean()])) * sign
    hits, alarms = int((sign * with_[half:] > at).sum()), int((sign * without[half:] > at).sum())
    m = len(with_) - half
    low = stats.beta.ppf(0.025, hits, m - hits + 1) if hits else 0.0
    high = stats.beta.ppf(0.975, alarms + 1, m - alarms) if alarms < m else 1.0
    return math.log(max(low - delta, 1e-12) / high)


@pytest.mark.parametrize("variant", ["secret", "perfect"])
def test_releases_of_the_unlearned_and_of_the_retrained_differ_by_no_more_than_the_claim(variant: str) -> None:
    learner = DescentToDelete(
        loss="squared", regularisation=1.0, steps=1, intercept=0.0, variant=variant, epsilon=1.0, delta=1e-3
    )  # type: ignore[arg-type]
    records = one_dimension(5)
    rest = records.without(["odd"])
    unlearned, retrained = [], []
    for seed in range(300):
        state, _ = learner.forget(learner.fit(records, seed=seed), ["odd"])
        unlearned.append(weights(state, "published.model").item())
        retrained.append(weights(learner.fit(rest, seed=10_000 + seed), "published.model").item())
    assert observed_epsilon(np.array(unlearned), np.array(retrained), 1e-3) <= 1.0
    # the same with the noise cut to a fortieth is caught
    still = DescentToDelete(loss="squared", regularisation=1.0, steps=1, intercept=0.0)
    state, _ = still.forget(still.fit(records), ["odd"])
    secret, fresh = weights(state, "secret.iterate").item(), weights(still.fit(rest), "secret.iterate").item()
    sigma = learner.plan(5, 1).sigma / 40
    rng = np.random.default_rng(0)
    broken = observed_epsilon(secret + sigma * rng.normal(size=300), fresh + sigma * rng.normal(size=300), 1e-3)
    assert broken > 1.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"steps": 2.5},
        {"epsilon": 0.0},
        {"epsilon": float("inf")},
        {"delta": 0.0},
        {"delta": 1.0},
        {"variant": "open"},
        {"fit_precision": 0.0},
        {"fit_precision": 1.5},
        {"regularisation": 0.0},
        {"clip_norm": -1.0},
        {"classes": 1},
        {"loss": "hinge"},
    ],
)
def test_refuses_hyperparameters_out_of_range(wrong: dict) -> None:
    with pytest.raises(RequestError):
        DescentToDelete(**wrong)


def test_refuses_more_classes_than_declared() -> None:
    with pytest.raises(DataError):
        DescentToDelete(classes=2).fit(table(20, classes=3))
