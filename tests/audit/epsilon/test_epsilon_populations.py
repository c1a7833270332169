"""Bounds from two populations: coverage, strength, and what the discriminant adds."""

from __future__ import annotations

import numpy as np
import pytest

from expunge.accounting.gaussian import epsilon_of
from expunge.audit.epsilon.populations import discriminant, separate
from expunge.errors import DataError, RequestError


def test_the_bound_exceeds_the_truth_in_few_of_200_runs() -> None:
    """Two Gaussians at a distance whose ε is known: at most 5% may exceed it, and Clopper-Pearson is cautious."""
    mu, delta = 1.0, 0.05
    truth, rng = epsilon_of(delta, mu), np.random.default_rng(1)
    over = 0
    for seed in range(200):
        one, two = rng.normal(mu, 1, (300, 1)), rng.normal(0, 1, (300, 1))
        over += separate(one, two, delta=delta, seed=seed).bound(delta) > truth
    assert over <= 10


def test_the_bound_comes_near_the_truth_with_many_models() -> None:
    rng = np.random.default_rng(2)
    for way in (1.0, -1.0):
        one, two = way * rng.normal(1.5, 1, (8000, 1)), way * rng.normal(0, 1, (8000, 1))
        found = separate(one, two, delta=0.05)
        assert 0.7 * epsilon_of(0.05, 1.5) < found.bound(0.05) <= epsilon_of(0.05, 1.5)
        assert found.bound(0.01) <= epsilon_of(0.01, 1.5), "the same counts hold at every δ"
        assert found.positives == found.negatives == 3000


def test_perfect_separation_gives_what_the_counted_models_allow() -> None:
    one, two = np.ones((400, 1)), np.zeros((400, 1))
    found = separate(one + np.linspace(0, 0.1, 400)[:, None], two, delta=0.0)
    assert (found.false_positives, found.false_negatives) == (0, 0) and found.positives == 150
    assert found.bound(0.0) == pytest.approx(np.log(0.025 ** (1 / 150)) - np.log(1 - 0.025 ** (1 / 150)))


def test_identical_worlds_are_not_told_apart() -> None:
    same = np.tile([3.0, -1.0], (64, 1))
    assert separate(same, same, delta=1e-5).bound(0.0) == 0.0


def test_the_discriminant_finds_what_no_statistic_shows() -> None:
    """Two columns that each drown in one noise, whose difference does not."""
    rng = np.random.default_rng(3)

    def world(shift: float) -> np.ndarray:
        common = 3 * rng.normal(size=(800, 1))
        return common + np.hstack([shift + 0.3 * rng.normal(size=(800, 1)), 0.3 * rng.normal(size=(800, 1))])

    one, two = world(2.0), world(0.0)
    found = separate(one, two, delta=1e-5)
    assert found.statistic == 2 and found.bound(1e-5) > 2.0
    assert separate(one[:, :1], two[:, :1], delta=1e-5).bound(1e-5) < 1.0


def test_the_discriminant_ignores_what_never_varies() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(20, 3)), rng.normal(size=(20, 3))
    one[:, 1], two[:, 1] = 5.0, 5.0
    assert discriminant(one, two)[1] == 0 and discriminant(one[:, 1:2], two[:, 1:2]).tolist() == [0.0]


def test_the_pilot_counts_for_nothing() -> None:
    """Models that only the pilot holds and that are perfectly separated there do not make a bound."""
    rng = np.random.default_rng(5)
    one, two = rng.normal(size=(400, 4)), rng.normal(size=(400, 4))
    one[:100] += 50.0
    assert separate(one, two, delta=0.0).bound(0.0) < 0.3


def test_the_discriminant_is_learned_on_the_pilot_alone() -> None:
    """With more columns of noise than models, one learned on all of them separates what it was learned on."""
    rng = np.random.default_rng(6)
    for _ in range(5):
        one, two = rng.normal(size=(64, 300)), rng.normal(size=(64, 300))
        assert separate(one, two, delta=0.0).bound(0.0) < 0.5


def test_refuses_too_few_or_unlike_observations() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(DataError):
        separate(rng.normal(size=(15, 2)), rng.normal(size=(20, 2)), delta=0.0)
    with pytest.raises(DataError):
        separate(rng.normal(size=(20, 2)), rng.normal(size=(20, 3)), delta=0.0)
    with pytest.raises(DataError):
        separate(np.zeros((20, 0)), np.zeros((20, 0)), delta=0.0)
    with pytest.raises(RequestError):
        separate(rng.normal(size=(20, 2)), rng.normal(size=(20, 2)), delta=1.0)
