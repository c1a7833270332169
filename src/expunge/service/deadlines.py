"""By when: calendar months as lawyers count them, working days, extension, and how a request stands.

GDPR art. 12(3) and Regulation 1182/71 art. 3: a period of months ends with the last hour of the day of the same date as
the day of the event, or of the month's last day where there is no such date; one that would end on a public holiday,
Sunday or Saturday ends with the next working day. CCPA § 7021: 45 calendar days from the day of receipt.
"""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from expunge.service.policy import Regime
from expunge.service.words import Sla


def add_months(day: date, months: int) -> date:
    """The same date so many months later, or the last day of that month where it has no such date."""
    index = day.month - 1 + months
    year, month = day.year + index // 12, index % 12 + 1
    return date(year, month, min(day.day, monthrange(year, month)[1]))


def is_working(day: date, regime: Regime) -> bool:
    return day.weekday() < 5 and day not in regime.holidays


def last_moment(day: date, regime: Regime) -> datetime:
    """The end of a day in the regime's zone, moved to a working day where it asks for one; aware, UTC."""
    if regime.working_day:
        while not is_working(day, regime):
            day += timedelta(days=1)
    midnight = datetime.combine(day + timedelta(days=1), time(), ZoneInfo(regime.zone))
    return midnight.astimezone(UTC)


def due_at(received: datetime, regime: Regime) -> datetime:
    """The first moment at which a request received then is late; aware, UTC."""
    return last_moment(_end(received, regime), regime)


def extended_due(received: datetime, regime: Regime) -> datetime:
    """The same after the one extension, which is counted from the receipt and not from a moved due date.

    Raises:
        ValueError: the regime has no extension.
    """
    if not regime.extends:
        raise ValueError("the regime has no extension")
    months = (regime.calendar_months or 0) + regime.extension_months
    days = (regime.days or 0) + regime.extension_days
    day = received.astimezone(ZoneInfo(regime.zone)).date()
    return last_moment(add_months(day, months) + timedelta(days=days), regime)


def _end(received: datetime, regime: Regime) -> date:
    day = received.astimezone(ZoneInfo(regime.zone)).date()
    if regime.calendar_months is not None:
        return add_months(day, regime.calendar_months)
    return day + timedelta(days=regime.days or 0)


def sla(
    now: datetime,
    *,
    received: datetime,
    due: datetime,
    regime: Regime,
    extended: bool,
    closed: datetime | None,
    due_soon: float,
) -> Sla:
    """How a request stands.

    Args:
        due: with the extension if there was one. closed: when it reached a final state. due_soon: share of the time.
    """
    if closed is not None:
        return "kept" if closed < due else "missed"
    if now >= due:
        # late either way; beyond what even an extension in time would have given, nothing can be mended
        within = regime.extends and not extended and now < extended_due(received, regime)
        return "overdue" if within else "breached"
    return "due_soon" if now >= soon_at(received, due, due_soon) else "on_track"


def soon_at(received: datetime, due: datetime, due_soon: float) -> datetime:
    """From when on a request is nearly due."""
    return received + (due - received) * due_soon
