"""What is sent and answered: strict shapes with bounds and examples, for the endpoints and for the document."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StrictBool, StrictFloat, StrictInt

from expunge.service.api.plain import Line, Time
from expunge.service.clock import stamp
from expunge.service.entities import Actor, Filing, Filter, Request
from expunge.service.words import DenialReason, GuaranteeWord, LayerStatus, Reason, Role, Sla, Stage, Status

NO_PERSON = "No personal data."
EXTERNAL_ID = r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,119}$"
TARGET_ID = r"^[a-z0-9][a-z0-9._-]{0,79}$"


def _own_id(prefix: str) -> str:
    return rf"^{prefix}_[a-z2-7]{{26}}$"


RequestId = Annotated[str, Path(pattern=_own_id("req"), examples=["req_ow7vkw3tqgbhd6pylfeo5x4mzi"])]
WebhookId = Annotated[str, Path(pattern=_own_id("wh"), examples=["wh_ow7vkw3tqgbhd6pylfeo5x4mzi"])]
KeyId = Annotated[str, Path(pattern=_own_id("key"), examples=["key_ow7vkw3tqgbhd6pylfeo5x4mzi"])]
TargetId = Annotated[str, Path(pattern=TARGET_ID, examples=["spam-sisa"])]


class Wire(BaseModel):
    """Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


# --- sent -------------------------------------------------------------------------------------------------------------


class ToldBody(Wire):
    """What a filter must not tell from the moment of suppression; kept sealed until the request is closed."""

    question: list[Annotated[Line, Field(min_length=2, max_length=500)]] = Field([], max_length=20)
    answer: list[Annotated[Line, Field(min_length=2, max_length=500)]] = Field([], max_length=20)


class ScopeBody(Wire):
    """What must go: all of a person's records, some of them, or a concept or behaviour by the id of its description."""

    kind: Literal["owner", "records", "concept", "behaviour"] = "owner"
    records: list[Annotated[Line, Field(min_length=1, max_length=1000)]] = Field([], max_length=10_000)
    about: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,199}$")
    targets: list[Annotated[str, Field(pattern=TARGET_ID)]] = Field([], max_length=1000)


class FilingBody(Wire):
    """A request. `identity` is hashed as it comes in and kept nowhere."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "identity": "account-4711",
                    "reason": "privacy",
                    "regime": "gdpr",
                    "external_id": "ticket-9",
                    "verified": True,
                }
            ]
        }
    )

    identity: Annotated[Line, Field(min_length=1, max_length=1000)] | None = None
    reason: Reason = "privacy"
    regime: Annotated[Line, Field(max_length=60)] | None = Field(
        None, description="The policy's default where none is given."
    )
    scope: ScopeBody = ScopeBody()
    least_guarantee: GuaranteeWord = "exact"
    external_id: str | None = Field(None, pattern=EXTERNAL_ID, description=NO_PERSON)
    tell_not: list[ToldBody] = Field([], max_length=50)
    verified: StrictBool = Field(False, description="Whether you have verified who asks.")
    received_at: Time | None = Field(None, description="When it reached you, if earlier than now.")

    def filing(self) -> Filing:
        """
        Raises:
            pydantic.ValidationError: the parts do not fit together.
        """
        return Filing.model_validate(self.model_dump())


class FilterBody(Wire):
    """Which requests; an empty filter lets all verified ones through."""

    status: list[Status] = Field([], max_length=20)
    sla: list[Sla] = Field([], max_length=10)
    reason: list[Reason] = Field([], max_length=10)
    regime: list[Annotated[Line, Field(max_length=60)]] = Field([], max_length=20)
    due_before: Time | None = None
    due_from: Time | None = None
    received_from: Time | None = None
    open: StrictBool | None = Field(None, description="Not in a final state.")
    verified: Literal["yes", "no", "any"] = "yes"
    ids: list[Annotated[str, Field(pattern=_own_id("req"))]] = Field([], max_length=1000)
    query: str | None = Field(None, pattern=EXTERNAL_ID, description="An id, or an external id, whole.")

    def filter(self) -> Filter:
        verified = {"yes": True, "no": False, "any": None}[self.verified]
        return Filter.model_validate({**self.model_dump(), "verified": verified})


Action = Literal["verify", "approve", "deny", "cancel", "extend", "hold", "release", "retry"]
Note = Annotated[Line, Field(min_length=1, max_length=1000, description=NO_PERSON)]


class BulkBody(Wire):
    """One action on all that a filter lets through; a dry run says which, and does nothing."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"action": "approve", "filter": {"sla": ["due_soon"]}, "dry_run": True}]}
    )

    action: Action
    filter: FilterBody = FilterBody()
    dry_run: StrictBool = False
    reason: Note | None = Field(None, description="For deny (one of the denial reasons), extend and hold.")
    note: Annotated[Line, Field(max_length=1000)] = Field("", description=f"For deny. {NO_PERSON}")


class DenialBody(Wire):
    """Why it is refused."""

    reason: DenialReason
    note: Annotated[Line, Field(max_length=1000)] = Field("", description=NO_PERSON)


class ReasonBody(Wire):
    """Why."""

    reason: Note


class NoteBody(Wire):
    """What was done, and by which means."""

    note: Note


class SuppressionBody(Wire):
    """Whose rows are about to be learned from."""

    identities: list[Annotated[Line, Field(min_length=1, max_length=1000)]] = Field(min_length=1, max_length=10_000)


class TargetBody(Wire):
    """A model, store or data set. `kind`: which kinds can be served, the service says at `GET /v1/targets`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"id": "spam-sisa", "name": "Spam filter", "version": "3", "kind": "learner", "location": "/srv/spam"}
            ]
        }
    )

    id: str = Field(pattern=TARGET_ID)
    name: Annotated[Line, Field(min_length=1, max_length=120)]
    version: Annotated[Line, Field(min_length=1, max_length=60)]
    kind: str = Field(pattern=r"^[a-z][a-z_]{0,39}$")
    location: Annotated[Line, Field(min_length=1, max_length=1000)]
    digest: str | None = Field(None, pattern=r"^[a-z0-9:]{1,200}$")
    parent: str | None = Field(None, pattern=TARGET_ID)
    made_from: list[Annotated[str, Field(pattern=TARGET_ID)]] = Field([], max_length=100)
    options: dict[str, JsonValue] = Field({}, max_length=100)


class WebhookBody(Wire):
    """Who is told of what: `*`, names of events, or `opendsr.status` alone."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"url": "https://hooks.example.com/expunge", "events": ["request.fulfilled"]}]}
    )

    url: str = Field(min_length=1, max_length=2000)
    events: list[Annotated[str, Field(max_length=40)]] = Field(["*"], min_length=1, max_length=20)


class KeyBody(Wire):
    """A key. For the role subject, `identity` is whose requests it sees; it is hashed at once."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"role": "operator", "name": "crm", "days": 90}]})

    role: Role
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,59}$", description=f"Of the program. {NO_PERSON}")
    identity: Annotated[Line, Field(min_length=1, max_length=1000)] | None = None
    days: StrictFloat | StrictInt | None = Field(None, gt=0, le=3650)


class CertificateBody(Wire):
    """A certificate, and the public keys that you believe; without them, those of this service."""

    certificate: dict[str, JsonValue]
    keys: dict[str, JsonValue] | None = None


# --- answered ---------------------------------------------------------------------------------------------------------


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


def text(at: datetime | None) -> str | None:
    """A time as it is answered."""
    return None if at is None else stamp(at)
