"""Many requests at once: counts, due dates, export, one action on all that a filter lets through."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import Field
from starlette.responses import StreamingResponse

from expunge.errors import RequestError
from expunge.service.api.answers import BulkOut, BulkRefusal, CountsOut
from expunge.service.api.bodies import BulkBody
from expunge.service.api.context import Asker, Here, router, serve
from expunge.service.api.requests import FilterQuery
from expunge.service.api.wire import Wire
from expunge.service.deadlines import add_months
from expunge.service.words import DENIAL_REASONS

routes = router()
MEDIA = {"csv": "text/csv; charset=utf-8", "json": "application/json"}


class ExportQuery(FilterQuery):
    """A filter and a form."""

    form: Literal["csv", "json"] = "csv"


class MonthQuery(Wire):
    """A month, as 2026-01."""

    month: str = Field(pattern=r"^20\d\d-(0[1-9]|1[0-2])$", examples=["2026-01"])


@serve(routes, "count_requests", response_model=CountsOut)
def count_requests(here: Here, actor: Asker) -> CountsOut:
    told = here.service.desk.counts(actor)
    return CountsOut(status=told["status"], sla=told["sla"], unverified=told["unverified"]["open"])


@serve(routes, "due_dates", response_model=dict[str, int])
def due_dates(query: Annotated[MonthQuery, Query()], here: Here, actor: Asker) -> dict[str, int]:
    """Date (UTC) and how many requests are due; days without any are left out."""
    first = datetime.fromisoformat(f"{query.month}-01").replace(tzinfo=UTC)
    last = datetime.combine(add_months(first.date(), 1), first.timetz())
    return here.service.desk.calendar(actor, first, last)


_LINES = {"type": "array", "items": {"$ref": "#/components/schemas/RequestOut"}}
_EXPORT = {"text/csv": {"schema": {"type": "string"}}, "application/json": {"schema": _LINES}}


@serve(
    routes,
    "export_requests",
    response_class=StreamingResponse,
    responses={200: {"description": "One line a request; no personal data.", "content": _EXPORT}},
)
def export_requests(query: Annotated[ExportQuery, Query()], here: Here, actor: Asker) -> StreamingResponse:
    """Streamed, so that there may be any number of them."""
    pieces = here.service.desk.export(actor, query.filter(), query.form)
    name = f'attachment; filename="requests.{query.form}"'
    return StreamingResponse(pieces, media_type=MEDIA[query.form], headers={"Content-Disposition": name})


@serve(routes, "act_on_many", response_model=BulkOut)
def act_on_many(body: BulkBody, here: Here, actor: Asker) -> BulkOut:
    """Each request on its own: some may be refused, and the answer says why. At most 5,000 at once."""
    arguments = _arguments(body)
    told = here.service.desk.bulk(actor, body.filter.filter(), body.action, dry=body.dry_run, **arguments)
    refused = [BulkRefusal(id=request_id, why=why) for request_id, why in told.refused]
    return BulkOut(action=told.action, dry_run=told.dry, done=list(told.done), refused=refused)


def _arguments(body: BulkBody) -> dict[str, Any]:
    """
    Raises:
        RequestError: the action needs a reason, or takes none.
    """
    needs = body.action in ("deny", "extend", "hold")
    if needs != (body.reason is not None) or (body.note and body.action != "deny"):
        raise RequestError("deny, extend and hold need a reason, and no other action takes one", "Correct `reason`")
    if body.action == "deny":
        if body.reason not in DENIAL_REASONS:
            raise RequestError("that is no reason to deny", f"One of: {', '.join(DENIAL_REASONS)}")
        return {"reason": body.reason, "note": body.note}
    return {"reason": body.reason} if needs else {}
