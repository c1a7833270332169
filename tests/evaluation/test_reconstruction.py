"""A row comes back from two linear models, and only from the two that differ by it."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge as PlainRidge

from expunge.data.records import Records
from expunge.errors import DataError, MissingReference, ModelError
from expunge.evaluation.attacks.reconstruction import (
    LinearFit,
    cosines,
    deleted_gradients,
    largest_change,
    reconstruct,
    reconstruction,
)
from expunge.evaluation.linear_pairs import ridge_pairs, softmax_fit, softmax_pairs
from expunge.methods.exact.ridge import Ridge
from expunge.result import Measurement

Array = np.ndarray


def halves(x: Array, y: Array, seed: int = 0) -> tuple[Array, Array, Array]:
    """Training rows and targets, and the attacker's rows."""
    order = np.random.default_rng(seed).permutation(len(x))
    cut = len(x) // 2
    return x[order[:cut]], y[order[:cut]], x[order[cut:]]


def values(found: dict) -> dict[str, float]:  # type: ignore[type-arg]
    assert all(isinstance(m, Measurement) for m in found.values())
    return {name.removeprefix("reconstruction_"): m.value for name, m in found.items()}


def weights(model: PlainRidge) -> Array:
    return np.append(model.coef_, model.intercept_)[:, None]


@pytest.mark.parametrize("intercept", [True, False])
def test_least_squares_gives_the_very_row_when_the_attacker_knows_the_others(intercept: bool) -> None:
    """With the retained rows as public rows, the equation is exact: direction, sign, scale and residual."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(2.0, 1.0, (30, 4)), rng.normal(size=30)
    plain = PlainRidge(alpha=0.7, fit_intercept=intercept, tol=1e-12, solver="cholesky")
    kept = np.delete(x, 3, 0)
    before, after = weights(plain.fit(x, y)), weights(plain.fit(kept, np.delete(y, 3)))
    residual = float(x[3] @ before[:-1, 0] + before[-1, 0] - y[3])
    cut = slice(None) if intercept else slice(0, -1)
    fit = LinearFit(rows=29, regularization=0.7, intercept=intercept)
    gradient = deleted_gradients(before[cut], after[None, cut], kept, fit)[0, :, 0]
    np.testing.assert_allclose(gradient[:4], residual * x[3], rtol=1e-6)
    row = reconstruct(before[cut], after[None, cut], kept, fit)[0]
    np.testing.assert_allclose(row, x[3] if intercept else x[3] / np.linalg.norm(x[3]), rtol=1e-6)


def test_a_penalised_intercept_is_told_apart() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(1.0, 1.0, (30, 3)), rng.normal(size=30)
    design = np.hstack([x, np.ones((30, 1))])

    def fit(rows: Array) -> Array:
        d = design[rows]
        return np.linalg.solve(d.T @ d + 5.0 * np.eye(4), d.T @ y[rows])[:, None]

    kept = np.arange(1, 30)
    both = (fit(np.arange(30)), fit(kept)[None], x[kept])
    told = LinearFit(rows=29, regularization=5.0, penalized_intercept=True)
    np.testing.assert_allclose(reconstruct(*both, told)[0], x[0], rtol=1e-6)
    assert np.abs(reconstruct(*both, LinearFit(rows=29, regularization=5.0))[0] - x[0]).max() > 0.1


def test_softmax_and_sigmoid_give_the_very_row_when_the_attacker_knows_the_others() -> None:
    x, y = load_digits(return_X_y=True)
    x, y = x[:200, 20:44] / 16, y[:200]
    kept = np.delete(x, 5, 0)
    pairs = softmax_pairs(x, y, [5], regularization=0.5)
    row = reconstruct(pairs.before, pairs.after, kept, pairs.fit)[0]
    np.testing.assert_allclose(row, x[5], atol=2e-3)

    binary = (y > 4).astype(int)
    plain = LogisticRegression(C=2.0, tol=1e-10, max_iter=10_000)

    def logistic(rows: Array, labels: Array) -> Array:
        model = plain.fit(rows, labels)
        return np.append(model.coef_[0], model.intercept_)[:, None]

    fit = LinearFit(rows=199, regularization=0.5, link="sigmoid")
    after = logistic(kept, np.delete(binary, 5))[None]
    np.testing.assert_allclose(reconstruct(logistic(x, binary), after, kept, fit)[0], x[5], atol=5e-3)


def test_softmax_fit_is_that_of_scikit_learn() -> None:
    x, y = load_digits(return_X_y=True)
    x, y = x[:300] / 16, y[:300]
    mine = softmax_fit(x, np.eye(10)[y], 1.0)
    theirs = LogisticRegression(C=1.0, tol=1e-8, max_iter=10_000).fit(x, y)
    np.testing.assert_allclose(mine[:-1], theirs.coef_.T, atol=1e-4)


def test_digits_come_back_from_a_ridge_learner() -> None:
    """The learner's own forget is exact, and the row is there for whoever kept both weights."""
    x, y = load_digits(return_X_y=True)
    train, target, public = halves(x / 16, y.astype(float))
    records = Records(ids=np.array([f"d{k}" for k in range(len(train))]), columns={"x": train, "y": target})
    pairs = ridge_pairs(Ridge(), records, records.ids[:40].tolist())
    found = reconstruction(pairs.before, pairs.after, train[:40], public, fit=pairs.fit)
    measured = values(found)
    assert measured["cosine"] > 0.93
    assert measured["share_recovered"] > 0.8
    assert measured["raw_cosine"] > measured["raw_cosine_mean_row"] + 0.1
    assert measured["cosine_nearest_row"] < 0.9
    assert abs(measured["cosine_random_row"]) < 0.2
    assert measured["cosine_largest_change"] < 0.8
    first = found["reconstruction_cosine"]
    assert isinstance(first, Measurement)
    assert first.low > measured["cosine_nearest_row"]  # better than the best public row, with 95% confidence
    other = reconstruction(pairs.before, np.roll(pairs.after, 1, axis=0), train[:40], public, fit=pairs.fit)
    assert values(other)["cosine"] < 0.3


