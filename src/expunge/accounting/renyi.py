"""Rényi curves of charges, their composition, groups and conversion to (ε, δ).

RDP (Mironov 2017, arXiv:1702.07476) of one record at order α: the Gaussian mechanism α μ²/2; the Poisson-subsampled
one as in `dp-accounting` (Mironov, Talwar & Zhang 2019, arXiv:1908.10530); Laplace and pure ε in closed form. Curves
add under composition. The conversion is the library's (Canonne, Kamath & Steinke 2020, arXiv:2004.00010, Prop. 12).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from expunge.accounting import groups
from expunge.accounting.charges import (
    Bounded,
    Charge,
    Concentrated,
    Gaussian,
    Laplace,
    Renyi,
    Residual,
    SubsampledGaussian,
)
from expunge.errors import RequestError

Curve = NDArray[np.float64]
HIGHEST = 1024  # the sum of the subsampled curve has as many terms as its order
ORDERS: Curve = np.array([1 + x / 10 for x in range(1, 100)] + [*range(11, 64), 128, 256, 512, 1024, 4096], np.float64)


def gaussian_curve(mu: float, orders: Curve = ORDERS) -> Curve:
    """α μ²/2: the Rényi divergence between N(0, 1) and N(μ, 1)."""
    return np.asarray(orders * (mu * mu / 2), dtype=np.float64)


def curve(charges: Sequence[Charge], group: int = 1, orders: Curve = ORDERS) -> Curve:
    """The composed Rényi divergence, nats, at each of `orders`, for `group` records at once; infinity where unknown.

    A group of k enters the Gaussian and Laplace mechanisms by a sensitivity of k and ρ-zCDP by k²ρ (Bun & Steinke
    2016, arXiv:1605.02065, Prop. 1.9); every other curve by Mironov's rule: with k ≤ 2^c, order α costs 3^c times the
    value at order 2^c·α, for α ≥ 2 (Proposition 2 there).

    Raises:
        RequestError: a group of residuals, which are measured for the very records that were removed.
    """
    total = np.zeros_like(orders)
    for charge in charges:
        total += _one(charge, group, orders)
    return total


def epsilon_of(values: Curve, delta: float, orders: Curve = ORDERS) -> float:
    """ε at δ by the best of `orders`; infinity if none gives a bound. Both directions."""
    finite = np.isfinite(values)
    if not finite.any():
        return math.inf
    from dp_accounting.rdp import rdp_privacy_accountant as library

    return float(library.compute_epsilon(orders[finite], values[finite], delta)[0])


def delta_of(values: Curve, epsilon: float, orders: Curve = ORDERS) -> float:
    """δ at ε by the best of `orders`; 1 if none gives a bound."""
    finite = np.isfinite(values)
    if not finite.any():
        return 1.0
    from dp_accounting.rdp import rdp_privacy_accountant as library

    return float(library.compute_delta(orders[finite], values[finite], epsilon)[0])


def _one(charge: Charge, group: int, orders: Curve) -> Curve:
    match charge:
        case Gaussian():
            return charge.count * gaussian_curve(charge.mu * group, orders)
        case Residual():
            if group > 1:
                raise RequestError(
                    f"residuals are measured for the records removed, so a group of {group} has no meaning for them",
                    "Ask for group=1: the residuals of all removals are in the sum already",
                )
            return gaussian_curve(charge.mu, orders)
        case Concentrated():
            return np.asarray(charge.count * charge.rho * group**2 * orders, dtype=np.float64)
        case Laplace():
            return charge.count * _laplace(charge.rate * group, orders)
        case Bounded(epsilon=epsilon, delta=delta):
            if delta > 0:
                return np.full(len(orders), math.inf)
            return charge.count * _pure(epsilon * group, orders)
        case SubsampledGaussian() if charge.sample_rate == 1:
            mu = 1 / charge.noise_multiplier if charge.noise_multiplier > 0 else math.inf
            return charge.count * gaussian_curve(mu * group, orders)
        case SubsampledGaussian() | Renyi():
            # The rule needs the curve of one record at 2^c·α: ask for it there.
            scale, factor = groups.halving(group)
            one = _subsampled if isinstance(charge, SubsampledGaussian) else _known
            proved = (orders >= 2) | (group == 1)
            values = np.full(len(orders), math.inf)
            values[proved] = charge.count * factor * one(charge, orders[proved] * scale)
            return values
    raise RequestError(f"no Rényi curve is known for {charge.mechanism}", "Ask for another notion")


def _known(charge: Any, orders: Curve) -> Curve:
    """A Rényi divergence does not fall with its order, so the next known order above bounds the ones below it."""
    at = np.searchsorted(np.asarray(charge.orders), orders * (1 - 1e-12))
    return np.asarray([*charge.values, math.inf], dtype=np.float64)[at]


def _subsampled(charge: Any, orders: Curve) -> Curve:
    import dp_accounting
    from dp_accounting.rdp import rdp_privacy_accountant as library

    values = np.full(len(orders), math.inf)
    if charge.noise_multiplier == 0:
        return values
    near = orders <= HIGHEST
    accountant = library.RdpAccountant(orders[near])
    step = dp_accounting.GaussianDpEvent(charge.noise_multiplier)
    # Where its sum does not converge it logs so and leaves that order unbounded, which is sound.
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        accountant.compose(dp_accounting.PoissonSampledDpEvent(charge.sample_rate, step))
    finally:
        log.setLevel(level)
    values[near] = accountant.rdp
    return values


def _laplace(rate: float, orders: Curve) -> Curve:
    """Mironov 2017, Table II: 1/(α-1) · log(α/(2α-1) e^{(α-1)ε} + (α-1)/(2α-1) e^{-αε})."""
    if rate == 0:
        return np.zeros(len(orders))
    a = orders
    terms = np.stack([np.log(a / (2 * a - 1)) + (a - 1) * rate, np.log((a - 1) / (2 * a - 1)) - a * rate])
    return np.asarray(special.logsumexp(terms, axis=0) / (a - 1), dtype=np.float64)


def _pure(epsilon: float, orders: Curve) -> Curve:
    """The largest divergence that pure ε allows, reached by randomised response with p = e^ε/(1+e^ε)."""
    a = orders
    high, low = special.log_expit(epsilon), special.log_expit(-epsilon)
    terms = np.stack([a * high + (1 - a) * low, a * low + (1 - a) * high])
    return np.asarray(np.maximum(special.logsumexp(terms, axis=0) / (a - 1), 0.0), dtype=np.float64)
