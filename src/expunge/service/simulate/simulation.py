"""One simulation: traffic, policy and servers in, what was achieved out."""

from __future__ import annotations

from expunge.service.policy import Policy, Regime
from expunge.service.simulate.due import due_times
from expunge.service.simulate.measure import Outcome, measure
from expunge.service.simulate.rules import WITH_WINDOWS, serve
from expunge.service.simulate.servers import Servers
from expunge.service.simulate.traffic import Traffic


def simulate(
    traffic: Traffic,
    policy: Policy,
    servers: Servers,
    *,
    rule: str | None = None,
    deadline: Regime | None = None,
    seed: int = 0,
) -> Outcome:
    """Serve all of `traffic` under `policy` and measure it: a function of its arguments alone.

    Args:
        rule: instead of the policy's. deadline: of all requests, instead of their regimes'; in days.
        seed: of the run times.

    Raises:
        RequestError: an unknown rule or regime, or an escalation without an approximate stage.
    """
    serving = policy.serving
    chosen = rule or serving.rule
    due = traffic.due(policy) if deadline is None else due_times(traffic.received, deadline)
    return measure(
        serve(chosen, traffic, due, servers, serving, seed=seed),
        traffic,
        due,
        rule=chosen,
        workers=servers.workers,
        cost_per_hour=serving.cost_per_hour,
        approximate_within_hours=serving.approximate_within_hours,
        deadline_days=None if deadline is None else deadline.days,
        period_days=serving.period_days if chosen in WITH_WINDOWS else None,
    )
