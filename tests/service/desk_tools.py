"""A service on a clock that stands still, with targets of a kind that only counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from expunge.audit.keys import KeyFolder
from expunge.service.carry.contract import Hands, Outcome, Work
from expunge.service.clock import FixedClock
from expunge.service.entities import Actor, Filing
from expunge.service.policy import Policy
from expunge.service.registry import Index, Target
from expunge.service.service import Service, open_service
from expunge.service.words import Stage

START = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)  # a Monday
OPERATOR = Actor(id="key_operator", role="operator")
APPROVER = Actor(id="key_approver", role="approver")
SECOND = Actor(id="key_second", role="approver")
AUDITOR = Actor(id="key_auditor", role="auditor")


@dataclass
class Counted:
    """A target's kind that keeps its rows in memory: owner -> rows, and notes what was done."""

    owners: dict[str, int]
    can: tuple[Stage, ...] = ("exact",)
    word: str = "exact"
    kind: str = "counted"
    done: list[tuple[str, str, tuple[str, ...]]] = field(default_factory=list)
    fail: list[Exception] = field(default_factory=list)
    identities: Any = None

    def index(self, target: Target) -> Index:
        rows = sum(self.owners.values())
        return Index(
            owners=dict(self.owners),
            digest="0" * 64,
            rows=rows,
            options={"guarantee": dict.fromkeys(self.can, self.word)},
        )

    def stages(self, target: Target) -> tuple[tuple[Stage, ...], dict[str, str]]:
        return self.can, {}

    def carry_out(self, hands: Hands, target: Target, stage: Stage, batch_id: str, works: Sequence[Work]) -> Outcome:
        if self.fail:
            raise self.fail.pop(0)
        rows = {}
        for work in works:
            mine = [o for o in self.owners if not work.tokens.isdisjoint(hands.identities.tokens(o))]
            rows[work.request_id] = sum(self.owners.pop(o) for o in mine)
        self.done.append((target.id, stage, tuple(sorted(rows))))
        return Outcome(guarantee={"class": "exact", "equality": "bitwise"}, rows=rows)

    def check(
        self, hands: Hands, target: Target, stage: Stage, works: Sequence[Work], outcome: Outcome
    ) -> dict[str, Any]:
        return {"rows left of the subjects": 0}


class Bench:
    """A service and its clock."""

    def __init__(self, home: Path, policy: Policy | None = None, **kinds: Counted) -> None:
        self.clock = FixedClock(START)
        service = open_service(home, policy=policy or Policy(), clock=self.clock)
        self.kinds = kinds or {"shop": Counted({"ann": 3, "bob": 2, "cyd": 95})}
        service.registry.kinds = dict(service.registry.kinds) | {  # type: ignore[misc]
            name: replace(kind, kind=name) if kind.kind == "counted" else kind for name, kind in self.kinds.items()
        }
        self.service: Service = service
        for name in self.kinds:
            service.registry.register(Target(id=name, name=name, version="1", kind=name, location=name))

    @property
    def desk(self) -> Any:
        return self.service.desk

    def kind(self, name: str = "shop") -> Counted:
        return self.service.registry.kinds[name]  # type: ignore[return-value]

    def file(self, identity: str = "ann", **told: Any) -> str:
        told.setdefault("verified", True)
        return str(self.desk.file(OPERATOR, Filing(identity=identity, **told)).id)

    def approved(self, identity: str = "ann", **told: Any) -> str:
        request_id = self.file(identity, **told)
        self.desk.approve(APPROVER, request_id)
        return request_id

    def status(self, request_id: str) -> str:
        return str(self.desk.get(OPERATOR, request_id).status)

    def run_batch(self, batch_id: str, *, upto: str = "close") -> None:
        for step in ("begin", "carry_out", "check", "certify", "close"):
            getattr(self.service.work, step)(batch_id)
            if step == upto:
                return

    def work(self) -> int:
        """Plan and run whatever is due; how many batches."""
        count = 0
        while self.service.work.plan_approved():
            pass
        while batches := self.service.work.batches_due():
            for batch_id in batches:
                self.run_batch(batch_id)
                count += 1
        return count

    def close(self) -> None:
        self.service.close()


def keys_of(service: Service) -> KeyFolder:
    return service.keys
