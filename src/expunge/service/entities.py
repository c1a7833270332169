"""What the control plane speaks of: who acts, what is filed, a request and what became of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from expunge.audit.encoding import canonical
from expunge.service.words import (
    DenialReason,
    GuaranteeWord,
    LayerStatus,
    Reason,
    Role,
    Sla,
    Stage,
    Status,
)

ExternalId = str


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who asks.

    Args:
        id: of the key or session, no name of a person. role: decides what is allowed. subject_token: whose requests a
            subject may see.
    """

    id: str
    role: Role | Literal["system"]
    subject_token: str | None = None


SYSTEM = Actor(id="system", role="system")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Told(_Strict):
    """What a filter must not tell, in plain words; sealed as soon as it is received.

    Args:
        question: a question that holds all of these is not answered. answer: never said.
    """

    question: tuple[str, ...] = Field((), max_length=20)
    answer: tuple[str, ...] = Field((), max_length=20)

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.question and not self.answer:
            raise ValueError("name a question, an answer, or both")
        if any(not 2 <= len(phrase) <= 500 for phrase in (*self.question, *self.answer)):
            raise ValueError("a phrase has between 2 and 500 characters")
        return self


class Scope(_Strict):
    """What must go.

    Args:
        kind: ``owner``: everything of the person; ``records``: some of their records; ``concept`` and ``behaviour``:
            what is described in `about`, by the id of a scope file or a ticket. records: ids, kept as keyed hashes.
        targets: ids of models and stores; empty: all that were reached.
    """

    kind: Literal["owner", "records", "concept", "behaviour"] = "owner"
    records: tuple[str, ...] = Field((), max_length=10_000)
    about: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,199}$")
    targets: tuple[str, ...] = Field((), max_length=1000)

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        if (self.kind == "records") != bool(self.records):
            raise ValueError("records go with the kind 'records', and with no other")
        if self.kind in ("concept", "behaviour") and not self.about:
            raise ValueError(f"a {self.kind} needs `about`: the id of its scope or ticket, and no description")
        return self


class Filing(_Strict):
    """A request as it comes in.

    Args:
        identity: of the subject, such as the account's id; it is hashed at once and never kept. external_id: of
            whoever sent it; no personal data. tell_not: what a box shall not tell from the moment of suppression.
        verified: whether the sender has verified the identity. received_at: when it reached the house, if earlier.
    """

    identity: str | None = Field(None, min_length=1, max_length=1000)
    reason: Reason = "privacy"
    regime: str | None = Field(None, max_length=60)
    scope: Scope = Field(default_factory=Scope)
    least_guarantee: GuaranteeWord = "exact"
    external_id: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,119}$")
    tell_not: tuple[Told, ...] = Field((), max_length=50)
    verified: bool = False
    received_at: datetime | None = None

    @model_validator(mode="after")
    def _who(self) -> Self:
        if self.identity is None and self.scope.kind in ("owner", "records"):
            raise ValueError("a request about a person's records needs an identity")
        if self.received_at is not None and self.received_at.tzinfo is None:
            raise ValueError("received_at needs a time zone")
        return self


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request as it is kept; times are aware, UTC.

    Args:
        sla: how it stands now. reachable: targets that hold the subject's rows, at the time of asking.
    """

    id: str
    external_id: str | None
    subject_token: str | None
    scope: Mapping[str, Any]
    reason: Reason
    least_guarantee: GuaranteeWord
    regime: str
    status: Status
    paused_from: Status | None
    denial_reason: DenialReason | None
    verified: bool
    received_at: datetime
    acknowledged_at: datetime | None
    due_at: datetime
    extended_at: datetime | None
    extension_reason: str | None
    closed_at: datetime | None
    hold_reason: str | None
    filed_by: str
    planned_by: str | None
    approved_by: str | None
    duplicate_of: str | None
    estimate: Mapping[str, Any] | None
    version: int
    sla: Sla

    def public(self) -> dict[str, Any]:
        """Without anything that leads to a person: what lists, exports, webhooks and pages show."""
        from expunge.service.clock import stamp

        hidden = {"subject_token", "filed_by", "approved_by", "planned_by", "scope"}
        told: dict[str, Any] = {}
        for name, value in self.__dict__.items():
            if name not in hidden:
                told[name] = stamp(value) if isinstance(value, datetime) else value
        told["scope"] = {"kind": self.scope["kind"], "targets": list(self.scope.get("targets", ()))}
        return told


@dataclass(frozen=True, kw_only=True)
class Event:
    """A line of a request's history."""

    id: int
    request_id: str
    at: datetime
    actor: str
    kind: str
    from_status: str | None
    to_status: str | None
    detail: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What is done to one target at one stage for one request."""

    request_id: str
    target: str
    stage: Stage
    kind: str
    status: LayerStatus
    batch_id: str | None
    not_before: datetime | None
    rows: int | None
    outcome: Mapping[str, Any]
    certificate: str | None
    started_at: datetime | None
    ended_at: datetime | None


class Filter(_Strict):
    """Which requests.

    Args:
        verified: True hides what nobody has verified, as every list does by default; None shows both.
        query: an id or an external id, whole. open: not in a final state.
    """

    status: tuple[Status, ...] = ()
    sla: tuple[Sla, ...] = ()
    reason: tuple[Reason, ...] = ()
    regime: tuple[str, ...] = ()
    due_before: datetime | None = None
    due_from: datetime | None = None
    received_from: datetime | None = None
    open: bool | None = None
    verified: bool | None = True
    ids: tuple[str, ...] = Field((), max_length=1000)
    query: str | None = Field(None, max_length=200)


class Page(_Strict):
    """How much of a list, and from where: `after` is what the page before gave as `next`."""

    limit: int = Field(50, ge=1, le=500)
    after: str | None = Field(None, max_length=200)
    newest_first: bool = False


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A page of requests, ordered by due date; `total` counts all that the filter lets through."""

    items: tuple[Request, ...]
    next: str | None
    total: int


@dataclass(frozen=True, kw_only=True)
class BulkOutcome:
    """What became of an action on many: ids that were done, and those refused with the reason."""

    action: str
    done: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]
    dry: bool = False


@dataclass(frozen=True, kw_only=True)
class Exposed:
    """A stretch of a request's time during which a target stood so.

    Args:
        state: ``in_force``, ``suppressed``, ``approximate`` or ``gone``. to: None: still.
    """

    target: str
    state: str
    start: datetime
    to: datetime | None


@dataclass(frozen=True, kw_only=True)
class Reached:
    """A model or store that holds rows of a subject.

    Args:
        can: the stages that can be done to it, weak to strong. why: where a stage is missing.
    """

    target: str
    name: str
    kind: str
    rows: int
    can: tuple[Stage, ...]
    why: Mapping[str, str] = field(default_factory=dict)


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form."""
    return hashlib.sha256(canonical(value)).hexdigest()
