"""When to retrain for requests that have deadlines, and what waiting costs: pure functions of times in seconds.

Retraining answers any number of requests at once, so waiting saves retrainings, and the records stay in the model that
much longer. The rule is earliest deadline first: a run for what is queued starts no later than

    start_by = min(due) − run − evaluation − margin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from expunge.errors import RequestError

Policy = Literal["now", "batched", "periodic"]


@dataclass(frozen=True, kw_only=True)
class Durations:
    """What stands between the start of a run and the end of its last deadline, each at least 0 seconds.

    Args:
        run: a retraining, say its 95th percentile. evaluation: what follows it. margin: for what goes wrong.
    """

    run: float
    evaluation: float = 0.0
    margin: float = 0.0

    def __post_init__(self) -> None:
        for name in ("run", "evaluation", "margin"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise RequestError(f"{name} must be a number of seconds from 0, got {value}", "Correct it")

    @property
    def total(self) -> float:
        return self.run + self.evaluation + self.margin

    @property
    def work(self) -> float:
        """Seconds from the start of a run until its requests are answered."""
        return self.run + self.evaluation


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One request: when it was received and when it is due, in seconds of one clock."""

    received: float
    due: float

    def __post_init__(self) -> None:
        if not self.received <= self.due < float("inf"):
            raise RequestError(
                f"a request received at {self.received} is due at {self.due}", "A deadline lies after its request"
            )


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What a policy would do.

    Args:
        starts: when each run starts. sizes: requests it answers. exposures: for each request, seconds from its receipt
            until its records are out of the model, in the order the requests were given. late: how many missed.
    """

    starts: tuple[float, ...]
    sizes: tuple[int, ...]
    exposures: tuple[float, ...]
    late: int

    @property
    def speedup(self) -> float:
        """Retrainings of one a request, divided by retrainings here."""
        return len(self.exposures) / len(self.starts)

    @property
    def mean_exposure(self) -> float:
        return sum(self.exposures) / len(self.exposures)


def schedule(
    asks: Sequence[Ask], durations: Durations, *, policy: Policy = "batched", every: float | None = None
) -> Schedule:
    """Play requests through a policy, one run at a time; whatever was received when a run starts goes with it.

    Args:
        policy: ``now`` starts at every receipt, ``batched`` by the rule above, ``periodic`` at the multiples of `every`
            seconds at which something is queued, whatever the deadlines.

    Raises:
        RequestError: no requests, an unknown policy, or ``periodic`` without `every`.
    """
    if policy not in ("now", "batched", "periodic"):
        raise RequestError(f"there is no policy {policy!r}", "Choose now, batched or periodic")
    if (policy == "periodic") != (every is not None and every > 0):
        raise RequestError(
            f"policy {policy!r} with every={every}", "Give `every` in seconds with `periodic`, and only there"
        )
    if not asks:
        raise RequestError("there are no requests to schedule", "Give at least one")
    order = sorted(range(len(asks)), key=lambda k: asks[k].received)
    queue = [asks[k] for k in order]
    starts: list[float] = []
    sizes: list[int] = []
    exposures = [0.0] * len(asks)
    free, position = float("-inf"), 0
    while position < len(queue):
        start = _next_start(queue, position, durations, policy, every, free)
        free, first = start + durations.work, position
        while position < len(queue) and queue[position].received <= start:
            exposures[order[position]] = free - queue[position].received
            position += 1
        starts.append(start)
        sizes.append(position - first)
    # A microsecond more is the rounding of a sum, no missed deadline.
    late = sum(exposure > ask.due - ask.received + 1e-6 for ask, exposure in zip(asks, exposures, strict=True))
    return Schedule(starts=tuple(starts), sizes=tuple(sizes), exposures=tuple(exposures), late=late)


def _next_start(
    queue: Sequence[Ask], position: int, durations: Durations, policy: Policy, every: float | None, free: float
) -> float:
    """When the next run starts for what is queued from `position` on, with nothing running from `free` on."""
    first = queue[position]
    earliest = max(first.received, free)
    if policy == "now":
        return earliest
    if every is not None:
        return max(-(-earliest // every) * every, earliest)
    start = max(first.due - durations.total, earliest)
    for k in range(position + 1, len(queue)):
        ask = queue[k]
        if ask.received > start:
            break  # received after the run has started
        start = max(min(start, ask.due - durations.total), ask.received, earliest)
    return start


def expected_speedup(per_second: float, wait: float) -> float:
    """Requests a retraining, 1 + λw, when they come at random (Poisson).

    The first request of a batch waits w seconds, and λw more come in that time.

    Args:
        per_second: λ, requests a second. wait: w, deadline − run − evaluation − margin, the same for all.
    """
    _check(per_second, wait)
    return 1 + per_second * wait


def expected_exposure(per_second: float, wait: float, work: float) -> float:
    """Mean seconds from receipt until the records are out: w(1 + λw/2)/(1 + λw) + work.

    The first request of a batch waits w seconds; the λw others come uniformly in that time and wait w/2.
    """
    _check(per_second, wait)
    return wait * (1 + per_second * wait / 2) / (1 + per_second * wait) + work


def _check(per_second: float, wait: float) -> None:
    if not (0 <= per_second < float("inf") and 0 <= wait < float("inf")):
        raise RequestError(
            f"a rate of {per_second} requests a second and a wait of {wait} seconds", "Give numbers from 0"
        )