def test_two_states_of_a_ridge_learner_give_the_row_without_any_public_data() -> None:
    x, y = load_diabetes(return_X_y=True)
    learner, n = Ridge(), len(x)
    before = learner.fit(Records(ids=np.array([str(k) for k in range(n)]), columns={"x": x, "y": y}))
    after, _ = learner.forget(before.copy(), ["7"])
    old, new = (state.parts["sums"]["mean"].sum(axis=0) for state in (before, after))
    np.testing.assert_allclose(old + (n - 1) * (old - new), [*x[7], y[7]], atol=1e-8)


def test_diabetes_comes_back_from_scikit_learns_ridge() -> None:
    x, y = load_diabetes(return_X_y=True)
    train, target, public = halves(x / x.std(axis=0), y)
    plain = PlainRidge(alpha=1.0)
    after = np.stack([weights(plain.fit(np.delete(train, k, 0), np.delete(target, k))) for k in range(40)])
    fit = LinearFit(rows=len(train) - 1, regularization=1.0)
    measured = values(reconstruction(weights(plain.fit(train, target)), after, train[:40], public, fit=fit))
    assert measured["cosine"] > 0.9
    assert abs(measured["raw_cosine_mean_row"]) < 0.3
    half = LinearFit(rows=len(train) // 2, regularization=1.0)
    guess = values(reconstruction(weights(plain.fit(train, target)), after, train[:40], public, fit=half))
    assert guess["cosine"] > 0.9  # the number of rows need not be known well


def test_what_limits_the_attacker_is_rows_that_are_like_those_that_decide() -> None:
    """Nuclei of cancer are told apart by few rows unless the weights are held down: 285 others say little of those."""
    x, y = load_breast_cancer(return_X_y=True)
    train, labels, public = halves(x / x.std(axis=0), y)
    cosine = {}
    for regularization in (1.0, 10.0):
        pairs = softmax_pairs(train, labels, range(20), regularization=regularization)
        for who, known in (("outsider", public), ("insider", train)):
            found = reconstruction(pairs.before, pairs.after, train[:20], known, fit=pairs.fit)
            cosine[who, regularization] = values(found)["cosine"]
    assert cosine["outsider", 1.0] < 0.7
    assert cosine["outsider", 10.0] > 0.8
    assert min(cosine["insider", 1.0], cosine["insider", 10.0]) > 0.9


def test_an_embedding_comes_back_from_a_head_on_it() -> None:
    x, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(3)
    embedded = np.cos(x / 16 @ rng.normal(size=(64, 40)) * 0.3 + rng.uniform(0, 6, 40))
    train, labels, public = halves(embedded, y)
    pairs = softmax_pairs(train, labels, range(20), regularization=5.0)
    measured = values(reconstruction(pairs.before, pairs.after, train[:20], public, fit=pairs.fit))
    assert measured["cosine"] > 0.9
    assert measured["cosine_random_row"] < 0.2


def test_without_the_model_before_there_is_no_attack() -> None:
    after, public, fit = np.ones((2, 4, 1)), np.ones((5, 3)), LinearFit(rows=9)
    with pytest.raises(MissingReference) as refused:
        reconstruction(None, after, np.ones((2, 3)), public, fit=fit)
    assert "destroyed" in refused.value.remedy
    with pytest.raises(MissingReference):
        reconstruct(np.ones((4, 1)), after, None, fit)


def test_two_equal_models_tell_nothing() -> None:
    rng = np.random.default_rng(0)
    before, public = rng.normal(size=(4, 2)), rng.normal(5.0, 1.0, (9, 3))
    after = np.stack([before, before])
    fit = LinearFit(rows=9, regularization=1.0)
    assert not reconstruct(before, after, public, fit).any()
    measured = values(reconstruction(before, after, public[:2], public, fit=fit))
    assert measured["cosine"] == measured["raw_cosine"] == measured["share_recovered"] == 0.0


def test_largest_change_is_the_row_whose_prediction_moved_most() -> None:
    before, after = np.zeros((3, 1)), np.array([[[1.0], [0.0], [0.0]], [[0.0], [-1.0], [2.0]]])
    public = np.array([[1.0, 2.0], [-3.0, 0.0], [0.0, 9.0]])
    moved = largest_change(before, after, public, LinearFit(rows=2))
    np.testing.assert_array_equal(moved, public[[1, 2]])


def test_cosines_by_hand() -> None:
    one, two = np.array([[3.0, 0], [1, 1], [0, 0]]), np.array([[-2.0, 0], [1, 0], [1, 1]])
    np.testing.assert_allclose(cosines(one, two), [-1.0, np.sqrt(0.5), 0.0])


def test_public_rows_are_scaled_to_the_number_of_retained_ones() -> None:
    rng = np.random.default_rng(0)
    before, after, public = rng.normal(size=(3, 1)), rng.normal(size=(1, 3, 1)), rng.normal(size=(9, 2))
    fit = LinearFit(rows=36, regularization=2.0)
    once = deleted_gradients(before, after, public, fit)
    np.testing.assert_allclose(deleted_gradients(before, after, np.vstack([public] * 4), fit), once)
    design = np.hstack([public, np.ones((9, 1))])
    penalty = np.array([[2.0], [2.0], [0.0]])
    np.testing.assert_allclose(once[0], 4 * design.T @ design @ (after[0] - before) + penalty * (after[0] - before))


def test_nearest_row_is_the_nearest() -> None:
    fit = LinearFit(rows=4)
    before, after = np.zeros((3, 1)), np.ones((2, 3, 1))
    public = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    deleted = np.array([[2.0, 0.0], [0.0, -3.0]])
    assert values(reconstruction(before, after, deleted, public, fit=fit))["cosine_nearest_row"] == 1.0


def test_a_pair_for_each_deletion_or_one_model_before_all() -> None:
    rng = np.random.default_rng(0)
    before, after, public = rng.normal(size=(3, 2)), rng.normal(size=(4, 3, 2)), rng.normal(size=(9, 2))
    fit = LinearFit(rows=5, link="softmax")
    alone = deleted_gradients(np.stack([before] * 4), after, public, fit)
    np.testing.assert_array_equal(deleted_gradients(before, after, public, fit), alone)


def test_refuses_what_does_not_fit() -> None:
    before, after, public, fit = np.ones((4, 1)), np.ones((2, 4, 1)), np.ones((5, 3)), LinearFit(rows=9)
    for wrong in ((before[:3], after, public), (before, after[0], public), (before, after, public[:, :2])):
        with pytest.raises(DataError):
            reconstruct(*wrong, fit)
    with pytest.raises(DataError):
        reconstruct(before, after, public, LinearFit(rows=9, intercept=False))
    for deleted in (np.ones((1, 3)), np.ones((3, 3)), np.ones((2, 2))):
        with pytest.raises(DataError):
            reconstruction(before, after, deleted, public, fit=fit)
    for bad in ({"rows": 0}, {"rows": 1, "regularization": -1.0}, {"rows": 1, "link": "probit"}):
        with pytest.raises(DataError):
            LinearFit(**bad)  # type: ignore[arg-type]
    with pytest.raises(DataError):
        cosines(np.ones((2, 3)), np.ones((2, 2)))
    records = Records(ids=np.array(["a", "b", "c"]), columns={"x": np.eye(3), "y": np.ones(3)})
    with pytest.raises(ModelError):
        ridge_pairs(Ridge(fit_intercept=False), records, ["a"])
