"""The exposure timeline as a picture: a lane a target, and the thicker its bar, the more is still told.

Here are places and words only; the template draws them, and a table beside the picture says the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

from expunge.service.dashboard.wording import EXPOSURE, span
from expunge.service.entities import Exposed, Request

THICK = {"in_force": 16.0, "suppressed": 11.0, "approximate": 6.0, "gone": 2.0}
APART = 62  # of two ticks, at least
LANE, TOP, BOTTOM, SIDE = 48.0, 24.0, 26.0, 6.0
HOUR, DAY = 3600, 86400
STEPS = (HOUR, 3 * HOUR, 6 * HOUR, DAY, 2 * DAY, 5 * DAY, 7 * DAY, 14 * DAY, 30 * DAY, 61 * DAY, 183 * DAY, 366 * DAY)


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A stretch of time, in the picture's units."""

    state: str
    left: float
    width: float
    top: float
    height: float


@dataclass(frozen=True, kw_only=True)
class Lane:
    """A target: its words stand above its bars; gone: where a ring says that it is."""

    target: str
    says: str
    text: float
    middle: float
    bars: tuple[Bar, ...]
    gone: float | None


@dataclass(frozen=True, kw_only=True)
class Picture:
    """
    Args:
        ticks: (place, words). due, now: places; now is None once the request is closed.
    """

    width: float
    height: float
    floor: float
    lanes: tuple[Lane, ...]
    ticks: tuple[tuple[float, str], ...]
    due: float
    now: float | None

    def anchor(self, at: float) -> str:
        """How words at a place are set, so that they stay inside."""
        return "end" if at > 0.85 * self.width else "start" if at < 0.15 * self.width else "middle"


class _Axis:
    """Times to places."""

    def __init__(self, start: datetime, end: datetime, width: float) -> None:
        self.start, self.end, self.width = start, end, width

    def place(self, at: datetime) -> float:
        return round(SIDE + (at - self.start) / (self.end - self.start) * (self.width - 2 * SIDE), 2)

    def ticks(self) -> tuple[tuple[float, str], ...]:
        """Full hours or days, as few as there is room for."""
        whole = (self.end - self.start).total_seconds()
        step = next((s for s in STEPS if whole / s * APART <= self.width), STEPS[-1])
        step *= max(1, math.ceil(whole / step * APART / self.width))
        at = datetime.fromtimestamp((self.start.timestamp() // step + 1) * step, UTC)
        told = []
        while at < self.end:
            text = f"{at:%H:%M}" if step < DAY else f"{at.day} {at:%b}" if step < 183 * DAY else f"{at:%b %Y}"
            told.append((self.place(at), text))
            at += timedelta(seconds=step)
        return tuple((place, text) for place, text in told if 18 <= place <= self.width - 18)


def picture(exposed: Sequence[Exposed], request: Request, now: datetime, width: float) -> Picture:
    """
    Args:
        exposed: the stretches of each target together, in order. width: in units of the picture, which are pixels
            where it is not shrunk.
    """
    received, due, closed = request.received_at, request.due_at, request.closed_at
    until = now if closed is None else closed
    last = max([due, until, *(e.to or e.start for e in exposed)])
    axis = _Axis(received, received + max((last - received) * 1.03, timedelta(hours=1)), width)
    lanes = tuple(
        _lane(TOP + LANE * index, target, list(stretches), axis, until)
        for index, (target, stretches) in enumerate(groupby(exposed, key=lambda e: e.target))
    )
    floor = TOP + LANE * len(lanes)
    return Picture(
        width=width,
        height=floor + BOTTOM,
        floor=floor,
        lanes=lanes,
        ticks=axis.ticks(),
        due=axis.place(due),
        now=axis.place(now) if closed is None else None,
    )


def _lane(top: float, target: str, stretches: Sequence[Exposed], axis: _Axis, until: datetime) -> Lane:
    middle = top + 31
    bars = []
    for one in stretches:
        left = axis.place(one.start)
        right = axis.place(axis.end if one.state == "gone" else one.to or max(until, one.start))
        height, width = THICK[one.state], round(max(right - left, 2.0), 2)
        bars.append(Bar(state=one.state, left=left, width=width, top=middle - height / 2, height=height))
    gone = [axis.place(one.start) for one in stretches if one.state == "gone"]
    return Lane(
        target=target,
        says=says(stretches, until),
        text=top + 14,
        middle=middle,
        bars=tuple(bars),
        gone=gone[0] if gone else None,
    )


def says(stretches: Sequence[Exposed], until: datetime) -> str:
    """What happened at a target, in one line."""
    told = []
    for one in stretches:
        if one.state == "gone":
            told.append("then gone")
            continue
        to = one.to or until
        length = span(max((to - one.start).total_seconds(), 0.0))
        told.append(f"{EXPOSURE[one.state]} {length}" + ("" if one.to else " so far"))
    return ", ".join(told)
