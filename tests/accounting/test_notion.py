"""Removal only: what one direction, and one step towards retraining, spare."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from expunge.accounting import gaussian, notion
from expunge.accounting.ledger import Ledger
from expunge.errors import MissingEvidence, RequestError

EMPTY = Ledger(1.0, 1e-5)


def test_both_directions_of_gaussian_noise_are_equal():
    told = notion.sides(EMPTY.gaussian(1, 3, 2))
    assert told.both == told.removal == told.other == EMPTY.gaussian(1, 3, 2).spent


def test_under_sampling_removal_is_the_larger_direction():
    ledger = EMPTY.subsampled_gaussian(1.0, 0.05, 30)
    told = notion.sides(ledger)
    assert told.both == told.removal == ledger.epsilon(side="removal")
    assert told.other < 0.9 * told.removal


def test_the_directions_are_named_rightly():
    noise, rate, epsilon = 0.8, 0.2, 0.6
    x = np.linspace(-15, 15, 300_001)
    without = stats.norm.pdf(x, 0, noise)
    with_it = (1 - rate) * without + rate * stats.norm.pdf(x, 1, noise)
    removal = np.trapezoid(np.maximum(with_it - math.exp(epsilon) * without, 0), x)
    ledger = EMPTY.subsampled_gaussian(noise, rate, 1)
    assert ledger.delta(epsilon, side="removal") == pytest.approx(removal, rel=1e-5)
    # Without the record no event is e^ε times likelier once ε exceeds -ln(1 - rate).
    assert -math.log(1 - rate) < epsilon
    assert notion.sides(ledger).other <= -math.log(1 - rate) + 1e-4


def test_noise_by_notion():
    full = notion.noise_by_notion(1.0, 1e-5, influence=0.02, residual=1e-4, group=3)
    assert [row.sensitivity for row in full] == pytest.approx([0.12, 0.06, 1e-4])
    assert [row.share for row in full] == pytest.approx([1.0, 0.5, 1e-4 / 0.12])
    for row in full:
        assert gaussian.epsilon(1e-5, row.noise, row.sensitivity) == pytest.approx(1.0, rel=1e-9)
    assert len(notion.noise_by_notion(1.0, 1e-5, influence=0.02)) == 2
    with pytest.raises(RequestError, match="exceeds the influence"):
        notion.noise_by_notion(1.0, 1e-5, influence=0.02, residual=0.03)


@pytest.mark.parametrize(("rate", "steps"), [pytest.param(0.05, 40, marks=pytest.mark.slow), (1.0, 10)])
def test_the_multiplier_is_just_enough(rate, steps):
    found = notion.noise_multiplier(1.5, 1e-5, sample_rate=rate, steps=steps, tolerance=0.02)
    assert EMPTY.subsampled_gaussian(found, rate, steps).epsilon() <= 1.5
    assert EMPTY.subsampled_gaussian(0.97 * found, rate, steps).epsilon() > 1.5
    if rate == 1.0:
        assert found == pytest.approx(gaussian.sigma(1.5, 1e-5, math.sqrt(steps)), rel=0.021)


def test_large_epsilons_need_little_noise_and_large_groups_more():
    assert notion.noise_multiplier(400.0, 1e-5, sample_rate=1.0, steps=1, tolerance=0.01) < 0.1
    one, four = (notion.noise_multiplier(2.0, 1e-5, sample_rate=1.0, steps=1, group=k) for k in (1, 4))
    assert four == pytest.approx(4 * one, rel=0.005)


def test_what_cannot_be_reached_is_said():
    with pytest.raises(RequestError):
        notion.noise_multiplier(0.0, 1e-5, sample_rate=0.1, steps=10)
    with pytest.raises(MissingEvidence):
        notion.noise_multiplier(1e-9, 1e-12, sample_rate=1.0, steps=10**6)
    with pytest.raises(MissingEvidence):
        notion.sides(EMPTY.concentrated(0.1))
