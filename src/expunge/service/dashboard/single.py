"""One request: how it stands, what is planned, what was done, what can be done now."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from starlette.responses import Response

from expunge.errors import NotFound
from expunge.service.clock import unstamp
from expunge.service.dashboard import exposure_picture, wording
from expunge.service.dashboard.actions import ACTIONS, Action, barred, possible
from expunge.service.dashboard.frame import PageOf, Visit
from expunge.service.entities import Event, Layer, Request
from expunge.service.policy import RULES
from expunge.service.webhooks.messages import certificate_file
from expunge.service.words import DENIAL_REASONS, STAGES, Status

WAY: tuple[Status, ...] = ("received", "verified", "approved", "planned", "running", "evaluated", "fulfilled")
MOVING: frozenset[Status] = frozenset({"approved", "planned", "running", "evaluated"})
BEFORE_WORK: frozenset[Status] = frozenset({"received", "verified", "approved", "planned", "failed", "paused"})
REFRESH_SECONDS = 3


@dataclass(frozen=True, kw_only=True)
class Offer:
    """An action that this visitor may see; why: it is not possible for them, nothing where it is."""

    action: Action
    why: str


def single(visit: Visit) -> Response:
    request = visit.service.desk.get(visit.actor, visit.asked_id("request_id", "request"))
    return visit.page(
        "request.html.j2",
        offers=offers(visit, request),
        elsewhere=elsewhere(visit, request),
        denials=DENIAL_REASONS,
        estimate=estimate_of(visit, request),
        rules=RULES,
        **living(visit, request),
    )


def live(visit: Visit) -> Response:
    """The part that changes by itself; nothing (204) while it is as `seen`."""
    request = visit.service.desk.get(visit.actor, visit.asked_id("request_id", "request"))
    told = living(visit, request)
    if visit.request.query_params.get("seen") == told["seen"]:
        return Response(status_code=204)
    told["moved"] = visit.request.query_params.get("status") != request.status
    return visit.page("_live.html.j2", **told)


def living(visit: Visit, request: Request) -> dict[str, Any]:
    """What the living part is made from."""
    desk = visit.service.desk
    events = desk.history(visit.actor, request.id)
    layers = sorted(
        desk.layers(visit.actor, request.id), key=lambda one: (one.target, STAGES.index(one.stage))
    )  # fmt: skip
    exposed = desk.exposure(visit.actor, request.id) if layers else []
    state = repr((request.version, len(events), [(y.target, y.stage, y.status, y.batch_id) for y in layers]))
    return {
        "request": request,
        "way": way(request, events),
        "history": [_line(visit, event) for event in events],
        "layers": layers,
        "exposed": exposed,
        "pictures": [
            (name, exposure_picture.picture(exposed, request, visit.now, width))
            for name, width in (("wide", 860.0), ("narrow", 330.0))
        ]
        if exposed
        else [],
        "distance": wording.distance(request.due_at, visit.now),
        "staff": visit.staff,
        "moving": request.status in MOVING,
        "moved": False,
        "seen": hashlib.sha256(state.encode()).hexdigest()[:16],
        "refresh": REFRESH_SECONDS,
    }


def way(request: Request, events: Sequence[Event]) -> list[tuple[Status, str, datetime | None]]:
    """The states on the way to the end: (state, ``done`` | ``here`` | ``ahead``, when it was reached last)."""
    reached: dict[str, datetime] = {}
    for event in events:
        if event.to_status and event.to_status != event.from_status:
            reached[event.to_status] = event.at
    at = request.paused_from or request.status
    if at in WAY:
        limit = WAY.index(at)
    else:  # failed, denied or cancelled: as far as it had come
        before = [e.from_status for e in events if e.to_status == at and e.from_status in WAY]
        limit = WAY.index(before[-1]) if before else 0
    told: list[tuple[Status, str, datetime | None]] = []
    for index, status in enumerate(WAY):
        kind = "ahead" if index > limit else "here" if status == request.status else "done"
        told.append((status, kind, reached.get(status) if index <= limit else None))
    return told


def _line(visit: Visit, event: Event) -> dict[str, Any]:
    """A line of history; what staff wrote for each other is not told to a subject."""
    if not event.actor:  # the request was minimised
        actor = "somebody"
    elif event.actor == visit.actor.id:
        actor = "you"
    elif event.actor == "system":
        actor = "the service"
    else:
        actor = event.actor if visit.staff else "staff"
    return {
        "at": event.at,
        "what": wording.EVENT.get(event.kind, wording.plain(event.kind)),
        "to": event.to_status if event.to_status != event.from_status else None,
        "actor": actor,
        "detail": _details(event.detail) if visit.staff else [],
    }


def _details(detail: Mapping[str, Any]) -> list[tuple[str, str]]:
    told = []
    for name, value in detail.items():
        if name == "reason" and value in wording.DENIAL:
            value = wording.DENIAL[value]
        if isinstance(value, list):
            value = "; ".join(str(one) for one in value)
        if name == "share" and isinstance(value, float):
            value = wording.share(value)
        if value not in ("", None):
            told.append((wording.plain(name), str(value)))
    return told


def offers(visit: Visit, request: Request) -> list[Offer]:
    """What this visitor can do now."""
    policy = visit.service.policy
    return [
        Offer(action=action, why=barred(action.name, request, policy, visit.actor.id))
        for action in ACTIONS
        if visit.may(action.name) and possible(action.name, request, policy, visit.now)
    ]


def elsewhere(visit: Visit, request: Request) -> list[tuple[str, str]]:
    """What others could do now: (action, roles). Subjects are not told who does what in the house."""
    from expunge.service.permissions import ALLOWED

    if not visit.staff:
        return []
    return [
        (action.label.lower(), " or ".join(f"an {role}" for role in sorted(ALLOWED[action.name] - {"subject"})))
        for action in ACTIONS
        if not visit.may(action.name) and possible(action.name, request, visit.service.policy, visit.now)
    ]


def estimate_of(visit: Visit, request: Request) -> dict[str, Any] | None:
    """What the work would touch, take and cost: as of now while it has not begun, else as it was approved."""
    if not visit.may("estimate"):
        return None
    if request.status in BEFORE_WORK:
        told: Mapping[str, Any] | None = visit.service.desk.estimate(visit.actor, request.id)
    else:
        told = request.estimate
    if told is None:
        return None
    serving = visit.service.policy.serving
    options = []
    for rule in RULES:
        option = told["options"][rule]
        options.append(
            {
                "rule": rule,
                "chosen": rule == told["rule"],
                "seconds": option["seconds"],
                "cost": wording.money(option["cost"], serving.currency) if serving.cost_per_hour else None,
                "done_by": None if option["done_by"] is None else unstamp(option["done_by"]),
                "in_time": option["in_time"],
                "steps": [{**step, "begins": unstamp(step["begins"])} for step in option["steps"]],
            }
        )
    return {
        "targets": told["targets"],
        "options": options,
        "outside": told["out_of_scope"],
        "refused": told["refused"],
        "at": unstamp(told["at"]),
        "dry": request.status in BEFORE_WORK,
    }


def certificate(visit: Visit) -> Response:
    """A layer's certificate, its bytes as they were signed."""
    request_id = visit.asked_id("request_id", "request")
    target, stage = visit.asked_id("target", "certificate"), visit.asked_id("stage", "certificate")
    layers: Sequence[Layer] = visit.service.desk.layers(visit.actor, request_id)
    paths = [one.certificate for one in layers if one.target == target and one.stage == stage and one.certificate]
    if not paths:
        raise NotFound("certificate")
    content = certificate_file(visit.service.home, paths[0]).read_bytes()
    visit.pages.trail.tell(visit.actor, "get_certificate", request_id)
    name = f'attachment; filename="{request_id}-{target}-{stage}.json"'
    return Response(content, media_type="application/json", headers={"Content-Disposition": name})


PAGES = (
    PageOf("GET", "/requests/{request_id}", "see", single),
    PageOf("GET", "/requests/{request_id}/live", "see", live),
    PageOf("GET", "/requests/{request_id}/certificates/{target}/{stage}", "see_certificate", certificate),
)
