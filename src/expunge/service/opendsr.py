"""OpenDSR 2.0 as a profile: how its requests and states are ours.

A privacy platform (the controller) sends one request with several identities of a person; here each identity is a
request of its own under one id of the controller's, and the whole is completed when all of them are closed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, select

from expunge.service import tables
from expunge.service.words import FINAL, Status

VERSION = "2.0"
SEPARATOR = ":"
PREFIX = "opendsr"
MOST_IDENTITIES = 10
OpenDsrStatus = Literal["pending", "in_progress", "completed", "cancelled"]
c = tables.request.c


@dataclass(frozen=True, kw_only=True)
class Part:
    """One identity's request. The times as they are kept. duplicate: it stands as the request that it repeats."""

    id: str
    external_id: str
    status: Status
    denial_reason: str | None
    received_at: str
    due_at: str
    duplicate: bool = False


def external_ids(subject_request_id: str) -> list[str]:
    """Under which ids the parts of a request are kept."""
    return [SEPARATOR.join((PREFIX, subject_request_id, str(number))) for number in range(MOST_IDENTITIES)]


def is_opendsr(external_id: str | None) -> bool:
    return external_id is not None and external_id.startswith(PREFIX + SEPARATOR)


def parts_of(connection: Connection, subject_request_id: str, filed_by: str) -> list[Part]:
    """The parts that this controller filed; a duplicate stands as the request that it repeats."""
    chosen = (c.id, c.external_id, c.status, c.denial_reason, c.received_at, c.due_at)
    rows = connection.execute(
        select(*chosen, c.duplicate_of)
        .where(c.external_id.in_(external_ids(subject_request_id)), c.filed_by == filed_by)
        .order_by(c.external_id)
    ).mappings()
    told = []
    for row in rows:
        values = {column.name: row[column.name] for column in chosen}
        if row["duplicate_of"] is not None:
            first = connection.execute(
                select(c.status, c.denial_reason, c.due_at).where(c.id == row["duplicate_of"])
            ).mappings()  # fmt: skip
            values |= {"duplicate": True, **(first.first() or {})}
        told.append(Part(**values))
    return told


def status_of(parts: Sequence[Part]) -> OpenDsrStatus:
    """The specification's word (section 8) for all parts together.

    Completed: each part is fulfilled, or nothing was held under that identity (denied as ``no_match``). The
    specification has no word for a refusal: with any other part denied or cancelled the whole is cancelled, and the
    reason stands in our own interface. Nothing is completed while a part is open, or has failed.
    """
    if all(part.status in FINAL for part in parts):
        done = all(part.status == "fulfilled" or part.denial_reason == "no_match" for part in parts)
        return "completed" if done else "cancelled"
    # until work has begun the controller may take it back (section 9)
    waiting = {"received", "verified", "paused", *FINAL}
    return "pending" if all(part.status in waiting for part in parts) else "in_progress"
