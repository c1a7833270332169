"""What the endpoints work with, and what stands before them: who asks, whether they may, and how often."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from expunge.errors import NotAllowed
from expunge.service.access.gate import UNKNOWN_ADDRESS, Access
from expunge.service.api.idempotency import Idempotency
from expunge.service.api.meter import Meter
from expunge.service.api.operations import BY_ID, Operation
from expunge.service.api.plain import refuse_odd_text
from expunge.service.api.settings import ApiPart
from expunge.service.api.shell import OPERATION
from expunge.service.entities import Actor
from expunge.service.permissions import check
from expunge.service.service import Service
from expunge.service.trail import Trail
from expunge.service.webhooks.endpoints import Webhooks
from expunge.service.webhooks.targets import Rules


@dataclass(frozen=True, kw_only=True)
class Context:
    """Everything an endpoint needs."""

    service: Service
    access: Access
    part: ApiPart
    meter: Meter = field(default_factory=Meter)
    webhooks: Webhooks = field(init=False)
    idempotency: Idempotency = field(init=False)
    trail: Trail = field(init=False)

    def __post_init__(self) -> None:
        parts = (self.service.database, self.service.identities, self.service.clock)
        rules = Rules(development=self.part.development)
        object.__setattr__(self, "webhooks", Webhooks(*parts, rules))
        object.__setattr__(self, "idempotency", Idempotency(*parts))
        object.__setattr__(self, "trail", Trail(self.service.database, self.service.clock))

    def admit(self, operation: Operation, authorization: str | None, address: str) -> Actor | None:
        """Who asks; None where everybody may.

        Raises:
            NotSignedIn, TooOften, NotAllowed: a refusal for the role leaves a line in the trail.
        """
        if operation.permission is None:
            self.access.limits.addresses.take(address)
            return None
        actor = self.access.authenticate(authorization, address)
        try:
            check(actor, operation.permission)
        except NotAllowed:
            self.trail.tell(actor, operation.id, None, "refused: NotAllowed")
            raise
        return actor


def context_of(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


def actor_of(request: Request) -> Actor:
    actor: Actor = request.state.actor
    return actor


Here = Annotated[Context, Depends(context_of)]
Asker = Annotated[Actor, Depends(actor_of)]


class Route(APIRoute):
    """An endpoint of the table. Its key and permission are looked at before its body is."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        operation = BY_ID[str(self.operation_id)]

        async def guarded(request: Request) -> Response:
            request.scope[OPERATION] = operation.id
            context = context_of(request)
            address = request.client.host if request.client else UNKNOWN_ADDRESS
            given = request.headers.get("authorization")
            actor = await run_in_threadpool(context.admit, operation, given, address)
            request.state.actor = actor
            refuse_odd_text(await request.body())
            key = request.headers.get("idempotency-key")
            if key is None or actor is None or not operation.repeats:
                return await handle(request)
            return await context.idempotency.once(actor, key, request, lambda: handle(request))

        return guarded


def router() -> APIRouter:
    return APIRouter(route_class=Route)


def serve(routes: APIRouter, operation_id: str, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The decorator of an endpoint; everything about it that the table knows comes from there."""
    operation = BY_ID[operation_id]
    return routes.api_route(
        operation.path,
        methods=[operation.method],
        operation_id=operation.id,
        status_code=operation.status,
        tags=[operation.tag],
        summary=operation.summary,
        **options,
    )
