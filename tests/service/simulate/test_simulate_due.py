"""Due dates of millions at once are those of one at a time."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from expunge.service.deadlines import due_at
from expunge.service.policy import REGIMES, Regime
from expunge.service.simulate.due import due_times
from expunge.service.simulate.times import from_moment, midnight, moment

ZONES = ("UTC", "Europe/Berlin", "America/Los_Angeles", "Asia/Kolkata", "America/Havana", "Asia/Beirut", "Pacific/Apia")
TIMES = st.datetimes(datetime(2008, 1, 1), datetime(2031, 12, 31), timezones=st.just(UTC))
REGIME = st.builds(
    lambda months, days, working, zone, holidays: Regime(
        calendar_months=months, days=None if months else days, working_day=working, zone=zone, holidays=tuple(holidays)
    ),
    st.one_of(st.none(), st.integers(1, 14)),
    st.integers(1, 400),
    st.booleans(),
    st.sampled_from(ZONES),
    st.lists(st.dates(date(2008, 1, 1), date(2032, 12, 31)), max_size=4),
)


@settings(deadline=None, max_examples=60)
@given(first=TIMES, after=st.lists(st.integers(0, 90 * 86_400_000_000), min_size=1, max_size=30), regime=REGIME)
@example(
    first=datetime(2011, 12, 29, 20, tzinfo=UTC), after=[0, 86_400_000_000], regime=Regime(days=1, zone="Pacific/Apia")
)
def test_equal_to_the_rule_for_one_request(first: datetime, after: list[int], regime: Regime) -> None:
    received = np.sort(np.array([moment(first) + a for a in [0, *after]], dtype=np.int64))
    wanted = [moment(due_at(from_moment(r), regime)) for r in received.tolist()]
    assert due_times(received, regime).tolist() == wanted


@pytest.mark.parametrize("zone", ZONES)
def test_equal_around_every_midnight_and_change_of_clocks(zone: str) -> None:
    hours = midnight(date(2026, 1, 1)) + np.arange(0, 366 * 24 * 4, dtype=np.int64) * 900_000_000
    received = np.concatenate([hours - 1, hours])
    received.sort()
    regime = Regime(calendar_months=1, working_day=True, zone=zone, holidays=(date(2026, 12, 25),))
    some = received[:: 7 if zone == "UTC" else 5]
    wanted = [moment(due_at(from_moment(r), regime)) for r in some.tolist()]
    assert due_times(some, regime).tolist() == wanted


def test_by_hand() -> None:
    received = np.array([moment(datetime(2026, 1, 31, 10, tzinfo=UTC)), moment(datetime(2026, 11, 14, tzinfo=UTC))])
    due = [from_moment(d) for d in due_times(received, REGIMES["gdpr"]).tolist()]
    # 28 February 2026 is a Saturday: the end of Monday, 2 March. 14 December is a Monday.
    assert due == [datetime(2026, 3, 3, tzinfo=UTC), datetime(2026, 12, 15, tzinfo=UTC)]


def test_nobody_asked() -> None:
    assert due_times(np.zeros(0, dtype=np.int64), REGIMES["gdpr"]).tolist() == []


@settings(deadline=None, max_examples=40)
@given(at=TIMES)
def test_moments_lose_nothing(at: datetime) -> None:
    assert from_moment(moment(at)) == at
    assert moment(at + timedelta(microseconds=1)) - moment(at) == 1
