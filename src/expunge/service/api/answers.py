"""What is answered, without anything that leads to a person."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict, Field

from expunge.service.api.wire import Wire
from expunge.service.entities import Actor, Request
from expunge.service.words import DenialReason, GuaranteeWord, LayerStatus, Reason, Role, Sla, Stage, Status


class ScopeOut(Wire):
    kind: str
    targets: list[str]


class RequestOut(Wire):
    """A request, without anything that leads to a person."""

    id: str
    external_id: str | None
    scope: ScopeOut
    reason: Reason
    least_guarantee: GuaranteeWord
    regime: str
    status: Status
    sla: Sla
    verified: bool
    received_at: datetime
    acknowledged_at: datetime | None
    due_at: datetime
    extended_at: datetime | None
    extension_reason: str | None
    closed_at: datetime | None
    denial_reason: DenialReason | None
    paused_from: Status | None
    hold_reason: str | None
    duplicate_of: str | None
    estimate: dict[str, Any] | None
    version: int

    @classmethod
    def of(cls, request: Request, actor: Actor) -> RequestOut:
        """A subject is not told what staff wrote for each other."""
        told = request.public()
        if actor.role == "subject":
            told |= {"hold_reason": None, "estimate": None}
        return cls.model_validate(told)


class RequestPage(Wire):
    """`next`: pass it as `after`; null: this was the last page."""

    items: list[RequestOut]
    next: str | None
    total: int


class BulkRefusal(Wire):
    id: str
    why: str


class BulkOut(Wire):
    action: str
    dry_run: bool
    done: list[str]
    refused: list[BulkRefusal]


class CountsOut(Wire):
    status: dict[str, int]
    sla: dict[str, int]
    unverified: int = Field(description="Open ones that nobody has verified yet.")


class EventOut(Wire):
    id: int
    at: datetime
    kind: str
    from_status: str | None
    to_status: str | None
    actor: str | None = Field(description="Not told to subjects.")
    detail: dict[str, Any]


class LayerOut(Wire):
    target: str
    stage: Stage
    kind: str
    status: LayerStatus
    rows: int | None
    not_before: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    batch_id: str | None
    outcome: dict[str, Any] = Field(description="Not told to subjects.")
    has_certificate: bool


class ExposedOut(Wire):
    target: str
    state: Literal["in_force", "suppressed", "approximate", "gone"]
    start: datetime
    to: datetime | None


class EstimateOut(Wire):
    """What a request would touch, take and cost under each rule; nothing is done."""

    model_config = ConfigDict(extra="allow")

    rule: str
    targets: list[dict[str, Any]]
    options: dict[str, Any]
    out_of_scope: list[str]
    refused: list[str]


class SuppressionOut(Wire):
    """For each identity, in the order sent, whether its rows must not be learned from."""

    blocked: list[bool]


class TargetOut(Wire):
    id: str
    name: str
    version: str
    kind: str
    location: str
    digest: str | None
    parent: str | None
    made_from: list[str]
    options: dict[str, Any]
    registered_at: datetime | None
    retired_at: datetime | None


class TargetsOut(Wire):
    items: list[TargetOut]
    kinds: list[str] = Field(description="Kinds that can be served; others are listed and never served.")


class LineageOut(Wire):
    items: list[dict[str, Any]]


class CertificateOut(Wire):
    target: str
    stage: str
    sha256: str
    href: str


class CertificatesOut(Wire):
    items: list[CertificateOut]


class CheckOut(Wire):
    name: str
    outcome: Literal["pass", "fail", "inconclusive"]
    reason: str


class VerdictOut(Wire):
    """`says` is what the certificate states: believe it only if `outcome` is pass."""

    outcome: Literal["pass", "fail", "inconclusive"]
    scope: str
    says: dict[str, Any]
    checks: list[CheckOut]


class WebhookOut(Wire):
    id: str
    url: str
    events: list[str]
    created_at: datetime
    disabled_at: datetime | None


class WebhookMade(WebhookOut):
    secret: str = Field(description="Shown this once.")


class SecretOut(Wire):
    secret: str = Field(description="Shown this once. The old one is in force for another day.")


class WebhooksOut(Wire):
    items: list[WebhookOut]


class DeliveryOut(Wire):
    id: str
    event_id: int
    attempt: int
    status: Literal["pending", "delivered", "given_up"]
    due_at: datetime
    at: datetime | None
    response_code: int | None


class DeliveriesOut(Wire):
    items: list[DeliveryOut]


class KeyOut(Wire):
    id: str
    role: Role
    name: str
    bound: bool = Field(description="To one subject.")
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class KeyMade(KeyOut):
    key: str = Field(description="Shown this once.")


class KeysOut(Wire):
    items: list[KeyOut]


class LineOut(Wire):
    id: int
    at: datetime
    actor: str
    role: str
    action: str
    object: str | None
    outcome: str


class AuditPage(Wire):
    items: list[LineOut]
    next: str | None
