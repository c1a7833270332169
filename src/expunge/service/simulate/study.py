"""`expunge simulate` as data: what is simulated, and the document that comes of it (``expunge/simulation/1``)."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from expunge.environment import environment
from expunge.errors import RequestError, UnknownName
from expunge.forecast.layout import Layout
from expunge.service.policy import Policy, Serving
from expunge.service.simulate.grid import Grid, sweep
from expunge.service.simulate.measure import Outcome, measure, timeline
from expunge.service.simulate.page import write_simulation
from expunge.service.simulate.recorded import read_traffic
from expunge.service.simulate.rules import SIMULATED, WITH_WINDOWS, serve
from expunge.service.simulate.servers import Lognormal, Measured, Servers, Spread, Work
from expunge.service.simulate.times import DAY
from expunge.service.simulate.traffic import Burst, Traffic, poisson_traffic

SCHEMA = "expunge/simulation/1"
# Of a run time whose 95th percentile is not given: how far it lies above the median.
P95_OVER_MEDIAN = 1.5
# Of a line of the timeline: a rule that never catches up would draw centuries day by day.
MOST_POINTS = 800
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is simulated.

    Args:
        policy_path: of the policy; None: the default one. requests, days, start, regimes, burst: of the traffic
            (`poisson_traffic`; `Burst.parse`); by default all requests are of the policy's default regime.
        traffic: a CSV of requests as they came, instead. rules: of `SIMULATED`.
        deadlines, periods: of the grid, in days; `target`: the share in time that counts as compliance there.
        workers, approval_days: of `Servers`. run_minutes, run_p95_minutes: of a run for one request; p95 by default 1.5
            times the median, as in the other stages. evaluation_minutes, approximate_minutes: medians.
        per_request_seconds, shards, slices, rows: of `Work`, a sharded learner if there are rows.
        measured: a JSON file of seconds, ``{"run": [], "evaluation": [], "approximate": []}``, instead of the minutes.
        largest_batch, cost_per_hour: instead of the policy's. seed: of everything random.

    Raises:
        RequestError: options that contradict each other, or a number out of range.
    """

    policy_path: Path | None = None
    requests: int = 1_000_000
    days: int = 365
    start: date = date(2026, 1, 5)
    regimes: Mapping[str, float] = field(default_factory=dict)
    burst: tuple[str, ...] = ()
    traffic: Path | None = None
    rules: tuple[str, ...] = SIMULATED
    deadlines: tuple[int, ...] = (15, 30, 45, 90)
    periods: tuple[float, ...] = (7, 30, 90)
    target: float = 0.99
    workers: int = 4
    run_minutes: float = 9.0
    run_p95_minutes: float | None = None
    evaluation_minutes: float = 1.0
    approximate_minutes: float = 1.0
    per_request_seconds: float = 0.0
    shards: int = 1
    slices: int = 1
    rows: int | None = None
    measured: Path | None = None
    approval_days: float = 0.0
    largest_batch: int | None = None
    cost_per_hour: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for rule in self.rules:
            if rule not in SIMULATED:
                raise UnknownName("serving rule", rule, [*SIMULATED, "all"])
        if not self.rules:
            raise RequestError("no serving rule is chosen", f"Known: all, {', '.join(SIMULATED)}")
        if self.rows is None and (self.shards, self.slices) != (1, 1):
            raise RequestError("shards need to know their rows", "Give --rows too, or leave --shards and --slices out")
        if self.traffic is not None and (self.regimes or self.burst):
            raise RequestError("--traffic is a record: nothing is drawn", "Leave --regimes and --burst out")

    def command(self) -> str:
        """What to type to run this again."""
        said = ["expunge simulate", *([] if self.policy_path is None else [shlex.quote(str(self.policy_path))])]
        for entry in fields(self):
            value = getattr(self, entry.name)
            usual = entry.default_factory() if callable(entry.default_factory) else entry.default
            if entry.name == "policy_path" or value == usual:
                continue
            name = "--" + {"rules": "rule"}.get(entry.name, entry.name).replace("_", "-")
            if entry.name == "burst":
                said += [f"{name} {shlex.quote(one)}" for one in value]
            elif isinstance(value, Mapping):
                said.append(f"{name} {shlex.quote(','.join(f'{k}={v:g}' for k, v in value.items()))}")
            else:
                text = ",".join(map(_plain, value)) if isinstance(value, tuple) else _plain(value)
                said.append(f"{name} {shlex.quote(text)}")
        return " ".join(said)

    def policy(self) -> Policy:
        """
        Raises:
            RequestError: the file cannot be read, or a number of it that is replaced is out of range.
        """
        policy = Policy() if self.policy_path is None else Policy.read(self.policy_path)
        instead = {"largest_batch": self.largest_batch, "cost_per_hour": self.cost_per_hour}
        given = {name: value for name, value in instead.items() if value is not None}
        if any(value < (1 if name == "largest_batch" else 0) for name, value in given.items()):
            raise RequestError(f"{given} is out of range", "Give a batch of at least 1 and a price of at least 0")
        serving = Serving.model_validate({**policy.serving.model_dump(), **given})
        return policy.model_copy(update={"serving": serving})

    def read_or_draw(self, policy: Policy) -> Traffic:
        """The requests."""
        if self.traffic is not None:
            return read_traffic(self.traffic, default_regime=policy.default_regime)
        return poisson_traffic(
            self.requests,
            days=self.days,
            start=self.start,
            regimes=self.regimes or {policy.default_regime: 1.0},
            bursts=[Burst.parse(text) for text in self.burst],
            seed=self.seed,
        )

    def servers(self) -> Servers:
        """
        Raises:
            RequestError: run times or a layout that cannot be.
        """
        measured = _measured(self.measured)
        run = measured.get("run") or _minutes(self.run_minutes, self.run_p95_minutes)
        evaluation = measured.get("evaluation") or _minutes(self.evaluation_minutes)
        layout = None if self.rows is None else Layout(rows=self.rows, shards=self.shards, slices=self.slices)
        return Servers(
            workers=self.workers,
            exact=Work(run=run, evaluation=evaluation, per_request_seconds=self.per_request_seconds, layout=layout),
            approximate=Work(run=measured.get("approximate") or _minutes(self.approximate_minutes)),
            approval_days=self.approval_days,
        )


