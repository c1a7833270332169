"""Requests as they come in, drawn and recorded."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest

from expunge.errors import RequestError
from expunge.service.policy import Policy
from expunge.service.simulate.due import due_times
from expunge.service.simulate.recorded import read_traffic
from expunge.service.simulate.times import DAY, HOUR, from_moment, midnight
from expunge.service.simulate.traffic import STEADY, Burst, Rhythm, Traffic, poisson_traffic

START = date(2026, 1, 5)


def test_gaps_are_exponential_without_a_rhythm() -> None:
    traffic = poisson_traffic(200_000, days=100, rhythm=STEADY, seed=0)
    gaps = np.diff(traffic.received) / 1e6
    mean = 100 * 86_400 / 200_000
    assert gaps.mean() == pytest.approx(mean, rel=0.01)
    assert gaps.std() == pytest.approx(mean, rel=0.02)
    assert (gaps > mean).mean() == pytest.approx(np.exp(-1), abs=0.005)


def test_week_day_and_season_are_in_it() -> None:
    rhythm = Rhythm(
        weekdays=(2, 1, 1, 1, 1, 0, 0), hours=(*(0.0,) * 8, *(1.0,) * 10, *(0.0,) * 6), season=0.5, busiest=0
    )
    traffic = poisson_traffic(300_000, days=364, rhythm=rhythm, seed=1)
    days = (traffic.received - midnight(START)) // DAY
    by_weekday = np.bincount(days % 7, minlength=7)
    assert by_weekday[5:].tolist() == [0, 0]
    assert by_weekday[0] / by_weekday[1] == pytest.approx(2.0, rel=0.03)
    hours = np.bincount(traffic.received % DAY // HOUR, minlength=24)
    assert hours[:8].sum() == 0 and hours[18:].sum() == 0
    winter, summer = (days < 28).sum(), ((days >= 168) & (days < 196)).sum()
    assert winter / summer == pytest.approx(1.5 / 0.5, rel=0.07)
    assert len(traffic) == 300_000 and days.max() < 364


def test_a_burst_comes_on_top_and_decays() -> None:
    burst = Burst.parse("60:50000:3:safety")
    traffic = poisson_traffic(1_000, days=100, bursts=[burst], seed=0)
    assert len(traffic) == 51_000 and (np.diff(traffic.received) >= 0).all()
    its = traffic.received[traffic.reason == traffic.reasons.index("safety")] - midnight(START) - 60 * DAY
    assert len(its) == 50_000 and its.min() >= 0
    assert (its <= 3 * DAY).mean() == pytest.approx(0.5, abs=0.01)
    assert (its <= 6 * DAY).mean() == pytest.approx(0.75, abs=0.01)
    twice = [poisson_traffic(0, days=9, bursts=[Burst(day=1, requests=50)], seed=s).received.tolist() for s in (0, 1)]
    both = poisson_traffic(0, days=9, bursts=[Burst(day=1, requests=50)] * 2, seed=0).received.tolist()
    assert twice[0] != twice[1] and len(set(both)) == 100
    at_once = poisson_traffic(0, days=100, bursts=[Burst(day=2, requests=7, half_life_days=0)])
    assert set((at_once.received - midnight(START)).tolist()) == {2 * DAY}


def test_regimes_and_reasons_have_their_shares() -> None:
    traffic = poisson_traffic(100_000, regimes={"gdpr": 3, "ccpa": 1}, reasons={"copyright": 1, "safety": 4}, seed=2)
    assert (traffic.regime == 1).mean() == pytest.approx(0.25, abs=0.005)
    assert (traffic.reason == traffic.reasons.index("safety")).mean() == pytest.approx(0.8, abs=0.005)


def test_each_regime_has_its_own_due_dates() -> None:
    policy = Policy()
    traffic = poisson_traffic(2_000, days=50, regimes={"ccpa": 1, "gdpr": 1}, seed=3)
    due = traffic.due(policy)
    for code, name in enumerate(traffic.regimes):
        mine = traffic.regime == code
        assert (due[mine] == due_times(traffic.received[mine], policy.regime(name))).all()
    with pytest.raises(RequestError, match="no regime"):
        poisson_traffic(5, regimes={"nowhere": 1}).due(policy)


def test_seeds() -> None:
    one, two, other = (poisson_traffic(500, regimes={"gdpr": 1, "ccpa": 1}, seed=s) for s in (0, 0, 1))
    assert one.received.tolist() == two.received.tolist() and one.regime.tolist() == two.regime.tolist()
    assert one.received.tolist() != other.received.tolist() and one.regime.tolist() != other.regime.tolist()


def test_refusals() -> None:
    for call in (
        lambda: poisson_traffic(0),
        lambda: poisson_traffic(-1),
        lambda: poisson_traffic(5, days=0),
        lambda: poisson_traffic(5, regimes={"gdpr": -1}),
        lambda: poisson_traffic(5, regimes={"gdpr": 0}),
        lambda: poisson_traffic(5, reasons={"boredom": 1}),
        lambda: poisson_traffic(5, days=2, start=date(2026, 1, 10), rhythm=Rhythm(weekdays=(1, 1, 1, 1, 1, 0, 0))),
        lambda: Rhythm(season=1.0),
        lambda: Rhythm(weekdays=(1.0,) * 6),
        lambda: Rhythm(hours=(0.0,) * 24),
        lambda: Burst.parse("60"),
        lambda: Burst.parse("60:many"),
        lambda: Burst.parse("60:5:1:safety:more"),
        lambda: Burst.parse("60:0"),
        lambda: Burst.parse("-1:5"),
        lambda: Burst.parse("1:5:2:boredom"),
        lambda: Burst(day=1, requests=5, half_life_days=-1),
    ):
        with pytest.raises(RequestError):
            call()
    zero = np.zeros(2, dtype=np.int8)
    with pytest.raises(RequestError, match="order"):
        Traffic(received=np.array([2, 1]), regime=zero, regimes=("a",), reason=zero)
    with pytest.raises(RequestError, match="differ"):
        Traffic(received=np.array([1, 2, 3]), regime=zero, regimes=("a",), reason=zero)


# --- recorded ---------------------------------------------------------------------------------------------------------


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_record_is_sorted_and_its_gaps_filled(tmp_path: Path) -> None:
    path = write(
        tmp_path / "requests.csv",
        "id,received_at,regime,reason\n"
        "c,2026-03-01T09:30:00.250000Z,ccpa,copyright\n"
        "a,2026-02-27T23:59:59Z,,\n"
        "b,2026-02-28T01:00:00+01:00,gdpr,safety\n",
    )
    traffic = read_traffic(path, default_regime="uk_gdpr")
    assert [from_moment(m).isoformat() for m in traffic.received.tolist()] == [
        "2026-02-27T23:59:59+00:00",
        "2026-02-28T00:00:00+00:00",
        "2026-03-01T09:30:00.250000+00:00",
    ]
    assert [traffic.regimes[c] for c in traffic.regime] == ["uk_gdpr", "gdpr", "ccpa"]
    assert [traffic.reasons[c] for c in traffic.reason] == ["privacy", "safety", "copyright"]
    assert (traffic.start, traffic.days) == (date(2026, 2, 27), 3)


def test_only_the_time_is_needed(tmp_path: Path) -> None:
    traffic = read_traffic(write(tmp_path / "r.csv", '"received_at"\n2026-03-01T00:00:00Z\n'))
    assert (traffic.regimes, traffic.reasons, len(traffic)) == (("gdpr",), ("privacy",), 1)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("when\n2026-03-01T00:00:00Z\n", id="no such column"),
        pytest.param("received_at\n2026-03-01\n", id="no zone"),
        pytest.param("received_at\nyesterday\n", id="no time"),
        pytest.param("received_at\n", id="no rows"),
        pytest.param("", id="nothing"),
        pytest.param("received_at,regime\n,gdpr\n", id="a gap"),
    ],
)
def test_records_that_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError):
        read_traffic(write(tmp_path / "r.csv", text))
    with pytest.raises(RequestError, match="cannot read"):
        read_traffic(tmp_path / "none.csv")
