"""What a webhook is told: which request, how it stands, by when, and the digests of its certificates. Nobody's name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from expunge.audit.encoding import canonical
from expunge.errors import TamperedEvidence
from expunge.service import tables
from expunge.service.opendsr import SEPARATOR, is_opendsr, parts_of, status_of
from expunge.service.webhooks.endpoints import OPENDSR, Webhook


def type_of(event: Mapping[Any, Any]) -> str | None:
    """``request.approved`` and so on; None for lines of history that tell nobody outside anything."""
    if event["kind"] == "extended":
        return "request.extended"
    if event["to_status"] is not None and event["from_status"] != event["to_status"]:
        return f"request.{event['to_status']}"
    return None


def message_of(connection: Connection, event: Mapping[Any, Any], webhook: Webhook, home: Path) -> bytes | None:
    """The body; None where there is nothing to tell (any more).

    Args:
        event: a row of `tables.event`. home: that certificates' paths are relative to.
    """
    c = tables.request.c
    row = connection.execute(select(tables.request).where(c.id == event["request_id"])).mappings().first()
    type_ = type_of(event)
    if row is None or type_ is None:
        return None
    if OPENDSR in webhook.events:
        return _opendsr(connection, row, webhook)
    data = {
        "request_id": row["id"],
        "external_id": row["external_id"],
        "status": event["to_status"],
        "due_at": row["due_at"],
        "certificates": certificates(connection, row["id"], home) if event["to_status"] == "fulfilled" else [],
    }
    return canonical({"type": type_, "timestamp": event["at"], "data": data})


def _opendsr(connection: Connection, row: Mapping[Any, Any], webhook: Webhook) -> bytes | None:
    """OpenDSR 2.0, section 8.6: the callback's body. Only to who filed the request."""
    external = row["external_id"]
    if not is_opendsr(external) or row["filed_by"] != webhook.created_by:
        return None
    subject_request_id = external.split(SEPARATOR)[1]
    parts = parts_of(connection, subject_request_id, row["filed_by"])
    return canonical(
        {
            "controller_id": row["filed_by"],
            "status_callback_url": webhook.url,
            "subject_request_id": subject_request_id,
            "request_status": status_of(parts),
            "expected_completion_time": max(part.due_at for part in parts),
        }
    )


def certificates(connection: Connection, request_id: str, home: Path) -> list[dict[str, str]]:
    """Of a request's layers: target, stage and the SHA-256 of the certificate's file."""
    c = tables.layer.c
    rows = connection.execute(
        select(c.target, c.stage, c.certificate)
        .where(c.request_id == request_id, c.certificate.is_not(None))
        .order_by(c.target, c.stage)
    )
    told = []
    for target, stage, path in rows:
        content = certificate_file(home, path).read_bytes()
        told.append({"target": target, "stage": stage, "sha256": hashlib.sha256(content).hexdigest()})
    return told


def certificate_file(home: Path, path: str) -> Path:
    """
    Raises:
        TamperedEvidence: the path leads out of the service's folder, or to nothing.
    """
    whole = (home / path).resolve()
    if not whole.is_relative_to(home.resolve()) or not whole.is_file():
        raise TamperedEvidence("the certificate's file is not where it was put", "Restore it from a copy")
    return whole
