"""The control plane's words as people read them, and times, spans and sums as text."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from markupsafe import Markup, escape

STATUS: Mapping[str, str] = {
    "received": "Received",
    "verified": "Verified",
    "approved": "Approved",
    "planned": "Planned",
    "running": "Running",
    "evaluated": "Evaluated",
    "fulfilled": "Fulfilled",
    "denied": "Denied",
    "cancelled": "Cancelled",
    "failed": "Failed",
    "paused": "On hold",
}
STATUS_MEANS: Mapping[str, str] = {
    "received": "Nobody has verified yet who asks.",
    "verified": "It waits for an approver.",
    "approved": "The work will be planned in a moment.",
    "planned": "The work waits for its time.",
    "running": "The work is under way.",
    "evaluated": "What was done has been checked.",
    "fulfilled": "Everything that was to be done is done.",
    "denied": "It was refused.",
    "cancelled": "It was taken back.",
    "failed": "A step failed. What was done before stays done.",
    "paused": "A legal hold: nothing is erased until it is released. The deadline goes on.",
}
SLA: Mapping[str, str] = {
    "on_track": "On track",
    "due_soon": "Due soon",
    "overdue": "Overdue",
    "breached": "Breached",
    "kept": "Kept",
    "missed": "Missed",
}
SLA_MEANS: Mapping[str, str] = {
    "on_track": "in time",
    "due_soon": "most of the time is gone",
    "overdue": "late, though an extension in time would have covered it",
    "breached": "late beyond any extension",
    "kept": "closed in time",
    "missed": "closed too late",
}
TONE: Mapping[str, str] = {
    "on_track": "calm",
    "kept": "calm",
    "due_soon": "soon",
    "overdue": "late",
    "breached": "broken",
    "missed": "broken",
}
REASON: Mapping[str, str] = {
    "privacy": "Privacy",
    "copyright": "Copyright",
    "safety": "Safety",
    "correction": "Correction",
    "staleness": "Staleness",
}
DENIAL: Mapping[str, str] = {
    "suspected_fraud": "Suspected fraud",
    "insuf_verification": "Identity not sufficiently verified",
    "no_match": "Nothing matches the subject",
    "claim_not_covered": "The claim is not covered",
    "outside_jurisdiction": "Outside the jurisdiction",
    "too_many_requests": "Too many requests",
    "other": "Another reason",
}
GUARANTEE: Mapping[str, str] = {
    "exact": "Exact",
    "certified": "Certified",
    "empirical": "Empirical",
    "suppressed": "Suppressed",
}
SCOPE: Mapping[str, str] = {
    "owner": "everything of one person",
    "records": "some records of one person",
    "concept": "a concept",
    "behaviour": "a behaviour",
}
STAGE: Mapping[str, str] = {"suppress": "Suppress", "approximate": "Approximate", "exact": "Exact"}
LAYER: Mapping[str, str] = {
    "pending": "Waiting",
    "running": "Running",
    "done": "Done",
    "already": "Already gone",
    "failed": "Failed",
    "out_of_scope": "Out of scope",
}
EXPOSURE: Mapping[str, str] = {
    "in_force": "in force",
    "suppressed": "suppressed",
    "approximate": "approximately gone",
    "gone": "gone",
}
RULE: Mapping[str, str] = {
    "now": "Now, alone",
    "batched": "Batched",
    "periodic": "At the next retraining",
    "escalation": "Step by step",
}
RULE_MEANS: Mapping[str, str] = {
    "now": "at once, sharing its runs with nobody",
    "batched": "with others, as late as is safe",
    "periodic": "with others, at the next window",
    "escalation": "suppressed at once, approximately gone soon, exactly gone at the next window",
}
EVENT: Mapping[str, str] = {
    "filed": "Filed",
    "verified": "Identity verified",
    "approved": "Approved",
    "approved_by_one": "Approved by one; a second approver must agree",
    "denied": "Denied",
    "cancelled": "Cancelled",
    "duplicate": "Closed as a duplicate",
    "extended": "Extended",
    "held": "Put on hold",
    "released": "Released from hold",
    "retried": "To be tried again",
    "planned": "Planned",
    "not_planned": "Could not be planned",
    "begun": "Work begun",
    "evaluated": "Checked",
    "fulfilled": "Fulfilled",
    "failed": "A step failed",
    "finalised_by_hand": "Closed by hand",
}
OUTCOME: Mapping[str, str] = {"pass": "Passed", "fail": "Failed", "inconclusive": "Inconclusive"}
ROLE: Mapping[str, str] = {
    "subject": "Subject",
    "operator": "Operator",
    "approver": "Approver",
    "auditor": "Auditor",
}


def plain(word: str) -> str:
    """A word that no table has: with spaces and a capital."""
    text = word.replace("_", " ")
    return text[:1].upper() + text[1:]


def day(at: Any) -> str:
    """2 Nov 2026."""
    return f"{at.day} {at:%b %Y}"


def moment(at: datetime | None) -> Markup | str:
    """2 Nov 2026, 09:00 UTC, as an element that machines read too."""
    if at is None:
        return "–"
    at = at.astimezone(UTC)
    return Markup('<time datetime="{}">{}, {} UTC</time>').format(
        f"{at:%Y-%m-%dT%H:%M:%SZ}", day(at), f"{at:%H:%M}"
    )  # fmt: skip


def end_of(due: datetime, zone: str) -> tuple[str, str]:
    """A due moment as people say it: (2 Dec 2026, 24:00 CET) where a day ends with it, else (2 Dec 2026, 15:30 CET).

    A due moment is the first at which a request is late; the midnight that begins a day is the end of the day before.
    """
    local = due.astimezone(ZoneInfo(zone))
    if (local.hour, local.minute, local.second) == (0, 0, 0):
        before = due.astimezone(UTC) - timedelta(seconds=1)
        last = before.astimezone(ZoneInfo(zone))
        return day(last), f"24:00 {_zone(last)}"
    return day(local), f"{local:%H:%M} {_zone(local)}"


def _zone(at: datetime) -> str:
    name = at.tzname() or "UTC"
    return name if name[:1].isalpha() else f"UTC{name}"


def due(at: datetime, zone: str) -> Markup:
    """A due moment on one line."""
    date, time = end_of(at, zone)
    return Markup('<time datetime="{}">{}, {}</time>').format(f"{at:%Y-%m-%dT%H:%M:%SZ}", date, time)


def distance(at: datetime, now: datetime) -> str:
    """How far away a due moment is: in 12 days, 3 hours late."""
    late = now >= at
    text = span(abs((at - now).total_seconds()))
    return f"{text} late" if late else f"in {text}"


def span(seconds: float) -> str:
    """A length of time, with as much precision as is of use."""
    if seconds < 1:
        return "under 1 second"
    for size, name in ((86400.0, "day"), (3600.0, "hour"), (60.0, "minute"), (1.0, "second")):
        if seconds >= size:
            number = seconds / size
            # two days and a half are not two days
            text = f"{number:.1f}".removesuffix(".0") if number < 10 and size > 1 else f"{number:.0f}"
            return f"{text} {name}" + ("" if text == "1" else "s")
    raise AssertionError


def number(value: float) -> str:
    """With thin spaces between thousands, as in the reports."""
    return f"{value:,.0f}".replace(",", "\u2009") if abs(value) >= 1000 else f"{value:g}"


def share(value: float) -> str:
    """A share of 1 in per cent; small ones are not made nothing."""
    if 0 < value < 0.0001:
        return "under 0.01 %"
    return f"{100 * value:.2f}".rstrip("0").rstrip(".") + " %"


def money(value: float, currency: str) -> str:
    return f"{value:,.2f} {currency}".replace(",", "\u2009")


def plural(count: int, one: str, many: str | None = None) -> str:
    """1 request, 2 requests."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def badge(sla: str) -> Markup:
    """How a request stands: the word, in a colour that says the same."""
    return Markup('<span class="badge {}">{}</span>').format(TONE[sla], SLA[sla])


def chip(status: str) -> Markup:
    """The state of a request."""
    return Markup('<span class="chip is-{}">{}</span>').format(status, STATUS[status])


def short(identifier: str | None) -> Markup | str:
    """An id that may be broken anywhere."""
    if identifier is None:
        return "–"
    return Markup('<code class="id">{}</code>').format(escape(identifier))
