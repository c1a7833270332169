"""Whether it lives, whether it can work, and what Prometheus wants to know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from sqlalchemy import func, select
from starlette.responses import PlainTextResponse

from expunge.service import tables
from expunge.service.api.context import Asker, Context, Here, router, serve
from expunge.service.api.meter import MEDIA, gauge
from expunge.service.api.wire import Wire
from expunge.service.clock import unstamp
from expunge.service.entities import SYSTEM
from expunge.service.webhooks.courier import unread
from expunge.service.words import STATUSES

routes = router()


class HealthOut(Wire):
    status: Literal["ok"] = "ok"


@serve(routes, "healthz", response_model=HealthOut)
def healthz() -> HealthOut:
    return HealthOut()


@serve(routes, "readyz", response_model=HealthOut)
def readyz(here: Here) -> HealthOut:
    with here.service.database.read() as connection:
        connection.execute(select(func.count()).select_from(tables.setting)).scalar_one()
    return HealthOut()


@serve(
    routes,
    "metrics",
    response_class=PlainTextResponse,
    responses={200: {"description": "Prometheus text.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(here: Here, actor: Asker) -> PlainTextResponse:
    """Counts alone; nobody's name or id."""
    return PlainTextResponse("\n".join((*_service(here), *here.meter.lines())) + "\n", media_type=MEDIA)


def _service(here: Context) -> Iterator[str]:
    counts = here.service.desk.counts(SYSTEM)
    by_status = {str(status): counts["status"].get(status, 0) for status in STATUSES}
    yield from gauge("expunge_requests", "Verified requests by state.", by_status, "status")
    yield from gauge("expunge_requests_sla", "Verified requests by how they stand.", counts["sla"], "sla")
    yield from gauge(
        "expunge_requests_unverified", "Open requests that nobody has verified.", {"": counts["unverified"]["open"]}
    )
    yield from gauge(
        "expunge_webhook_deliveries_pending", "Messages on their way.", {"": unread(here.service.database)}
    )
    with here.service.database.read() as connection:
        due = connection.execute(
            select(func.min(tables.request.c.due_at)).where(tables.request.c.closed_at.is_(None))
        ).scalar()
        beat = connection.execute(
            select(func.max(tables.worker.c.beat_at)).where(tables.worker.c.stopped_at.is_(None))
        ).scalar()
    now = here.service.clock()
    if due is not None:
        seconds = (unstamp(due) - now).total_seconds()
        yield from gauge("expunge_next_due_seconds", "Until the earliest due date; negative: past.", {"": seconds})
    if beat is not None:
        seconds = (now - unstamp(beat)).total_seconds()
        yield from gauge("expunge_worker_silence_seconds", "Since the latest sign of a worker.", {"": seconds})
