"""Removal only: what (α, β)-unlearning asks for, and where it needs less noise than differential privacy.

Unlearning compares two models, U (trained with the record, which then left) and R (never saw it). In one direction,

    P[U ∈ E] ≤ e^ε P[R ∈ E] + δ   for every event E,

as in Gupta et al. 2021 (arXiv:2106.04378); Guo et al. and Sekhari et al. ask for both. Differential privacy asks for
both directions, and for every pair of data sets. What that spares, and what it does not:

- *Only removals*: no record is replaced by another, so a value moves by one influence and not by two: half the noise.
- *Only what is left over*: an unlearning step first moves the model towards R, and the noise hides only how far it
  still is; differential privacy must hide the record's whole influence. This is the large gain (one over n more for
  Sekhari's step).
- *One direction*: nothing for Gaussian noise, whose two directions are equal, and nothing for Poisson-subsampled
  Gaussian noise, whose removal direction is the larger of the two. The other direction is smaller there
  (`sides`), and it bounds an attacker who wants to show that a record was *never* in. So a one-sided certificate may be
  given with `side="removal"`, and it will say the same number: no less noise is claimed for it than was proved.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from expunge.accounting import gaussian, groups, loss
from expunge.accounting.ledger import Ledger
from expunge.accounting.loss import Side
from expunge.errors import MissingEvidence, RequestError


@dataclass(frozen=True, kw_only=True)
class Sides:
    """ε at δ of both directions together, of P[with] ≤ e^ε P[without] + δ, and of the other; nats."""

    both: float
    removal: float
    other: float
    delta: float

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


def sides(ledger: Ledger, delta: float | None = None, group: int = 1) -> Sides:
    """The privacy loss distribution's ε in each direction.

    Raises:
        MissingEvidence: a charge without such a distribution. RequestError: a value out of range.
    """
    told = ledger.account(delta, "pld", group)
    if told.closed_form:
        return Sides(both=told.epsilon, removal=told.epsilon, other=told.epsilon, delta=told.delta)
    found = loss.distribution(ledger.charges, group, ledger.grid(told.delta, group))
    return Sides(
        both=told.epsilon,
        removal=loss.epsilon_of(found, told.delta, "removal"),
        other=loss.epsilon_of(found, told.delta, "other"),
        delta=told.delta,
    )


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Standard deviation that a notion needs for one (ε, δ).

    Args:
        notion: what is hidden, in words. sensitivity, noise: units of the value. share: noise over that of the first.
    """

    notion: str
    sensitivity: float
    noise: float
    share: float

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


def noise_by_notion(
    epsilon: float, delta: float, *, influence: float, residual: float | None = None, group: int = 1
) -> list[Noise]:
    """The Gaussian noise of differential privacy and of unlearning beside each other, from most to least.

    Args:
        influence: by how much one record moves the value at most, when it is added or removed (L2).
        residual: how far the unlearned value is from the retrained one at most, for the whole group, after the
            unlearning step; without one the step is not compared.
        group: records that leave together.

    Raises:
        RequestError: a value out of range, or a residual that exceeds the group's influence: then the step did harm.
    """
    gaussian.checked("influence", influence, least=0.0)
    whole = groups.whole_group(group) * influence
    asked = [
        ("differential privacy, a record replaced by another", 2 * whole),
        ("differential privacy or unlearning without a step, a record removed", whole),
    ]
    if residual is not None:
        if gaussian.checked("residual", residual, least=0.0) > whole:
            raise RequestError(
                f"the residual {residual:g} exceeds the influence {whole:g} it should have undone",
                "Check the constants: an unlearning step that moves away from retraining should not be taken",
            )
        asked.append(("unlearning, what the step leaves over", residual))
    one = gaussian.sigma(epsilon, delta)
    return [
        Noise(notion=words, sensitivity=s, noise=s * one, share=s / asked[0][1] if asked[0][1] > 0 else 1.0)
        for words, s in asked
    ]


def noise_multiplier(
    epsilon: float,
    delta: float,
    *,
    sample_rate: float,
    steps: int,
    group: int = 1,
    side: Side = "both",
    tolerance: float = 1e-3,
) -> float:
    """The least noise multiplier of DP-SGD with ε(δ) ≤ `epsilon` by its privacy loss distribution.

    Args:
        sample_rate: Poisson, in (0, 1]. group: records of one person. side: see above; "removal" gives the same.
        tolerance: relative; the answer is the upper end of the last interval, so its ε never exceeds `epsilon`.

    Raises:
        RequestError: a value out of range. MissingEvidence: no multiplier up to 10⁶ is enough.
    """
    if gaussian.checked("epsilon", epsilon, least=0.0) == 0:
        raise RequestError("epsilon is 0", "No finite noise gives it; ask for more")
    gaussian.checked("tolerance", tolerance, least=1e-9, most=1.0)

    def excess(multiplier: float) -> float:
        ledger = Ledger(epsilon, delta).subsampled_gaussian(multiplier, sample_rate, steps)
        spent = ledger.epsilon(delta, "pld", group, side=side)
        return math.log(max(spent, 1e-12 * epsilon) / epsilon) if math.isfinite(spent) else math.inf

    return _least(excess, tolerance)


def _least(excess: Callable[[float], float], tolerance: float) -> float:
    """The smallest x with excess(x) ≤ 0, from above, of a falling function that is nearly straight in log x."""
    low, high = 0.5, 1.0
    above, below = excess(low), excess(high)
    while below > 0:
        low, above, high = high, below, 2 * high
        if high > 1e6:
            raise MissingEvidence(
                "no noise multiplier up to 1e6 is enough", "Raise epsilon or delta, or lower the steps"
            )
        below = excess(high)
    while above <= 0:
        high, below, low = low, above, low / 2
        if low < 1e-3:
            return high
        above = excess(low)
    rose = False
    while high > low * (1 + tolerance):
        share = above / (above - below) if math.isfinite(above) else 0.5
        # Aim a little beyond the root, to the side that did not move last: then both ends close in.
        aim = share * math.log(high / low) + tolerance * (0.4 if rose else -0.4)
        x = low * math.exp(min(0.95, max(0.05, aim / math.log(high / low))) * math.log(high / low))
        value = excess(x)
        rose = value > 0
        if rose:
            low, above = x, value
        else:
            high, below = x, value
    return high
