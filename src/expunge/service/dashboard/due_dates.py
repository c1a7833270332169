"""The calendar of due dates: how many open requests must be done by the end of each day of a month."""

from __future__ import annotations

from calendar import Calendar
from dataclasses import dataclass
from datetime import date, timedelta

from starlette.responses import Response

from expunge.errors import RequestError
from expunge.service.dashboard.asked import due_between, last_day
from expunge.service.dashboard.frame import PageOf, Visit
from expunge.service.deadlines import add_months


@dataclass(frozen=True, kw_only=True)
class Day:
    """A cell; level: 0 for none, 1 to 4 by how many compared with the busiest day."""

    day: date
    count: int
    level: int
    inside: bool
    past: bool
    today: bool


def due_dates(visit: Visit) -> Response:
    first = _month(visit.request.query_params.get("month"), visit.now.date())
    last = add_months(first, 1) - timedelta(days=1)
    counts: dict[date, int] = {}
    found = visit.service.desk.due_moments(visit.actor, *due_between(first, last))
    for due, count in found:
        day = last_day(due)
        counts[day] = counts.get(day, 0) + count
    busiest, today = max(counts.values(), default=0), visit.now.date()
    weeks = [
        [
            Day(
                day=day,
                count=counts.get(day, 0),
                level=-(-4 * counts.get(day, 0) // max(busiest, 4)),
                inside=day.month == first.month,
                past=day < today,
                today=day == today,
            )
            for day in week
        ]
        for week in Calendar().monthdatescalendar(first.year, first.month)
    ]
    return visit.page(
        "calendar.html.j2",
        first=first,
        weeks=weeks,
        total=sum(counts.values()),
        busiest=busiest,
        before=add_months(first, -1),
        after=add_months(first, 1),
    )


def _month(text: str | None, today: date) -> date:
    if text is None:
        return today.replace(day=1)
    try:
        first = date.fromisoformat(f"{text}-01")
    except ValueError:
        raise RequestError("that is no month", "Write it as 2026-12") from None
    if not 1971 <= first.year <= 2998:
        raise RequestError("that is no month of our time", "Give a year between 1971 and 2998")
    return first


PAGES = (PageOf("GET", "/calendar", "list", due_dates),)
