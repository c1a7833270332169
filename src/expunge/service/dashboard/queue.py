"""The queue: who waits, how they stand, and what can be done to many at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response, StreamingResponse

from expunge.errors import NotFound
from expunge.service.dashboard import wording
from expunge.service.dashboard.actions import MANY, Action
from expunge.service.dashboard.asked import Asked
from expunge.service.dashboard.frame import PageOf, Visit
from expunge.service.entities import Page, Request
from expunge.service.export import FORMS
from expunge.service.words import REASONS, STATUSES

MEDIA = {"csv": "text/csv; charset=utf-8", "json": "application/json"}


@dataclass(frozen=True, kw_only=True)
class Tile:
    """How many stand so; href shows them, or all again where they are shown already."""

    sla: str
    count: int
    pressed: bool
    query: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """A request in the list."""

    request: Request
    date: str
    time: str
    distance: str


def asked_of(visit: Visit) -> Asked:
    """What the query string asks for."""
    return Asked.read(visit.request.query_params.multi_items(), tuple(visit.service.policy.regimes))


def queue(visit: Visit) -> Response:
    """The whole page, or, for a script that has it, its list alone."""
    asked = asked_of(visit)
    listing = visit.service.desk.list(visit.actor, asked.filter, asked.page)
    told: dict[str, Any] = {
        "asked": asked,
        "rows": [row_of(visit, request) for request in listing.items],
        "total": listing.total,
        "next": None if listing.next is None else asked.query(after=listing.next),
        "hidden": _hidden(visit, asked),
        "actions": actions_on_many(visit),
        "forms": tuple(FORMS) if visit.may("export") else (),
    }
    told["tiles"] = [_tile(asked, sla, count) for sla, count in visit.service.desk.standing(visit.actor).items()]
    if visit.partial:
        return visit.page("_queue_again.html.j2", **told)
    return visit.page(
        "queue.html.j2",
        statuses=STATUSES,
        reasons=REASONS,
        regimes=tuple(visit.service.policy.regimes),
        **told,
    )


def row_of(visit: Visit, request: Request) -> Row:
    date, time = wording.end_of(request.due_at, visit.zone(request.regime))
    distance = "closed" if request.closed_at is not None else wording.distance(request.due_at, visit.now)
    return Row(request=request, date=date, time=time, distance=distance)


def actions_on_many(visit: Visit) -> list[Action]:
    return [action for action in MANY if visit.may(action.name)] if visit.staff else []


def _hidden(visit: Visit, asked: Asked) -> int:
    """How many the list leaves out only because nobody has verified who asks."""
    if not visit.staff or asked.verified != "yes":
        return 0
    wanted = asked.filter.model_copy(update={"verified": False})
    return visit.service.desk.list(visit.actor, wanted, Page(limit=1)).total


def _tile(asked: Asked, sla: str, count: int) -> Tile:
    pressed = asked.values("sla") == (sla,)
    return Tile(sla=sla, count=count, pressed=pressed, query=asked.query(sla=None if pressed else sla))


def export(visit: Visit) -> Response:
    """All that the filter lets through; no personal data."""
    form = visit.part("form")
    if form not in FORMS:
        raise NotFound("form of export")
    pieces: Iterator[str] = visit.service.desk.export(visit.actor, asked_of(visit).filter, form)
    name = f'attachment; filename="requests.{form}"'
    return StreamingResponse(pieces, media_type=MEDIA[form], headers={"Content-Disposition": name})


PAGES = (
    PageOf("GET", "/requests", "list", queue),
    PageOf("GET", "/requests/export/{form}", "export", export),
)
