"""What a rule achieved: deadlines kept, compute spent, and how long data stayed in force."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from expunge.service.simulate.served import Runs, Served
from expunge.service.simulate.times import DAY, HOUR, Times
from expunge.service.simulate.traffic import Codes, Traffic


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One rule, one traffic, one policy.

    Args:
        rule: of serving. deadline_days: instead of the regimes' own; None for those. period_days: between windows; None
            for rules without them.
        in_time: share of requests fulfilled before their due date, in [0, 1]. by_regime, by_reason: name -> the number
            of requests, and the share of them in time. late: requests.
        days_median, days_p95, days_max: from receipt to fulfilment. worst_lateness_days: beyond the due date; 0 if
            none is late.
        runs: by stage. compute_hours: of workers. cost: of them. utilisation: share of the workers' time from the
            first receipt to the last fulfilment.
        exposure: stage -> mean and p95 of the days for which a request's data was in force at that stage, and
            ``total``, all stages together.
        approximated_in_time: share of requests that were approximate or exact within the promised hours; None without
            that stage. peak_backlog: most requests that were open at one time.
    """

    rule: str
    deadline_days: int | None
    period_days: float | None
    requests: int
    in_time: float
    late: int
    by_regime: Mapping[str, Mapping[str, float]]
    by_reason: Mapping[str, Mapping[str, float]]
    days_median: float
    days_p95: float
    days_max: float
    worst_lateness_days: float
    runs: Mapping[str, int]
    compute_hours: float
    cost: float
    utilisation: float
    exposure: Mapping[str, Mapping[str, float]]
    approximated_in_time: float | None
    peak_backlog: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(
    served: Served,
    traffic: Traffic,
    due: Times,
    *,
    rule: str,
    workers: int,
    cost_per_hour: float = 0.0,
    approximate_within_hours: float | None = None,
    deadline_days: int | None = None,
    period_days: float | None = None,
) -> Outcome:
    """Count and sum what `served` holds; one pass over the requests for each figure."""
    received, gone = traffic.received, served.fulfilled
    late = gone >= due
    took = gone - received
    hours = _hours(served)
    worst = int((gone - due).max())
    median, p95 = np.quantile(took, [0.5, 0.95])
    span = int(gone.max()) - int(received[0])
    exposure = {}
    for stage, (since, until) in served.stages(received).items():
        exposure[stage] = _days(until - since)
    exposure["total"] = {"mean": float(took.mean() / DAY), "p95": float(p95 / DAY)}
    runs = {"exact": len(served.runs)}
    softened = None
    if served.approximate is not None:
        runs["approximate"] = len(served.approximate)
        if approximate_within_hours is not None:
            reached = served.stages(received)["approximated"][0]
            softened = float((reached - received <= approximate_within_hours * HOUR).mean())
    return Outcome(
        rule=rule,
        deadline_days=deadline_days,
        period_days=period_days,
        requests=len(traffic),
        in_time=1 - float(late.mean()),
        late=int(late.sum()),
        by_regime=_by(traffic.regime, traffic.regimes, late),
        by_reason=_by(traffic.reason, traffic.reasons, late),
        days_median=float(median / DAY),
        days_p95=float(p95 / DAY),
        days_max=float(took.max() / DAY),
        worst_lateness_days=max(0, worst) / DAY,
        runs=runs,
        compute_hours=hours,
        cost=hours * cost_per_hour,
        utilisation=hours * HOUR / (workers * span) if span else 0.0,
        exposure=exposure,
        approximated_in_time=softened,
        peak_backlog=peak_backlog(received, served.runs),
    )


def peak_backlog(received: Times, runs: Runs) -> int:
    """Most requests that were open at one time; a request is closed from the moment at which its run ends.

    The number only rises between two ends of runs, so that it is greatest just before one of them.
    """
    order = np.argsort(runs.end, kind="stable")
    ends, sizes = runs.end[order], runs.size[order]
    closed = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return int((np.searchsorted(received, ends, side="left") - closed).max())


def timeline(served: Served, traffic: Traffic, *, every: int = DAY, most: int | None = None) -> dict[str, Any]:
    """How many requests are open at each stage, at the end of each stretch of time from the first day's midnight on.

    Args:
        every: microseconds of a stretch. most: stretches; if there were more, they are made so many times longer.

    Returns:
        ``every_days`` of a stretch, and ``open``: stage -> counts, until the last request is fulfilled.
    """
    stages = served.stages(traffic.received)
    origin = int(traffic.received[0]) // DAY * DAY
    last = int(served.fulfilled.max()) - origin
    if most is not None:
        every *= -(-(last // every + 1) // most)
    found = {}
    for stage, (since, until) in stages.items():
        entered = np.bincount((since - origin) // every, minlength=last // every + 1)
        left = np.bincount((until - origin) // every, minlength=last // every + 1)
        found[stage] = np.cumsum(entered - left).tolist()
    return {"every_days": every / DAY, "open": found}


def _hours(served: Served) -> float:
    busy = served.runs.busy + (served.approximate.busy if served.approximate is not None else 0.0)
    return busy / HOUR


def _days(spans: Times) -> dict[str, float]:
    return {"mean": float(spans.mean() / DAY), "p95": float(np.quantile(spans, 0.95) / DAY)}


def _by(codes: Codes, names: tuple[str, ...], late: npt.NDArray[np.bool_]) -> dict[str, dict[str, float]]:
    counts = np.bincount(codes, minlength=len(names))
    missed = np.bincount(codes, weights=late, minlength=len(names))
    return {
        name: {"requests": int(n), "in_time": 1 - float(m) / int(n)}
        for name, n, m in zip(names, counts, missed, strict=True)
        if n
    }
