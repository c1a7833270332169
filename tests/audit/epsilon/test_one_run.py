"""The one-run audit: the theorem against plain loops and against mechanisms that attain it, and 200 seeded runs."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from expunge.audit.epsilon.one_run import (
    Rule,
    choose,
    count,
    guess,
    joint_lower_bound,
    joint_p_value,
    lower_bound,
    p_value,
)
from expunge.errors import DataError, RequestError


def plain_p_value(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    """Theorem 5.2 word for word, the maximum over every i from 1 to m."""
    q = math.exp(epsilon) / (1 + math.exp(epsilon))

    def tail(value: int) -> float:
        return math.fsum(math.comb(r, k) * q**k * (1 - q) ** (r - k) for k in range(max(value, 0), r + 1))

    return min(1.0, tail(v) + 2 * m * delta * max((tail(v - i) - tail(v)) / i for i in range(1, m + 1)))


@pytest.mark.parametrize("epsilon", [0.0, 0.7, 3.0])
@pytest.mark.parametrize("delta", [0.0, 1e-5, 0.01])
def test_the_p_value_is_the_theorem(epsilon: float, delta: float) -> None:
    r, m = 40, 90
    found = p_value(np.arange(r + 1), r, epsilon, delta=delta, coins=m)
    want = [plain_p_value(m, r, v, epsilon, delta) for v in range(r + 1)]
    np.testing.assert_allclose(found, want, rtol=1e-9)


def test_a_perfect_score_has_a_closed_form() -> None:
    for r in (1, 20, 600):
        share = 0.05 ** (1 / r)  # of right guesses at which r in a row happen with probability 0.05
        want = max(0.0, math.log(share / (1 - share)))
        assert float(lower_bound(r, r)) == pytest.approx(want, abs=1e-9)


def test_the_bound_is_that_of_the_plain_theorem() -> None:
    for m, r, v, delta in ((100, 100, 100, 1e-5), (120, 60, 55, 1e-5), (40, 40, 33, 0.0)):
        low, high = 0.0, 10.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if plain_p_value(m, r, v, middle, delta) < 0.05 else (low, middle)
        assert float(lower_bound(v, r, delta=delta, coins=m)) == pytest.approx(low, abs=1e-8)


def test_a_bound_is_where_the_p_value_crosses() -> None:
    right = np.arange(101)
    for confidence in (0.9, 0.95, 0.999):
        bounds = lower_bound(right, 100, delta=1e-7, coins=250, confidence=confidence)
        assert (np.diff(bounds) >= 0).all() and bounds[50] == 0 and bounds[-1] > 1.5
        some = bounds > 0
        at = p_value(right[some], 100, bounds[some] - 1e-6, delta=1e-7, coins=250)
        over = p_value(right[some], 100, bounds[some] + 1e-6, delta=1e-7, coins=250)
        assert (at < 1 - confidence).all() and (over >= 1 - confidence - 1e-9).all()


def test_no_private_mechanism_beats_the_p_value() -> None:
    """Randomised response that tells a coin with probability δ, and one that tells all of them with probability δ."""
    m = 12
    for epsilon, delta in itertools.product((0.0, 1.0), (0.002, 0.05)):
        q = math.exp(epsilon) / (1 + math.exp(epsilon))
        limit = p_value(np.arange(m + 1), m, epsilon, delta=delta)
        each = stats.binom.sf(np.arange(m + 1) - 1, m, delta + (1 - delta) * q)
        every = delta + (1 - delta) * stats.binom.sf(np.arange(m + 1) - 1, m, q)
        assert (each <= limit + 1e-12).all() and (every <= limit + 1e-12).all()
        without = stats.binom.sf(np.arange(m + 1) - 1, m, q)
        assert (each > without + 1e-6).any(), "the second term is needed"


def test_more_coins_that_are_not_guessed_weaken_the_bound_through_delta_alone() -> None:
    assert lower_bound(95, 100, coins=100) == lower_bound(95, 100, coins=5000)
    assert lower_bound(95, 100, delta=1e-4, coins=100) > lower_bound(95, 100, delta=1e-4, coins=5000)


def test_the_joint_form_is_attained_by_the_best_mechanism() -> None:
    """Of all releases that are (ε, 0)-close to one that knows nothing: the one that favours many right guesses."""
    m, epsilon = 10, 1.2
    for v in (8, 9, 10):
        tail = float(stats.binom.sf(v - 1, m, 0.5))
        reached = math.exp(epsilon) * tail
        assert reached < 1 and (1 - reached) / (1 - tail) > math.exp(-epsilon)  # it is close the other way as well
        assert float(joint_p_value(v, m, epsilon)) == pytest.approx(reached)
        assert float(joint_p_value(v, m, epsilon, delta=0.003)) == pytest.approx(reached + 0.003)
        level = reached + 0.003
        assert float(joint_lower_bound(v, m, delta=0.003, confidence=1 - level)) == pytest.approx(epsilon)


def test_the_joint_form_survives_tails_below_the_smallest_float() -> None:
    assert float(joint_lower_bound(5000, 5000)) == 50.0
    assert float(joint_lower_bound(50, 50)) == pytest.approx(50 * math.log(2) + math.log(0.05))
    assert float(joint_lower_bound(34, 50)) > 0 == float(joint_lower_bound(25, 50))
    assert float(joint_lower_bound(50, 50, delta=0.06)) == 0


def exceed(right: Any, guesses: int, epsilon: float, **rest: Any) -> int:
    return int((lower_bound(right, guesses, **rest) > epsilon).sum())


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.0, 4.0])
def test_the_bound_exceeds_a_correct_claim_in_at_most_18_of_200_runs(epsilon: float) -> None:
    """Randomised response at exactly ε leaves no room, so that some runs must exceed it as well."""
    rng = np.random.default_rng(7)
    right = rng.binomial(1000, 1 / (1 + math.exp(-epsilon)), size=200)
    assert 1 <= exceed(right, 1000, epsilon) <= 18
    assert exceed(right, 1000, max(0.0, epsilon - 1.0)) > 150 or epsilon == 0


def test_gaussian_noise_at_its_claim_exceeds_it_in_at_most_18_of_200_runs() -> None:
    """One column a coin, each moved by exactly the sensitivity: the release that an audit in one run likes best."""
    from expunge.accounting.gaussian import mu_of

    epsilon, delta, m = 1.0, 1e-5, 500
    rng = np.random.default_rng(3)
    coins = rng.random((200, m)) < 0.5
    for cut, least, most in ((1.0, 0, 18), (0.125, 190, 200)):
        scores = mu_of(epsilon, delta) * coins + cut * rng.normal(size=coins.shape)
        right = np.array([count(guess(s, 100), c)[1] for s, c in zip(scores, coins, strict=True)])
        assert least <= exceed(right, 100, epsilon, delta=delta, coins=m) <= most


def test_guesses_take_the_ends_and_abstain_between() -> None:
    said = guess([0.5, -2.0, 3.0, 0.1, 9.0], 3)
    assert said.tolist() == [0, -1, 1, 0, 1]
    assert count(said, [True, False, False, True, True]) == (3, 2)
    assert guess([1.0, 2.0], 2).tolist() == [-1, 1]
    assert guess([1.0, 2.0], 1).tolist() == [0, 1]


def test_the_rule_is_found_on_coins_that_are_shown() -> None:
    rng = np.random.default_rng(0)
    coins = rng.random(400) < 0.5
    clear = np.where(coins, 1.0, -1.0) + 0.1 * rng.normal(size=400)
    assert choose(clear, coins) == Rule(sign=1, share=1.0)
    assert choose(-clear, coins) == Rule(sign=-1, share=1.0)
    few = rng.normal(size=400) * 0.5
    few[:30] = np.where(coins[:30], 5.0, -5.0)  # only some canaries show, and far out
    assert choose(few, coins).share <= 0.25


def test_refuses_counts_and_budgets_that_make_no_sense() -> None:
    for arguments in ((5, 4), (-1, 4), (0, 0)):
        with pytest.raises(DataError):
            lower_bound(*arguments)
    with pytest.raises(DataError):
        lower_bound(3, 4, coins=3)
    with pytest.raises(RequestError):
        p_value(3, 4, -0.1)
    with pytest.raises(RequestError):
        lower_bound(3, 4, delta=1.0)
    with pytest.raises(DataError):
        guess([1.0], 2)
    with pytest.raises(DataError):
        lower_bound(3, 4, confidence=1.0)
