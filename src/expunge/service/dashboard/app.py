"""The pages of a service as an ASGI application."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from expunge.errors import ExpungeError, NotAllowed, NotFound, NotSignedIn, RequestError, RunError, ServiceError
from expunge.request import explain
from expunge.service.access.gate import Access
from expunge.service.access.limits import TooOften
from expunge.service.access.sessions import check_csrf
from expunge.service.dashboard import (
    bulk,
    certificates,
    deciding,
    due_dates,
    filing,
    models,
    queue,
    readings,
    sign_in,
    single,
)
from expunge.service.dashboard.frame import PageOf, Pages, Visit, check_text
from expunge.service.dashboard.render import static_files
from expunge.service.dashboard.shell import PageShell, TooLarge
from expunge.service.permissions import check
from expunge.service.service import Service

log = logging.getLogger("expunge.pages")
YEAR = "public, max-age=31536000, immutable"

# in this order: a fixed path stands before one with an id in its place
PAGES: tuple[PageOf, ...] = (
    *sign_in.PAGES,
    *queue.PAGES,
    *bulk.PAGES,
    *filing.PAGES,
    *deciding.PAGES,
    *single.PAGES,
    *due_dates.PAGES,
    *models.PAGES,
    *certificates.PAGES,
    *readings.PAGES,
)


def create_pages(service: Service, access: Access | None = None) -> Starlette:
    """The pages, to be mounted at any path.

    Args:
        access: the way in, if an API shares it; by default one of its own.
    """
    access = access or Access(service.database, service.identities, service.clock)
    pages = Pages(service=service, access=access)
    routes = [Route("/static/{name}", _static, methods=["GET"])]
    routes += [Route(page.path, _answering(pages, page), methods=[page.method]) for page in PAGES]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(PageShell, body_bytes=access.part.limits.body_bytes)],
        exception_handlers={HTTPException: _outside(pages)},
    )
    app.router.redirect_slashes = False
    return app


async def _static(request: Request) -> Response:
    found = static_files().get(request.path_params["name"])
    if found is None:
        raise HTTPException(404)
    # under another version than this one's it may be kept for a while by whoever asked, and for no longer
    kept = YEAR if request.query_params.get("v") == found.version else "no-cache"
    return Response(found.content, media_type=found.media, headers={"Cache-Control": kept})


def _answering(pages: Pages, page: PageOf) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    async def answer(request: Request) -> Response:
        visit = Visit(pages=pages, request=request, session=None)
        try:
            if page.method == "POST":
                _same_site(request)
                visit.form = await _form(request)
            return await run_in_threadpool(_guarded, page, visit)
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception as error:
            told = error
            return await run_in_threadpool(problem, visit, told)
        finally:
            if visit.form is not None:
                await visit.form.close()

    return answer


def _guarded(page: PageOf, visit: Visit) -> Response:
    """The page, for whoever may see it."""
    check_text(visit.request.query_params.multi_items())
    check_text(visit.sent_items())
    access = visit.pages.access
    cookie = visit.request.cookies.get(access.sessions.cookie)
    if page.permission is None:
        access.limits.addresses.take(visit.address)
        return page.handle(visit)
    try:
        visit.session = access.session(cookie, visit.address)
    except NotSignedIn:
        if page.method == "GET":
            return visit.to_sign_in()
        raise
    try:
        check(visit.actor, page.permission)
        if page.method == "POST":
            check_csrf(visit.session, visit.sent("csrf"))
    except NotAllowed:
        visit.pages.trail.tell(visit.actor, f"page_{page.permission}", None, "refused: NotAllowed")
        raise
    return page.handle(visit)


async def _form(request: Request) -> Any:
    """
    Raises:
        RequestError: it is no form.
    """
    try:
        return await request.form(max_files=4, max_fields=1000)
    except (MultiPartException, HTTPException, ValueError, LookupError):
        raise RequestError("what was sent is no form", "Send it from the page") from None


def _same_site(request: Request) -> None:
    """A form comes from a page of ours; browsers say where one comes from, and no page can make them lie.

    Raises:
        NotAllowed.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        ours = site in ("same-origin", "none")
    else:
        ours = origin is None or urlsplit(origin).netloc == request.headers.get("host")
    if not ours:
        raise NotAllowed("the form was sent from another site", "Send it from the page itself")


def problem(visit: Visit, error: Exception) -> Response:
    """Any error as a page: what happened, and what can be done."""
    status, cause, remedy, headers = _told(error, staff=visit.session is not None and visit.staff)
    if visit.session is None:
        cookie = visit.request.cookies.get(visit.pages.access.sessions.cookie)
        try:  # so that the page of an error has its navigation
            visit.session = visit.pages.access.sessions.find(cookie) if cookie else None
        except Exception:
            visit.session = None
    template = "_error.html.j2" if visit.partial else "error.html.j2"
    answer = visit.page(template, status=status, status_code=status, cause=cause, remedy=remedy)
    answer.headers.update(headers)
    return answer


def _told(error: Exception, *, staff: bool) -> tuple[int, str, str, dict[str, str]]:
    """(status, cause, remedy, headers)."""
    headers = {"Retry-After": str(error.seconds)} if isinstance(error, TooOften) else {}
    if isinstance(error, ServiceError):
        remedy = "Sign in again" if isinstance(error, NotSignedIn) else error.remedy
        return error.status, error.cause, remedy, headers
    if isinstance(error, ValidationError):
        return 422, explain(error, []), "Correct it, and send it again", headers
    if isinstance(error, RunError):
        cause = error.cause if staff else "this cannot be done now"
        return 503, cause, error.remedy if staff else "Try again later", headers
    if isinstance(error, ExpungeError):
        return 422, error.cause, error.remedy, headers
    if isinstance(error, TooLarge):
        return 413, "more was sent than is taken", "Send less at once", headers
    if isinstance(error, (OperationalError, InterfaceError, PoolTimeout)):
        return 503, "the database does not answer", "Try again in a moment", {"Retry-After": "5"}
    frame = traceback.extract_tb(error.__traceback__)[-1]  # never its words: they may quote what was sent
    log.error("%s at %s:%s", type(error).__name__, frame.filename, frame.lineno)
    return 500, "the page failed", "Try again; whoever runs the service finds the cause in its log", headers


def _outside(pages: Pages) -> Callable[[Request, Exception], Coroutine[Any, Any, Response]]:
    """For addresses that are no page."""

    async def answer(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        visit = Visit(pages=pages, request=request, session=None)
        if status == 404:
            return await run_in_threadpool(problem, visit, NotFound("page"))
        return Response(status_code=status, headers=dict(getattr(error, "headers", None) or {}))

    return answer
