"""Newton removal: what it leaves is bounded, what is published hides it, and the budget runs out aloud."""

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
from expunge.data.breast_cancer import load_breast_cancer
from expunge.data.digits import load_digits
from expunge.data.records import Records
from expunge.errors import ModelError, RequestError
from expunge.guarantee import Certified, Empirical
from expunge.methods.certified.newton_removal import NewtonRemoval, _Curvature
from expunge.methods.convex import normal
from expunge.methods.learner import Job, State

MODES = [("output", "measured"), ("output", "bound"), ("objective", "measured"), ("objective", "bound")]


def random_records(n: int, d: int, classes: int = 2, seed: int = 0, scale: float = 1.0) -> Records:
    rng = np.random.default_rng(seed)
    x = scale * rng.normal(size=(n, d))
    y = (np.digitize(x[:, 0] + 0.5 * rng.normal(size=n), np.linspace(-1, 1, classes + 1)[1:-1])).astype(np.int64)
    names = tuple(f"c{k}" for k in range(classes))
    return Records(ids=np.array([f"r{i}" for i in range(n)]), columns={"x": x, "y": y}, classes=names)


def optimum(learner: NewtonRemoval, state: State) -> Any:
    """(K, d) minimiser on what remains, with the noise of the objective that is in force."""
    rest = state.rows.records()
    z = learner.objective.features(rest.x)
    t = learner.objective.targets(rest.y, state.facts["classes"])
    return learner.objective.solve(z, t, noise=state.parts["secret.noise"]["noise"], tolerance=1e-10).weights


def left_over(learner: NewtonRemoval, state: State) -> float:
    """‖∇F(w; D')‖ in long doubles, over all vectors."""
    rest, objective = state.rows.records(), learner.objective
    z = objective.features(rest.x).astype(np.longdouble)
    t = objective.targets(rest.y, state.facts["classes"]).astype(np.longdouble)
    w = state.parts["secret.iterate"]["weights"].astype(np.longdouble)
    s = z @ w.T
    slopes = s - t
    if learner.loss == "logistic":
        small = np.exp(-abs(s))
        slopes = -t * np.where(t * s > 0, small, 1) / (1 + small)
    gradient = slopes.T @ z + objective.regularisation * len(z) * w + state.parts["secret.noise"]["noise"]
    return float(np.linalg.norm(gradient.astype(np.float64)))


def spent(state: State) -> float:
    ledger = Ledger.from_dict(state.facts["ledger"])
    return ledger.residual_spent(str(ledger.retrains))


# --- the bound --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("perturbation", "residual"), MODES)
@given(
    n=st.integers(8, 60),
    d=st.integers(1, 6),
    classes=st.integers(2, 4),
    loss=st.sampled_from(["logistic", "squared"]),
    lam=st.sampled_from([1e-3, 1e-2, 1.0]),
    clip=st.sampled_from([0.5, 1.0, 4.0]),
    seed=st.integers(0, 9999),
    scale=st.sampled_from([0.1, 1.0, 100.0]),
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    tolerance=st.sampled_from([1e-8, 1e-2]),
)
@settings(deadline=None, max_examples=100)
def test_the_residual_is_at_most_beta_and_the_distance_beta_over_lambda_n(
    perturbation: Any,
    residual: Any,
    n: int,
    d: int,
    classes: int,
    loss: Any,
    lam: float,
    clip: float,
    seed: int,
    scale: float,
    sizes: list[int],
    tolerance: float,
) -> None:
    learner = NewtonRemoval(
        loss=loss,
        regularisation=lam,
        clip_norm=clip,
        noise=1e6 if perturbation == "output" else 30.0,
        epsilon=30.0,
        delta=0.5,
        perturbation=perturbation,
        residual=residual,
        tolerance=tolerance,
    )
    records = random_records(n, d, classes, seed, scale)
    state = learner.fit(records, seed=seed)
    ids = np.random.default_rng(seed).permutation(records.ids).tolist()
    for size in sizes:
        gone, ids = ids[:size], ids[size:]
        if len(gone) >= len(state.rows):
            return
        state, outcome = learner.forget(state, gone)
        if outcome.trace[0]["retrained"]:
            assert spent(state) == 0.0
            continue
        beta = spent(state)
        assert beta == outcome.trace[0]["beta"] <= learner.budget
        assert left_over(learner, state) <= beta
        away = np.linalg.norm(state.parts["secret.iterate"]["weights"] - optimum(learner, state))
        assert away <= beta / (lam * len(state.rows)) + 1e-9 / lam


