"""Requests as they come in: a Poisson process with the rhythm of days, weeks and seasons, and bursts on top."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt

from expunge.errors import RequestError
from expunge.service.policy import Policy
from expunge.service.simulate.due import due_times
from expunge.service.simulate.times import DAY, HOUR, Times, midnight, stream
from expunge.service.words import REASONS

Codes = npt.NDArray[np.int8]

WEEK = (1.25, 1.2, 1.15, 1.1, 1.0, 0.65, 0.65)
NIGHT_AND_DAY = (0.3,) * 6 + (0.7, 1.0, 1.4, 1.7, 1.7, 1.6, 1.5, 1.6, 1.6, 1.5, 1.3, 1.2, 1.2, 1.2, 1.1, 0.9, 0.6, 0.4)


@dataclass(frozen=True, kw_only=True)
class Rhythm:
    """How the rate of requests varies; only ratios matter.

    Args:
        weekdays: (7,) Monday first. hours: (24,) of the day, UTC. season: by how much the busiest time of the year lies
            above the mean, in [0, 1); a cosine. busiest: its day of the year, from 0.

    Raises:
        RequestError: a number is negative, or all of them are 0.
    """

    weekdays: tuple[float, ...] = WEEK
    hours: tuple[float, ...] = NIGHT_AND_DAY
    season: float = 0.15
    busiest: float = 25.0

    def __post_init__(self) -> None:
        for name, count in (("weekdays", 7), ("hours", 24)):
            values = getattr(self, name)
            if len(values) != count or not all(math.isfinite(v) and v >= 0 for v in values) or not any(values):
                raise RequestError(f"{name} must be {count} numbers of at least 0 with one above", "Correct them")
        if not 0 <= self.season < 1 or not math.isfinite(self.busiest):
            raise RequestError(f"season must be in [0, 1), got {self.season}", "Correct it")

    def rates(self, start: date, days: int) -> npt.NDArray[np.float64]:
        """(24 · days,) relative rate of each hour from `start` on."""
        when = [start + timedelta(days=k) for k in range(days)]
        week = np.array([self.weekdays[d.weekday()] for d in when])
        angle = 2 * np.pi * (np.array([d.timetuple().tm_yday - 1 for d in when]) - self.busiest) / 365.25
        return np.outer(week * (1 + self.season * np.cos(angle)), self.hours).ravel()


STEADY = Rhythm(weekdays=(1.0,) * 7, hours=(1.0,) * 24, season=0.0)


@dataclass(frozen=True, kw_only=True)
class Burst:
    """Requests that come together: a campaign, the days after a breach.

    Args:
        day: of the traffic, from 0, at which it begins. requests: how many. half_life_days: after which half of them
            have come; 0: all at one moment. reason: for filing them.

    Raises:
        RequestError: a number out of range, or an unknown reason.
    """

    day: float
    requests: int
    half_life_days: float = 2.0
    reason: str = "privacy"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.day) and self.day >= 0) or self.requests < 1:
            raise RequestError(f"a burst of {self.requests} requests on day {self.day}", "Both must be positive")
        if not (math.isfinite(self.half_life_days) and self.half_life_days >= 0):
            raise RequestError(f"half_life_days is {self.half_life_days}", "Give 0 or more")
        if self.reason not in REASONS:
            raise RequestError(f"there is no reason {self.reason!r}", f"Known: {', '.join(REASONS)}")

    @classmethod
    def parse(cls, text: str) -> Burst:
        """``day:requests[:half_life_days[:reason]]``.

        >>> Burst.parse("60:20000:3:safety").requests
        20000

        Raises:
            RequestError.
        """
        parts = text.split(":")
        try:
            if not 2 <= len(parts) <= 4:
                raise ValueError
            half_life = float(parts[2]) if len(parts) > 2 else 2.0
            day, requests = float(parts[0]), int(parts[1])
        except ValueError:
            raise RequestError(f"{text!r} is no burst", "Write day:requests:half_life_days, 60:20000:3") from None
        return cls(
            day=day, requests=requests, half_life_days=half_life, reason=parts[3] if len(parts) > 3 else "privacy"
        )

    def times(self, start: int, rng: np.random.Generator) -> Times:
        """(requests,) moments, unsorted."""
        after = rng.exponential(self.half_life_days / math.log(2), self.requests)
        return np.rint(start + (self.day + after) * DAY).astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Requests in the order in which they came in.

    Args:
        received: (n,) moments, rising. regime: (n,) places in `regimes`. reason: (n,) places in `reasons`.
        start, days: the time that the traffic covers; the decay of a burst may go on after it.

    Raises:
        RequestError: no request, or not in order.
    """

    received: Times
    regime: Codes
    regimes: tuple[str, ...]
    reason: Codes
    reasons: tuple[str, ...] = REASONS
    start: date = date(2026, 1, 5)
    days: int = 365

    def __post_init__(self) -> None:
        if not len(self.received):
            raise RequestError("there is no request to simulate", "Give at least one")
        if (np.diff(self.received) < 0).any():
            raise RequestError("requests are not in the order of their receipt", "Sort them by received_at")
        if not len(self.received) == len(self.regime) == len(self.reason):
            raise RequestError("requests, regimes and reasons differ in number", "Give one of each a request")

    def __len__(self) -> int:
        return len(self.received)

    def due(self, policy: Policy) -> Times:
        """(n,) first moments at which each request is late, by its regime's rule.

        Raises:
            RequestError: the policy lacks a regime.
        """
        rules = [policy.regime(name) for name in self.regimes]
        if len(rules) == 1:
            return due_times(self.received, rules[0])
        due = np.zeros(len(self), dtype=np.int64)
        for code, rule in enumerate(rules):
            mine = self.regime == code
            due[mine] = due_times(self.received[mine], rule)
        return due


