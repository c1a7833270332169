"""Deadline × retraining period: what each pair costs and how many deadlines it keeps, for every rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from expunge.errors import RequestError
from expunge.service.policy import Policy, Regime, Serving
from expunge.service.simulate.due import due_times
from expunge.service.simulate.measure import Outcome, measure
from expunge.service.simulate.rules import SIMULATED, WITH_WINDOWS, serve
from expunge.service.simulate.servers import Servers
from expunge.service.simulate.traffic import Traffic

# These look at deadlines when they serve; the others are served once and measured at each.
BY_DEADLINE = ("batched", "periodic_guarded", "escalation_guarded")

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Outcomes of every rule, deadline and period.

    Args:
        deadlines: days, rising. periods: days, rising. outcomes: rules without windows have none per period.
        target: share in time that counts as compliance.
    """

    deadlines: tuple[int, ...]
    periods: tuple[float, ...]
    outcomes: tuple[Outcome, ...]
    target: float

    def find(self, rule: str, deadline: int, period: float | None = None) -> Outcome:
        """The outcome of one field; `period` only for rules with windows."""
        wanted = (rule, deadline, period if rule in WITH_WINDOWS else None)
        return next(o for o in self.outcomes if (o.rule, o.deadline_days, o.period_days) == wanted)

    @property
    def rules(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(o.rule for o in self.outcomes))

    def frontier(self, rule: str) -> list[Outcome | None]:
        """For each deadline the cheapest outcome of `rule` that keeps it, in hours; None where no period does."""
        found = []
        for deadline in self.deadlines:
            kept = [
                o for o in self.outcomes if (o.rule, o.deadline_days) == (rule, deadline) and o.in_time >= self.target
            ]
            found.append(min(kept, key=lambda o: o.compute_hours, default=None))
        return found

    def as_dict(self) -> dict[str, Any]:
        keep = ("rule", "deadline_days", "period_days", "in_time", "compute_hours", "cost", "days_p95", "peak_backlog")
        rows = []
        for outcome in self.outcomes:
            row = {name: getattr(outcome, name) for name in keep}
            rows.append(row | {"exposure": outcome.exposure, "worst_lateness_days": outcome.worst_lateness_days})
        return {"deadlines": self.deadlines, "periods": self.periods, "target": self.target, "rows": rows}


def sweep(
    traffic: Traffic,
    policy: Policy,
    servers: Servers,
    *,
    deadlines: Sequence[int],
    periods: Sequence[float],
    rules: Sequence[str] = SIMULATED,
    target: float = 0.99,
    zone: str = "UTC",
    seed: int = 0,
    progress: Progress | None = None,
) -> Grid:
    """Every rule at every deadline, and where it has windows at every period.

    All requests then have the same deadline, in calendar days, so that their order is that of receipt.

    Args:
        deadlines: days. periods: days between windows; 0: every moment is a window. zone: whose midnight ends a day.

    Raises:
        RequestError: no deadline, no period, one out of range, a target outside (0, 1], or what `serve` refuses.
    """
    days, spans = tuple(sorted(set(deadlines))), tuple(sorted(set(periods)))
    if not days or not spans or not 0 < target <= 1:
        raise RequestError(f"deadlines {list(days)}, periods {list(spans)}, target {target}", "Give some, and a share")
    if not all(1 <= d <= 3650 for d in days):
        raise RequestError(f"deadlines must be 1 to 3650 days, got {list(days)}", "Correct --deadlines")
    due = {d: due_times(traffic.received, Regime(days=d, zone=zone)) for d in days}
    found: list[Outcome] = []
    wanted = [(rule, period) for rule in rules for period in (spans if rule in WITH_WINDOWS else (None,))]
    one_regime = replace(traffic, regime=np.zeros(len(traffic), dtype=np.int8), regimes=("all",))
    for done, (rule, period) in enumerate(wanted):
        if progress:
            progress("rules and periods", done, len(wanted))
        serving = _with_period(policy.serving, period)
        served = None
        for deadline in days:
            if served is None or rule in BY_DEADLINE:
                served = serve(rule, one_regime, due[deadline], servers, serving, seed=seed)
            found.append(
                measure(
                    served,
                    traffic,
                    due[deadline],
                    rule=rule,
                    workers=servers.workers,
                    cost_per_hour=serving.cost_per_hour,
                    approximate_within_hours=serving.approximate_within_hours,
                    deadline_days=deadline,
                    period_days=period,
                )
            )
    if progress:
        progress("rules and periods", len(wanted), len(wanted))
    return Grid(deadlines=days, periods=spans, outcomes=tuple(found), target=target)


def _with_period(serving: Serving, period: float | None) -> Serving:
    return serving if period is None else Serving.model_validate({**serving.model_dump(), "period_days": period})
