"""OpenDSR 2.0 for controllers: file, ask, take back. See docs/api.md for where this differs from the specification."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

from fastapi import Path, Request
from pydantic import ConfigDict, Field, JsonValue
from starlette.responses import JSONResponse, Response

from expunge.errors import NotFound, RequestError, WrongState
from expunge.service.api.context import Asker, Context, Here, router, serve
from expunge.service.api.plain import Line, Time
from expunge.service.api.signing import signed_headers
from expunge.service.api.wire import Wire
from expunge.service.clock import stamp
from expunge.service.entities import Actor, Filing
from expunge.service.opendsr import MOST_IDENTITIES, VERSION, OpenDsrStatus, Part, external_ids, parts_of, status_of
from expunge.service.webhooks.endpoints import OPENDSR

routes = router()
UUID4 = r"^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"
SubjectRequestId = Annotated[str, Path(pattern=UUID4, examples=["a7551968-d5d6-44b2-9831-815ac9017798"])]


class IdentityBody(Wire):
    """Section 5.3. Hashed identities are not taken: what is known here by name cannot be found by another's hash."""

    identity_type: str = Field(pattern=r"^[a-z_]{1,60}$")
    identity_value: Annotated[Line, Field(min_length=1, max_length=1000)]
    identity_format: Literal["raw"]


