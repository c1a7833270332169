"""The API of a service as an ASGI application."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import Receive, Scope, Send

from expunge.errors import ExpungeError
from expunge.service.access.gate import Access
from expunge.service.api import audit, decisions, evidence, health, keys, many, opendsr, registry, requests, webhooks
from expunge.service.api.context import Context
from expunge.service.api.document import document, known_names
from expunge.service.api.operations import OPERATIONS
from expunge.service.api.problems import Problem, field_problems, problem_of, texts
from expunge.service.api.settings import ApiPart
from expunge.service.api.shell import Shell
from expunge.service.service import Service

PATHS = frozenset(o.path for o in OPERATIONS)
# in this order: a fixed path stands before one with an id in its place
ROUTERS = (
    many.routes,
    requests.routes,
    decisions.routes,
    registry.routes,
    evidence.routes,
    webhooks.routes,
    keys.routes,
    audit.routes,
    opendsr.routes,
    health.routes,
)


def create_api(service: Service, part: ApiPart | None = None, *, access: Access | None = None) -> FastAPI:
    """The API of a service.

    Args:
        part: settings. access: the way in, if pages share it; by default one of its own.
    """
    part = part or ApiPart()
    access = access or Access(service.database, service.identities, service.clock, part.access)
    context = Context(service=service, access=access, part=part)
    app = FastAPI(title=part.title, version="1", docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.context = context
    app.add_middleware(Shell, body_bytes=part.access.limits.body_bytes, meter=context.meter)
    for routes in ROUTERS:
        app.include_router(routes)
    for prefix in ("/v1", "/opendsr"):  # whatever is mounted behind the API answers for nothing below these
        app.mount(prefix, _nothing_there)
    app.openapi = lambda: document(app)  # type: ignore[method-assign]
    _tell_problems(app)
    return app


async def _nothing_there(scope: Scope, receive: Receive, send: Send) -> None:
    """Of a path that no endpoint has, or none with this method."""
    await _no_such(scope["path"]).response()(scope, receive, send)


def _no_such(path: str) -> Problem:
    whole = {o.method for o in OPERATIONS if o.path == path}
    methods = whole or {o.method for o in OPERATIONS if compile_path(o.path)[0].match(path)}
    if not methods:
        return Problem(404, "not-found", "There is no such address.")
    return Problem(405, "not-this-method", "Not with this method.", headers={"Allow": ", ".join(sorted(methods))})


def _tell_problems(app: FastAPI) -> None:
    """Every error in one form, and none repeats what was sent."""

    @app.exception_handler(Problem)
    async def own(_: Request, problem: Problem) -> Response:
        return problem.response()

    @app.exception_handler(ExpungeError)
    async def refused(request: Request, error: ExpungeError) -> Response:
        return problem_of(error, await _sent(request), known_names(app)).response()

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        found = error.errors()
        if any(one["loc"][:1] == ("path",) for one in found):
            if request.scope["path"] in PATHS:  # it is an address of its own, with other methods
                return _no_such(request.scope["path"]).response()
            # an id that cannot be one is not there, like any other that is not
            return Problem(
                404, "not-found", "There is no such thing. Check the id, and that you may see it."
            ).response()
        problems = field_problems(found, known_names(app))
        return Problem(422, "invalid-request", "The request is not as the document says.", errors=problems).response()

    @app.exception_handler(ValidationError)
    async def contradictory(_: Request, error: ValidationError) -> Response:
        found = [{**one, "loc": ("body", *one["loc"])} for one in error.errors(include_url=False)]
        problems = field_problems(found, known_names(app))
        return Problem(
            422, "request-error", "The parts of the request do not fit together.", errors=problems
        ).response()

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        if error.status_code in (404, 405):
            return _no_such(request.scope["path"]).response()
        headers = dict(error.headers or {})
        return Problem(error.status_code, "bad-request", "The request cannot be read.", headers=headers).response()

    @app.exception_handler(OperationalError)
    @app.exception_handler(InterfaceError)
    @app.exception_handler(PoolTimeout)
    async def database(_: Request, error: Exception) -> Response:
        detail = "The database does not answer. Try again in a moment."
        return Problem(503, "not-available", detail, headers={"Retry-After": "5"}).response()


async def _sent(request: Request) -> list[str]:
    """Every text that came with a request."""

    def every() -> Iterator[str]:
        yield from (str(value) for value in request.path_params.values())
        yield from request.query_params.values()

    told: list[str] = list(every())
    try:
        body: Any = await request.json()
    except (ValueError, RecursionError):
        return told
    return [*told, *texts(body)]
