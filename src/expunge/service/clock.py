"""Time is given, never taken: whoever needs it is handed a clock, so that a year passes in a test at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]


def system_clock() -> datetime:
    """Now, aware, UTC."""
    return datetime.now(UTC)


class FixedClock:
    """A clock that stands still until it is moved.

    Args:
        at: aware.
    """

    def __init__(self, at: datetime) -> None:
        if at.tzinfo is None:
            raise ValueError("a clock needs a time zone")
        self.at = at.astimezone(UTC)

    def __call__(self) -> datetime:
        return self.at

    def advance(self, by: timedelta) -> datetime:
        self.at += by
        return self.at


def stamp(at: datetime) -> str:
    """UTC with microseconds and a Z: text of one width, so that its order is that of time."""
    if at.tzinfo is None:
        raise ValueError("a time without a zone is no time")
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def unstamp(text: str) -> datetime:
    """The time that `stamp` wrote."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
