"""The forms of one request: each is one method of the desk."""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import Response

from expunge.errors import Conflict
from expunge.service.dashboard import wording
from expunge.service.dashboard.actions import ACTIONS, Action, arguments
from expunge.service.dashboard.flash import Flash
from expunge.service.dashboard.frame import PageOf, Visit


def _decide(action: Action) -> Callable[[Visit], Response]:
    def decide(visit: Visit) -> Response:
        """
        Raises:
            Conflict: somebody else changed the request since the page was made.
        """
        desk, request_id = visit.service.desk, visit.asked_id("request_id", "request")
        before = desk.get(visit.actor, request_id)
        if visit.sent("version") != str(before.version):
            raise Conflict("the request has changed since the page was made", "Go back, load it again, and decide anew")
        told = arguments(action, visit.sent)
        request = getattr(desk, action.name)(visit.actor, request_id, **told)
        text = f"The request is {wording.STATUS[request.status].lower()}."
        if action.name == "extend":
            text = "The request is extended."
        elif action.name == "approve" and request.status == "verified":
            text = "You have approved it. Much of a model would go, so a second approver must agree."
        return visit.go(f"/requests/{request.id}", Flash(text=text))

    return decide


PAGES = tuple(PageOf("POST", f"/requests/{{request_id}}/{a.name}", a.name, _decide(a)) for a in ACTIONS)
