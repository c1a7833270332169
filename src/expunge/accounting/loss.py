"""Privacy loss distributions of charges, composed by `dp-accounting`; Gaussian ones in closed form.

The loss of the Gaussian mechanism is itself Gaussian, N(μ²/2, μ²), and stays so under composition with
μ² = Σ μᵢ² (Dong, Roth & Su 2022, Corollary 3.3). So where every charge is Gaussian the distribution needs no grid and
its ε is the analytic Gaussian's. Everything else is laid on a grid, rounded upwards (Doroshenko et al. 2022,
arXiv:2207.04380), which can only enlarge ε.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

from expunge.accounting import groups
from expunge.accounting.charges import Bounded, Charge, Gaussian, Laplace, Residual, SubsampledGaussian

Side = Literal["both", "removal"]
GRID = 1e-4  # nats; the library's own default
LEAST_DELTA = 1e-12  # below this the tails that were cut from the grid outweigh δ


def gaussian_mu(charges: Sequence[Charge], group: int = 1) -> float | None:
    """μ of the whole if every charge is Gaussian, else None. `group` records move each mean `group` times as far."""
    total = 0.0
    for charge in charges:
        match charge:
            case Gaussian():
                total += charge.count * (charge.mu * group) ** 2
            case Residual():
                total += charge.mu**2
            case SubsampledGaussian(sample_rate=1.0):
                noise = charge.noise_multiplier
                total += charge.count * (group / noise) ** 2 if noise > 0 else math.inf
            case _:
                return None
    return math.sqrt(total)


def known(charges: Sequence[Charge]) -> bool:
    """Whether every charge has a privacy loss distribution; a Rényi curve alone does not determine one."""
    return all(isinstance(c, Gaussian | Residual | SubsampledGaussian | Laplace | Bounded) for c in charges)


@lru_cache(maxsize=16)
def distribution(charges: tuple[Charge, ...], group: int = 1, grid: float = GRID) -> Any:
    """The composed `PrivacyLossDistribution` for `group` removed (or added) records; None where no noise hides one.

    Under Poisson sampling Binomial(group, rate) of the records are in a batch, a mixture of Gaussians whose bound is
    tight (Ganesh 2024, arXiv:2401.10294). Of a `Bounded` charge only the naive group bound is known.
    """
    from dp_accounting.pld import common
    from dp_accounting.pld import privacy_loss_distribution as library
    from scipy import stats

    total = library.identity(value_discretization_interval=grid)
    smooth = [c for c in charges if gaussian_mu([c]) is not None]
    mu = gaussian_mu(smooth, group)
    assert mu is not None
    if mu == math.inf:
        return None
    if mu > 0:
        total = total.compose(library.from_gaussian_mechanism(1 / mu, value_discretization_interval=grid))
    for charge in charges:
        match charge:
            case SubsampledGaussian() if charge.sample_rate < 1:
                if charge.noise_multiplier == 0:
                    return None
                if group == 1:
                    one = library.from_gaussian_mechanism(
                        charge.noise_multiplier, value_discretization_interval=grid, sampling_prob=charge.sample_rate
                    )
                else:
                    sampled = list(range(group + 1))
                    one = library.from_mixture_gaussian_mechanism(
                        charge.noise_multiplier,
                        sampled,
                        stats.binom.pmf(sampled, group, charge.sample_rate).tolist(),
                        value_discretization_interval=grid,
                    )
            case Laplace():
                if charge.rate == 0:
                    continue
                if charge.rate == math.inf:
                    return None
                one = library.from_laplace_mechanism(1 / (charge.rate * group), value_discretization_interval=grid)
            case Bounded():
                epsilon, delta = groups.naive(charge.epsilon, charge.delta, group)
                if delta >= 1:
                    return None
                bound = common.DifferentialPrivacyParameters(epsilon, delta)
                one = library.from_privacy_parameters(bound, value_discretization_interval=grid)
            case _:
                continue
        total = total.compose(one if charge.count == 1 else one.self_compose(charge.count))
    return total


def one_side(found: Any, side: Side | Literal["other"]) -> Any:
    """The distribution of both directions, or only of (with the record, without it): what removal is about.

    The library calls that direction REMOVE: upper M(D), lower M(D without the record). "other" is the reverse, ADD.
    """
    if side == "both":
        return found
    return type(found)(found._pmf_remove if side == "removal" else found._pmf_add)


def epsilon_of(found: Any, delta: float, side: Side | Literal["other"] = "both") -> float:
    """ε at δ of a `distribution`; infinity where there is none. Rounded up to the grid's bound."""
    return math.inf if found is None else float(one_side(found, side).get_epsilon_for_delta(delta))


def bounded_epsilon(epsilon: float, delta: float, target: float) -> float:
    """ε at δ = `target` of the worst pair that (`epsilon`, `delta`) allows: randomised response, no grid.

    δ(ε') = δ + (1 - δ)(e^ε - e^ε')₊/(1 + e^ε) (Kairouz, Oh & Viswanath 2015, arXiv:1311.0776).
    """
    if target < delta:
        return math.inf
    spare = (target - delta) / (1 - delta) * (1 + math.exp(-epsilon))
    return max(0.0, epsilon + math.log1p(-spare)) if spare < 1 else 0.0
