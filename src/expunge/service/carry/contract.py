"""What a kind of target owes: who is in it, what can be done to it, and doing that, more than once if it must be."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from expunge.audit.keys import KeyFolder
from expunge.service.identity import Identities
from expunge.service.words import Stage

if TYPE_CHECKING:
    from expunge.service.registry import Index, Target


@dataclass(frozen=True, kw_only=True)
class Work:
    """One request's part of a batch.

    Args:
        tokens: of the subject, one a lookup key. records: tokens of single records; empty: all of the subject's.
        tell_not: what a box must not tell, unsealed, only for the stage that needs it.
    """

    request_id: str
    regime: str
    due_at: str
    tokens: frozenset[str]
    records: frozenset[str] = frozenset()
    tell_not: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Hands:
    """What a handler works with: the service's folder, its keys, and the time at which the batch was made."""

    home: Path
    keys: KeyFolder
    identities: Identities
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was done to a target for a batch; JSON values.

    Args:
        guarantee: as `Guarantee.as_dict`. rows: request id -> rows that went; 0: already gone. evidence: (name, path,
            SHA-256). findings: for the certificate. outside: what this kind never reaches.
    """

    guarantee: Mapping[str, Any]
    rows: Mapping[str, int]
    evidence: tuple[tuple[str, str, str], ...] = ()
    findings: Mapping[str, Any] = field(default_factory=dict)
    outside: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {
            "guarantee": dict(self.guarantee),
            "rows": dict(self.rows),
            "evidence": [list(e) for e in self.evidence],
            "findings": dict(self.findings),
            "outside": list(self.outside),
        }

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Outcome:
        return cls(
            guarantee=told["guarantee"],
            rows=told["rows"],
            evidence=tuple((str(n), str(p), str(s)) for n, p, s in told["evidence"]),
            findings=told["findings"],
            outside=tuple(told["outside"]),
        )


class Handler(Protocol):
    """One kind of target. `carry_out` and `check` may run twice, and the second time must find what the first did."""

    kind: str

    def index(self, target: Target) -> Index:
        """Who is in it.

        Raises:
            RequestError: it is not what its kind says.
        """

    def stages(self, target: Target) -> tuple[tuple[Stage, ...], dict[str, str]]:
        """The stages that can be done to it, weak to strong, and why others cannot."""

    def carry_out(self, hands: Hands, target: Target, stage: Stage, batch_id: str, works: Sequence[Work]) -> Outcome:
        """Do it for all requests of the batch at once."""

    def check(
        self, hands: Hands, target: Target, stage: Stage, works: Sequence[Work], outcome: Outcome
    ) -> dict[str, Any]:
        """Look at the target as it is now; findings for the certificate.

        Raises:
            Conflict: something of the subjects is still there.
        """


def matching(
    identities: Identities, works: Sequence[Work], rows: Sequence[tuple[str, str | None]]
) -> dict[str, list[str]]:
    """Request id -> ids of the rows that it names, among (id, owner) pairs.

    Hashes every owner once under every key; nobody's name has to be kept for that.
    """
    by_token: dict[str, list[Work]] = {}
    for work in works:
        for token in work.tokens:
            by_token.setdefault(token, []).append(work)
    owners: dict[str, list[Work]] = {}
    found: dict[str, list[str]] = {work.request_id: [] for work in works}
    for record_id, owner in rows:
        if owner is None or not owner.strip():
            continue
        if owner not in owners:
            named = {w.request_id: w for t in identities.tokens(owner) for w in by_token.get(t, ())}
            owners[owner] = list(named.values())
        for work in owners[owner]:
            if not work.records or not work.records.isdisjoint(identities.record_tokens(record_id)):
                found[work.request_id].append(record_id)
    return found


def every(found: Mapping[str, Collection[str]]) -> list[str]:
    """All row ids of a batch, sorted, each once."""
    return sorted({i for ids in found.values() for i in ids})
