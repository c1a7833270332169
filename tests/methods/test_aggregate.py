"""The aggregations against values worked out by hand, and the noisy vote against the distribution it promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from expunge.errors import DataError, ModelError, RequestError
from expunge.methods.aggregate import (
    MECHANISMS,
    majority_vote,
    mean_of_probabilities,
    noisy_vote,
    vote_counts,
    vote_privacy,
)


def logits_of(*probabilities: list[list[float]]) -> np.ndarray:
    return np.log(np.array(probabilities))


ONES = np.ones(3)


def test_mean_of_probabilities_is_the_mean_and_not_that_of_logits() -> None:
    logits = logits_of([[0.98, 0.02]], [[0.4, 0.6]], [[0.4, 0.6]])
    answer = mean_of_probabilities(logits + np.array([7.0, -3.0, 0.0])[:, None, None], ONES)
    np.testing.assert_allclose(np.exp(answer.scores), [[1.78 / 3, 1.22 / 3]])
    assert answer.labels.tolist() == [0]
    assert majority_vote(logits, ONES).labels.tolist() == [1]


def test_weights_weigh_and_an_empty_shard_has_no_say() -> None:
    logits = logits_of([[0.9, 0.1]], [[0.2, 0.8]], [[0.5, 0.5]])
    logits[2] = np.nan
    answer = mean_of_probabilities(logits, np.array([1.0, 3.0, 0.0]))
    np.testing.assert_allclose(np.exp(answer.scores), [[1.5 / 4, 2.5 / 4]])
    assert vote_counts(logits, np.array([1, 3, 0])).tolist() == [[1, 3]]
    assert majority_vote(logits, np.array([1, 1, 0])).labels.tolist() == [0]  # a tie, 1.1 against 0.9


def test_ties_go_to_the_larger_summed_probability_and_then_to_the_lowest_class() -> None:
    tied = logits_of([[0.1, 0.6, 0.3]], [[0.05, 0.05, 0.9]])
    assert majority_vote(tied, np.ones(2)).labels.tolist() == [2]
    even = logits_of([[0.1, 0.6, 0.3]], [[0.1, 0.3, 0.6]])
    assert majority_vote(even, np.ones(2)).labels.tolist() == [1]
    assert vote_counts(logits_of([[0.4, 0.4, 0.2]]), np.ones(1)).tolist() == [[1, 0, 0]]


def test_a_tie_breaker_never_overrules_a_vote() -> None:
    logits = np.array([[[0.1, 0.0]], [[0.1, 0.0]], [[-500.0, 500.0]]])
    assert majority_vote(logits, ONES).labels.tolist() == [0]


@settings(deadline=None, max_examples=40)
@given(arrays(np.float64, (5, 4, 3), elements=st.floats(-30, 30)), st.lists(st.integers(0, 3), min_size=5, max_size=5))
def test_scores_agree_with_labels_and_rows_do_not_know_of_each_other(logits: np.ndarray, weights: list[int]) -> None:
    each = np.array(weights)
    if not each.any():
        with pytest.raises(ModelError):
            majority_vote(logits, each)
        return
    for aggregate in (mean_of_probabilities, majority_vote):
        answer = aggregate(logits, each)
        assert np.isfinite(answer.scores).all()
        np.testing.assert_array_equal(answer.scores.argmax(axis=1), answer.labels)
        alone = aggregate(logits[:, 2:3], each)
        assert alone.scores.tobytes() == answer.scores[2:3].tobytes()
    counts = vote_counts(logits, each)
    assert (counts.sum(axis=1) == each.sum()).all()
    labels = majority_vote(logits, each).labels
    assert (counts[np.arange(4), labels] == counts.max(axis=1)).all()


COUNTS = np.array([[3, 2, 0]])


def many(counts: np.ndarray, n: int = 40_000) -> tuple[np.ndarray, np.ndarray]:
    return np.repeat(counts, n, axis=0), np.arange(n, dtype=np.float64)[:, None]


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_asking_twice_gives_the_same_answer_in_any_company(mechanism: str) -> None:
    counts, queries = many(COUNTS, 50)
    first = noisy_vote(counts, 1.0, 7, queries, mechanism=mechanism)  # type: ignore[arg-type]
    again = noisy_vote(counts[::-1], 1.0, 7, queries[::-1].astype(np.float32), mechanism=mechanism)  # type: ignore[arg-type]
    np.testing.assert_array_equal(first.scores, again.scores[::-1])
    np.testing.assert_array_equal(first.labels, first.scores.argmax(axis=1))


def test_another_seed_release_or_query_is_other_noise() -> None:
    counts, queries = many(COUNTS, 1)
    base = noisy_vote(counts, 1.0, 7, queries).scores
    for other in (
        noisy_vote(counts, 1.0, 8, queries),
        noisy_vote(counts, 1.0, b"secret", queries),
        noisy_vote(counts, 1.0, 7, queries, release="after"),
        noisy_vote(counts, 1.0, 7, queries + 1e-9),
        noisy_vote(counts, 1.0, 7, np.zeros((1, 1, 1))),
    ):
        assert (other.scores != base).all()
    assert (noisy_vote(counts, 1.0, 7, -queries).scores == base).all()  # minus zero is zero


def test_noise_cancels_between_two_models_unless_the_release_is_named() -> None:
    """Why `release` exists: one query, one vote changed, and the difference shows exactly which."""
    _, queries = many(COUNTS, 1)
    before, after = np.array([[3, 2, 0]]), np.array([[2, 3, 0]])
    fixed = noisy_vote(before, 5.0, 7, queries).scores - noisy_vote(after, 5.0, 7, queries).scores
    np.testing.assert_allclose(fixed, [[1, -1, 0]])
    named = (
        noisy_vote(before, 5.0, 7, queries, release="a").scores - noisy_vote(after, 5.0, 7, queries, release="b").scores
    )
    assert np.abs(named - [[1, -1, 0]]).max() > 0.5


def test_laplace_noise_has_its_quantiles() -> None:
    counts, queries = many(COUNTS)
    drawn = (noisy_vote(counts, 2.0, 3, queries).scores - COUNTS).ravel()
    assert abs(np.median(drawn)) < 0.02
    for level in (0.1, 0.5, 0.9):
        np.testing.assert_allclose(np.quantile(np.abs(drawn), level), -2.0 * np.log(1 - level), rtol=0.02)
    assert abs(np.corrcoef(drawn.reshape(-1, 3).T)[0, 1]) < 0.02


def test_exponential_mechanism_has_its_probabilities() -> None:
    counts, queries = many(COUNTS)
    labels = noisy_vote(counts, 1.5, 3, queries, mechanism="exponential").labels
    expected = np.exp(COUNTS[0] / 1.5)
    np.testing.assert_allclose(np.bincount(labels, minlength=3) / len(labels), expected / expected.sum(), atol=0.01)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_no_label_is_likelier_than_the_stated_epsilon_allows(mechanism: str) -> None:
    before, queries = many(np.array([[3, 2, 0]]))
    after, _ = many(np.array([[2, 3, 0]]))
    epsilon, delta = vote_privacy(1.5)
    rates = [
        np.bincount(noisy_vote(c, 1.5, s, queries, mechanism=mechanism).labels, minlength=3) / len(queries)  # type: ignore[arg-type]
        for c, s in ((before, 1), (after, 2))
    ]
    assert delta == 0.0
    assert np.abs(np.log(rates[0] / rates[1])).max() < epsilon
    assert np.abs(np.log(rates[0] / rates[1])).max() > epsilon / 4  # and the statement is not idle


def test_small_noise_is_the_plain_vote() -> None:
    counts, queries = many(COUNTS, 1000)
    assert (noisy_vote(counts, 1e-3, 0, queries).labels == 0).all()


def test_privacy_adds_over_queries_and_votes() -> None:
    assert vote_privacy(4.0) == (0.5, 0.0)
    assert vote_privacy(4.0, queries=10, changed_votes=2) == (10.0, 0.0)


@pytest.mark.parametrize("noise", [0.0, -1.0, float("nan"), float("inf")])
def test_refuses_a_scale_that_is_none(noise: float) -> None:
    with pytest.raises(RequestError):
        noisy_vote(COUNTS, noise, 0, np.zeros((1, 1)))
    with pytest.raises(RequestError):
        vote_privacy(noise)


def test_refuses_what_does_not_fit() -> None:
    logits = np.zeros((3, 2, 4))
    for bad in (np.zeros((3, 2)), logits[:2], logits[..., :0], logits + np.inf):
        with pytest.raises(DataError):
            mean_of_probabilities(bad, ONES)
    for weights in (-ONES, ONES * np.nan):
        with pytest.raises(DataError):
            majority_vote(logits, weights)
    with pytest.raises(DataError):
        vote_counts(logits, ONES / 2)
    for counts, queries in (
        (COUNTS / 2, np.zeros((1, 1))),
        (-COUNTS, np.zeros((1, 1))),
        (COUNTS, np.zeros((2, 1))),
        (COUNTS, np.full((1, 1), np.nan)),
        (COUNTS, np.array([["a"]])),
    ):
        with pytest.raises(DataError):
            noisy_vote(counts, 1.0, 0, queries)
    with pytest.raises(RequestError):
        noisy_vote(COUNTS, 1.0, 0, np.zeros((1, 1)), mechanism="loud")  # type: ignore[arg-type]
    with pytest.raises(RequestError):
        vote_privacy(1.0, queries=0)
