"""Sekhari's one step: within its distance, with the published noise, and not beyond its capacity."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from expunge.accounting import gaussian
from expunge.accounting.ledger import Ledger
from expunge.data.records import Records
from expunge.errors import ModelError, RequestError
from expunge.guarantee import Certified
from expunge.methods.certified.sekhari import TOLERANCE, Sekhari
from expunge.methods.learner import State


def random_records(n: int, d: int, classes: int = 2, seed: int = 0, scale: float = 1.0) -> Records:
    rng = np.random.default_rng(seed)
    x = scale * rng.normal(size=(n, d))
    y = (np.digitize(x[:, 0] + 0.5 * rng.normal(size=n), np.linspace(-1, 1, classes + 1)[1:-1])).astype(np.int64)
    names = tuple(f"c{k}" for k in range(classes))
    return Records(ids=np.array([f"r{i}" for i in range(n)]), columns={"x": x, "y": y}, classes=names)


def iterate(learner: Sekhari, state: State) -> Any:
    statistics = state.parts["secret.statistics"]
    return learner._step(statistics["weights"], statistics["hessian"], statistics["gradient"], state.facts["rows"])


def optimum(learner: Sekhari, state: State) -> Any:
    rest = state.rows.records()
    z = learner.objective.features(rest.x)
    return learner.objective.solve(
        z, learner.objective.targets(rest.y, state.facts["classes"]), tolerance=1e-12
    ).weights


@given(
    n=st.integers(6, 60),
    d=st.integers(1, 6),
    classes=st.integers(2, 4),
    loss=st.sampled_from(["logistic", "squared"]),
    lam=st.sampled_from([1e-3, 1e-2, 1.0, 20.0]),
    clip=st.sampled_from([0.5, 1.0, 4.0]),
    seed=st.integers(0, 9999),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4),
)
@settings(deadline=None, max_examples=100)
def test_the_distance_to_the_minimiser_is_bounded(
    n: int, d: int, classes: int, loss: Any, lam: float, clip: float, seed: int, sizes: list[int]
) -> None:
    learner = Sekhari(loss=loss, regularisation=lam, clip_norm=clip, deletions=n)
    records = random_records(n, d, classes, seed, scale=3.0)
    state = learner.fit(records, seed=seed)
    assert state.facts["capacity"] == n // 2
    ids, removed = records.ids.tolist(), 0
    for size in sizes:
        gone, ids = ids[:size], ids[size:]
        removed += size
        if removed >= n:
            return
        if removed > n // 2:
            with pytest.raises(RequestError):
                learner.forget(state, gone)
            return
        state, outcome = learner.forget(state, gone)
        away = np.linalg.norm(iterate(learner, state) - optimum(learner, state))
        bound = learner.distance(removed, n, len(state.parts["published.model"]["weights"]))
        assert away <= bound == outcome.trace[0]["distance"]
        assert gaussian.delta_of(learner.epsilon, bound / state.facts["sigma"]) <= learner.delta


def test_the_formulas_are_the_papers() -> None:
    learner = Sekhari(regularisation=0.1, epsilon=0.5, delta=1e-5)
    known = learner.objective.constants()
    gamma = 2 * known.hessian_lipschitz * 40**2 * known.lipschitz**2 / (0.1**3 * 10_000**2)
    assert learner.distance(40, 10_000) == pytest.approx(gamma, rel=1e-3)
    sigma = learner.distance(40, 10_000) * math.sqrt(2 * math.log(1.25 / 1e-5)) / 0.5
    assert learner.noise(40, 10_000) == pytest.approx(sigma, rel=1e-12)
    assert learner.distance(40, 10_000, 3) == pytest.approx(math.sqrt(3) * learner.distance(40, 10_000))
    # beyond half of the rows the paper's γ would be too small, and what was derived takes over
    late = known.hessian_lipschitz * (9_000 * known.lipschitz / 1_000) ** 2 / (2 * 0.1**3)
    assert learner.distance(9_000, 10_000) == pytest.approx(late, rel=1e-3)
    assert learner.distance(0, 10_000) == 0.0


def test_large_epsilon_is_held_to_the_analytic_mechanism() -> None:
    learner = Sekhari(epsilon=20.0, delta=1e-4)
    distance = learner.distance(40, 10_000)
    formula = distance * math.sqrt(2 * math.log(1.25 / 1e-4)) / 20
    assert learner.noise(40, 10_000) > formula
    assert gaussian.delta_of(20.0, distance / learner.noise(40, 10_000)) <= 1e-4


def test_a_quadratic_loss_makes_the_step_exact_and_costs_no_noise() -> None:
    learner, records = Sekhari(loss="squared", deletions=20, regularisation=0.01), random_records(60, 4)
    state, _ = learner.forget(learner.fit(records), records.ids[:20].tolist())
    np.testing.assert_allclose(iterate(learner, state), optimum(learner, state), atol=1e-11)
    assert learner.distance(20, 60) == pytest.approx(2 * TOLERANCE * 60 / (0.01 * 40))
    assert state.facts["sigma"] < 1e-4


def test_the_capacity_is_the_largest_number_whose_noise_is_worth_the_risk() -> None:
    learner = Sekhari(regularisation=0.5, risk=0.02)
    lipschitz = learner.objective.constants().lipschitz

    def cost(m: int) -> float:
        return lipschitz * (learner.distance(m, 5_000, 2) + learner.noise(m, 5_000, 2) * math.sqrt(20))

    m = learner.capacity(5_000, 10, 2)
    assert 1 < m < 2_500 and cost(m) <= 0.02 < cost(m + 1)
    # n√ε/d^¼, once it is large enough for whole numbers not to matter
    tame = Sekhari(regularisation=1.0)
    assert tame.capacity(400_000, 16) / tame.capacity(100_000, 16) == pytest.approx(4, rel=0.01)
    assert tame.capacity(100_000, 256) / tame.capacity(100_000, 16) == pytest.approx(0.5, rel=0.03)
    small, smaller = Sekhari(regularisation=1.0, epsilon=0.4), Sekhari(regularisation=1.0, epsilon=0.1)
    assert smaller.capacity(100_000, 16) / small.capacity(100_000, 16) == pytest.approx(0.5, rel=0.03)
    assert Sekhari(regularisation=1e-4).capacity(100, 10) == 0
    assert Sekhari(regularisation=1e4, risk=100.0).capacity(100, 10) == 50


def test_beyond_the_capacity_is_refused_and_nothing_changes() -> None:
    learner, records = Sekhari(deletions=3), random_records(60, 4)
    state, _ = learner.forget(learner.fit(records), ["r0", "r1"])
    before = state.digest()
    with pytest.raises(RequestError, match="2 of a deletion capacity of 3 rows are used up and 2 more were asked for"):
        learner.forget(state, ["r2", "r3"])
    assert state.digest() == before
    state, outcome = learner.forget(state, ["r2"])
    assert outcome.trace[0]["capacity_left"] == 0
    with pytest.raises(RequestError, match="Fit anew"):
        learner.forget(state, ["r3"])
    with pytest.raises(RequestError, match="deletion capacity of 60 rows"):
        Sekhari(regularisation=1e-3).fit(records)


def test_or_it_retrains_and_says_so() -> None:
    learner, records = Sekhari(deletions=3, beyond_capacity="retrain"), random_records(60, 4)
    state, _ = learner.forget(learner.fit(records, seed=2), ["r0", "r1"])
    squares = state.facts["squares"]
    state, outcome = learner.forget(state, ["r2", "r3"])
    assert outcome.trace[0]["retrained"] and "retrained with fresh noise" in outcome.trace[0]["why"]
    assert outcome.trace[1]["event"] == "trained"
    assert (state.facts["removed"], state.facts["retrains"], state.facts["rows"]) == (0, 1, 56)
    assert state.facts["squares"] == squares > 0
    assert Ledger.from_dict(state.facts["ledger"]).epsilon() == 0.0
    fresh = learner.fit(records.without(["r0", "r1", "r2", "r3"]), seed=2)
    np.testing.assert_array_equal(
        state.parts["secret.statistics"]["weights"], fresh.parts["secret.statistics"]["weights"]
    )
    assert not np.allclose(state.parts["published.model"]["weights"], fresh.parts["published.model"]["weights"])


def test_removal_never_reads_the_remaining_rows() -> None:
    learner, records = Sekhari(deletions=10), random_records(60, 4)
    one, two = learner.fit(records, seed=1), learner.fit(records, seed=1)
    keep = np.arange(60) > 4
    two.rows.column("x")[keep] = 1e9
    two.rows.column("y")[keep] = 0
    gone = ["r0", "r1", "r2"]
    one, _ = learner.forget(one, gone)
    two, _ = learner.forget(two, gone)
    assert one.part_digests() == two.part_digests()


def test_one_batch_or_one_by_one_is_the_same_step() -> None:
    learner, records = Sekhari(deletions=20), random_records(60, 4, classes=3)
    batch, single = learner.fit(records), learner.fit(records)
    batch, _ = learner.forget(batch, records.ids[:12].tolist())
    for i in records.ids[:12].tolist():
        single, _ = learner.forget(single, [i])
    np.testing.assert_allclose(iterate(learner, batch), iterate(learner, single), atol=1e-12)
    assert batch.facts["removed"] == single.facts["removed"] == 12


def test_the_noise_is_published_from_the_first_model_on_and_fresh_every_time() -> None:
    learner, records, drawn = Sekhari(deletions=5), random_records(40, 9), []
    for seed in range(100):
        state = learner.fit(records, seed=seed)
        sigma = state.facts["sigma"]
        first = (state.parts["published.model"]["weights"] - state.parts["secret.statistics"]["weights"])[0] / sigma
        state, _ = learner.forget(state, ["r0"])
        second = (state.parts["published.model"]["weights"] - iterate(learner, state))[0] / sigma
        drawn.append([first, second])
    noise = np.array(drawn)
    assert state.facts["sigma"] == learner.noise(5, 40)
    assert kstest(noise.ravel(), "norm").pvalue > 1e-3
    assert abs(np.corrcoef(noise[:, 0].ravel(), noise[:, 1].ravel())[0, 1]) < 0.12


def test_predictions_read_only_what_is_published_and_the_word_is_certified() -> None:
    learner, records = Sekhari(deletions=5, epsilon=0.5, delta=1e-6), random_records(40, 4, classes=3)
    state, outcome = learner.forget(learner.fit(records), ["r0"])
    assert isinstance(outcome.guarantee, Certified)
    assert (outcome.guarantee.epsilon, outcome.guarantee.delta) == (0.5, 1e-6) and outcome.guarantee.assumptions
    ledger = Ledger.from_dict(json.loads(json.dumps(state.facts["ledger"])))
    assert 0 < ledger.epsilon() == outcome.trace[0]["epsilon_of_this_model"] <= 0.5 and not ledger.exhausted
    poisoned = State(rows=state.rows, seed=0, facts={}, parts={"published.model": dict(state.parts["published.model"])})
    np.testing.assert_array_equal(learner.scores(poisoned, records.x), learner.scores(state, records.x))
    with pytest.raises(ModelError):
        learner.predict(state, np.zeros((2, 3)))


def test_nothing_removed_costs_nothing_and_constants_follow_from_hyper_parameters() -> None:
    learner = Sekhari(deletions=5)
    one, two = learner.fit(random_records(40, 4)), learner.fit(random_records(40, 4, seed=8, scale=50.0))
    assert one.facts == two.facts  # the noise among them: nothing in it was read off rows
    assert Ledger.from_dict(one.facts["ledger"]).epsilon() == 0.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"epsilon": 0.0},
        {"risk": 0.0},
        {"delta": 1.0},
        {"deletions": 0},
        {"classes": 1},
        {"beyond_capacity": "ignore"},
        {"regularisation": -1.0},
    ],
)
def test_refuses(wrong: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        Sekhari(**wrong)
