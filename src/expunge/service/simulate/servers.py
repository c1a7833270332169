"""Who does the work: how long a run takes for a batch, on how many workers, at what price."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from expunge.errors import RequestError
from expunge.forecast.formulas import expected_cost
from expunge.forecast.layout import Layout
from expunge.service.simulate.times import Times, stream, whole

Seconds = npt.NDArray[np.float64]
# Of the standard normal distribution.
Q95 = 1.6448536269514722
BLOCK = 1024


class Spread(Protocol):
    """How long something takes, in seconds, from time to time."""

    @property
    def p95(self) -> float: ...

    def draw(self, count: int, rng: np.random.Generator) -> Seconds: ...


@dataclass(frozen=True, kw_only=True)
class Lognormal:
    """Seconds whose logarithm is normal, by two numbers that a log of runs gives; equal ones mean no variation.

    Raises:
        RequestError: negative, not finite, or p95 below the median.
    """

    median: float
    p95: float

    def __post_init__(self) -> None:
        if not (0 <= self.median <= self.p95 and math.isfinite(self.p95)) or (self.median == 0 < self.p95):
            raise RequestError(
                f"a median of {self.median} s with a 95th percentile of {self.p95} s",
                "Give 0 < median ≤ p95, or 0 and 0",
            )

    def draw(self, count: int, rng: np.random.Generator) -> Seconds:
        """(count,) seconds."""
        if self.median == self.p95:
            return np.full(count, self.median)
        return np.asarray(rng.lognormal(math.log(self.median), math.log(self.p95 / self.median) / Q95, count))


@dataclass(frozen=True)
class Measured:
    """Seconds as they were measured, each as likely as another.

    Raises:
        RequestError: none, negative ones, or not finite.
    """

    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.seconds or not all(math.isfinite(s) and s >= 0 for s in self.seconds):
            raise RequestError("measured seconds must be at least one number of at least 0", "Correct the list")

    @property
    def p95(self) -> float:
        return float(np.quantile(self.seconds, 0.95))

    def draw(self, count: int, rng: np.random.Generator) -> Seconds:
        """(count,) seconds."""
        return np.asarray(self.seconds, dtype=float)[rng.integers(len(self.seconds), size=count)]


NONE = Lognormal(median=0.0, p95=0.0)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a run for n requests takes on one worker: run · a(n) + n · per_request_seconds + evaluation.

    Args:
        run: of a run for one request. evaluation: after it, on the same worker. per_request_seconds: for each request.
        layout: of a sharded learner: a(n) is then the expected cost of forgetting n rows at once over that of one
            (`expunge.forecast`), so that a batch pays once for a shard that several requests hit. Without it a = 1: a
            batch shares one run.

    Raises:
        RequestError: per_request_seconds is negative.
    """

    run: Spread
    evaluation: Spread = NONE
    per_request_seconds: float = 0.0
    layout: Layout | None = None
    _known: dict[int, float] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.per_request_seconds) and self.per_request_seconds >= 0):
            raise RequestError(f"per_request_seconds is {self.per_request_seconds}", "Give 0 or more")

    def growth(self, requests: int) -> float:
        """a(n): how many one-request runs a run for n requests is worth.

        Raises:
            RequestError: the layout has not more rows than that.
        """
        if self.layout is None:
            return 1.0
        if requests not in self._known:
            one = expected_cost(self.layout, 1, batch=True)
            self._known[requests] = expected_cost(self.layout, requests, batch=True) / one
        return self._known[requests]

    def p95(self, requests: int) -> int:
        """Microseconds to plan for: p95 of the run for so many, and p95 of the evaluation."""
        seconds = self.run.p95 * self.growth(requests) + requests * self.per_request_seconds + self.evaluation.p95
        return round(seconds * 1e6)

    def durations(self, sizes: npt.NDArray[np.int64], draws: Draws) -> Times:
        """(runs,) microseconds of runs for (runs,) numbers of requests."""
        run, evaluation = draws.take(len(sizes))
        if self.layout is not None:
            kinds, places = np.unique(sizes, return_inverse=True)
            run = run * np.array([self.growth(int(n)) for n in kinds])[places]
        return whole(run + sizes * self.per_request_seconds + evaluation)


class Draws:
    """The seconds of one run after the other: the k-th run gets the k-th draw, however many are asked for at once."""

    def __init__(self, work: Work, seed: int, purpose: str) -> None:
        self._work = work
        self._streams = stream(seed, "run", purpose), stream(seed, "evaluation", purpose)
        self._ahead: list[tuple[float, float]] = []

    def take(self, count: int) -> tuple[Seconds, Seconds]:
        """(count,) seconds of runs for one request, and of evaluations."""
        return self._work.run.draw(count, self._streams[0]), self._work.evaluation.draw(count, self._streams[1])

    def next_duration(self, requests: int) -> int:
        """Microseconds of the next run, for so many requests."""
        if not self._ahead:
            run, evaluation = self.take(BLOCK)
            self._ahead = list(zip(run.tolist(), evaluation.tolist(), strict=True))[::-1]
        run_seconds, evaluation_seconds = self._ahead.pop()
        work = self._work
        seconds = run_seconds * work.growth(requests) + requests * work.per_request_seconds + evaluation_seconds
        return round(seconds * 1e6)


@dataclass(frozen=True, kw_only=True)
class Servers:
    """The workers and what each stage takes.

    Args:
        workers: that run at the same time, one run each. exact: the stage that fulfils a request. approximate: the
            middle stage of an escalation. suppress_seconds: from the receipt until the box hides the data; no worker is
            needed. approval_days: from the receipt until a request may run (verification, approval); deadlines count
            from the receipt all the same.

    Raises:
        RequestError: a number out of range.
    """

    workers: int = 1
    exact: Work
    approximate: Work | None = None
    suppress_seconds: float = 60.0
    approval_days: float = 0.0

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise RequestError(f"{self.workers} workers", "Give at least 1")
        for name in ("suppress_seconds", "approval_days"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise RequestError(f"{name} is {value}", "Give 0 or more")
