"""The audit trail."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import Query, Request, Response
from pydantic import Field

from expunge.service.api.answers import AuditPage, LineOut
from expunge.service.api.context import Asker, Here, router, serve
from expunge.service.api.requests import link
from expunge.service.api.wire import Wire

routes = router()


class TrailQuery(Wire):
    """A page of the trail."""

    limit: int = Field(100, ge=1, le=500)
    after: str | None = Field(None, pattern=r"^[0-9]{1,18}$")
    action: str | None = Field(None, pattern=r"^[a-z_]{1,40}$")


@serve(routes, "read_audit_trail", response_model=AuditPage)
def read_audit_trail(
    query: Annotated[TrailQuery, Query()], here: Here, actor: Asker, request: Request, response: Response
) -> AuditPage:
    """The newest line first: whatever changed something, gave out evidence, or was refused for its role."""
    lines, after = here.trail.lines(actor, limit=query.limit, after=query.after, action=query.action)
    link(request, response, after)
    return AuditPage(items=[LineOut(**asdict(line)) for line in lines], next=after)
