"""What is sent: strict shapes with bounds and examples."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, JsonValue, StrictBool, StrictFloat, StrictInt

from expunge.service.api.plain import Line, Time
from expunge.service.api.wire import EXTERNAL_ID, NO_PERSON, TARGET_ID, Wire, own_id
from expunge.service.entities import Filing, Filter
from expunge.service.words import DenialReason, GuaranteeWord, Reason, Role, Sla, Status


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
    ids: list[Annotated[str, Field(pattern=own_id("req"))]] = Field([], max_length=1000)
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
