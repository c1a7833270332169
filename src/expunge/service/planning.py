"""What a request would touch, when that is done, and what it costs: now, batched, at the next window, or step by step.

The earliest deadline goes first: a batch is begun when the p95 of its run and of its evaluation, and a margin, are all
that is left before the earliest due date in it. Run times are those measured here; where none was, the target's own
option ``run_minutes``, and the plan says that nothing was measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

from expunge.service.clock import Clock, stamp, unstamp
from expunge.service.entities import Reached
from expunge.service.policy import RULES, Policy, Rule
from expunge.service.registry import Registry, Target
from expunge.service.words import STAGES, STRENGTH, Stage

GUESSED_SECONDS = 600.0


@dataclass(frozen=True, kw_only=True)
class Step:
    """One stage at one target, as planned.

    Args:
        not_before: when it may begin; None: as late as is safe, with others. seconds: p95. measured: of runs here.
    """

    target: str
    kind: str
    stage: Stage
    rows: int
    not_before: datetime | None
    seconds: float
    measured: bool


def p95(seconds: Sequence[float]) -> float:
    """The 95th percentile, the smallest value that at least 95% do not exceed."""
    ordered = sorted(seconds)
    return ordered[math.ceil(0.95 * len(ordered)) - 1]


def run_time(target: Target, stage: Stage) -> tuple[float, bool]:
    """(p95 of the run's seconds, whether it was measured here)."""
    told = target.run_seconds.get(stage)
    if told:
        return p95(told), True
    return float(target.options.get("run_minutes", GUESSED_SECONDS / 60)) * 60, False


def next_window(policy: Policy, now: datetime) -> datetime:
    """When the next periodic retraining begins; `now` where there are no windows."""
    period = timedelta(days=policy.serving.period_days)
    epoch = datetime.combine(policy.serving.epoch, time(), UTC)
    if not period:
        return now
    return epoch + period * max(0, math.ceil((now - epoch) / period))


def start_by(due: datetime, seconds: float, policy: Policy) -> datetime:
    """The last moment at which a run of so many seconds may begin."""
    return due - timedelta(seconds=seconds) - timedelta(hours=policy.serving.margin_hours)


class Planner:
    """
    Args:
        registry, policy, clock: what there is, what is decided by, and when.
    """

    def __init__(self, registry: Registry, policy: Policy, clock: Clock) -> None:
        self.registry, self.policy, self.clock = registry, policy, clock

    def steps(self, row: Mapping[Any, Any], rule: Rule | None = None) -> tuple[list[Step], list[str], list[str]]:
        """(what will be done, what is out of scope, why the request cannot be served as demanded).

        Args:
            row: of the request.
        """
        rule = rule or self.policy.serving.rule
        reached, outside = self._reach(row)
        least = STRENGTH[row["least_guarantee"]]
        now, steps, refused = self.clock(), [], []
        by_id = {t.id: t for t in self.registry.targets()}
        for one in reached:
            if one.kind == "box":
                chosen: tuple[Stage, ...] = ("suppress",) if self._suppresses(rule, row, least) else ()
            else:
                chosen = self._stages(one, by_id[one.target], rule, least)
                if not chosen:
                    best = one.can[-1] if one.can else None
                    reaches = by_id[one.target].options.get("guarantee", {}).get(best, "nothing")
                    why = "; ".join(one.why.values()) or f"the best that can be done there reaches {reaches}"
                    refused.append(f"{one.target} cannot reach {row['least_guarantee']}: {why}")
            for stage in chosen:
                seconds, measured = run_time(by_id[one.target], stage)
                steps.append(
                    Step(
                        target=one.target,
                        kind=one.kind,
                        stage=stage,
                        rows=one.rows,
                        not_before=self._not_before(rule, stage, now, row, seconds),
                        seconds=seconds,
                        measured=measured,
                    )
                )
        if not steps and not refused:
            refused.append("nothing that is registered holds anything of the subject (no_match)")
        return steps, outside, refused

    def estimate(self, row: Mapping[Any, Any]) -> dict[str, Any]:
        """The same in words and numbers, for each rule; JSON."""
        steps, outside, refused = self.steps(row)
        due = unstamp(row["due_at"])
        by_id = {t.id: t for t in self.registry.targets()}
        targets = []
        for target in dict.fromkeys(s.target for s in steps):
            own = [s for s in steps if s.target == target]
            every = int(by_id[target].options.get("rows", 0))
            share = own[0].rows / every if every else 0.0
            targets.append(
                {
                    "target": target,
                    "kind": own[0].kind,
                    "rows": own[0].rows,
                    "share": round(share, 6),
                    "stages": [s.stage for s in own],
                    "seconds": {s.stage: round(s.seconds, 3) for s in own},
                    "measured": all(s.measured for s in own),
                }
            )
        options = {rule: self._option(row, rule, due) for rule in RULES}
        return {
            "rule": self.policy.serving.rule,
            "targets": targets,
            "options": options,
            "out_of_scope": outside,
            "refused": refused,
            "at": stamp(self.clock()),
        }

    def _option(self, row: Mapping[Any, Any], rule: Rule, due: datetime) -> dict[str, Any]:
        """When a rule would be done with the request, what its share of the runs costs, and whether it is in time."""
        steps, _, _ = self.steps(row, rule)
        now = self.clock()
        alone = sum(s.seconds for s in steps)
        waiting = self._waiting_with(steps) if rule in ("batched", "periodic", "escalation") else {}
        shared = sum(s.seconds / (1 + waiting.get((s.target, s.stage), 0)) for s in steps)
        ends = [self._begins(s, rule, now, due) + timedelta(seconds=s.seconds) for s in steps]
        hours = (alone if rule == "now" else shared) / 3600
        return {
            "seconds": round(alone if rule == "now" else shared, 3),
            "cost": round(hours * self.policy.serving.cost_per_hour, 4),
            "done_by": stamp(max(ends)) if ends else None,
            "in_time": bool(ends) and max(ends) <= due,
            "steps": [
                {"target": s.target, "stage": s.stage, "begins": stamp(self._begins(s, rule, now, due))} for s in steps
            ],
        }

    def _begins(self, step: Step, rule: Rule, now: datetime, due: datetime) -> datetime:
        latest = max(now, start_by(due, step.seconds, self.policy))
        return latest if step.not_before is None else min(max(now, step.not_before), max(now, latest))

    def _waiting_with(self, steps: Sequence[Step]) -> dict[tuple[str, Stage], int]:
        """How many layers of others wait for the same run."""
        from sqlalchemy import func, select

        from expunge.service import tables

        c = tables.layer.c
        with self.registry.database.read() as connection:
            rows = connection.execute(
                select(c.target, c.stage, func.count())
                .where(c.status == "pending", c.batch_id.is_(None))
                .group_by(c.target, c.stage)
            ).all()
        return {(target, stage): count for target, stage, count in rows}

    def _reach(self, row: Mapping[Any, Any]) -> tuple[list[Reached], list[str]]:
        scope = row["scope"]
        if scope["kind"] in ("concept", "behaviour"):
            return self._named(scope)
        return self.registry.reach(scope.get("tokens", ()), scope.get("targets", ()))

    def _named(self, scope: Mapping[str, Any]) -> tuple[list[Reached], list[str]]:
        """A concept has no owner: it is sought in the targets that are named, and only in those that can be served."""
        reached = []
        for target in self.registry.targets():
            if target.id in scope.get("targets", ()) and target.kind in self.registry.kinds:
                can, why = self.registry.kinds[target.kind].stages(target)
                can = tuple(s for s in can if s != "exact")
                reached.append(Reached(target=target.id, name=target.name, kind=target.kind, rows=0, can=can, why=why))
        return reached, ["models that were not named: nobody can tell which of them know the concept"]

    @staticmethod
    def _stages(one: Reached, target: Target, rule: Rule, least: int) -> tuple[Stage, ...]:
        """The stages of a target under a rule: the strongest that reaches the guarantee, or all up to it."""

        def strength(stage: Stage) -> int:
            reaches = target.options.get("guarantee", {}).get(stage)
            return STRENGTH[reaches] if reaches else -1

        enough = [s for s in STAGES if s in one.can and strength(s) >= least]
        if not enough:
            return ()
        # erasing exactly where that can be done is never less than what was asked
        last: Stage = "exact" if "exact" in enough else enough[0]
        if rule != "escalation":
            return (last,)
        return tuple(s for s in STAGES if s in one.can and STAGES.index(s) <= STAGES.index(last))

    @staticmethod
    def _suppresses(rule: Rule, row: Mapping[Any, Any], least: int) -> bool:
        return bool(row["sealed"]) and (rule == "escalation" or least == STRENGTH["suppressed"])

    def _not_before(
        self, rule: Rule, stage: Stage, now: datetime, row: Mapping[Any, Any], seconds: float
    ) -> datetime | None:
        if rule == "now" or stage == "suppress":
            return now
        if rule == "batched":
            return None
        if rule == "escalation" and stage == "approximate":
            within = timedelta(hours=self.policy.serving.approximate_within_hours)
            return max(now, unstamp(row["received_at"]) + within - timedelta(seconds=seconds))
        return next_window(self.policy, now)
