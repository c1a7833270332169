"""Naive Bayes forgets to the last bit and is, up to a declared rounding, the naive Bayes of the textbook."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.naive_bayes import BernoulliNB, GaussianNB, MultinomialNB

from expunge.data.records import Array, Records
from expunge.errors import DataError, ModelError, RequestError
from expunge.methods.exact import naive_bayes
from expunge.methods.exact.naive_bayes import NaiveBayes, moments, tables
from expunge.methods.learner import State

# A prior as good as scikit-learn's, which does not smooth it.
BARE = 1e-12


def table(x: Array, y: Array, classes: tuple[str, ...] = ()) -> Records:
    return Records(ids=np.array([f"r{k}" for k in range(len(x))]), columns={"x": x, "y": y}, classes=classes)


def clouds(n: int = 300, classes: int = 3, seed: int = 0) -> Records:
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    x = rng.normal(size=(n, 6)) * [1, 10, 0.1, 1e4, 1e-4, 1] + y[:, None] * [1, 5, 0.1, 1e4, 1e-4, 0]
    return table(x, y)


def counted(n: int = 300) -> Records:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, n)
    return table(rng.poisson(1 + y[:, None] * np.array([0, 1, 2, 0.5])).astype(np.float32), y)


def means_and_variances(learner: NaiveBayes, state: State) -> tuple[Array, Array]:
    counts, sums = tables(state.parts)
    return moments(counts, sums, learner.step, learner.var_smoothing)


def test_gaussian_scores_are_those_of_scikit_learn() -> None:
    records = clouds()
    learner = NaiveBayes(prior_smoothing=BARE)
    state = learner.fit(records)
    reference = GaussianNB().fit(records.x, records.y)
    np.testing.assert_allclose(
        learner.scores(state, records.x), reference.predict_joint_log_proba(records.x), rtol=1e-6, atol=1e-6
    )
    np.testing.assert_array_equal(learner.predict(state, records.x), reference.predict(records.x))


def test_multinomial_scores_are_those_of_scikit_learn() -> None:
    records = counted()
    learner = NaiveBayes(likelihood="multinomial", alpha=0.7, prior_smoothing=BARE)
    scores = learner.scores(learner.fit(records), records.x)
    reference = MultinomialNB(alpha=0.7).fit(records.x, records.y)
    np.testing.assert_allclose(scores, reference.predict_joint_log_proba(records.x), rtol=1e-9)


def test_multinomial_takes_fractions() -> None:
    records = counted()
    tfidf = table(records.x * 0.37, records.y)
    learner = NaiveBayes(likelihood="multinomial", prior_smoothing=BARE)
    reference = MultinomialNB().fit(tfidf.x.astype(float), tfidf.y)
    np.testing.assert_allclose(
        learner.scores(learner.fit(tfidf), tfidf.x), reference.predict_joint_log_proba(tfidf.x.astype(float)), rtol=1e-8
    )


def test_bernoulli_scores_are_those_of_scikit_learn() -> None:
    records = counted()
    learner = NaiveBayes(likelihood="bernoulli", alpha=0.3, threshold=1.0, prior_smoothing=BARE)
    scores = learner.scores(learner.fit(records), records.x)
    reference = BernoulliNB(alpha=0.3, binarize=1.0).fit(records.x, records.y)
    np.testing.assert_allclose(scores, reference.predict_joint_log_proba(records.x), rtol=1e-9)


def test_the_prior_is_smoothed_by_its_formula() -> None:
    y = np.array([0, 0, 0, 1, 3])
    learner = NaiveBayes(likelihood="bernoulli", prior_smoothing=2.0)
    scores = learner.scores(learner.fit(table(np.zeros((5, 0)), y)), np.zeros((1, 0)))
    np.testing.assert_allclose(np.exp(scores[0]), np.array([3 + 2, 1 + 2, 2, 1 + 2]) / (5 + 2 * 4))


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(["gaussian", "multinomial", "bernoulli"]),
    st.integers(0, 20),
    st.lists(st.lists(st.integers(0, 59), min_size=1, max_size=20, unique=True), min_size=1, max_size=3),
)
def test_any_deletions_give_the_bytes_of_a_fresh_fit(likelihood: Any, seed: int, requests: list[list[int]]) -> None:
    records = clouds(60, 4, seed)
    if likelihood == "multinomial":
        records = table(np.abs(records.x), records.y)
    learner = NaiveBayes(likelihood=likelihood)
    state, gone = learner.fit(records), set[int]()
    for request in requests:
        new = [k for k in request if k not in gone]
        if new and len(gone) + len(new) < 60:
            state, _ = learner.forget(state, records.ids[new].tolist())
            gone |= set(new)
    left = records.without(records.ids[sorted(gone)].tolist())
    fresh = learner.fit(left)
    assert state.digest() == fresh.digest()
    np.testing.assert_array_equal(learner.scores(state, records.x), learner.scores(fresh, records.x))


def test_the_order_of_the_records_does_not_show() -> None:
    records = clouds()
    shuffled = records.take(np.random.default_rng(3).permutation(len(records)))
    assert NaiveBayes().fit(records).part_digests() == NaiveBayes().fit(shuffled).part_digests()


def test_no_digit_cancels_in_a_variance_that_is_tiny_against_the_mean() -> None:
    """Seconds since 1970, a year apart from none: Σx² − (Σx)²/n in floats would be noise."""
    x = 1.7e9 + np.random.default_rng(0).normal(size=(500, 1)) * 1e-3
    learner = NaiveBayes(var_smoothing=0.0)
    _, variance = means_and_variances(learner, learner.fit(table(x, np.zeros(500, int))))
    assert variance[0, 0] == pytest.approx(np.var(x - 1.7e9), rel=1e-6)


@pytest.mark.parametrize("step", [0.25, 2.0**-10])
def test_the_error_of_a_coarse_step_is_bounded_by_half_of_it(step: float) -> None:
    records = clouds()
    learner = NaiveBayes(step=step, var_smoothing=0.0)
    mean, variance = means_and_variances(learner, learner.fit(records))
    for c in range(3):
        own = records.x[records.y == c]
        assert (np.abs(mean[c] - own.mean(0)) <= step / 2 + 1e-9).all()
        assert (np.abs(np.sqrt(variance[c] - step**2 / 12) - own.std(0)) <= step / 2 + 1e-9).all()
    assert np.abs(mean[0] - records.x[records.y == 0].mean(0)).max() > 0


def test_a_last_class_that_loses_all_records_vanishes_unless_it_is_declared() -> None:
    records = clouds(40, 4)
    gone = records.ids[(records.y == 3) | (records.y == 1)].tolist()
    state, _ = NaiveBayes().forget(NaiveBayes().fit(records), gone)
    assert NaiveBayes().scores(state, records.x).shape == (40, 3)
    assert state.digest() == NaiveBayes().fit(records.without(gone)).digest()
    named = table(records.x, records.y, classes=("a", "b", "c", "d", "e"))
    state, _ = NaiveBayes().forget(NaiveBayes().fit(named), gone)
    assert NaiveBayes().scores(state, records.x).shape == (40, 5)
    assert state.digest() == NaiveBayes().fit(named.without(gone)).digest()


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli", "multinomial"])
def test_a_class_without_records_has_a_finite_score_and_is_never_predicted(likelihood: Any) -> None:
    records = counted()
    learner = NaiveBayes(likelihood=likelihood)
    state, _ = learner.forget(learner.fit(records), records.ids[records.y == 1].tolist())
    scores = learner.scores(state, records.x * 9)
    assert scores.shape[1] == 3 and np.isfinite(scores).all()
    assert (scores[:, 1] < scores[:, [0, 2]].min(1)).all()
    assert set(learner.predict(state, records.x)) == {0, 2}


def test_forgetting_looks_at_the_forgotten_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    records = clouds()
    learner = NaiveBayes()
    state = learner.fit(records)
    looked: list[int] = []
    original = naive_bayes.square_digits
    monkeypatch.setattr(naive_bayes, "square_digits", lambda x, s: looked.append(len(x)) or original(x, s))
    request = records.ids[records.y == 2][:3].tolist()
    after, unlearned = learner.forget(state, request)
    assert looked == [3] and unlearned.cost.examples == 3
    assert after.parts["class 0"] is state.parts["class 0"] and after.parts["class 2"] is not state.parts["class 2"]


def test_classifies_digits(digits: dict[str, Records]) -> None:
    learner = NaiveBayes(var_smoothing=1e-2)
    state = learner.fit(digits["train"])
    assert (learner.predict(state, digits["test"].x) == digits["test"].y).mean() > 0.85
    learner = NaiveBayes(likelihood="multinomial")
    state = learner.fit(digits["train"])
    assert (learner.predict(state, digits["test"].x) == digits["test"].y).mean() > 0.85


def test_constant_features_and_single_records_have_a_density() -> None:
    state = NaiveBayes().fit(table(np.ones((3, 2), np.float32), np.array([0, 1, 1])))
    assert np.isfinite(NaiveBayes().scores(state, np.array([[1.0, 1.0], [2.0, 0.0]]))).all()
    assert NaiveBayes().predict(state, np.ones((1, 2))).tolist() == [1]


@pytest.mark.parametrize(
    "bad",
    [
        {"likelihood": "poisson"},
        {"alpha": 0.0},
        {"alpha": float("nan")},
        {"prior_smoothing": 0.0},
        {"var_smoothing": -1.0},
        {"threshold": float("inf")},
        {"step": 0.3},
        {"step": 0.0},
        {"step": -0.5},
        {"step": 2.0**-400},
    ],
)
def test_nonsense_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="naive_bayes"):
        NaiveBayes(**bad)


def test_unsuitable_records_are_refused() -> None:
    records = clouds()
    with pytest.raises(DataError, match="step"):
        NaiveBayes().fit(table(records.x * 1e9, records.y))
    NaiveBayes(step=1.0).fit(table(records.x * 1e9, records.y))
    NaiveBayes(likelihood="bernoulli").fit(table(records.x * 1e9, records.y))
    with pytest.raises(DataError, match="count"):
        NaiveBayes(likelihood="multinomial").fit(records)
    with pytest.raises(DataError, match="labels"):
        NaiveBayes().fit(table(records.x, np.zeros((300, 1), int)))
    state = NaiveBayes().fit(records)
    with pytest.raises(ModelError, match="6"):
        NaiveBayes().predict(state, records.x[:, :5])
    learner = NaiveBayes(likelihood="multinomial")
    with pytest.raises(DataError, match="count"):
        learner.predict(learner.fit(counted()), -np.ones((1, 4)))