def test_a_measured_residual_is_measured_tightly() -> None:
    learner, records = NewtonRemoval(noise=10.0), random_records(300, 5)
    state, _ = learner.forget(learner.fit(records), ["r3", "r4"])
    assert left_over(learner, state) <= spent(state) <= left_over(learner, state) + 1e-9


def test_bounds_add_up_and_measurements_do_not() -> None:
    records = random_records(300, 5)
    told: dict[str, list[float]] = {}
    for residual in ("measured", "bound"):
        learner = NewtonRemoval(noise=100.0, residual=residual)  # type: ignore[arg-type]
        state, told[residual] = learner.fit(records), []
        for k in range(12):
            state, outcome = learner.forget(state, [f"r{k}"])
            told[residual].append(outcome.trace[0]["beta"])
    assert all(a < b for a, b in zip(told["bound"], told["bound"][1:], strict=False))
    assert told["measured"][-1] < told["bound"][-1] / 10
    assert told["measured"][-1] < max(told["measured"])


@pytest.mark.parametrize("residual", ["measured", "bound"])
def test_the_worst_case_is_worse(residual: Any) -> None:
    for seed in range(5):
        learner, records = NewtonRemoval(noise=1e4, residual=residual), random_records(200, 4, seed=seed)
        for request in (["r7"], ["r7", "r8", "r9"]):
            _, outcome = learner.forget(learner.fit(records), request)
            assert outcome.trace[0]["beta"] < outcome.trace[0]["worst_case"]
    # 4γm²/(λ²n') for C = 1 where the radius does not help: λR + C = 2C
    strong = NewtonRemoval(regularisation=10.0, noise=1e4)
    _, outcome = strong.forget(strong.fit(records), ["r1", "r2"])
    assert outcome.trace[0]["worst_case"] == pytest.approx(4 * math.sqrt(3) / 18 * 4 / (100 * 198))


def test_what_the_optimiser_left_counts() -> None:
    records = random_records(300, 5)
    betas = []
    for tolerance in (1e-8, 1.0):
        learner = NewtonRemoval(noise=100.0, residual="bound", tolerance=tolerance)
        state = learner.fit(records)
        left = float(np.linalg.norm(state.parts["secret.iterate"]["gradient"]))
        state, _ = learner.forget(state, ["r0"])
        betas.append((left, spent(state)))
        assert not state.parts["secret.iterate"]["owed"].any()  # it was charged, once
    assert betas[1][0] > 1e-4 and betas[1][1] >= betas[0][1] + 0.9 * betas[1][0]


def test_the_error_of_a_stale_hessian_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("expunge.methods.certified.newton_removal.REFINEMENTS", 1)
    learner, records = NewtonRemoval(residual="bound", noise=100.0, regularisation=1.0), random_records(100, 8)
    state, outcome = learner.forget(learner.fit(records), records.ids[:9].tolist())
    assert outcome.trace[0]["curvature"] == "downdated"
    assert outcome.trace[0]["beta"] / 2 < outcome.trace[0]["mismatch"][0]
    assert left_over(learner, state) <= spent(state)


def test_a_quadratic_loss_makes_the_step_exact() -> None:
    records = random_records(200, 5, classes=3)
    for residual in ("measured", "bound"):
        learner = NewtonRemoval(loss="squared", residual=residual, noise=1e-3)  # type: ignore[arg-type]
        state = learner.fit(records)
        # a fifth of the rows at once: the Hessian is made again, without them
        state, outcome = learner.forget(state, records.ids[:40].tolist())
        assert outcome.trace[0]["curvature"] == "made again" and not outcome.trace[0]["retrained"]
        assert spent(state) < 1e-9
        np.testing.assert_allclose(state.parts["secret.iterate"]["weights"], optimum(learner, state), atol=1e-9)
    logistic = NewtonRemoval(noise=1e3)
    state, _ = logistic.forget(logistic.fit(records), records.ids[:40].tolist())
    assert spent(state) > 1e-4


