"""What a list is asked for, as a query string: read, checked, and written again with one thing changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from urllib.parse import urlencode

from expunge.errors import RequestError
from expunge.service.entities import Filter, Page
from expunge.service.words import REASONS, SLAS, STATUSES, Sla

# A due moment is the midnight that ends a day somewhere between 13:30 east and 10:30 west: counted from here, all of
# those midnights fall on the day that they end.
DAY_ENDS = time(10, 30)
SHOWN = ("open", "closed", "all")
VERIFIED = {"yes": True, "no": False, "any": None}
KNOWN = ("q", "sla", "status", "reason", "regime", "due_from", "due_to", "verified", "show", "order", "after")
CLOSED: frozenset[Sla] = frozenset({"kept", "missed"})
ROWS = 50
LONGEST_QUERY = 200


def due_between(first: date, last: date) -> tuple[datetime, datetime]:
    """(from, before): the due moments of requests whose last day in time is one of these days, both included."""
    start = datetime.combine(first, DAY_ENDS, UTC)
    return start, datetime.combine(last + timedelta(days=1), DAY_ENDS, UTC)


def last_day(due: datetime) -> date:
    """The last day on which a request is in time, whatever its zone."""
    return (due.astimezone(UTC) - timedelta(hours=DAY_ENDS.hour, minutes=DAY_ENDS.minute)).date()


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A list that somebody asks for.

    Args:
        given: the query, names and values, as they came; only known names. filter, page: what they mean.
    """

    given: tuple[tuple[str, str], ...]
    filter: Filter
    page: Page
    show: str
    verified: str

    @classmethod
    def read(cls, items: Iterable[tuple[str, str]], regimes: Sequence[str]) -> Asked:
        """
        Args:
            items: of the query string or of a form; names that are no part of a list are left out. regimes: known.

        Raises:
            RequestError: a value is none that a list can be asked for.
        """
        given = tuple((name, value.strip()) for name, value in items if name in KNOWN and value.strip())

        def every(name: str, known: Sequence[str]) -> tuple[Any, ...]:
            values = tuple(dict.fromkeys(value for key, value in given if key == name))
            if not set(values) <= set(known):
                raise RequestError(f"a list cannot be asked for this {name}", f"One of: {', '.join(known)}")
            return values

        def one(name: str, known: Sequence[str], default: str) -> str:
            return str((*every(name, known), default)[0])

        def text(name: str) -> str | None:
            return next((value for key, value in given if key == name), None)

        query, status, sla = text("q"), every("status", STATUSES), every("sla", SLAS)
        # whoever names a state or a request wants it, closed or not
        show = one("show", SHOWN, "all" if query or status or CLOSED.intersection(sla) else "open")
        verified = one("verified", tuple(VERIFIED), "any" if query else "yes")
        first, last = _date(text("due_from"), "due_from"), _date(text("due_to"), "due_to")
        if query and len(query) > LONGEST_QUERY:
            raise RequestError("that is too long to be an id", "Give a whole id, or a whole external id")
        return cls(
            given=given,
            filter=Filter(
                status=status,
                sla=sla,
                reason=every("reason", REASONS),
                regime=every("regime", regimes),
                due_from=None if first is None else due_between(first, first)[0],
                due_before=None if last is None else due_between(last, last)[1],
                open={"open": True, "closed": False, "all": None}[show],
                verified=VERIFIED[verified],
                query=query,
            ),
            page=Page(limit=ROWS, after=text("after"), newest_first=one("order", ("first", "last"), "first") == "last"),
            show=show,
            verified=verified,
        )

    def values(self, name: str) -> tuple[str, ...]:
        return tuple(value for key, value in self.given if key == name)

    def value(self, name: str) -> str:
        return next(iter(self.values(name)), "")

    @property
    def narrowed(self) -> int:
        """How many things besides the words of the search and the page narrow the list."""
        return sum(name not in ("q", "after", "order", "sla") for name, _ in self.given)

    def query(self, **changed: str | Sequence[str] | None) -> str:
        """The query string with these names set anew or, if None, left out; the first page of it."""
        kept = [(name, value) for name, value in self.given if name not in changed and name != "after"]
        for name, value in changed.items():
            values = () if value is None else (value,) if isinstance(value, str) else value
            kept += [(name, one) for one in values]
        return urlencode(kept)


def _date(text: str | None, name: str) -> date | None:
    if text is None:
        return None
    try:
        found = date.fromisoformat(text)
    except ValueError:
        raise RequestError(f"{name} is not a date", "Write it as 2026-12-31") from None
    if not 1970 <= found.year <= 2999:
        raise RequestError(f"{name} is not a date of our time", "Give a year between 1970 and 2999")
    return found