class OpenDsrBody(Wire):
    """Section 7.1. Erasure alone: this service has nothing to give access to."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "regulation": "gdpr",
                    "subject_request_id": "a7551968-d5d6-44b2-9831-815ac9017798",
                    "subject_request_type": "erasure",
                    "submitted_time": "2026-10-02T15:00:00Z",
                    "subject_identities": [
                        {"identity_type": "email", "identity_value": "account-4711", "identity_format": "raw"}
                    ],
                    "api_version": "2.0",
                }
            ]
        }
    )

    regulation: Literal["gdpr", "ccpa"]
    subject_request_id: str = Field(pattern=UUID4)
    subject_request_type: Literal["erasure"]
    submitted_time: Time
    subject_identities: list[IdentityBody] = Field(min_length=1, max_length=MOST_IDENTITIES)
    api_version: str | None = Field(None, pattern=r"^2(\.[0-9]{1,2}){0,2}$")
    status_callback_urls: list[Annotated[str, Field(max_length=2000)]] = Field([], max_length=10)
    extensions: dict[str, JsonValue] = Field({}, max_length=20, description="Taken and not used.")


class DiscoveryOut(Wire):
    api_version: str
    supported_identities: list[dict[str, str]]
    supported_subject_request_types: list[str]
    processor_certificate: str | None


class FiledOut(Wire):
    controller_id: str
    expected_completion_time: str
    received_time: str
    encoded_request: str
    subject_request_id: str
    api_version: str


class StatusOut(Wire):
    controller_id: str
    expected_completion_time: str
    subject_request_id: str
    request_status: OpenDsrStatus
    api_version: str


class CancelledOut(Wire):
    controller_id: str
    received_time: str
    subject_request_id: str
    api_version: str


@serve(routes, "opendsr_discovery", response_model=DiscoveryOut)
def opendsr_discovery(here: Here) -> DiscoveryOut:
    """Section 6."""
    part = here.part.opendsr
    return DiscoveryOut(
        api_version=VERSION,
        supported_identities=[{"identity_type": kind, "identity_format": "raw"} for kind in part.identity_types],
        supported_subject_request_types=["erasure"],
        processor_certificate=f"https://{part.domain}/opendsr/certificate.pem" if part.certificate else None,
    )


@serve(
    routes,
    "opendsr_certificate",
    response_class=Response,
    responses={
        200: {"description": "PEM.", "content": {"application/x-pem-file": {"schema": {"type": "string"}}}}
    },
)  # fmt: skip
def opendsr_certificate(here: Here) -> Response:
    """Section 6.3. Without a certificate answers are not signed."""
    path = here.part.opendsr.certificate
    if path is None:
        raise NotFound("certificate")
    return Response(FilePath(path).read_bytes(), media_type="application/x-pem-file")


@serve(routes, "opendsr_file", response_model=FiledOut)
async def opendsr_file(body: OpenDsrBody, here: Here, actor: Asker, request: Request) -> JSONResponse:
    """Section 7. The same id again files nothing more; callbacks go to webhooks that were made for `opendsr.status`."""
    from starlette.concurrency import run_in_threadpool

    parts = await run_in_threadpool(_file, body, here, actor)
    told = {
        "controller_id": actor.id,
        "expected_completion_time": max(part.due_at for part in parts),
        "received_time": min(part.received_at for part in parts),
        "encoded_request": base64.b64encode(await request.body()).decode(),
        "subject_request_id": body.subject_request_id,
        "api_version": VERSION,
    }
    return _signed(here, told, 201)


def _file(body: OpenDsrBody, here: Context, actor: Actor) -> Sequence[Part]:
    for one in body.subject_identities:
        if one.identity_type not in here.part.opendsr.identity_types:
            raise RequestError("an identity has a type that nobody has here", "See /opendsr/discovery")
    known = {hook.url for hook in here.webhooks.list(actor) if OPENDSR in hook.events and hook.created_by == actor.id}
    if not known.issuperset(body.status_callback_urls):
        raise RequestError("a callback goes to a URL that is no webhook of yours", f"Make one for {OPENDSR} first")
    if body.regulation not in here.service.policy.regimes:
        raise RequestError("the policy has no such regulation", "Ask whoever runs the service to add it")
    before = {part.external_id for part in _parts(here, actor, body.subject_request_id)}
    for external_id, identity in zip(external_ids(body.subject_request_id), body.subject_identities, strict=False):
        if external_id not in before:
            filing = Filing(
                identity=identity.identity_value,
                regime=body.regulation,
                external_id=external_id,
                received_at=body.submitted_time,
                verified=True,  # section 3.1: the controller validates what it passes on
            )
            here.service.desk.file(actor, filing)
    return _parts(here, actor, body.subject_request_id)


def _parts(here: Context, actor: Actor, subject_request_id: str) -> list[Part]:
    with here.service.database.read() as connection:
        return parts_of(connection, subject_request_id, actor.id)


@serve(routes, "opendsr_status", response_model=StatusOut)
def opendsr_status(subject_request_id: SubjectRequestId, here: Here, actor: Asker) -> JSONResponse:
    """Section 8. Only what was filed with the same key is found."""
    parts = _parts(here, actor, subject_request_id)
    if not parts:
        raise NotFound("request")
    told = {
        "controller_id": actor.id,
        "expected_completion_time": max(part.due_at for part in parts),
        "subject_request_id": subject_request_id,
        "request_status": status_of(parts),
        "api_version": VERSION,
    }
    return _signed(here, told, 200)


@serve(routes, "opendsr_cancel", response_model=CancelledOut)
def opendsr_cancel(subject_request_id: SubjectRequestId, here: Here, actor: Asker) -> JSONResponse:
    """Section 9: while it is pending."""
    parts = _parts(here, actor, subject_request_id)
    if not parts:
        raise NotFound("request")
    if status_of(parts) != "pending":
        raise WrongState("the request is no longer pending", "Ask for its status")
    for part in parts:
        if not part.duplicate and part.status in ("received", "verified"):
            here.service.desk.cancel(actor, part.id)
    told = {
        "controller_id": actor.id,
        "received_time": stamp(here.service.clock()),
        "subject_request_id": subject_request_id,
        "api_version": VERSION,
    }
    return _signed(here, told, 202)


def _signed(here: Context, told: dict[str, Any], status: int) -> JSONResponse:
    response = JSONResponse(told, status)
    response.headers.update(signed_headers(here.part.opendsr, bytes(response.body)))
    return response
