"""What an attacker could still do at (ε, δ): bounds on the best test of "was this record in the training data?".

The attacker sees everything the guarantee covers and knows all other records. A test that says "in" with
false-positive rate f on retrained models (and true-positive rate t on unlearned ones) obeys, for both directions,

    t ≤ min(1, e^ε f + δ, 1 - e^{-ε}(1 - δ - f))

(Kairouz, Oh & Viswanath 2015, arXiv:1311.0776, Theorem 2.1). The removal direction alone gives the first two. Hence the
advantage t - f ≤ (e^ε - 1 + 2δ)/(e^ε + 1), or 1 - e^{-ε}(1 - δ) for removal alone. A "yes" multiplies the prior odds
by t/f. A ledger proves a curve of pairs (ε, δ), so every bound is the least over the curve: for Gaussian charges
t = Φ(Φ⁻¹(f) + μ), the best test itself (Dong, Roth & Su 2022).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from expunge.accounting import gaussian, loss
from expunge.accounting.ledger import Ledger
from expunge.accounting.loss import Side
from expunge.errors import RequestError

STEPS = 65  # points of a curve without closed form


@dataclass(frozen=True, kw_only=True)
class Attacker:
    """Upper bounds for every attack there is.

    Args:
        advantage: largest true-positive minus false-positive rate, in [0, 1]; best_accuracy: at even odds, in [.5, 1].
        true_positive_rate: at false_positive_rate f. lift: the factor a "yes" at f puts on the odds, ≥ 1.
        prior, posterior: belief that the record was in, before and after that "yes".
    """

    advantage: float
    best_accuracy: float
    false_positive_rate: float
    true_positive_rate: float
    lift: float
    prior: float
    posterior: float

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def words(self) -> list[str]:
        """The bounds as sentences, rounded up."""
        f, t = f"{100 * self.false_positive_rate:.3g}%", _up(self.true_positive_rate)
        return [
            f"Whoever guesses at even odds whether a record was in is right at most {_up(self.best_accuracy)} of the "
            f"time (a coin: 50%); the advantage is at most {_up(self.advantage)}.",
            f"A test that wrongly accuses {f} of the records that were never in finds at most {t} of those that were "
            f"(blind guessing: {f}).",
            f"Its accusation raises a belief of {100 * self.prior:.3g}% that the record was in to at most "
            f"{_up(self.posterior)} (odds times {math.ceil(self.lift * 100 - 1e-7) / 100:.2f}).",
        ]


def attacker(
    epsilon: float,
    delta: float,
    *,
    false_positive_rate: float = 0.01,
    prior: float = 0.5,
    side: Side = "both",
) -> Attacker:
    """The bounds that one pair (ε, δ) gives.

    Args:
        epsilon: nats, ≥ 0. delta: probability in [0, 1]. false_positive_rate, prior: in (0, 1).
        side: "removal" if only that direction is certified.

    Raises:
        RequestError: a value out of range.
    """
    return _least([(epsilon, delta)], false_positive_rate, prior, side)


def attacker_of(
    ledger: Ledger,
    *,
    group: int = 1,
    false_positive_rate: float = 0.01,
    prior: float = 0.5,
    side: Side = "both",
) -> Attacker:
    """The bounds that the ledger's whole curve gives: never weaker than those of its (ε, δ) at one δ.

    Raises:
        RequestError: a value out of range, or a group of residuals.
    """
    _check(false_positive_rate, prior)
    top = ledger.epsilon(notion=ledger.notion, group=group, side=side)
    mu = loss.gaussian_mu(ledger.charges, group)
    if mu is not None and math.isfinite(mu):
        rate = float(special.ndtr(special.ndtri(false_positive_rate) + mu))
        advantage = math.erf(mu / (2 * math.sqrt(2)))
        return _told(advantage, max(rate, false_positive_rate), false_positive_rate, prior)
    if not math.isfinite(top):
        return _told(1.0, 1.0, false_positive_rate, prior)
    curve = [(e, ledger.delta(e, ledger.notion, group, side=side)) for e in np.linspace(0.0, top, STEPS).tolist()]
    return _least([*curve, (top, ledger.budget_delta)], false_positive_rate, prior, side)


def _least(pairs: Sequence[tuple[float, float]], rate: float, prior: float, side: Side) -> Attacker:
    _check(rate, prior)
    if side not in ("both", "removal"):
        raise RequestError(f"side must be both or removal, got {side!r}", "Choose one of them")
    found, advantage = 1.0, 1.0
    for epsilon, delta in pairs:
        gaussian.checked("epsilon", epsilon, least=0.0)
        gaussian.checked("delta", delta, least=0.0, most=1.0)
        shrink = math.exp(-epsilon)
        rising = math.exp(min(700.0, epsilon)) * rate + delta
        if side == "both":
            rising = min(rising, 1 - shrink * (1 - delta - rate))
            best = (1 - shrink + 2 * delta * shrink) / (1 + shrink)
        else:
            best = 1 - shrink * (1 - delta)
        found, advantage = min(found, max(rising, rate)), min(advantage, best)
    return _told(advantage, found, rate, prior)


def _told(advantage: float, found: float, rate: float, prior: float) -> Attacker:
    lift = found / rate
    odds = prior / (1 - prior) * lift
    return Attacker(
        advantage=advantage,
        best_accuracy=(1 + advantage) / 2,
        false_positive_rate=rate,
        true_positive_rate=found,
        lift=lift,
        prior=prior,
        posterior=odds / (1 + odds),
    )


def _check(rate: float, prior: float) -> None:
    for name, value in (("false_positive_rate", rate), ("prior", prior)):
        if not 0 < gaussian.checked(name, value, least=0.0, most=1.0) < 1:
            raise RequestError(f"{name} must lie strictly between 0 and 1, got {value!r}", "Give a share such as 0.01")


def _up(share: float) -> str:
    """A share as a percentage with two decimals, rounded up: a bound may not lose by rounding."""
    return f"{min(100.0, math.ceil(share * 1e4 - 1e-7) / 100):.2f}%"
