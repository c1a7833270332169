"""The analytic Gaussian mechanism: exactly the noise that (ε, δ) needs, for every ε.

Noise N(0, σ²I) on a value of L2 sensitivity Δ is (ε, δ)-private if and only if, with μ = Δ/σ,

    δ ≥ Φ(μ/2 - ε/μ) - e^ε Φ(-μ/2 - ε/μ)

(Balle & Wang 2018, arXiv:1805.06530, Theorem 8; the same curve is the dual of μ-GDP: Dong, Roth & Su 2022,
arXiv:1905.02383, Corollary 2.13). The classical σ = Δ√(2 ln(1.25/δ))/ε is proved for ε < 1 only and is refused beyond.

Every inverse is rounded to the safe side: ε and σ up, μ down.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy import special

from expunge.errors import RequestError

SAFE = 1e-12  # relative step to the safe side, far above the rounding of one evaluation and of a product or two


def delta_of(epsilon: float, mu: float) -> float:
    """The smallest δ with which N(0, 1) and N(μ, 1) are (ε, δ)-close; both directions are equal.

    Args:
        epsilon: nats, ≥ 0. mu: sensitivity over standard deviation, ≥ 0; infinity means no noise.

    Returns:
        δ in [0, 1], to full relative precision in the tails.

    Raises:
        RequestError: a value out of range.
    """
    checked("epsilon", epsilon, least=0.0)
    if math.isnan(mu) or mu < 0:
        raise RequestError(f"mu must be ≥ 0, got {mu}", "Give the sensitivity divided by the standard deviation")
    if mu == 0 or epsilon == math.inf:
        return 0.0
    if mu > 1e150:
        return 1.0
    a, b = mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu
    if a < 0:
        # a² - b² = -2ε, so e^ε cancels in closed form and nothing is lost by subtraction in the tail.
        root = math.sqrt(2.0)
        return 0.5 * math.exp(-a * a / 2) * float(special.erfcx(-a / root) - special.erfcx(-b / root))
    return max(0.0, float(special.ndtr(a)) - math.exp(epsilon + float(special.log_ndtr(b))))


def delta(epsilon: float, noise: float, sensitivity: float = 1.0) -> float:
    """δ that noise of this standard deviation gives at ε; both in the units of the value.

    Raises:
        RequestError: a value out of range.
    """
    return delta_of(epsilon, ratio(sensitivity, noise))


def epsilon_of(delta: float, mu: float) -> float:
    """The smallest ε ≥ 0 with which μ-GDP is (ε, δ); infinity if there is none. Rounded up.

    Args:
        delta: probability in [0, 1). mu: ≥ 0; infinity means no noise.

    Raises:
        RequestError: a value out of range.
    """
    check_delta(delta, zero=True)
    if delta_of(0.0, mu) <= delta:
        return 0.0
    if delta == 0 or mu > 1e150:
        return math.inf
    high = max(mu, mu * mu)
    while delta_of(high, mu) > delta:
        high *= 2
    return _inverse(lambda epsilon: delta_of(epsilon, mu), delta, 0.0, high, rising=False)


def epsilon(delta: float, noise: float, sensitivity: float = 1.0) -> float:
    """The smallest ε of the Gaussian mechanism at δ. Rounded up.

    Raises:
        RequestError: a value out of range.
    """
    return epsilon_of(delta, ratio(sensitivity, noise))


def mu_of(epsilon: float, delta: float) -> float:
    """The largest μ = sensitivity / σ that (ε, δ) allows. Rounded down.

    Args:
        epsilon: nats, ≥ 0. delta: probability in (0, 1).

    Raises:
        RequestError: a value out of range.
    """
    checked("epsilon", epsilon, least=0.0)
    check_delta(delta)
    high = 1.0
    while delta_of(epsilon, high) <= delta:
        high *= 2
    low = high / 2
    while delta_of(epsilon, low) > delta:
        high, low = low, low / 2
    return _inverse(lambda mu: delta_of(epsilon, mu), delta, low, high, rising=True)


def sigma(epsilon: float, delta: float, sensitivity: float = 1.0) -> float:
    """The least standard deviation that makes a value of this L2 sensitivity (ε, δ)-private. Rounded up.

    Args:
        epsilon: nats, ≥ 0. delta: probability in (0, 1). sensitivity: ≥ 0, units of the value.

    Raises:
        RequestError: a value out of range.
    """
    checked("sensitivity", sensitivity, least=0.0)
    return sensitivity / mu_of(epsilon, delta)


def classical_sigma(epsilon: float, delta: float, sensitivity: float = 1.0) -> float:
    """Δ√(2 ln(1.25/δ))/ε (Dwork & Roth 2014, Theorem A.1): sufficient for 0 < ε < 1, and never less than `sigma`.

    Raises:
        RequestError: ε ≥ 1, where the formula is not proved (for large ε it is false), or a value out of range.
    """
    if not 0 < epsilon < 1:
        raise RequestError(
            f"the classical Gaussian formula is proved for 0 < ε < 1, got {epsilon}",
            "Use `sigma`, the analytic Gaussian mechanism: it holds for every ε and needs less noise",
        )
    check_delta(delta)
    checked("sensitivity", sensitivity, least=0.0)
    return sensitivity * math.sqrt(2 * math.log(1.25 / delta)) / epsilon


def ratio(sensitivity: float, noise: float) -> float:
    """μ = sensitivity / noise; 0 if nothing was revealed, infinity if nothing hides it."""
    checked("sensitivity", sensitivity, least=0.0)
    checked("noise", noise, least=0.0)
    if sensitivity == 0:
        return 0.0
    return sensitivity / noise if noise > 0 else math.inf


def checked(name: str, value: float, *, least: float, most: float = math.inf) -> float:
    """`value` if it is a finite number in [least, most].

    Raises:
        RequestError.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise RequestError(f"{name} must be a finite number, got {value!r}", f"Give a number of at least {least:g}")
    if not least <= value <= most:
        upper = f" and at most {most:g}" if math.isfinite(most) else ""
        raise RequestError(f"{name} must be at least {least:g}{upper}, got {value!r}", f"Give {name} in that range")
    return float(value)


def check_delta(delta: float, *, zero: bool = False) -> float:
    """`delta` if it is a probability below 1, and above 0 unless `zero`.

    Raises:
        RequestError.
    """
    number = isinstance(delta, int | float) and not isinstance(delta, bool)
    if not number or not 0 <= delta < 1 or (delta == 0 and not zero):
        raise RequestError(
            f"delta must be a probability in {'[' if zero else '('}0, 1), got {delta!r}",
            "Choose delta well below one over the number of records, for example 1e-5",
        )
    return float(delta)


def _inverse(curve: Callable[[float], float], target: float, low: float, high: float, *, rising: bool) -> float:
    """x with curve(x) ≤ target, as near to equality as `SAFE`; the safe side is left of a rising curve."""
    from scipy import optimize  # only here: loading it takes longer than most calls of this module

    root = float(optimize.brentq(lambda x: curve(x) - target, low, high, xtol=1e-300, rtol=1e-14, maxiter=500))
    # μ and σ step further than ε does, so that the ε of a calibrated σ, rounded up, is not above what was asked for.
    step = -3 * SAFE if rising else SAFE
    while curve(root * (1 + step)) > target:
        step *= 2
    return root * (1 + step)
