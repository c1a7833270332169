"""The analytic Gaussian mechanism against the library, against quadrature and at its limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dp_accounting import gaussian_mechanism as library
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from expunge.accounting import gaussian
from expunge.errors import RequestError

GRID = [(e, d) for e in (0.01, 0.5, 1.0, 4.0, 30.0) for d in (1e-2, 1e-5, 1e-9)]


@pytest.mark.parametrize(("epsilon", "delta"), GRID)
def test_sigma_is_the_librarys_and_never_less(epsilon, delta):
    sigma = gaussian.sigma(epsilon, delta)
    assert sigma == pytest.approx(library.get_sigma_gaussian(epsilon, delta), rel=1e-9)
    assert gaussian.delta(epsilon, sigma) <= delta
    assert gaussian.delta(epsilon, sigma * (1 - 1e-9)) > delta


@pytest.mark.parametrize("noise", [0.05, 0.3, 1.0, 7.0, 60.0])
@pytest.mark.parametrize("delta", [1e-2, 1e-5, 1e-12])
def test_epsilon_is_the_librarys_and_rounded_up(noise, delta):
    epsilon = gaussian.epsilon(delta, noise)
    assert epsilon == pytest.approx(library.get_epsilon_gaussian(noise, delta), rel=1e-8, abs=1e-11)
    assert gaussian.delta(epsilon, noise) <= delta


@pytest.mark.parametrize(("epsilon", "mu"), [(0.0, 1.0), (0.5, 0.3), (1.0, 2.0), (3.0, 1.0), (2.0, 4.0)])
def test_delta_is_the_integral_of_the_densities(epsilon, mu):
    def gap(x: float) -> float:
        return max(0.0, stats.norm.pdf(x, mu) - math.exp(epsilon) * stats.norm.pdf(x))

    start = epsilon / mu + mu / 2
    value, _ = integrate.quad(gap, start, start + 40, epsabs=1e-14)
    assert gaussian.delta_of(epsilon, mu) == pytest.approx(value, rel=1e-8)


def test_the_dual_of_gdp_at_zero_is_the_total_variation():
    assert gaussian.delta_of(0.0, 1.7) == pytest.approx(2 * stats.norm.cdf(1.7 / 2) - 1, rel=1e-13)
    assert gaussian.epsilon_of(0.7, 1.7) == 0.0


def test_far_tails_keep_their_digits():
    # Mills: for large t the tail difference is exp(-a²/2)(1/|a| - 1/|b|)/√(2π) to leading order.
    mu, epsilon = 0.1, 3.5
    a, b = mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu
    log = -a * a / 2 + math.log((1 / -a - 1 / a**2 / -a) - (1 / -b - 1 / b**2 / -b)) - 0.5 * math.log(2 * math.pi)
    assert math.log(gaussian.delta_of(epsilon, mu)) == pytest.approx(log, rel=1e-5)
    assert 0 < gaussian.delta_of(epsilon, mu) < 1e-200


@settings(deadline=None, max_examples=60)
@given(st.floats(0.001, 20), st.floats(1e-12, 0.4), st.floats(0.001, 1000))
def test_the_inverses_agree_and_lie_on_the_safe_side(epsilon, delta, sensitivity):
    mu = gaussian.mu_of(epsilon, delta)
    assert gaussian.delta_of(epsilon, mu) <= delta
    assert gaussian.delta_of(epsilon, mu) == pytest.approx(delta, rel=1e-6)
    assert gaussian.epsilon_of(delta, mu) == pytest.approx(epsilon, rel=1e-6, abs=1e-9)
    sigma = gaussian.sigma(epsilon, delta, sensitivity)
    assert sigma == pytest.approx(sensitivity / mu)
    assert gaussian.epsilon(delta, sigma, sensitivity) == pytest.approx(epsilon, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("epsilon", [0.05, 0.4, 0.99])
def test_the_classical_formula_needs_more_noise(epsilon):
    classical = gaussian.classical_sigma(epsilon, 1e-5, 2.0)
    assert classical == pytest.approx(2.0 * math.sqrt(2 * math.log(1.25e5)) / epsilon)
    assert classical > gaussian.sigma(epsilon, 1e-5, 2.0)


@pytest.mark.parametrize("epsilon", [1.0, 1.5, 50.0])
def test_the_classical_formula_is_refused_where_it_is_not_proved(epsilon):
    with pytest.raises(RequestError, match="analytic Gaussian"):
        gaussian.classical_sigma(epsilon, 1e-5)


def test_why_it_is_refused():
    # Continued to large ε it would give too little noise.
    epsilon, delta = 40.0, 0.1
    assert math.sqrt(2 * math.log(1.25 / delta)) / epsilon < gaussian.sigma(epsilon, delta)


def test_no_noise_and_nothing_revealed():
    assert gaussian.epsilon(1e-5, 0.0) == math.inf
    assert gaussian.epsilon(1e-5, 0.0, 0.0) == 0.0
    assert gaussian.delta(1.0, 0.0) == 1.0
    assert gaussian.epsilon(0.0, 1.0) == math.inf
    assert gaussian.sigma(1.0, 1e-5, 0.0) == 0.0


@pytest.mark.parametrize("delta", [0.0, 1.0, -0.1, float("nan"), True, "1e-5"])
def test_deltas_that_are_none_are_refused(delta):
    with pytest.raises(RequestError):
        gaussian.sigma(1.0, delta)


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf"), True])
def test_numbers_out_of_range_are_refused(bad):
    with pytest.raises(RequestError):
        gaussian.sigma(bad, 1e-5)
    with pytest.raises(RequestError):
        gaussian.epsilon(1e-5, bad)
    with pytest.raises(RequestError):
        gaussian.sigma(1.0, 1e-5, bad)
    with pytest.raises(RequestError):
        gaussian.delta_of(1.0, -1.0 if bad != -1.0 else float("nan"))


def test_numpy_floats_are_numbers():
    assert gaussian.sigma(np.float64(1.0), np.float64(1e-5)) == gaussian.sigma(1.0, 1e-5)