# --- the kept inverse -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["logistic", "squared"])
def test_the_inverse_is_downdated(loss: Any) -> None:
    learner, records = NewtonRemoval(loss=loss, regularisation=0.05), random_records(80, 6, classes=3)
    objective = learner.objective
    z = objective.features(records.x)
    w = np.random.default_rng(0).normal(size=(3, z.shape[1]))
    kept = _Curvature.made(objective, w, z, 80).without(objective, z[:4]).without(objective, z[4:5])
    hessian = objective.hessian(w, z[5:], count=80)
    np.testing.assert_allclose(kept.inverse, np.linalg.inv(hessian), atol=1e-9)
    again = _Curvature.made(objective, w, z, 75, z[:5])
    np.testing.assert_allclose(again.inverse, np.linalg.inv(objective.hessian(w, z[5:])), atol=1e-9)
    right = np.random.default_rng(1).normal(size=w.shape)
    exact = np.stack([np.linalg.solve(h, r) for h, r in zip(objective.hessian(w, z[5:]), right, strict=True)])
    naive = np.einsum("kij,kj->ki", kept.inverse, right)
    error = np.linalg.norm(kept.solve(right, 0.05 * 5) - exact)
    assert error < 0.2 * np.linalg.norm(naive - exact) + 1e-12


def test_a_tenth_of_the_rows_may_go_before_the_inverse_is_made_again() -> None:
    learner, records = NewtonRemoval(noise=100.0), random_records(100, 4)
    state, events = learner.fit(records), []
    for k in range(24):
        state, outcome = learner.forget(state, [f"r{k}"])
        events.append(outcome.trace[0]["curvature"])
    assert [k for k, e in enumerate(events) if e == "made again"] == [10, 19]


# --- the budget -------------------------------------------------------------------------------------------------------


def test_the_budget_is_the_papers_and_for_large_epsilon_no_more_than_is_sound() -> None:
    learner = NewtonRemoval(epsilon=0.5, delta=1e-4, noise=3.0)
    c = math.sqrt(2 * math.log(1.5 / 1e-4))
    assert learner.budget == pytest.approx(3.0 * 0.5 / c)
    assert 1.5 * math.exp(-(c**2) / 2) == pytest.approx(1e-4)
    assert gaussian.delta_of(0.5, learner.budget / 3.0) <= 1e-4
    large = NewtonRemoval(epsilon=10.0, delta=1e-4, noise=3.0)
    assert large.budget < 3.0 * 10.0 / c  # where the paper's formula claims too much
    assert gaussian.delta_of(10.0, large.budget / 3.0) <= 1e-4


def test_nothing_removed_costs_nothing() -> None:
    state = NewtonRemoval().fit(random_records(50, 3))
    ledger = Ledger.from_dict(state.facts["ledger"])
    assert ledger.epsilon() == 0.0 and ledger.charges == () and ledger.retrains == 0 and not ledger.exhausted


@pytest.mark.parametrize(("perturbation", "residual"), MODES)
def test_a_spent_budget_retrains_with_fresh_noise_and_says_so(perturbation: Any, residual: Any) -> None:
    learner = NewtonRemoval(noise=1e-4, perturbation=perturbation, residual=residual)
    records = random_records(60, 4)
    first = learner.fit(records, seed=7)
    noise = first.parts["secret.noise"]["noise"].copy()
    state, outcome = learner.forget(first, ["r1", "r2", "r3"])
    spent_event, trained = outcome.trace
    assert spent_event["event"] == "budget spent" and spent_event["retrained"] and trained["event"] == "trained"
    assert spent_event["beta"] > learner.budget and "retrained with fresh noise" in spent_event["why"]
    ledger = Ledger.from_dict(state.facts["ledger"])
    assert ledger.retrains == 1 and ledger.epsilon() == 0.0
    np.testing.assert_allclose(state.parts["secret.iterate"]["weights"], optimum(learner, state), atol=1e-6)
    if perturbation == "objective":
        assert not np.allclose(state.parts["secret.noise"]["noise"], noise)
    else:
        fresh = learner.fit(records.without(["r1", "r2", "r3"]), seed=7)
        np.testing.assert_array_equal(
            state.parts["secret.iterate"]["weights"], fresh.parts["secret.iterate"]["weights"]
        )
        published = state.parts["published.model"]["weights"]
        assert not np.array_equal(published, fresh.parts["published.model"]["weights"])
    again, _ = learner.forget(state, ["r4", "r5", "r6"])
    assert again.facts["ledger"]["retrains"] == 2


def test_the_budget_of_several_vectors_is_one() -> None:
    learner, records = NewtonRemoval(noise=100.0), random_records(200, 5, classes=4)
    state, _ = learner.forget(learner.fit(records), ["r0"])
    whole = np.linalg.norm(state.parts["secret.iterate"]["gradient"])
    each = np.linalg.norm(state.parts["secret.iterate"]["gradient"], axis=1)
    assert spent(state) == pytest.approx(whole, rel=1e-6) and whole > each.max() * 1.01


