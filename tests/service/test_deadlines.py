"""Due dates as the laws count them, and how a request stands."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.errors import RequestError
from expunge.service.clock import FixedClock, stamp, unstamp
from expunge.service.deadlines import add_months, due_at, extended_due, sla
from expunge.service.policy import REGIMES, Policy, Regime

GDPR = Regime(calendar_months=1, extension_months=2, working_day=True, zone="Europe/Berlin")


def last_day(moment: datetime, zone: str) -> date:
    """The last day on which it is in time."""
    return (moment - timedelta(microseconds=1)).astimezone(ZoneInfo(zone)).date()


@pytest.mark.parametrize(
    ("day", "months", "wanted"),
    [
        (date(2026, 1, 15), 1, date(2026, 2, 15)),
        (date(2026, 1, 31), 1, date(2026, 2, 28)),
        (date(2028, 1, 31), 1, date(2028, 2, 29)),
        (date(2026, 8, 31), 1, date(2026, 9, 30)),
        (date(2026, 12, 31), 1, date(2027, 1, 31)),
        (date(2026, 11, 30), 3, date(2027, 2, 28)),
        (date(2026, 3, 31), 12, date(2027, 3, 31)),
    ],
)
def test_months(day: date, months: int, wanted: date) -> None:
    assert add_months(day, months) == wanted


@pytest.mark.parametrize(
    ("received", "wanted"),
    [
        (datetime(2026, 3, 3, 12, tzinfo=UTC), date(2026, 4, 3)),  # a Friday
        (datetime(2026, 2, 28, 12, tzinfo=UTC), date(2026, 3, 30)),  # the 28th is a Saturday, so Monday
        (datetime(2026, 1, 31, 12, tzinfo=UTC), date(2026, 3, 2)),  # 28 February is a Saturday
        (datetime(2026, 3, 31, 22, 30, tzinfo=UTC), date(2026, 5, 1)),  # in Berlin it is already the first of April
        (datetime(2026, 3, 31, 21, 30, tzinfo=UTC), date(2026, 4, 30)),
    ],
)
def test_one_calendar_month_in_berlin(received: datetime, wanted: date) -> None:
    assert last_day(due_at(received, GDPR), "Europe/Berlin") == wanted


def test_a_holiday_moves_the_date_and_so_does_the_weekend_after_it() -> None:
    easter = GDPR.model_copy(update={"holidays": (date(2026, 4, 3), date(2026, 4, 6))})  # Good Friday, Easter Monday
    assert last_day(due_at(datetime(2026, 3, 3, 12, tzinfo=UTC), easter), "Europe/Berlin") == date(2026, 4, 7)


def test_days_are_days_through_summer_time() -> None:
    ccpa = REGIMES["ccpa"]
    received = datetime(2026, 2, 20, 20, tzinfo=UTC)  # clocks go forward on 8 March
    assert last_day(due_at(received, ccpa), ccpa.zone) == date(2026, 4, 6)
    assert due_at(received, ccpa) == datetime(2026, 4, 7, 7, tzinfo=UTC)
    assert last_day(extended_due(received, ccpa), ccpa.zone) == date(2026, 5, 21)


def test_an_extension_counts_from_the_receipt() -> None:
    received = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert last_day(extended_due(received, GDPR), "Europe/Berlin") == date(2026, 4, 30)
    with pytest.raises(ValueError, match="no extension"):
        extended_due(received, REGIMES["drop"])


@settings(deadline=None, max_examples=80)
@given(
    st.datetimes(datetime(2024, 1, 1), datetime(2032, 1, 1)),
    st.sampled_from(sorted(REGIMES)),
)
def test_due_dates_are_working_days_after_the_receipt(at: datetime, name: str) -> None:
    received, regime = at.replace(tzinfo=UTC), REGIMES[name]
    due = due_at(received, regime)
    day = last_day(due, regime.zone)
    assert received < due
    if regime.working_day:
        assert day.weekday() < 5
        assert timedelta(days=27) < due - received < timedelta(days=36)
    else:
        assert timedelta(days=44, hours=22) <= due - received <= timedelta(days=46, hours=2)
    if regime.extends:
        assert extended_due(received, regime) > due


def test_how_a_request_stands() -> None:
    received, regime = datetime(2026, 1, 5, tzinfo=UTC), Regime(days=100, extension_days=50)
    due = due_at(received, regime)

    def at(days: float, *, closed: float | None = None, extended: bool = False) -> str:
        return sla(
            received + timedelta(days=days),
            received=received,
            due=due,
            regime=regime,
            extended=extended,
            closed=None if closed is None else received + timedelta(days=closed),
            due_soon=0.75,
        )

    assert [at(d) for d in (0, 75.7, 75.8, 100.9, 101, 150.9, 151)] == [
        "on_track", "on_track", "due_soon", "due_soon", "overdue", "overdue", "breached",
    ]  # fmt: skip
    assert at(101, extended=True) == "breached"
    assert (at(300, closed=100.9), at(300, closed=101)) == ("kept", "missed")


def test_times_as_text_keep_their_order() -> None:
    a, b = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, microsecond=1, tzinfo=ZoneInfo("UTC"))
    assert stamp(a) < stamp(b) and unstamp(stamp(b)) == b
    with pytest.raises(ValueError, match="zone"):
        stamp(datetime(2026, 1, 1))
    clock = FixedClock(a)
    assert clock.advance(timedelta(days=1)) == clock() == datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"regimes": {"x": {"days": 3, "calendar_months": 1}}, "default_regime": "x"}, "not both"),
        ({"regimes": {"x": {"days": 3, "zone": "Mars/Base"}}, "default_regime": "x"}, "no time zone"),
        ({"default_regime": "marital"}, "default_regime"),
        ({"serving": {"rule": "whenever"}}, "serving.rule"),
        ({"aproval": {}}, "approval"),
    ],
)
def test_a_policy_that_is_none_is_refused(tmp_path, told, why) -> None:
    import json

    path = tmp_path / "policy.yaml"
    path.write_text(json.dumps(told))
    with pytest.raises(RequestError, match=why):
        Policy.read(path)


def test_a_policy_is_read_from_yaml(tmp_path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(
        "regimes: {house: {days: 10}}\ndefault_regime: house\nserving: {rule: escalation, period_days: 7}\n"
    )
    policy = Policy.read(path)
    assert (policy.regime("house").days, policy.serving.rule, policy.serving.period_days) == (10, "escalation", 7)
    with pytest.raises(RequestError, match="no regime 'gdpr'"):
        policy.regime("gdpr")
    with pytest.raises(RequestError, match="cannot read"):
        Policy.read(tmp_path / "none.yaml")
