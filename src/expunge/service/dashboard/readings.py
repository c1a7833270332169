"""Pages that are only read: the policy, the audit trail, and how the service is."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from starlette.responses import Response

from expunge.audit.log import read_checkpoint
from expunge.audit.note import Checkpoint, split
from expunge.errors import ExpungeError, RequestError
from expunge.service import tables
from expunge.service.clock import unstamp
from expunge.service.dashboard.frame import PageOf, Visit
from expunge.service.dashboard.wording import end_of
from expunge.service.deadlines import due_at, extended_due
from expunge.service.doctor import holdings
from expunge.service.permissions import ALLOWED
from expunge.service.planning import next_window
from expunge.service.policy import Regime

LINES = 100
SILENT = timedelta(seconds=60)  # twice a worker's lease, after which others take its work over
BATCHES = 50
OTHERS = ("get_certificate", "register_target", "reindex_target", "retire_target", "revoke_key")
ACTION = re.compile(r"[a-z_]{1,60}")


def policy(visit: Visit) -> Response:
    told = visit.service.policy
    return visit.page(
        "policy.html.j2",
        policy=told,
        regimes=[(name, regime, *_dates(regime, visit.now)) for name, regime in told.regimes.items()],
        window=next_window(told, visit.now) if told.serving.period_days else None,
    )


def _dates(regime: Regime, now: datetime) -> tuple[tuple[str, str], tuple[str, str] | None]:
    """When a request received now would be due, and when with the extension."""
    later = end_of(extended_due(now, regime), regime.zone) if regime.extends else None
    return end_of(due_at(now, regime), regime.zone), later


def audit(visit: Visit) -> Response:
    query = visit.request.query_params
    action = query.get("action") or None
    if action is not None and not ACTION.fullmatch(action):
        raise RequestError("there is no such action", "Choose one of the list, or none")
    lines, after = visit.pages.trail.lines(visit.actor, limit=LINES, after=query.get("after") or None, action=action)
    return visit.page("audit.html.j2", lines=lines, after=after, action=action, known=sorted({*ALLOWED, *OTHERS}))


def system(visit: Visit) -> Response:
    service = visit.service
    return visit.page(
        "system.html.j2",
        workers=_workers(visit),
        **_batches(visit),
        counts=service.desk.counts(visit.actor),
        next_moment=service.work.next_moment(),
        log=_log(visit),
        signer=service.keys.name,
        database="SQLite, one file" if service.database.is_sqlite else "PostgreSQL",
        holds=holdings(service),
    )


def _workers(visit: Visit) -> list[dict[str, Any]]:
    """Those who have not left, the last to sign first."""
    w = tables.worker.c
    with visit.service.database.read() as connection:
        rows = connection.execute(
            select(tables.worker).where(w.stopped_at.is_(None)).order_by(w.beat_at.desc()).limit(100)
        ).mappings()
        return [
            {
                "id": row["id"],
                "since": unstamp(row["started_at"]),
                "beat": unstamp(row["beat_at"]),
                "alive": visit.now - unstamp(row["beat_at"]) < SILENT,
            }
            for row in rows
        ]


def _batches(visit: Visit) -> dict[str, Any]:
    """Those that wait, run or failed, the newest first, and how many there are in each state."""
    b = tables.batch.c
    with visit.service.database.read() as connection:
        found = connection.execute(select(b.status, func.count()).group_by(b.status)).all()
        counts = {str(status): int(count) for status, count in found}
        rows = connection.execute(
            select(tables.batch)
            .where(b.status.in_(("pending", "running", "failed")))
            .order_by(b.created_at.desc())
            .limit(BATCHES)
        ).mappings()
        batches = [
            {
                **row,
                "created_at": unstamp(row["created_at"]),
                "ended_at": unstamp(row["ended_at"]) if row["ended_at"] else None,
            }
            for row in rows
        ]
    return {"batch_counts": counts, "batches": batches}


def _log(visit: Visit) -> dict[str, Any] | None:
    """The head of the log of certificates; None while nothing was certified."""
    folder = visit.service.home / "log"
    if not (folder / "checkpoint").exists():
        return None
    try:
        head = Checkpoint.parse(split(read_checkpoint(folder))[0])
    except ExpungeError as error:
        return {"fault": error.cause}
    return {"fault": None, "origin": head.origin, "size": head.size, "root": head.root.hex()}


PAGES = (
    PageOf("GET", "/policy", "see_policy", policy),
    PageOf("GET", "/audit", "see_audit", audit),
    PageOf("GET", "/system", "see_metrics", system),
)
