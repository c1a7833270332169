"""`expunge.service.deadlines.due_at` for millions of requests at once: it depends on the local day of receipt only."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from expunge.service.deadlines import due_at
from expunge.service.policy import Regime
from expunge.service.simulate.times import Times, from_moment, moment


def due_times(received: Times, regime: Regime) -> Times:
    """(n,) first moments at which requests received at (n,) moments are late; equal to `due_at` of each.

    `due_at` is asked once for each day on which anything can have come in.
    """
    if not len(received):
        return np.zeros(0, dtype=np.int64)
    zone = ZoneInfo(regime.zone)
    first = from_moment(int(received.min())).astimezone(zone).date()
    last = from_moment(int(received.max())).astimezone(zone).date()
    starts, dues = [], []
    for k in range((last - first).days + 1):
        begins = _begins(first + timedelta(days=k), zone)
        starts.append(moment(begins))
        dues.append(moment(due_at(begins, regime)))
    found: Times = np.array(dues)[np.searchsorted(np.array(starts), received, side="right") - 1]
    return found


def _begins(day: date, zone: ZoneInfo) -> datetime:
    """The first moment of a local day; of a day that the zone left out, that of the day after it."""
    return datetime.combine(day, time(), zone).astimezone(ZoneInfo("UTC"))
