"""The ledger: what was spent of a budget (ε, δ), from facts alone. Immutable; every charge gives a new ledger.

    ledger = Ledger(1.0, 1e-5).gaussian(sensitivity=0.01, noise=0.1, what="published weights")
    ledger.epsilon(1e-5)            # nats spent; never below the privacy loss distribution's value
    ledger.exhausted                # True once more than the budget is spent: retrain, then `ledger.retrained()`

The accountants: ``gdp`` (μ² adds; Gaussian charges only), ``rdp`` (Rényi curves add), ``pld`` (privacy loss
distributions convolve; tight). Whatever is asked for, the number returned is at least the PLD value where one exists:
an accountant that says less has made an error or an approximation, and nobody is promised it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from expunge.accounting import gaussian, groups, loss, renyi
from expunge.accounting.charges import (
    Bounded,
    Charge,
    Concentrated,
    Gaussian,
    Laplace,
    Renyi,
    Residual,
    SubsampledGaussian,
    charge_from,
    whole,
)
from expunge.accounting.groups import NOTIONS
from expunge.accounting.loss import Side
from expunge.errors import MissingEvidence, RequestError

Notion = Literal["pld", "rdp", "gdp"]
ROUGH: renyi.Curve = np.array([2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0])  # orders enough to guess the size of ε


@dataclass(frozen=True, kw_only=True)
class Account:
    """ε at δ and how it was reached.

    Args:
        epsilon: nats, what may be reported. delta: the δ it holds at.
        notion: the accountant that was asked. source: the one whose value ``epsilon`` is.
        value: what ``notion`` itself says; pld: what the privacy loss distribution says, None where there is none.
        closed_form: whether the PLD value is exact (Gaussian charges only), not rounded up on a grid.
        group: records at once. side: "both", or "removal" for (with, without) only.
    """

    epsilon: float
    delta: float
    notion: Notion
    source: Notion
    value: float
    pld: float | None
    closed_form: bool
    group: int = 1
    side: Side = "both"

    def as_dict(self) -> dict[str, Any]:
        """JSON; an infinite value is None."""
        told = dict(vars(self))
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in told.items()}

    def __str__(self) -> str:
        of = f", {self.group} records at once" if self.group > 1 else ""
        why = "" if self.source == self.notion else f"; {self.notion.upper()} says {self.value:.4g}, which is less"
        one = ", removal only" if self.side == "removal" else ""
        return f"ε = {self.epsilon:.4g} at δ = {self.delta:g} ({self.source.upper()}{why}{of}{one})"


@dataclass(frozen=True)
class Ledger:
    """What was spent, and what may be.

    Args:
        budget_epsilon: nats, > 0. budget_delta: probability in (0, 1).
        charges: the facts, merged where they differ in nothing but their number.
        retrains: how often the account was opened anew by `retrained`.

    Raises:
        RequestError: a value out of range.
    """

    budget_epsilon: float
    budget_delta: float
    charges: tuple[Charge, ...] = ()
    retrains: int = 0

    def __post_init__(self) -> None:
        if gaussian.checked("budget_epsilon", self.budget_epsilon, least=0.0) == 0:
            raise RequestError("budget_epsilon is 0", "A budget of nothing allows exact methods only; give it more")
        gaussian.check_delta(self.budget_delta)
        whole("retrains", self.retrains, least=0)
        object.__setattr__(self, "charges", tuple(self.charges))

    # -- facts ---------------------------------------------------------------------------------------------------

    def gaussian(self, sensitivity: float, noise: float, count: int = 1, *, what: str = "") -> Ledger:
        """`count` releases of a value of L2 `sensitivity` under N(0, `noise`² I), fresh noise each; same units."""
        return self.charged(Gaussian(sensitivity=sensitivity, noise=noise, count=count, what=what))

    def subsampled_gaussian(self, noise_multiplier: float, sample_rate: float, steps: int, *, what: str = "") -> Ledger:
        """`steps` of DP-SGD on Poisson batches; noise in units of the clipping norm."""
        return self.charged(
            SubsampledGaussian(noise_multiplier=noise_multiplier, sample_rate=sample_rate, count=steps, what=what)
        )

    def laplace(self, sensitivity: float, scale: float, count: int = 1, *, what: str = "") -> Ledger:
        """`count` releases of a value of L1 `sensitivity` under Laplace noise of this scale; same units."""
        return self.charged(Laplace(sensitivity=sensitivity, scale=scale, count=count, what=what))

    def bounded(self, epsilon: float, delta: float = 0.0, count: int = 1, *, what: str = "") -> Ledger:
        """`count` runs of a mechanism of which only (ε, δ) is known."""
        return self.charged(Bounded(epsilon=epsilon, delta=delta, count=count, what=what))

    def concentrated(self, rho: float, count: int = 1, *, what: str = "") -> Ledger:
        """`count` runs with a Rényi divergence of at most `rho`·α at every order α > 1. No PLD exists: ask for rdp."""
        return self.charged(Concentrated(rho=rho, count=count, what=what))

    def renyi(self, orders: Sequence[float], values: Sequence[float], count: int = 1, *, what: str = "") -> Ledger:
        """`count` runs with known Rényi divergences (nats) at rising orders > 1. No PLD exists: ask for rdp."""
        return self.charged(Renyi(orders=tuple(orders), values=tuple(values), count=count, what=what))

    def residual(
        self, beta: float, limit: float | None = None, *, noise: float, draw: str = "b", what: str = ""
    ) -> Ledger:
        """A removal left a gradient residual of norm ≤ `beta` under the secret objective noise N(0, `noise`² I).

        Residuals under one `draw` add up. `limit` is where the owner retrains, by default (and at most) the β that
        spends the whole budget, `residual_limit(noise)`.

        Raises:
            RequestError: the noise does not cover the limit, or a draw that had another noise or limit.
        """
        most = self.residual_limit(noise)
        if limit is not None and limit > most:
            raise RequestError(
                f"noise {noise:g} covers residuals up to {most:g} at ε={self.budget_epsilon:g}, "
                f"δ={self.budget_delta:g}, and the limit is {limit:g}",
                "Lower the limit or raise the noise",
            )
        kept = most if limit is None else limit
        return self.charged(Residual(beta=beta, limit=kept, noise=noise, draw=draw, what=what))

    def charged(self, charge: Charge) -> Ledger:
        """This ledger with one more charge, over the budget or not: see `exhausted`."""
        for at, one in enumerate(self.charges):
            merged = one.merged(charge)
            if merged is not None:
                charges = (*self.charges[:at], merged, *self.charges[at + 1 :])
                return Ledger(self.budget_epsilon, self.budget_delta, charges, self.retrains)
        return Ledger(self.budget_epsilon, self.budget_delta, (*self.charges, charge), self.retrains)

    def retrained(self) -> Ledger:
        """The account after a fresh training on the remaining records alone, with fresh noise: nothing is owed."""
        return Ledger(self.budget_epsilon, self.budget_delta, (), self.retrains + 1)

    # -- what it amounts to --------------------------------------------------------------------------------------

    def epsilon(
        self, delta: float | None = None, notion: Notion = "pld", group: int = 1, *, side: Side = "both"
    ) -> float:
        """ε in nats at `delta` (the budget's by default), for `group` records at once; `account` says by whom."""
        return self.account(delta, notion, group, side=side).epsilon

    def account(
        self, delta: float | None = None, notion: Notion = "pld", group: int = 1, *, side: Side = "both"
    ) -> Account:
        """ε at `delta` by `notion`, or the PLD value where that is larger.

        Args:
            delta: probability in (0, 1); the budget's by default. group: k ≥ 1, records removed together.
            side: "removal" counts only P[with ∈ E] ≤ e^ε P[without ∈ E] + δ; for gdp and rdp it changes nothing.

        Raises:
            RequestError: a value out of range, or a group of residuals.
            MissingEvidence: `notion` has no bound for these charges.
        """
        if notion not in NOTIONS:
            raise RequestError(f"there is no accountant {notion!r}", f"Known: {', '.join(NOTIONS)}")
        if side not in ("both", "removal"):
            raise RequestError(f"side must be both or removal, got {side!r}", "Choose one of them")
        delta = gaussian.check_delta(self.budget_delta if delta is None else delta)
        whole("group", group)
        _group_of_residuals(self.charges, group)
        mu = loss.gaussian_mu(self.charges, group)
        pld: float | None = None
        if mu is not None:
            pld = gaussian.epsilon_of(delta, mu)
        else:
            _refuse(self.charges, notion)
            if loss.known(self.charges) and delta >= loss.LEAST_DELTA:
                pld = _pld(self.charges, delta, group, side)
        value = _rdp(self.charges, delta, group) if notion == "rdp" else pld
        if value is None:
            raise MissingEvidence(
                f"the grid of a privacy loss distribution does not resolve δ = {delta:g}",
                f"Ask for rdp, or for a δ of at least {loss.LEAST_DELTA:g}",
            )
        source: Notion = notion if pld is None or value >= pld else "pld"
        return Account(
            epsilon=value if pld is None else max(value, pld),
            delta=delta,
            notion=notion,
            source=source,
            value=value,
            pld=pld,
            closed_form=mu is not None,
            group=group,
            side=side,
        )

    def delta(self, epsilon: float, notion: Notion = "pld", group: int = 1, *, side: Side = "both") -> float:
        """δ at `epsilon` nats: the privacy profile; at least the PLD value where there is one. Errors as `account`."""
        gaussian.checked("epsilon", epsilon, least=0.0)
        if notion not in NOTIONS:
            raise RequestError(f"there is no accountant {notion!r}", f"Known: {', '.join(NOTIONS)}")
        whole("group", group)
        if not self.charges:
            return 0.0
        _group_of_residuals(self.charges, group)
        mu = loss.gaussian_mu(self.charges, group)
        if mu is not None:
            exact = gaussian.delta_of(epsilon, mu)
            return exact if notion != "rdp" else max(exact, renyi.delta_of(renyi.curve(self.charges, group), epsilon))
        _refuse(self.charges, notion)
        values = [renyi.delta_of(renyi.curve(self.charges, group), epsilon)] if notion == "rdp" else []
        if loss.known(self.charges):
            found = loss.distribution(self.charges, group, _grid(self.charges, self.budget_delta, group))
            values.append(1.0 if found is None else float(loss.one_side(found, side).get_delta_for_epsilon(epsilon)))
        return min(1.0, max(values))

    @property
    def notion(self) -> Notion:
        """The tightest accountant that bounds every charge: pld, or rdp where a charge has a Rényi curve only."""
        return "pld" if loss.known(self.charges) else "rdp"

    @property
    def spent(self) -> float:
        """ε at the budget's δ by the tightest accountant, nats."""
        return self.epsilon(notion=self.notion)

    @property
    def remaining(self) -> float:
        """ε that is left of the budget, nats, ≥ 0. Charges do not add up in ε, so this is a gauge, not a price list."""
        return max(0.0, self.budget_epsilon - self.spent)

    @property
    def exhausted(self) -> bool:
        """Whether more was spent than the budget: the claim (budget_epsilon, budget_delta) no longer holds."""
        mu = loss.gaussian_mu(self.charges)
        if mu is not None:
            return gaussian.delta_of(self.budget_epsilon, mu) > self.budget_delta or self._over_limit()
        return self.spent > self.budget_epsilon or self._over_limit()

    def residual_limit(self, noise: float) -> float:
        """The summed residual that spends the whole budget alone: σ·μ(ε, δ), by the analytic Gaussian mechanism.

        Guo et al. use σε/c with δ = 1.5·exp(-c²/2), the classical Gaussian bound: proved for ε < 1 only, and smaller.
        """
        gaussian.checked("noise", noise, least=0.0)
        return noise * gaussian.mu_of(self.budget_epsilon, self.budget_delta) * (1 - gaussian.SAFE)

    def grid(self, delta: float | None = None, group: int = 1) -> float:
        """Steps, nats, of the grid on which this ledger's privacy loss distribution is laid for `account`."""
        return _grid(self.charges, gaussian.check_delta(self.budget_delta if delta is None else delta), group)

    def residual_spent(self, draw: str = "b") -> float:
        """The sum of the residuals charged to a draw of noise; 0 before the first."""
        return sum(c.beta for c in self.charges if isinstance(c, Residual) and c.draw == draw)

    def _over_limit(self) -> bool:
        return any(c.beta > c.limit for c in self.charges if isinstance(c, Residual))

    # -- JSON ----------------------------------------------------------------------------------------------------

    def as_dict(self) -> dict[str, Any]:
        """The facts as JSON; `from_dict` gives back an equal ledger."""
        return {
            "budget_epsilon": self.budget_epsilon,
            "budget_delta": self.budget_delta,
            "retrains": self.retrains,
            "charges": [charge.as_dict() for charge in self.charges],
        }

    @classmethod
    def from_dict(cls, told: Any) -> Ledger:
        """Read what `as_dict` wrote.

        Raises:
            RequestError: it is something else.
        """
        named = {"budget_epsilon", "budget_delta", "retrains", "charges"}
        if not isinstance(told, dict) or set(told) != named or not isinstance(told["charges"], list):
            raise RequestError("this is no ledger", f"A ledger has exactly the fields {', '.join(sorted(named))}")
        charges = tuple(charge_from(charge) for charge in told["charges"])
        return cls(told["budget_epsilon"], told["budget_delta"], charges, told["retrains"])


def _refuse(charges: tuple[Charge, ...], notion: Notion) -> None:
    if notion == "gdp":
        raise MissingEvidence(
            "GDP bounds Gaussian charges only; for a subsampled one it is a limit that can lie below the truth",
            "Ask for pld or rdp",
        )
    if notion == "pld" and not loss.known(charges):
        raise MissingEvidence("a charge known by its Rényi curve has no privacy loss distribution", "Ask for rdp")


def _group_of_residuals(charges: tuple[Charge, ...], group: int) -> None:
    if group > 1 and any(isinstance(c, Residual) for c in charges):
        raise RequestError(
            f"residuals are measured for the records removed, so a group of {group} has no meaning for them",
            "Ask for group=1: the residuals of all removals are in the sum already",
        )


@lru_cache(maxsize=256)
def _rdp(charges: tuple[Charge, ...], delta: float, group: int) -> float:
    return renyi.epsilon_of(renyi.curve(charges, group), delta)


@lru_cache(maxsize=256)
def _grid(charges: tuple[Charge, ...], delta: float, group: int) -> float:
    """Steps, nats: the library's own for one record (so are the values), coarser where ε is large or mixtures slow.

    ε is not known beforehand, so from coarse to fine; each step gives an upper bound.
    """
    mixed = sum(c.count for c in charges if isinstance(c, SubsampledGaussian)) if group > 1 else 0

    def step(epsilon: float) -> float:
        if not math.isfinite(epsilon):
            return 0.1
        # Rounding adds about step²/8 to the loss of each mixture: some 0.01% of ε altogether.
        fit = math.sqrt(4e-4 * max(epsilon, 0.01) / mixed) if mixed else 1e-6 * epsilon
        return min(0.1, max(loss.GRID, fit))

    grid = step(renyi.epsilon_of(renyi.curve(charges, group, ROUGH), delta, ROUGH))
    while grid > loss.GRID:
        finer = step(loss.epsilon_of(loss.distribution(charges, group, grid), delta))
        if not finer < grid / 2:
            break
        grid = finer
    return grid


@lru_cache(maxsize=256)
def _pld(charges: tuple[Charge, ...], delta: float, group: int, side: Side) -> float:
    if len(charges) == 1 and isinstance(charges[0], Bounded) and charges[0].count == 1:
        grown = groups.naive(charges[0].epsilon, charges[0].delta, group)
        return loss.bounded_epsilon(*grown, delta) if grown[1] < 1 else math.inf
    return loss.epsilon_of(loss.distribution(charges, group, _grid(charges, delta, group)), delta, side)