def test_what_is_claimed_is_what_was_spent() -> None:
    learner, records = NewtonRemoval(noise=0.5, residual="bound"), random_records(200, 5)
    state, squares = learner.fit(records), 0.0
    for k in range(4):
        state, outcome = learner.forget(state, [f"r{k}"])
        event = outcome.trace[0]
        assert event["epsilon_of_this_model"] == pytest.approx(gaussian.epsilon_of(1e-4, event["beta"] / 0.5))
        squares += (event["beta"] / 0.5) ** 2
        assert event["epsilon_of_all_models"] == pytest.approx(gaussian.epsilon_of(1e-4, math.sqrt(squares)))


# --- what is published ------------------------------------------------------------------------------------------------


def test_published_weights_are_the_secret_ones_with_noise_that_is_fresh_at_every_release() -> None:
    records, noises = random_records(40, 9), []
    learner = NewtonRemoval(noise=2.0, regularisation=0.1)
    for seed in range(120):
        state = learner.fit(records, seed=seed)
        for ids in (["r0"], ["r1", "r2"]):
            before = state
            state, _ = learner.forget(state, ids)
            n = len(state.rows)
            difference = state.parts["published.model"]["weights"] - state.parts["secret.iterate"]["weights"]
            noises.append(difference[0] * 0.1 * n / 2.0)
            gap = before.parts["published.model"]["weights"] - before.parts["secret.iterate"]["weights"]
            assert not np.allclose(gap * (n + len(ids)), difference * n)
    drawn = np.array(noises)
    assert kstest(drawn.ravel(), "norm").pvalue > 1e-3
    np.testing.assert_allclose(noises[-1], normal((1, 10), 119, "newton_removal", "release", 2)[0], rtol=1e-9)
    assert abs(np.corrcoef(drawn[::2].ravel(), drawn[1::2].ravel())[0, 1]) < 0.12


def test_the_objective_has_the_noise_inside() -> None:
    learner = NewtonRemoval(perturbation="objective", noise=5.0, residual="bound", regularisation=0.1)
    records = random_records(60, 4)
    state = learner.fit(records, seed=1)
    noise = state.parts["secret.noise"]["noise"]
    assert noise.shape == (1, 5) and 0.5 < noise.std() < 15
    z, t = learner.objective.features(records.x), learner.objective.targets(records.y, 2)
    weights = state.parts["published.model"]["weights"]
    np.testing.assert_allclose(learner.objective.gradient(weights, z, t), -noise, atol=1e-7)
    after, _ = learner.forget(state, ["r0"])
    np.testing.assert_array_equal(after.parts["secret.noise"]["noise"], noise)
    np.testing.assert_array_equal(after.parts["published.model"]["weights"], after.parts["secret.iterate"]["weights"])


def test_predictions_read_only_what_is_published() -> None:
    learner, records = NewtonRemoval(), random_records(80, 4, classes=3)
    state = learner.fit(records)
    poisoned = State(
        rows=state.rows,
        seed=0,
        facts={},
        parts={
            name: part if name.startswith("published.") else {k: np.full_like(a, -1) for k, a in part.items()}
            for name, part in state.parts.items()
        },
    )
    assert all(name.startswith(("published.", "secret.")) for name in state.parts)
    np.testing.assert_array_equal(learner.scores(poisoned, records.x), learner.scores(state, records.x))
    np.testing.assert_array_equal(learner.predict(poisoned, records.x), learner.scores(state, records.x).argmax(1))


def test_the_word_is_no_stronger_than_the_proof() -> None:
    records = random_records(80, 4)
    learner = NewtonRemoval(epsilon=0.7, delta=1e-5, noise=10.0)
    _, outcome = learner.forget(learner.fit(records), ["r0"])
    assert isinstance(outcome.guarantee, Certified)
    assert (outcome.guarantee.epsilon, outcome.guarantee.delta) == (0.7, 1e-5)
    assert any("secret" in a for a in outcome.guarantee.assumptions)
    for loss in ("logistic", "squared"):
        papers = NewtonRemoval(perturbation="objective", loss=loss, noise=10.0)  # type: ignore[arg-type]
        _, outcome = papers.forget(papers.fit(records), ["r0"])
        assert isinstance(outcome.guarantee, Empirical)


# --- facts, rows, errors ----------------------------------------------------------------------------------------------