def run_study(study: Study, out: Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Simulate every rule under the policy, and the grid; write ``simulation.json``, ``.html`` and ``.png`` to `out`.

    The document is a function of the study, the policy and the traffic; it holds no time of this machine.

    Raises:
        RequestError, DataError: see `Study` and `serve`. RunError: `out` cannot be written to.
    """
    policy, servers = study.policy(), study.servers()
    traffic = study.read_or_draw(policy)
    due = traffic.due(policy)
    rows, lines = [], {}
    for done, rule in enumerate(study.rules):
        if progress:
            progress("rules", done, len(study.rules))
        served = serve(rule, traffic, due, servers, policy.serving, seed=study.seed)
        rows.append(
            measure(
                served,
                traffic,
                due,
                rule=rule,
                workers=servers.workers,
                cost_per_hour=policy.serving.cost_per_hour,
                approximate_within_hours=policy.serving.approximate_within_hours,
                period_days=policy.serving.period_days if rule in WITH_WINDOWS else None,
            )
        )
        lines[rule] = timeline(served, traffic, most=MOST_POINTS)
    if progress:
        progress("rules", len(study.rules), len(study.rules))
    grid = sweep(
        traffic,
        policy,
        servers,
        deadlines=study.deadlines,
        periods=study.periods,
        rules=study.rules,
        target=study.target,
        zone=policy.regime(policy.default_regime).zone,
        seed=study.seed,
        progress=progress,
    )
    report = _document(study, policy, servers, traffic, rows, grid, lines)
    write_simulation(report, grid, out)
    return report


def _document(
    study: Study,
    policy: Policy,
    servers: Servers,
    traffic: Traffic,
    rows: list[Outcome],
    grid: Grid,
    lines: Mapping[str, Any],
) -> dict[str, Any]:
    setting = {entry.name: getattr(study, entry.name) for entry in fields(study)}
    daily = np.bincount((traffic.received - traffic.received[0] // DAY * DAY) // DAY)
    exact, soft = servers.exact, servers.approximate
    return {
        "schema": SCHEMA,
        "command": study.command(),
        "setting": json.loads(json.dumps(setting, default=str)),
        "policy": policy.model_dump(mode="json"),
        "environment": dict(environment()),
        "traffic": {
            "requests": len(traffic),
            "days": traffic.days,
            "start": traffic.start.isoformat(),
            "busiest_day": int(daily.max()),
            "recorded": study.traffic is not None,
        },
        "servers": {
            "workers": servers.workers,
            "p95_seconds_of_one": exact.p95(1) / 1e6,
            "p95_seconds_of_largest": exact.p95(min(policy.serving.largest_batch, len(traffic))) / 1e6,
            "p95_seconds_of_approximation": None if soft is None else soft.p95(1) / 1e6,
        },
        "rows": [row.as_dict() for row in rows],
        "grid": grid.as_dict(),
        "timeline": dict(lines),
    }


def _minutes(median: float, p95: float | None = None) -> Lognormal:
    return Lognormal(median=60 * median, p95=60 * (P95_OVER_MEDIAN * median if p95 is None else p95))


def _measured(path: Path | None) -> dict[str, Spread]:
    if path is None:
        return {}
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RequestError(f"cannot read {path} ({error.strerror})", "Give the path of a JSON file") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} is no JSON", "Write lists of seconds by stage") from error
    known = ("run", "evaluation", "approximate")
    fits = isinstance(told, dict) and told and set(told) <= set(known)
    if not fits or not all(isinstance(v, list) and all(_is_number(s) for s in v) for v in told.values()):
        raise RequestError(
            f"{path} does not hold seconds by stage", f"Known: {', '.join(known)}; each a list of seconds"
        )
    return {name: Measured(tuple(map(float, seconds))) for name, seconds in told.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
