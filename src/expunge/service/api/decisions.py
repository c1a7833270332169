"""Decisions on one request."""

from __future__ import annotations

from expunge.service.api.answers import RequestOut
from expunge.service.api.bodies import DenialBody, NoteBody, ReasonBody
from expunge.service.api.context import Asker, Here, router, serve
from expunge.service.api.wire import RequestId

routes = router()


@serve(routes, "verify_request", response_model=RequestOut)
def verify_request(request_id: RequestId, here: Here, actor: Asker) -> RequestOut:
    return RequestOut.of(here.service.desk.verify(actor, request_id), actor)


@serve(routes, "approve_request", response_model=RequestOut)
def approve_request(request_id: RequestId, here: Here, actor: Asker) -> RequestOut:
    """Not by whoever filed it. Where much of a model would go, it takes a second approver."""
    return RequestOut.of(here.service.desk.approve(actor, request_id), actor)


@serve(routes, "deny_request", response_model=RequestOut)
def deny_request(request_id: RequestId, body: DenialBody, here: Here, actor: Asker) -> RequestOut:
    return RequestOut.of(here.service.desk.deny(actor, request_id, body.reason, body.note), actor)


@serve(routes, "cancel_request", response_model=RequestOut)
def cancel_request(request_id: RequestId, here: Here, actor: Asker) -> RequestOut:
    """Until work has begun."""
    return RequestOut.of(here.service.desk.cancel(actor, request_id), actor)


@serve(routes, "extend_request", response_model=RequestOut)
def extend_request(request_id: RequestId, body: ReasonBody, here: Here, actor: Asker) -> RequestOut:
    """Once, before the due date; the subject is told the reason."""
    return RequestOut.of(here.service.desk.extend(actor, request_id, body.reason), actor)


@serve(routes, "hold_request", response_model=RequestOut)
def hold_request(request_id: RequestId, body: ReasonBody, here: Here, actor: Asker) -> RequestOut:
    """Nothing is erased until it is released; the deadline goes on."""
    return RequestOut.of(here.service.desk.hold(actor, request_id, body.reason), actor)


@serve(routes, "release_request", response_model=RequestOut)
def release_request(request_id: RequestId, here: Here, actor: Asker) -> RequestOut:
    return RequestOut.of(here.service.desk.release(actor, request_id), actor)


@serve(routes, "retry_request", response_model=RequestOut)
def retry_request(request_id: RequestId, here: Here, actor: Asker) -> RequestOut:
    """What is done stays done."""
    return RequestOut.of(here.service.desk.retry(actor, request_id), actor)


@serve(routes, "finalise_request", response_model=RequestOut)
def finalise_request(request_id: RequestId, body: NoteBody, here: Here, actor: Asker) -> RequestOut:
    """For what the service cannot do itself; the history says that it was closed by hand."""
    return RequestOut.of(here.service.desk.finalise(actor, request_id, body.note), actor)
