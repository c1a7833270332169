"""Filing a request: the form, and what it comes to."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError
from starlette.responses import Response

from expunge.errors import ExpungeError, NotAllowed, RequestError, TooMany
from expunge.service.dashboard import wording
from expunge.service.dashboard.flash import Flash
from expunge.service.dashboard.frame import PageOf, Visit
from expunge.service.deadlines import due_at
from expunge.service.entities import Filing
from expunge.service.words import REASONS, STRENGTH

SCOPES = ("owner", "records", "concept", "behaviour")
# What a form shows again when it was not taken. An identity and what must not be told are typed again.
KEPT = ("reason", "regime", "least_guarantee", "kind", "about", "external_id", "received_on", "verified", "targets")
NAMES = {
    "identity": "the identity",
    "external_id": "your own reference",
    "scope": "what must go",
    "scope.about": "the id of the description",
    "scope.records": "the record ids",
    "received_at": "the day of receipt",
    "regime": "the regime",
}


def ask(visit: Visit) -> Response:
    return _form(visit, {**dict.fromkeys(KEPT, ""), "targets": []}, [])


def _form(visit: Visit, sent: Mapping[str, Any], wrong: list[str], *, status: int = 200) -> Response:
    policy = visit.service.policy
    return visit.page(
        "file.html.j2",
        status=status,
        sent=sent,
        wrong=wrong,
        reasons=REASONS,
        scopes=SCOPES,
        guarantees=sorted(STRENGTH, key=lambda word: -STRENGTH[word]),
        regimes=[
            (name, wording.end_of(due_at(visit.now, regime), regime.zone)) for name, regime in policy.regimes.items()
        ],
        default_regime=policy.default_regime,
        targets=visit.service.registry.targets() if visit.may("see_registry") else [],
        today=visit.now.date(),
    )


def file(visit: Visit) -> Response:
    sent: dict[str, Any] = {name: visit.sent(name) for name in KEPT if name != "targets"}
    sent["targets"] = visit.sent_all("targets")
    try:
        filing = _filing(visit)
        request = visit.service.desk.file(visit.actor, filing)
    except ValidationError as error:
        return _form(visit, sent, _explained(error), status=422)
    except (NotAllowed, TooMany):
        raise
    except ExpungeError as error:
        status = getattr(error, "status", 422)
        return _form(visit, sent, [f"{error.cause}. {error.remedy}."], status=status)
    if request.duplicate_of is not None:
        text = "Closed at once as a duplicate: the same subject and scope have an open request."
        return visit.go(f"/requests/{request.id}", Flash(text=text, tone="mixed"))
    date, time = wording.end_of(request.due_at, visit.zone(request.regime))
    return visit.go(f"/requests/{request.id}", Flash(text=f"Filed. It is due by {date}, {time}."))


def _filing(visit: Visit) -> Filing:
    """
    Raises:
        ValidationError, RequestError: a field is wrong, or they do not fit together.
    """
    kind = visit.sent("kind") or "owner"
    told: list[dict[str, tuple[str, ...]]] = [{"answer": (line,)} for line in visit.sent_lines("answers")]
    for line in visit.sent_lines("questions"):
        words = tuple(word.strip() for word in line.split(",") if word.strip())
        told.append({"question": words})
    return Filing.model_validate(
        {
            "identity": visit.sent("identity") or None,
            "reason": visit.sent("reason") or "privacy",
            "regime": visit.sent("regime") or None,
            "scope": {
                "kind": kind,
                "records": tuple(visit.sent_lines("records")) if kind == "records" else (),
                "about": (visit.sent("about") or None) if kind in ("concept", "behaviour") else None,
                "targets": tuple(visit.sent_all("targets")),
            },
            "least_guarantee": visit.sent("least_guarantee") or "exact",
            "external_id": visit.sent("external_id") or None,
            "tell_not": tuple(told),
            "verified": visit.sent("verified") == "yes",
            "received_at": _received(visit.sent("received_on"), visit.now),
        }
    )


def _received(text: str, now: datetime) -> datetime | None:
    """The beginning of the day (UTC) on which it reached the house, the earliest it can have been; today: now."""
    if not text:
        return None
    try:
        day = datetime.fromisoformat(text).date()
    except ValueError:
        raise RequestError("the day of receipt is no date", "Write it as 2026-12-31") from None
    if day == now.date():
        return None
    if day > now.date() or day.year < 2000:
        raise RequestError("the day of receipt lies in the future, or long ago", "Give the day on which it came")
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _explained(error: ValidationError) -> list[str]:
    """What is wrong, by the names on the form; nothing of what was typed."""
    told = []
    for item in error.errors(include_url=False, include_input=False):
        where = ".".join(str(step) for step in item["loc"])
        name = NAMES.get(where) or NAMES.get(where.split(".")[0]) or where.replace("_", " ")
        if item["type"] == "string_pattern_mismatch":
            why = "begins with a letter or digit, and has letters, digits and . _ : / - only"
        else:
            why = item["msg"].removeprefix("Value error, ")
        told.append(f"{name}: {why}." if name else f"{why[:1].upper()}{why[1:]}.")
    return list(dict.fromkeys(told))


PAGES = (
    PageOf("GET", "/requests/new", "file", ask),
    PageOf("POST", "/requests/new", "file", file),
)
