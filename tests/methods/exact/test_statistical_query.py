"""The bound on the distance to the true minimum is true, and nothing here calls itself exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from sklearn.linear_model import LogisticRegression

from expunge.data.records import Array, Records
from expunge.errors import DataError, ModelError, NonFiniteLoss, RequestError
from expunge.guarantee import Empirical
from expunge.methods.exact.statistical_query import Queries, StatisticalQuery, conjugate_gradients
from expunge.methods.learner import State


def clouds(n: int = 400, classes: int = 3, seed: int = 0) -> Records:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 5)).astype(np.float32)
    y = (x @ rng.normal(size=(5, classes)) + rng.gumbel(size=(n, classes))).argmax(1)
    return Records(ids=np.array([f"r{k}" for k in range(n)]), columns={"x": x, "y": y})


def weights(state: State) -> Array:
    return np.asarray(state.parts["weights"]["w"])


def minimum(records: Records, l2: float = 1e-2) -> Array:
    """The minimum to rounding."""
    return weights(StatisticalQuery(l2=l2, tolerance=1e-14).fit(records))


def test_queries_are_derivatives_of_the_loss() -> None:
    records = clouds(50)
    rng = np.random.default_rng(1)
    w, v = rng.normal(size=(3, 6)), rng.normal(size=(3, 6))
    wide = np.hstack([records.x.astype(float), np.ones((50, 1))])

    def loss(flat: Array) -> float:
        logits = wide @ flat.reshape(3, 6).T
        nll = np.log(np.exp(logits).sum(1)) - logits[np.arange(50), records.y]
        return float(nll.mean() + 0.05 * (flat**2).sum())

    queries = Queries(records.x, records.y, 3, 0.1)
    np.testing.assert_allclose(queries.gradient(w).ravel(), approx_fprime(w.ravel(), loss), atol=1e-5)
    product, diagonal = queries.curvature(w)
    ahead, behind = queries.gradient(w + 1e-5 * v), queries.gradient(w - 1e-5 * v)
    np.testing.assert_allclose(product(v), (ahead - behind) / 2e-5, atol=1e-7)
    for c, j in ((0, 0), (2, 5), (1, 3)):
        unit = np.zeros((3, 6))
        unit[c, j] = 1
        assert product(unit)[c, j] == pytest.approx(diagonal[c, j], rel=1e-12)


def test_every_pass_over_the_records_is_counted() -> None:
    records, w = clouds(20), np.zeros((3, 6))
    queries = Queries(records.x, records.y, 3, 0.1)
    queries.gradient(w)
    assert queries.asked == 1
    product, _ = queries.curvature(w)
    assert queries.asked == 2
    product(w)
    assert queries.asked == 3


def test_conjugate_gradients_solve() -> None:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(8, 8)) * 10.0 ** np.arange(-3, 5)
    matrix, right = root.T @ root + np.eye(8) * 1e-3, rng.normal(size=(2, 4))
    got = conjugate_gradients(lambda a: (matrix @ a.ravel()).reshape(2, 4), np.diag(matrix).reshape(2, 4), right, 1e-3)
    assert np.linalg.norm(matrix @ got.ravel() - right.ravel()) < 1e-2


def test_finds_the_minimum_of_scikit_learn() -> None:
    records = clouds()
    wide = np.hstack([records.x.astype(float), np.ones((400, 1))])
    reference = LogisticRegression(C=1 / (1e-2 * 400), fit_intercept=False, tol=1e-10, max_iter=5000)
    reference.fit(wide, records.y)
    learner = StatisticalQuery()
    state = learner.fit(records)
    np.testing.assert_allclose(weights(state), reference.coef_, atol=1e-5)
    np.testing.assert_allclose(learner.scores(state, records.x), reference.predict_log_proba(wide), atol=1e-4)
    np.testing.assert_allclose(np.exp(learner.scores(state, records.x)).sum(1), 1)


@pytest.mark.parametrize("tolerance", [1e-1, 1e-3, 1e-6])
@pytest.mark.parametrize("l2", [1e-3, 1e-1])
def test_the_bound_holds_over_a_sequence_of_requests(tolerance: float, l2: float) -> None:
    records = clouds()
    learner = StatisticalQuery(l2=l2, tolerance=tolerance)
    state = learner.fit(records)
    gone: list[str] = []
    for request in (["r0"], ["r399", "r5"], [f"r{k}" for k in range(100, 200)]):
        state, unlearned = learner.forget(state, request)
        gone += request
        left = records.without(gone)
        fresh, best = learner.fit(left), minimum(left, l2)
        bounds = [s.facts["distance_bound"] for s in (state, fresh)]
        assert bounds[0] <= tolerance / l2 * (1 + 1e-12)
        assert np.linalg.norm(weights(state) - best) <= bounds[0] + 1e-10
        assert np.linalg.norm(weights(state) - weights(fresh)) <= sum(bounds) + 1e-10
        apart = np.abs(learner.scores(state, records.x) - learner.scores(fresh, records.x)).max(1)
        sure = learner.bound_in_nats(state, records.x) + learner.bound_in_nats(fresh, records.x)
        assert (apart <= sure + 1e-10).all()
        event = unlearned.trace[0]
        assert event["distance_bound"] == bounds[0] == event["gradient_norm"] / l2


def test_the_bound_is_the_gradient_that_is_there() -> None:
    records = clouds()
    state, _ = StatisticalQuery(tolerance=1e-2).forget(StatisticalQuery(tolerance=1e-2).fit(records), ["r1"])
    left = records.without(["r1"])
    gradient = np.linalg.norm(Queries(left.x, left.y, 3, 1e-2).gradient(weights(state)))
    assert state.facts["gradient_norm"] == pytest.approx(gradient, rel=1e-12)


def test_is_empirical_and_says_so() -> None:
    learner = StatisticalQuery()
    _, unlearned = learner.forget(learner.fit(clouds()), ["r0"])
    assert isinstance(unlearned.guarantee, Empirical)
    assert learner.equality is None


def test_goes_on_from_the_old_weights_with_fewer_queries() -> None:
    records = clouds(2000)
    learner = StatisticalQuery()
    _, unlearned = learner.forget(learner.fit(records), ["r0"])
    again = learner.forget(learner.fit(records), ["r0"])[1]
    assert unlearned.cost.examples == again.cost.examples == unlearned.trace[0]["queries"] * 1999
    scratch = StatisticalQuery().learn(records.without(["r0"]), seed=0, job=None).examples  # type: ignore[arg-type]
    assert unlearned.cost.examples < scratch / 1.5


def test_takes_a_step_even_where_the_old_weights_would_do() -> None:
    records = clouds(2000)
    learner = StatisticalQuery(tolerance=0.5)
    state = learner.fit(records)
    after, unlearned = learner.forget(state, ["r0"])
    assert unlearned.trace[0]["iterations"] == 1
    assert not np.array_equal(weights(after), weights(state))


def test_a_last_class_that_loses_all_records_vanishes() -> None:
    records = clouds()
    gone = records.ids[records.y == 2].tolist()
    state, _ = StatisticalQuery().forget(StatisticalQuery().fit(records), gone)
    fresh = StatisticalQuery().fit(records.without(gone))
    assert weights(state).shape == weights(fresh).shape == (2, 6)
    assert np.linalg.norm(weights(state) - weights(fresh)) < 2e-6
    named = Records(ids=records.ids, columns=records.columns, classes=("a", "b", "c", "d"))
    state, _ = StatisticalQuery().forget(StatisticalQuery().fit(named), gone)
    assert weights(state).shape == (4, 6)


def test_converges_on_features_of_very_different_scales() -> None:
    records = clouds(classes=2)
    scaled = records.x.astype(float) * [1, 1e2, 1e4, 1e-3, 1] + [0, 0, 3e5, 0, 0]
    state = StatisticalQuery().fit(Records(ids=records.ids, columns={"x": scaled, "y": records.y}))
    assert state.facts["gradient_norm"] <= 1e-8


def test_chunks_do_not_change_the_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    from expunge.methods.exact import statistical_query

    records, w = clouds(), np.random.default_rng(0).normal(size=(3, 6))
    queries = Queries(records.x, records.y, 3, 0.1)
    gradient, along = queries.gradient(w), queries.curvature(w)[0](w)
    whole = statistical_query.chunks
    monkeypatch.setattr(statistical_query, "chunks", lambda rows, width: whole(rows, width, 100))
    np.testing.assert_allclose(queries.gradient(w), gradient, atol=1e-14)
    np.testing.assert_allclose(queries.curvature(w)[0](w), along, atol=1e-14)


def test_one_class_is_its_own_minimum() -> None:
    records = Records(ids=np.array(["a", "b"]), columns={"x": np.ones((2, 2)), "y": np.zeros(2, int)})
    state = StatisticalQuery().fit(records)
    assert StatisticalQuery().predict(state, np.ones((3, 2))).tolist() == [0, 0, 0]


def test_refuses_what_cannot_converge() -> None:
    records = clouds()
    with pytest.raises(ModelError, match="after 1 iterations"):
        StatisticalQuery(iterations=1).fit(records)
    with pytest.raises(ModelError, match="stuck"):
        StatisticalQuery(tolerance=1e-300).fit(records)
    huge = Records(ids=records.ids, columns={"x": records.x.astype(float) * 1e200, "y": records.y})
    with pytest.raises(NonFiniteLoss):
        StatisticalQuery().fit(huge)


def test_unsuitable_records_are_refused() -> None:
    records = clouds()
    with pytest.raises(DataError, match="labels"):
        StatisticalQuery().fit(Records(ids=records.ids, columns={"x": records.x, "y": np.zeros((400, 1), int)}))
    with pytest.raises(ModelError, match="5"):
        StatisticalQuery().predict(StatisticalQuery().fit(records), records.x[:, :4])


@pytest.mark.parametrize(
    "bad", [{"l2": 0.0}, {"l2": float("inf")}, {"tolerance": 0.0}, {"tolerance": float("nan")}, {"iterations": 0}]
)
def test_nonsense_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="statistical_query"):
        StatisticalQuery(**bad)
