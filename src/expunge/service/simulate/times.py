"""Times as whole microseconds since 1970 (UTC): sums are exact, and a million of them are one array."""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime, time, timedelta

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.int64]
"""Microseconds, or moments as microseconds since 1970."""

SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
_ORIGIN = datetime(1970, 1, 1, tzinfo=UTC)


def moment(at: datetime) -> int:
    """An aware time as microseconds since 1970."""
    return (at - _ORIGIN) // timedelta(microseconds=1)


def from_moment(microseconds: int) -> datetime:
    """The aware time, UTC, that `moment` was given."""
    return _ORIGIN + timedelta(microseconds=int(microseconds))


def midnight(day: date) -> int:
    """The moment at which a day begins in UTC."""
    return moment(datetime.combine(day, time(), UTC))


def whole(seconds: npt.NDArray[np.float64] | float) -> Times:
    """Seconds rounded to whole microseconds."""
    found: Times = np.rint(np.asarray(seconds) * SECOND).astype(np.int64)
    return found


def stream(seed: int, *purpose: str | int) -> np.random.Generator:
    """Randomness by name: the key is that of `expunge.training.seeds.derive`, which cannot be had without torch."""
    text = "\x00".join([str(seed), *map(str, purpose)])
    key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
    return np.random.Generator(np.random.Philox(key=key))
