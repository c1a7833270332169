"""Rows of the request tables as entities, filters as SQL."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, false, or_, select, true

from expunge.errors import RequestError
from expunge.service import tables
from expunge.service.clock import stamp, unstamp
from expunge.service.entities import Actor, Event, Filter, Layer, Request
from expunge.service.words import FINAL, Sla

r = tables.request.c


def request_of(row: Mapping[Any, Any], now: datetime) -> Request:
    return Request(
        id=row["id"],
        external_id=row["external_id"],
        subject_token=row["subject_token"],
        scope=row["scope"],
        reason=row["reason"],
        least_guarantee=row["least_guarantee"],
        regime=row["regime"],
        status=row["status"],
        paused_from=row["paused_from"],
        denial_reason=row["denial_reason"],
        verified=bool(row["verified"]),
        received_at=unstamp(row["received_at"]),
        acknowledged_at=_time(row["acknowledged_at"]),
        due_at=unstamp(row["due_at"]),
        extended_at=_time(row["extended_at"]),
        extension_reason=row["extension_reason"],
        closed_at=_time(row["closed_at"]),
        hold_reason=row["hold_reason"],
        filed_by=row["filed_by"],
        planned_by=row["planned_by"],
        approved_by=row["approved_by"],
        duplicate_of=row["duplicate_of"],
        estimate=row["estimate"],
        version=row["version"],
        sla=sla_of(row, stamp(now)),
    )


def sla_of(row: Mapping[Any, Any], now: str) -> Sla:
    """`expunge.service.deadlines.sla` on what the row keeps; the tests hold the two together."""
    if row["closed_at"] is not None:
        return "kept" if row["closed_at"] < row["due_at"] else "missed"
    if now >= row["due_at"]:
        return "overdue" if row["extended_at"] is None and now < row["limit_at"] else "breached"
    return "due_soon" if now >= row["soon_at"] else "on_track"


def sla_condition(sla: Sla, now: str) -> ColumnElement[bool]:
    """The same as SQL."""
    late = and_(r.closed_at.is_(None), r.due_at <= now)
    mendable = and_(r.extended_at.is_(None), r.limit_at > now)
    return {
        "kept": and_(r.closed_at.is_not(None), r.closed_at < r.due_at),
        "missed": and_(r.closed_at.is_not(None), r.closed_at >= r.due_at),
        "overdue": and_(late, mendable),
        "breached": and_(late, ~mendable),
        "due_soon": and_(r.closed_at.is_(None), r.due_at > now, r.soon_at <= now),
        "on_track": and_(r.closed_at.is_(None), r.due_at > now, r.soon_at > now),
    }[sla]


def where(wanted: Filter, actor: Actor, now: datetime) -> ColumnElement[bool]:
    """A filter as one condition; a subject sees their own, whatever they ask."""
    at = stamp(now)
    conditions: list[ColumnElement[bool]] = [true()]
    if actor.role == "subject":
        conditions.append(r.subject_token == actor.subject_token if actor.subject_token else false())
    elif wanted.verified is not None:
        conditions.append(r.verified == int(wanted.verified))
    for column, values in ((r.status, wanted.status), (r.reason, wanted.reason), (r.regime, wanted.regime)):
        if values:
            conditions.append(column.in_(values))
    if wanted.status and FINAL.isdisjoint(wanted.status):
        conditions.append(r.closed_at.is_(None))  # says nothing new, but leads through the index
    if wanted.sla:
        conditions.append(or_(*(sla_condition(s, at) for s in wanted.sla)))
    if wanted.open is not None:
        # the moment at which it was closed is there if and only if its state is final, and an index leads to it
        conditions.append(r.closed_at.is_(None) if wanted.open else r.closed_at.is_not(None))
    if wanted.due_before:
        conditions.append(r.due_at < stamp(wanted.due_before))
    if wanted.due_from:
        conditions.append(r.due_at >= stamp(wanted.due_from))
    if wanted.received_from:
        conditions.append(r.received_at >= stamp(wanted.received_from))
    if wanted.ids:
        conditions.append(r.id.in_(wanted.ids))
    if wanted.query:
        found = select(r.id).where(r.id == wanted.query).union(select(r.id).where(r.external_id == wanted.query))
        conditions.append(r.id.in_(found))  # an `or` would be looked for row by row
    return and_(*conditions)


def cursor_of(row: Mapping[Any, Any]) -> str:
    return base64.urlsafe_b64encode(f"{row['due_at']}|{row['id']}".encode()).decode().rstrip("=")


def after_cursor(cursor: str, newest_first: bool) -> ColumnElement[bool]:
    """
    Raises:
        RequestError: it is not what a listing gave.
    """
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        due, _, request_id = raw.partition("|")
        unstamp(due)
    except (ValueError, binascii.Error, UnicodeDecodeError):
        raise RequestError("`after` is not what a page before this one gave", "Begin again without it") from None
    if newest_first:
        return or_(r.due_at < due, and_(r.due_at == due, r.id < request_id))
    return or_(r.due_at > due, and_(r.due_at == due, r.id > request_id))


def event_of(row: Mapping[Any, Any]) -> Event:
    return Event(
        id=row["id"],
        request_id=row["request_id"],
        at=unstamp(row["at"]),
        actor=row["actor"],
        kind=row["kind"],
        from_status=row["from_status"],
        to_status=row["to_status"],
        detail=row["detail"],
    )


def layer_of(row: Mapping[Any, Any]) -> Layer:
    return Layer(
        request_id=row["request_id"],
        target=row["target"],
        stage=row["stage"],
        kind=row["kind"],
        status=row["status"],
        batch_id=row["batch_id"],
        not_before=_time(row["not_before"]),
        rows=row["rows"],
        outcome=row["outcome"] or {},
        certificate=row["certificate"],
        started_at=_time(row["started_at"]),
        ended_at=_time(row["ended_at"]),
    )


def _time(text: str | None) -> datetime | None:
    return None if text is None else unstamp(text)
