"""Ridge regression: the closed form, downdates against a fresh fit, and the guard against drift."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge as ScikitLearnRidge

from expunge.data.records import Records
from expunge.errors import DataError, ModelError, RequestError
from expunge.guarantee import Exact
from expunge.methods.exact import ridge
from expunge.methods.exact.ridge import Ridge
from expunge.methods.learner import Job, State


def records(x: Any, y: Any) -> Records:
    return Records(ids=np.array([f"r{i}" for i in range(len(x))]), columns={"x": np.asarray(x), "y": np.asarray(y)})


def table(n: int = 120, d: int = 6, *, shift: float = 3.0, seed: int = 0) -> Records:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * rng.uniform(0.2, 5.0, d) + shift
    return records(x, x @ rng.normal(size=d) + rng.normal(size=n) - 7.0)


def names(*numbers: int) -> list[str]:
    return [f"r{i}" for i in numbers]


def drift(learner: Ridge, state: State) -> float:
    return learner.drift(state, learner.relearn(state))


def altered(state: State, part: str, key: str, array: Any) -> State:
    return replace(state, parts={**state.parts, part: {**state.parts[part], key: array}})


@pytest.mark.parametrize("alpha", [0.0, 0.3, 50.0])
@pytest.mark.parametrize("intercept", [True, False])
def test_solves_the_penalised_least_squares_problem(alpha: float, intercept: bool) -> None:
    data = table()
    state = Ridge(alpha=alpha, fit_intercept=intercept).fit(data)
    d = data.x.shape[1]
    columns = np.hstack([data.x, np.full((len(data), 1), float(intercept))])
    # the penalty as d more rows, none for the intercept: solved by singular values, not by normal equations
    extra = np.hstack([np.sqrt(alpha) * np.eye(d), np.zeros((d, 1))])
    want = np.linalg.lstsq(np.vstack([columns, extra]), np.concatenate([data.y, np.zeros(d)]), rcond=None)[0]
    np.testing.assert_allclose(state.parts["model"]["coefficients"], want[:d], rtol=1e-10)
    np.testing.assert_allclose(state.parts["model"]["intercept"], want[d:], rtol=1e-10)
    reference = ScikitLearnRidge(alpha=alpha, fit_intercept=intercept, solver="svd").fit(data.x, data.y)
    x = table(seed=1).x
    np.testing.assert_allclose(Ridge().predict(state, x), reference.predict(x), rtol=1e-9)


def test_chunks_change_nothing_but_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    data, learner = table(shift=1e5), Ridge()
    state = learner.fit(data)
    monkeypatch.setattr(ridge, "CHUNK", 7)
    assert learner.drift(state, learner.fit(data).parts) < 1e-13


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 99),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    intercept=st.booleans(),
    alpha=st.sampled_from([1e-3, 1.0]),
)
def test_any_sequence_of_forgets_equals_a_fresh_fit(seed: int, sizes: list[int], intercept: bool, alpha: float) -> None:
    data = table(n=110, seed=seed)
    learner = Ridge(alpha=alpha, fit_intercept=intercept)
    state, start = learner.fit(data), 0
    for size in sizes:
        state, outcome = learner.forget(state, names(*range(start, start + size)))
        start += size
        assert outcome.guarantee == Exact(equality="real_arithmetic")
        assert drift(learner, state) < 1e-11
    fresh = learner.fit(data.take(np.arange(start, len(data))))
    assert state.rows.records().digest() == fresh.rows.records().digest()
    np.testing.assert_allclose(learner.predict(state, data.x), learner.predict(fresh, data.x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_thousands_of_downdates_stay_near_a_fresh_fit(shift: float) -> None:
    """Means a million times the spread cost sums of products twelve digits, and cost these none."""
    learner = Ridge()
    data = table(n=2000, d=4, shift=shift)
    state = learner.fit(data)
    made_again = set()
    for i in range(1900):
        state, outcome = learner.forget(state, names(i))
        made_again.add(outcome.trace[0]["made_again"])
    assert made_again == {"nothing"}
    assert drift(learner, state) < 1e-12
    fresh = learner.fit(data.take(np.arange(1900, 2000)))
    a, b = state.parts["model"]["coefficients"], fresh.parts["model"]["coefficients"]
    np.testing.assert_allclose(a, b, rtol=1e-11)


def test_one_by_one_is_as_good_as_a_block() -> None:
    learner, data = Ridge(), table()
    block, _ = learner.forget(learner.fit(data), names(4, 5, 6))
    single = learner.fit(data)
    for i in (6, 4, 5):
        single, _ = learner.forget(single, names(i))
    assert learner.drift(single, block.parts) < 1e-13


@pytest.mark.parametrize(("count", "made_again"), [(1, "nothing"), (5, "nothing"), (6, "inverse"), (60, "inverse")])
def test_a_block_that_is_wider_than_the_features_is_factored(count: int, made_again: str) -> None:
    """Six features; a block of m rows has m + 1 vectors, since the mean moves."""
    learner = Ridge()
    state, outcome = learner.forget(learner.fit(table()), names(*range(count)))
    assert outcome.trace[0]["made_again"] == made_again
    assert outcome.cost.examples == count
    assert drift(learner, state) < 1e-12


def test_the_old_state_keeps_its_arrays() -> None:
    learner = Ridge()
    state = learner.fit(table())
    before = state.part_digests()
    learner.forget(state, names(3))
    learner.forget(state, names(*range(10, 30)))
    assert state.part_digests() == before


# --- the guard --------------------------------------------------------------------------------------------------------


def test_the_trace_measures_drift() -> None:
    learner = Ridge()
    state = learner.fit(table())
    _, outcome = learner.forget(state.copy(), names(0))
    event = outcome.trace[0]
    assert 0.5 < event["smallest_remainder"] < 1
    assert all(0 <= event[key] < 1e-13 for key in ("sum_drift", "inverse_residual", "coefficient_drift"))
    for size in (1e-6, 1e-4):
        loose = Ridge(tolerance=1.0)
        sick = altered(state, "inverse", "inverse", state.parts["inverse"]["inverse"] * (1 + size))
        event = loose.forget(sick.copy(), names(0))[1].trace[0]
        assert event["inverse_residual"] == pytest.approx(size, rel=0.3)
        old = np.asarray(state.parts["sums"]["scatter"])
        noisy = old + size * np.diag(old.diagonal())
        event = loose.forget(altered(state, "sums", "scatter", noisy).copy(), names(0))[1].trace[0]
        assert size / 30 < event["sum_drift"] < 3 * size


def test_remainder_is_one_minus_the_leverage() -> None:
    learner, data = Ridge(alpha=0.5, fit_intercept=False), table()
    _, outcome = learner.forget(learner.fit(data), names(7))
    x = data.x
    leverage = x[7] @ np.linalg.solve(x.T @ x + 0.5 * np.eye(6), x[7])
    assert outcome.trace[0]["smallest_remainder"] == pytest.approx(1 - leverage, abs=1e-12)


def test_an_inverse_gone_bad_is_made_anew() -> None:
    learner = Ridge()
    state = learner.fit(table())
    sick = altered(state, "inverse", "inverse", state.parts["inverse"]["inverse"] * 1.01)
    after, outcome = learner.forget(sick, names(0))
    assert outcome.trace[0]["made_again"] == "inverse"
    assert outcome.trace[0]["inverse_residual"] < 1e-12
    assert drift(learner, after) < 1e-12


@pytest.mark.parametrize("bad", ["nan", "noise"])
def test_sums_gone_bad_are_made_anew_from_the_rows(bad: str) -> None:
    learner = Ridge()
    data = table()
    state = learner.fit(data)
    scatter = np.array(state.parts["sums"]["scatter"])
    scatter[2, 2] *= np.nan if bad == "nan" else 1 + 1e-6
    after, outcome = learner.forget(altered(state, "sums", "scatter", scatter), names(0))
    assert outcome.trace[0]["made_again"] == "everything"
    assert outcome.cost.examples == len(data) - 1
    assert (outcome.trace[0]["sum_drift"] is None) == (bad == "nan")
    assert after.digest() == learner.fit(data.without(names(0))).digest()


def test_a_coefficient_gone_bad_is_solved_again() -> None:
    learner = Ridge()
    state = learner.fit(table())
    sick = altered(state, "model", "coefficients", state.parts["model"]["coefficients"] + 5.0)
    after, _ = learner.forget(sick, names(0))
    assert drift(learner, after) < 1e-12


def test_a_row_that_held_the_model_alone_is_not_divided_by() -> None:
    data = table()
    x = np.array(data.x)
    x[0, 3] = 1e5
    learner = Ridge()
    after, outcome = learner.forget(learner.fit(records(x, data.y)), names(0))
    assert outcome.trace[0]["smallest_remainder"] < 1e-6
    assert outcome.trace[0]["made_again"] == "inverse"
    assert drift(learner, after) < 1e-6
    x[0, 3] = 1e9
    after, outcome = learner.forget(learner.fit(records(x, data.y)), names(0))
    assert outcome.trace[0]["made_again"] == "everything"
    assert drift(learner, after) == 0


def test_sums_that_shrink_bit_by_bit_are_noticed() -> None:
    """No single row has a large leverage, and yet what remains is less than the rounding of what was there."""
    rng = np.random.default_rng(0)
    scale = np.concatenate([2.0 ** np.arange(40, 0, -1), np.ones(20)])
    x = rng.normal(size=(60, 3)) * scale[:, None]
    data = records(x, x @ np.ones(3) + rng.normal(size=60))
    order = names(*range(40))
    guarded, careless = Ridge(), Ridge(tolerance=1e300, smallest_remainder=1e-300)
    state, events = guarded.fit(data), []
    for record_id in order:
        state, outcome = guarded.forget(state, [record_id])
        events.append(outcome.trace[0]["made_again"])
    assert "everything" in events
    assert events.count("everything") < len(order) / 2
    assert drift(guarded, state) < 1e-6
    state, worst = careless.fit(data), 0.0
    for record_id in order:
        state, _ = careless.forget(state, [record_id])
        worst = max(worst, drift(careless, state))
    assert worst > 0.1, "the guard has nothing to do"


def test_drift_is_free_of_units_and_sees_every_array() -> None:
    learner, data = Ridge(alpha=0.0), table()
    state = learner.fit(data)
    scaled = learner.fit(records(data.x * np.array([1e-6, 1, 1e3, 1, 1e6, 1]), data.y * 1e4))
    for one in (state, scaled):
        assert drift(learner, one) == 0
        for part, content in one.parts.items():
            for key, array in content.items():
                moved = altered(one, part, key, np.asarray(array) * (1 + 1e-3))
                assert 1e-6 < learner.drift(moved, one.parts) < 1e-1, (part, key)
    factors = [
        learner.drift(altered(s, "model", "intercept", s.parts["model"]["intercept"] * 2), s.parts)
        for s in (state, scaled)
    ]
    assert factors[0] == pytest.approx(factors[1], rel=1e-6)
    assert learner.drift(state, learner.fit(table(d=5)).parts) == np.inf


# --- edges ------------------------------------------------------------------------------------------------------------


def test_dependent_features_need_a_penalty() -> None:
    x = np.array(table().x)
    x[:, 2] = x[:, 0] - x[:, 1]
    data = records(x, table().y)
    with pytest.raises(ModelError, match="linearly dependent"):
        Ridge(alpha=0.0).fit(data)
    assert np.isfinite(Ridge(alpha=1e-3).fit(data).parts["model"]["coefficients"]).all()


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6 / 3])
def test_a_constant_column_is_dependent_on_the_intercept(constant: float) -> None:
    x = np.array(table().x)
    x[:, 1] = constant
    data = records(x, table().y)
    with pytest.raises(ModelError, match="linearly dependent"):
        Ridge(alpha=0.0).fit(data)
    learner = Ridge()
    state = learner.fit(data)
    assert abs(state.parts["model"]["coefficients"][1]) < 1e-6
    for i in range(50):
        state, outcome = learner.forget(state, names(i))
        assert outcome.trace[0]["made_again"] == "nothing"
    assert drift(learner, state) < 1e-11


def test_sums_too_bad_to_factor_are_made_anew_before_anything_is_refused() -> None:
    learner = Ridge(tolerance=1e300)
    state = learner.fit(table())
    scatter = np.array(state.parts["sums"]["scatter"])
    scatter[3, 3] *= 0.01
    after, outcome = learner.forget(altered(state, "sums", "scatter", scatter), names(*range(10)))
    assert outcome.trace[0]["made_again"] == "everything"
    assert drift(learner, after) == 0


def test_a_refused_forget_leaves_the_state_as_it_was() -> None:
    x = np.array(table(n=12).x)
    learner = Ridge(alpha=0.0)
    state = learner.fit(records(x, table(n=12).y))
    before = state.digest()
    with pytest.raises(ModelError, match="linearly dependent"):
        learner.forget(state, names(*range(8)))
    assert state.digest() == before
    assert len(state.rows) == 12


def test_the_only_record_of_a_category() -> None:
    x = np.array(table().x)
    x[:, 5] = 0.0
    x[9, 5] = 1.0
    learner = Ridge()
    state, outcome = learner.forget(learner.fit(records(x, table().y)), names(9))
    # what is left of its column is rounding, which the penalty outweighs
    assert outcome.trace[0]["made_again"] == "nothing"
    assert drift(learner, state) < 1e-12


def test_means_so_large_that_the_first_pass_misses_them() -> None:
    rng = np.random.default_rng(0)
    x = 1e14 + rng.integers(0, 300, (3001, 3))
    data = records(x, (x - 1e14) @ np.array([1.0, 2.0, 3.0]) + rng.normal(size=3001))
    learner = Ridge()
    state = learner.fit(data)
    near = Ridge().fit(records(x - 1e14, data.y))
    np.testing.assert_allclose(state.parts["sums"]["scatter"], near.parts["sums"]["scatter"], rtol=1e-12)
    np.testing.assert_allclose(state.parts["model"]["coefficients"], near.parts["model"]["coefficients"], rtol=1e-12)
    state, outcome = learner.forget(state, names(5))
    assert outcome.trace[0]["made_again"] == "nothing"
    assert outcome.trace[0]["sum_drift"] < 1e-13


def test_a_constant_target() -> None:
    learner = Ridge()
    state = learner.fit(records(table().x, np.full(120, 0.1)))
    state, outcome = learner.forget(state, names(0, 1))
    assert drift(learner, state) < 1e-12
    np.testing.assert_allclose(learner.predict(state, table().x), 0.1)
    assert outcome.trace[0]["coefficient_drift"] < 1


def test_down_to_one_record() -> None:
    learner, data = Ridge(), table(n=5)
    state = learner.fit(data)
    for i in range(4):
        state, _ = learner.forget(state, names(i))
    np.testing.assert_allclose(learner.predict(state, data.x[4:]), data.y[4:])
    np.testing.assert_allclose(learner.predict(state, data.x[:4]), data.y[4], atol=1e-9)


def test_float32_and_integers_are_summed_in_float64() -> None:
    data = table()
    x32 = data.x.astype(np.float32)
    np.testing.assert_array_equal(
        Ridge().fit(records(x32, data.y)).parts["sums"]["scatter"],
        Ridge().fit(records(x32.astype(float), data.y)).parts["sums"]["scatter"],
    )
    whole = np.rint(data.x * 10).astype(np.int64)
    after, _ = Ridge().forget(Ridge().fit(records(whole, np.rint(data.y).astype(int))), names(1))
    assert drift(Ridge(), after) < 1e-12


def test_the_seed_changes_only_how_drift_is_probed() -> None:
    one, two = Ridge().fit(table(), seed=1), Ridge().fit(table(), seed=2)
    different = {name for name, digest in one.part_digests().items() if digest != two.part_digests()[name]}
    assert different == {"check"}


@pytest.mark.parametrize(
    "parameters",
    [
        {"alpha": -1.0},
        {"alpha": float("nan")},
        {"alpha": float("inf")},
        {"smallest_remainder": 0.0},
        {"smallest_remainder": 1.0},
        {"tolerance": 0.0},
        {"tolerance": float("nan")},
    ],
)
def test_hyper_parameters_out_of_range(parameters: dict[str, float]) -> None:
    with pytest.raises(RequestError, match=next(iter(parameters))):
        Ridge(**parameters)


def test_records_that_do_not_suit() -> None:
    data = table()
    with pytest.raises(DataError, match=r"expected \(n, d\)"):
        Ridge().fit(records(data.x[:, :, None], data.y))
    with pytest.raises(DataError, match=r"expected \(n, d\)"):
        Ridge().fit(records(data.x[:, :0], data.y))
    with pytest.raises(DataError, match="expected numbers"):
        Ridge().fit(records(data.x, data.y.astype(str)))
    with pytest.raises(DataError, match="overflow"), np.errstate(over="ignore", invalid="ignore"):
        Ridge().fit(records(data.x * 1e200, data.y))
    state = Ridge().fit(data)
    with pytest.raises(ModelError, match="columns"):
        Ridge().predict(state, data.x[:, :5])


def test_what_is_kept_only_to_forget_is_counted() -> None:
    state = Ridge().fit(table())
    _, outcome = Ridge().forget(state.copy(), names(0))
    width = 7
    assert outcome.cost.stored_bytes == 8 * (2 * width + width**2 + 36 + 2 * 4 * width)


def test_removal_needs_no_other_row() -> None:
    """The rows that stay could be unreadable, and a downdate would not notice."""
    learner = Ridge()
    state = learner.fit(table())
    expected = learner.remove(state, ("r3",), job=Job())
    others = np.arange(120) != 3
    for name in ("x", "y"):
        state.rows.column(name)[others] = np.nan
    got = learner.remove(state, ("r3",), job=Job())
    np.testing.assert_array_equal(got.parts["model"]["coefficients"], expected.parts["model"]["coefficients"])
