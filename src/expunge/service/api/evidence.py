"""Certificates, the log that they stand in, and the policy that was decided by."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path
from starlette.responses import PlainTextResponse, Response

from expunge.audit.log import read_checkpoint
from expunge.audit.trust import TrustedKeys
from expunge.errors import NotFound, RequestError
from expunge.service.api.answers import CertificateOut, CertificatesOut, VerdictOut
from expunge.service.api.bodies import CertificateBody
from expunge.service.api.context import Asker, Here, router, serve
from expunge.service.api.wire import RequestId, TargetId
from expunge.service.webhooks.messages import certificate_file, certificates
from expunge.service.words import Stage

routes = router()


@serve(routes, "list_certificates", response_model=CertificatesOut)
def list_certificates(request_id: RequestId, here: Here, actor: Asker) -> CertificatesOut:
    """One a layer; a certificate may speak of several requests that were carried out together."""
    here.service.desk.get(actor, request_id)
    with here.service.database.read() as connection:
        found = certificates(connection, request_id, here.service.home)
    base = f"/v1/requests/{request_id}/certificates"
    items = [CertificateOut(**one, href=f"{base}/{one['target']}/{one['stage']}") for one in found]
    return CertificatesOut(items=items)


@serve(
    routes,
    "get_certificate",
    response_class=Response,
    responses={
        200: {"description": "Its file.", "content": {"application/json": {"schema": {"type": "object"}}}}
    },
)  # fmt: skip
def get_certificate(
    request_id: RequestId, target_id: TargetId, stage: Annotated[Stage, Path()], here: Here, actor: Asker
) -> Response:
    """The bytes as they were signed: keep them, and check them anywhere with `expunge verify`."""
    layers = here.service.desk.layers(actor, request_id)
    paths = [one.certificate for one in layers if one.target == target_id and one.stage == stage and one.certificate]
    if not paths:
        raise NotFound("certificate")
    content = certificate_file(here.service.home, paths[0]).read_bytes()
    here.trail.tell(actor, "get_certificate", request_id)
    name = f'attachment; filename="{request_id}-{target_id}-{stage}.json"'
    return Response(content, media_type="application/json", headers={"Content-Disposition": name})


@serve(routes, "verify_certificate", response_model=VerdictOut)
def verify_certificate(body: CertificateBody, here: Here, actor: Asker) -> VerdictOut:
    """Checked as `expunge verify` does offline: signature, key in use, log inclusion and history."""
    trusted = here.service.keys.trusted if body.keys is None else TrustedKeys.from_dict(body.keys)
    return VerdictOut.model_validate(check_certificate(body.certificate, trusted))


def check_certificate(value: dict[str, Any], trusted: TrustedKeys | None) -> dict[str, Any]:
    """The verdict on a certificate's JSON.

    Raises:
        RequestError: it is no certificate.
    """
    from expunge.audit.layers import is_layer, verify_layer
    from expunge.audit.verify import verify

    try:
        verdict = verify_layer(value, keys=trusted) if is_layer(value) else verify(value, keys=trusted)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError):
        raise RequestError("this is no certificate", "Send the file as it was downloaded") from None
    return verdict.as_dict()


@serve(
    routes,
    "get_checkpoint",
    response_class=PlainTextResponse,
    responses={200: {"description": "A C2SP signed note.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def get_checkpoint(here: Here, actor: Asker) -> PlainTextResponse:
    """Keep one from time to time: a later certificate must continue it."""
    folder = here.service.home / "log"
    if not (folder / "checkpoint").exists():
        raise NotFound("log yet: nothing has been certified")
    return PlainTextResponse(read_checkpoint(folder))


@serve(routes, "get_trusted_keys", response_model=dict[str, Any])
def get_trusted_keys(here: Here) -> dict[str, Any]:
    """For `expunge verify --keys`. Compare them once with what the operator gave you on another way."""
    return here.service.keys.trusted.as_dict()


@serve(routes, "get_policy", response_model=dict[str, Any])
def get_policy(here: Here, actor: Asker) -> dict[str, Any]:
    return here.service.policy.model_dump(mode="json")
