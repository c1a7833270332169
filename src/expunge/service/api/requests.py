"""Requests one by one: filed, listed, looked at."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import Query, Request, Response
from pydantic import Field

from expunge.service.api.answers import EstimateOut, EventOut, ExposedOut, LayerOut, RequestOut, RequestPage
from expunge.service.api.bodies import FilingBody
from expunge.service.api.context import Asker, Here, router, serve
from expunge.service.api.plain import Line, Time, Truth
from expunge.service.api.wire import EXTERNAL_ID, RequestId, Wire
from expunge.service.entities import Filter, Page
from expunge.service.words import Reason, Sla, Status

routes = router()


class FilterQuery(Wire):
    """A filter as parameters; those with several values are given several times."""

    status: list[Status] = Field([], max_length=20)
    sla: list[Sla] = Field([], max_length=10)
    reason: list[Reason] = Field([], max_length=10)
    regime: list[Annotated[Line, Field(max_length=60)]] = Field([], max_length=20)
    due_before: Time | None = None
    due_from: Time | None = None
    received_from: Time | None = None
    open: Truth | None = None
    verified: str = Field("yes", pattern="^(yes|no|any)$", description="`no`: nobody has verified who asks.")
    query: str | None = Field(None, pattern=EXTERNAL_ID, description="An id, or an external id, whole.")

    def filter(self) -> Filter:
        told = self.model_dump(include=set(FilterQuery.model_fields))
        return Filter.model_validate({**told, "verified": {"yes": True, "no": False, "any": None}[self.verified]})


class ListQuery(FilterQuery):
    """A filter and a page."""

    limit: int = Field(50, ge=1, le=500)
    after: str | None = Field(None, max_length=200, pattern=r"^[A-Za-z0-9_-]+$")
    newest_first: Truth = False


@serve(routes, "file_request", response_model=RequestOut)
def file_request(body: FilingBody, here: Here, actor: Asker, response: Response) -> RequestOut:
    """The same subject and scope while one is open: the new request is closed at once as its duplicate."""
    request = here.service.desk.file(actor, body.filing())
    response.headers["Location"] = f"/v1/requests/{request.id}"
    return RequestOut.of(request, actor)


@serve(routes, "list_requests", response_model=RequestPage)
def list_requests(
    query: Annotated[ListQuery, Query()], here: Here, actor: Asker, request: Request, response: Response
) -> RequestPage:
    """The earliest due date first. What nobody has verified is left out unless it is asked for."""
    page = Page(limit=query.limit, after=query.after, newest_first=query.newest_first)
    listing = here.service.desk.list(actor, query.filter(), page)
    link(request, response, listing.next)
    items = [RequestOut.of(one, actor) for one in listing.items]
    return RequestPage(items=items, next=listing.next, total=listing.total)


def link(request: Request, response: Response, after: str | None) -> None:
    """The header `Link` to the next page, with the same parameters."""
    if after is not None:
        kept = [(name, value) for name, value in request.query_params.multi_items() if name != "after"]
        response.headers["Link"] = f'<{request.url.path}?{urlencode([*kept, ("after", after)])}>; rel="next"'


@serve(routes, "get_request", response_model=RequestOut)
def get_request(request_id: RequestId, here: Here, actor: Asker) -> RequestOut:
    return RequestOut.of(here.service.desk.get(actor, request_id), actor)


@serve(routes, "get_history", response_model=list[EventOut])
def get_history(request_id: RequestId, here: Here, actor: Asker) -> list[EventOut]:
    """The first event first."""
    staff = actor.role != "subject"
    return [
        EventOut(
            id=event.id,
            at=event.at,
            kind=event.kind,
            from_status=event.from_status,
            to_status=event.to_status,
            actor=event.actor if staff else None,
            detail=dict(event.detail) if staff else {},
        )
        for event in here.service.desk.history(actor, request_id)
    ]


@serve(routes, "get_layers", response_model=list[LayerOut])
def get_layers(request_id: RequestId, here: Here, actor: Asker) -> list[LayerOut]:
    """Every model, store and data set that the request touches, with how far it is."""
    staff = actor.role != "subject"
    return [
        LayerOut(
            target=layer.target,
            stage=layer.stage,
            kind=layer.kind,
            status=layer.status,
            rows=layer.rows,
            not_before=layer.not_before,
            started_at=layer.started_at,
            ended_at=layer.ended_at,
            batch_id=layer.batch_id if staff else None,
            outcome=dict(layer.outcome) if staff else {},
            has_certificate=layer.certificate is not None,
        )
        for layer in here.service.desk.layers(actor, request_id)
    ]


@serve(routes, "get_exposure", response_model=list[ExposedOut])
def get_exposure(request_id: RequestId, here: Here, actor: Asker) -> list[ExposedOut]:
    """From the receipt on: in force, suppressed, approximately gone, gone."""
    told = here.service.desk.exposure(actor, request_id)
    return [ExposedOut.model_validate(one.__dict__) for one in told]


@serve(routes, "estimate_request", response_model=EstimateOut)
def estimate_request(request_id: RequestId, here: Here, actor: Asker) -> EstimateOut:
    """A dry run of the approval: targets, time, cost now, batched, at the next window; what is out of scope."""
    return EstimateOut.model_validate(here.service.desk.estimate(actor, request_id))
