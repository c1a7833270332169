"""The registry: models, stores and data sets, what was made from what, and registering another."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from expunge.errors import ExpungeError, RequestError
from expunge.service.dashboard import lineage_picture
from expunge.service.dashboard.flash import Flash
from expunge.service.dashboard.frame import PageOf, Visit
from expunge.service.planning import run_time
from expunge.service.registry import Target
from expunge.service.words import STAGES, Stage

FIELDS = ("id", "name", "version", "kind", "location", "parent", "options")
LONGEST = {"name": 120, "version": 60, "location": 1000, "kind": 40}
KINDS = {
    "learner": "learner: the folder of `expunge fit --keys`; forgets exactly, or within a bound",
    "trained": "trained: the YAML of an `expunge run` request; forgets approximately",
    "dataset": "dataset: a file of rows (CSV, JSON lines, Parquet); rows are taken out",
    "box": "box: the YAML of an `expunge serve-model` box; suppresses at once",
}


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A target as the page shows it.

    Args:
        stages: (stage, the guarantee that it may reach, seconds of its runs (p95), whether these were measured).
    """

    target: Target
    rows: int | None
    stages: tuple[tuple[Stage, str, float, bool], ...]
    sources: tuple[str, ...]
    served: bool


def models(visit: Visit) -> Response:
    registry = visit.service.registry
    every = registry.targets(retired=True)
    alive = [target for target in every if target.retired_at is None]
    return visit.page(
        "models.html.j2",
        shown=[_shown(visit, target) for target in alive],
        retired=[target for target in every if target.retired_at is not None],
        picture=lineage_picture.picture(registry.lineage(), registry.kinds),
    )


def _shown(visit: Visit, target: Target) -> Shown:
    reaches = target.options.get("guarantee", {})
    rows = target.options.get("rows")
    return Shown(
        target=target,
        rows=int(rows) if isinstance(rows, int) and target.kind != "box" else None,
        stages=tuple((stage, str(reaches[stage]), *run_time(target, stage)) for stage in STAGES if stage in reaches),
        sources=tuple(dict.fromkeys((*target.made_from, *([target.parent] if target.parent else [])))),
        served=target.kind in visit.service.registry.kinds,
    )


def ask(visit: Visit) -> Response:
    return _form(visit, dict.fromkeys(FIELDS, "") | {"made_from": []}, "")


def _form(visit: Visit, sent: dict[str, Any], wrong: str, *, status: int = 200) -> Response:
    registry = visit.service.registry
    return visit.page(
        "register.html.j2",
        status=status,
        sent=sent,
        wrong=wrong,
        kinds=[(kind, KINDS.get(kind, kind)) for kind in registry.kinds],
        targets=registry.targets(),
    )


def register(visit: Visit) -> Response:
    sent: dict[str, Any] = {name: visit.sent(name) for name in FIELDS}
    sent["made_from"] = visit.sent_all("made_from")
    try:
        target = visit.service.registry.register(_target(sent, visit.sent("other")))
    except ExpungeError as error:
        sent["other"] = visit.sent("other")
        return _form(visit, sent, f"{error.cause}. {error.remedy}.", status=getattr(error, "status", 422))
    visit.pages.trail.tell(visit.actor, "register_target", f"target:{target.id}")
    return visit.go(f"/models#t-{target.id}", Flash(text=f"{target.id} is registered, and who is in it is indexed."))


def _target(sent: dict[str, Any], other: str) -> Target:
    """
    Raises:
        RequestError: a field is missing, too long, or the options are no JSON object.
    """
    kind = other if sent["kind"] == "other" else sent["kind"]
    told = {**sent, "kind": kind}
    for name in ("id", "name", "version", "kind", "location"):
        if not told[name]:
            raise RequestError(f"the field {name} is empty", "Fill it in")
        if len(told[name]) > LONGEST.get(name, 1000) or not told[name].isprintable():
            raise RequestError(f"the field {name} is too long, or holds control characters", "Shorten it")
    try:
        options = json.loads(sent["options"]) if sent["options"] else {}
    except (ValueError, RecursionError):
        options = None
    if not isinstance(options, dict):
        raise RequestError("the options are no JSON object", 'Write them as {"owner": "user_id"}')
    return Target(
        id=told["id"],
        name=told["name"],
        version=told["version"],
        kind=kind,
        location=told["location"],
        parent=told["parent"] or None,
        made_from=tuple(told["made_from"]),
        options=options,
    )


def reindex(visit: Visit) -> Response:
    target_id = visit.asked_id("target_id", "model or store")
    visit.service.registry.reindex(target_id)
    visit.pages.trail.tell(visit.actor, "reindex_target", f"target:{target_id}")
    return visit.go(f"/models#t-{target_id}", Flash(text=f"Who is in {target_id} has been read again."))


def retire(visit: Visit) -> Response:
    target_id = visit.asked_id("target_id", "model or store")
    visit.service.registry.retire(target_id)
    visit.pages.trail.tell(visit.actor, "retire_target", f"target:{target_id}")
    return visit.go("/models", Flash(text=f"{target_id} is retired: requests find it no more."))


PAGES = (
    PageOf("GET", "/models", "see_registry", models),
    PageOf("GET", "/models/new", "register", ask),
    PageOf("POST", "/models/new", "register", register),
    PageOf("POST", "/models/{target_id}/reindex", "register", reindex),
    PageOf("POST", "/models/{target_id}/retire", "register", retire),
)
