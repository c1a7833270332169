"""Group privacy: exact where noise is Gaussian, tight under sampling, and the naive bound beside it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from expunge.accounting import gaussian, groups, loss, renyi
from expunge.accounting.charges import Renyi, SubsampledGaussian
from expunge.accounting.ledger import Ledger
from expunge.errors import RequestError

EMPTY = Ledger(1.0, 1e-5)
DELTA = 1e-5


@pytest.mark.parametrize("group", [1, 2, 5, 40])
def test_a_group_of_k_is_k_times_the_sensitivity(group):
    one, wide = EMPTY.gaussian(0.3, 4.0, 2), EMPTY.gaussian(0.3 * group, 4.0, 2)
    for notion in ("pld", "rdp", "gdp"):
        assert one.epsilon(DELTA, notion, group) == pytest.approx(wide.epsilon(DELTA, notion), rel=1e-12)
    mu = groups.gdp(0.3 / 4.0 * math.sqrt(2), group)
    assert one.epsilon(DELTA, "gdp", group) == pytest.approx(gaussian.epsilon_of(DELTA, mu), rel=1e-12)


def test_a_group_under_laplace_noise_and_of_pure_epsilon_is_k_times_the_epsilon():
    for one, wide in (
        (EMPTY.laplace(1, 5.0, 2), EMPTY.laplace(3, 5.0, 2)),
        (EMPTY.bounded(0.2, count=2), EMPTY.bounded(0.6, count=2)),
    ):
        assert renyi.curve(one.charges, 3) == pytest.approx(renyi.curve(wide.charges), rel=1e-12)
        for notion in ("pld", "rdp"):
            assert one.epsilon(DELTA, notion, 3) == pytest.approx(wide.epsilon(DELTA, notion), abs=3e-4)


def test_k_deletions_of_one_equal_one_group_of_k():
    # k residuals under one draw, and one residual of k times the norm, are one mechanism.
    apart = EMPTY
    for _ in range(7):
        apart = apart.residual(0.02, noise=1.0)
    assert apart.spent == pytest.approx(EMPTY.residual(0.14, noise=1.0).spent, rel=1e-12)
    # One release that k records leave from: the group's ε, not k times that of one and not k compositions.
    release = EMPTY.gaussian(0.02, 1.0)
    assert release.epsilon(DELTA, group=7) == pytest.approx(apart.spent, rel=1e-12)
    assert release.epsilon(DELTA, group=7) > EMPTY.gaussian(0.02, 1.0, 7).spent


@pytest.mark.parametrize(
    ("group", "scale", "factor"), [(1, 1, 1), (2, 2, 3), (3, 4, 9), (4, 4, 9), (5, 8, 27), (64, 64, 729)]
)
def test_orders_halve_and_values_triple(group, scale, factor):
    assert groups.halving(group) == (scale, factor)


def test_mironovs_rule_on_a_known_curve():
    charge = Renyi(orders=(4.0, 8.0, 32.0), values=(0.1, 0.2, 0.8))
    orders = np.array([1.5, 2.0, 4.0, 8.0, 16.0])
    # A group of 2: order α costs three times the value at 2α, for α ≥ 2.
    assert renyi.curve([charge], 2, orders) == pytest.approx([math.inf, 0.3, 0.6, 2.4, 2.4])
    assert renyi.curve([charge], 3, orders) == pytest.approx([math.inf, 1.8, 7.2, 7.2, math.inf])


def test_the_rule_is_sound_and_loose_for_gaussian_noise():
    orders = np.array([2.0, 4.0, 9.0])
    exact = renyi.gaussian_curve(1 / 3.0, orders)
    for group in (2, 3, 8):
        scale, factor = groups.halving(group)
        by_rule = factor * renyi.gaussian_curve(1 / 3.0, orders * scale)
        assert (by_rule >= group**2 * exact).all()


def test_the_rule_for_dp_sgd_uses_the_curve_at_higher_orders():
    charge = SubsampledGaussian(noise_multiplier=2.0, sample_rate=0.05, count=10)
    orders = np.array([2.0, 3.0])
    assert renyi.curve([charge], 4, orders) == pytest.approx(9 * renyi.curve([charge], 1, orders * 4), rel=1e-12)


def test_sampled_groups_are_mixtures_of_gaussians():
    # One step: δ(ε) of Σ Binom(k, q)(j) N(j, σ²) against N(0, σ²), by summation on a fine line.
    noise, rate, group, epsilon = 1.5, 0.3, 3, 0.7
    x = np.linspace(-20, 25, 400_001)
    weights = stats.binom.pmf(np.arange(group + 1), group, rate)
    upper = sum(w * stats.norm.pdf(x, j, noise) for j, w in enumerate(weights))
    lower = stats.norm.pdf(x, 0, noise)
    removal = np.trapezoid(np.maximum(upper - math.exp(epsilon) * lower, 0), x)
    other = np.trapezoid(np.maximum(lower - math.exp(epsilon) * upper, 0), x)
    ledger = Ledger(1.0, 1e-3).subsampled_gaussian(noise, rate, 1)
    assert ledger.delta(epsilon, group=group, side="removal") == pytest.approx(removal, rel=2e-3)
    assert ledger.delta(epsilon, group=group) == pytest.approx(max(removal, other), rel=2e-3)


def test_group_columns_rise_and_are_ordered():
    ledger = Ledger(1.0, 1e-4).subsampled_gaussian(3.0, 0.1, 5)
    rows = groups.group_table(ledger, (1, 2, 4))
    for row in rows:
        assert row.gdp is None
        assert row.pld <= row.rdp and row.pld <= row.naive * (1 + 1e-6)
    assert rows[0].pld < rows[1].pld / 2 < rows[2].pld / 4
    assert rows[0].published == rows[0].pld and rows[0].published_delta == 1e-4


@settings(deadline=None, max_examples=40)
@given(st.floats(0.001, 3), st.floats(1e-9, 1e-3), st.integers(1, 20))
def test_the_naive_bound_is_the_geometric_sum(epsilon, delta, group):
    grown, grown_delta = groups.naive(epsilon, delta, group)
    assert grown == group * epsilon
    exact = delta * sum(math.exp(i * epsilon) for i in range(group))
    assert grown_delta == pytest.approx(min(1.0, exact), rel=1e-9)
    if group > 1:
        formula = delta * (math.exp(group * epsilon) - 1) / (math.exp(epsilon) - 1)
        assert grown_delta == pytest.approx(min(1.0, formula), rel=1e-9)


def test_naive_at_its_limits():
    assert groups.naive(0.0, 1e-5, 10) == (0.0, pytest.approx(1e-4))
    assert groups.naive(3.0, 0.0, 10) == (30.0, 0.0)
    assert groups.naive(50.0, 1e-5, 100) == (5000.0, 1.0)


@pytest.mark.parametrize("group", [1, 2, 10, 100])
def test_naive_at_one_delta_is_proved_and_looser(group):
    ledger = EMPTY.gaussian(1.0, 80.0)
    kε = groups.naive_at(ledger, DELTA, group)
    one = kε / group
    assert groups.naive(one, ledger.delta(one), group)[1] <= DELTA * (1 + 1e-9)
    assert kε >= ledger.epsilon(DELTA, group=group) * (1 - 1e-9)
    if group > 1:
        assert groups.naive(0.999 * one, ledger.delta(0.999 * one), group)[1] > DELTA


@pytest.mark.parametrize("group", [0, -1, 1.0, True])
def test_groups_are_whole(group):
    for make in (groups.halving, lambda k: groups.gdp(1.0, k), lambda k: groups.naive(1.0, 0.0, k)):
        with pytest.raises(RequestError):
            make(group)
    with pytest.raises(RequestError):
        groups.group_table(EMPTY.gaussian(1, 5), [group])


@pytest.mark.slow
def test_mixtures_are_within_a_thousandth_of_a_fine_grid():
    ledger = Ledger(1.0, 1e-3).subsampled_gaussian(1.5, 0.3, 4)
    fine = loss.epsilon_of(loss.distribution(ledger.charges, 2, 2e-3), 1e-3)
    assert fine * (1 - 1e-9) <= ledger.epsilon(group=2) <= fine * 1.001
    assert ledger.grid(group=2) > 2e-3