def test_constants_are_told_and_follow_from_hyper_parameters_alone() -> None:
    learner = NewtonRemoval()
    one, two = learner.fit(random_records(50, 3)), learner.fit(random_records(70, 3, seed=5, scale=40.0))
    assert one.facts["constants"] == two.facts["constants"] == json.loads(json.dumps(one.facts))["constants"]
    assert one.facts["constants"]["budget"] == learner.budget
    learned = learner.learn(random_records(50, 3), seed=0, job=Job())
    assert learned.trace[0]["constants"] == one.facts["constants"]


def test_erased_rows_are_gone_from_what_is_kept_in_memory() -> None:
    learner, records = NewtonRemoval(), random_records(50, 3)
    state, _ = learner.forget(learner.fit(records), ["r7"])
    assert state.rows.memo
    for kept in state.rows.memo.values():
        assert not kept[7].any() and kept[8].any()


def test_what_is_kept_in_memory_can_be_made_again() -> None:
    learner, records = NewtonRemoval(noise=10.0), random_records(50, 3)
    states = []
    for cleared in (False, True):
        state, _ = learner.forget(learner.fit(records), ["r7", "r8"])
        if cleared:
            state.rows.memo.clear()
        states.append(learner.forget(state, ["r9"])[0])
    assert states[0].digest() == states[1].digest()


def test_classes_stay_when_the_last_row_of_one_is_removed() -> None:
    records = random_records(60, 4, classes=3)
    unnamed = Records(ids=records.ids, columns=records.columns)
    learner = NewtonRemoval(noise=1e-4)
    state = learner.fit(unnamed)
    state, outcome = learner.forget(state, unnamed.ids[unnamed.y == 2].tolist())
    assert outcome.trace[0]["retrained"] and learner.scores(state, unnamed.x).shape == (60, 3)
    assert (learner.predict(state, unnamed.x) < 2).all()


def test_one_batch_or_one_by_one_comes_to_the_same_minimiser() -> None:
    records = load_breast_cancer()
    scaled = records.x / np.maximum(np.abs(records.x).max(0), 1) * 2
    records = Records(ids=records.ids, columns={"x": scaled, "y": records.y})
    learner = NewtonRemoval(noise=10.0)
    gone = records.ids[:30].tolist()
    batch, _ = learner.forget(learner.fit(records), gone)
    single = learner.fit(records)
    for i in gone:
        single, _ = learner.forget(single, [i])
    expected = optimum(learner, batch)
    for state in (batch, single):
        away = np.linalg.norm(state.parts["secret.iterate"]["weights"] - expected)
        assert away <= spent(state) / (1e-3 * len(state.rows)) < 0.2 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    "wrong",
    [
        {"noise": 0.0},
        {"epsilon": 0.0},
        {"delta": 1.0},
        {"delta": 0.0},
        {"perturbation": "input"},
        {"residual": "guessed"},
        {"classes": 1},
        {"tolerance": -1.0},
        {"regularisation": 0.0},
        {"noise": math.nan},
    ],
)
def test_refuses(wrong: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        NewtonRemoval(**wrong)


def test_refuses_rows_of_another_width() -> None:
    learner = NewtonRemoval()
    with pytest.raises(ModelError, match="the model has 3 of a row"):
        learner.predict(learner.fit(random_records(20, 3)), np.zeros((2, 4)))


# --- what the project promises ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_thousand_removals_on_digits(seed: int) -> None:
    """Odd against even, 1,437 rows: 1,000 of them go, one by one, at ε = 1 and δ = 1e-4."""
    digits = load_digits()
    x = digits.x.reshape(len(digits), -1)
    records = Records(ids=digits.ids, columns={"x": x, "y": digits.y % 2})
    order = np.random.default_rng(seed).permutation(len(records))
    test, train = records.take(order[:360]), records.take(order[360:])
    learner = NewtonRemoval(regularisation=1e-2, noise=0.03, epsilon=1.0, delta=1e-4)
    state = learner.fit(train, seed=seed)
    for k, record in enumerate(train.ids[:1000].tolist()):
        state, outcome = learner.forget(state, [record])
        assert isinstance(outcome.guarantee, Certified)
        if k % 100 == 99:
            assert left_over(learner, state) <= max(spent(state), 1e-8) <= learner.budget
    assert len(state.rows) == 437 and state.facts["ledger"]["retrains"] <= 2
    z, retrained = learner.objective.features(test.x), optimum(learner, state)
    accuracy = (learner.predict(state, test.x) == test.y).mean()
    reference = ((z @ retrained.T > 0)[:, 0] == (test.y == 1)).mean()
    assert reference > 0.8 and accuracy >= reference - 0.01