def poisson_traffic(
    requests: int,
    *,
    days: int = 365,
    start: date = date(2026, 1, 5),
    regimes: Mapping[str, float] | None = None,
    reasons: Mapping[str, float] | None = None,
    rhythm: Rhythm | None = None,
    bursts: Sequence[Burst] = (),
    seed: int = 0,
) -> Traffic:
    """A Poisson process with a rate constant within each hour, given its number of requests; bursts come on top.

    Given their number, the moments of a Poisson process are independent draws from the density of its rate: here sorted
    uniform numbers (sums of exponential ones) through the inverse of the cumulative rate.

    Args:
        requests: without those of the bursts. regimes, reasons: name -> share; by default ``gdpr`` and ``privacy``.
        rhythm: by default that of office hours and weeks, with a mild season.

    Raises:
        RequestError: numbers out of range.
    """
    if requests < 0 or days < 1:
        raise RequestError(f"{requests} requests in {days} days", "Give 0 or more requests in 1 day or more")
    begin = midnight(start)
    cumulative = np.concatenate([[0.0], np.cumsum((rhythm or Rhythm()).rates(start, days))])
    if requests and not cumulative[-1] > 0:
        raise RequestError("the rhythm is 0 on all days of the traffic", "Give a longer time, or another rhythm")
    spaced = np.cumsum(stream(seed, "traffic").standard_exponential(requests + 1))
    hours = np.interp(spaced[:-1] / spaced[-1] * cumulative[-1], cumulative, np.arange(len(cumulative), dtype=float))
    received = begin + (hours * HOUR).astype(np.int64)
    names, regime = _shares("regime", regimes or {"gdpr": 1.0}, requests, seed)
    wanted, reason = _shares("reason", reasons or {"privacy": 1.0}, requests, seed)
    for name in wanted:
        if name not in REASONS:
            raise RequestError(f"there is no reason {name!r}", f"Known: {', '.join(REASONS)}")
    reason = np.array([REASONS.index(name) for name in wanted], dtype=np.int8)[reason]
    for k, burst in enumerate(bursts):
        received = np.concatenate([received, burst.times(begin, stream(seed, "burst", k))])
        regime = np.concatenate([regime, _shares("regime", regimes or {"gdpr": 1.0}, burst.requests, seed, k)[1]])
        code = np.full(burst.requests, REASONS.index(burst.reason), dtype=np.int8)
        reason = np.concatenate([reason, code])
    if bursts:
        order = np.argsort(received, kind="stable")
        received, regime, reason = received[order], regime[order], reason[order]
    return Traffic(received=received, regime=regime, regimes=names, reason=reason, start=start, days=days)


def _shares(
    kind: str, shares: Mapping[str, float], count: int, seed: int, *which: int
) -> tuple[tuple[str, ...], Codes]:
    names = tuple(shares)
    values = np.array(list(shares.values()), dtype=float)
    if not np.isfinite(values).all() or (values < 0).any() or values.sum() <= 0 or len(names) > 127:
        raise RequestError(f"shares of {kind}s are {dict(shares)}", "Give numbers of at least 0, one of them above")
    if len(names) == 1:
        return names, np.zeros(count, dtype=np.int8)
    edges = np.cumsum(values / values.sum())[:-1]
    drawn = stream(seed, kind, *which).random(count)
    return names, np.searchsorted(edges, drawn, side="right").astype(np.int8)
