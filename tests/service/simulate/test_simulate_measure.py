"""What is counted, and what must add up."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.errors import RequestError
from expunge.service.policy import Policy, Regime, Serving
from expunge.service.simulate.grid import sweep
from expunge.service.simulate.measure import measure, peak_backlog, timeline
from expunge.service.simulate.rules import SIMULATED, WITH_WINDOWS, serve
from expunge.service.simulate.served import Runs, Served
from expunge.service.simulate.servers import Lognormal, Servers, Work
from expunge.service.simulate.simulation import simulate
from expunge.service.simulate.times import DAY, HOUR, midnight
from expunge.service.simulate.traffic import Burst, Traffic, poisson_traffic

TRAFFIC = poisson_traffic(
    4_000, days=100, regimes={"gdpr": 2.0, "ccpa": 1.0}, reasons={"privacy": 0.9, "copyright": 0.1}, seed=4
)
SERVERS = Servers(
    workers=2,
    exact=Work(run=Lognormal(median=1800.0, p95=4000.0), per_request_seconds=5.0),
    approximate=Work(run=Lognormal(median=60.0, p95=90.0)),
)
POLICY = Policy(serving=Serving(period_days=14, largest_batch=300, cost_per_hour=3.0))


@pytest.mark.parametrize("rule", SIMULATED)
def test_everything_is_served_once_and_days_add_up(rule: str) -> None:
    due = TRAFFIC.due(POLICY)
    served = serve(rule, TRAFFIC, due, SERVERS, POLICY.serving, seed=1)
    assert np.bincount(served.run_of, minlength=len(served.runs)).tolist() == served.runs.size.tolist()
    assert int(served.runs.size.sum()) == len(TRAFFIC)
    assert served.runs.size.max() <= POLICY.serving.largest_batch
    assert (served.runs.start[served.run_of] >= TRAFFIC.received).all()
    stages = served.stages(TRAFFIC.received)
    whole = served.fulfilled - TRAFFIC.received
    assert (sum(until - since for since, until in stages.values()) == whole).all()
    assert all((until >= since).all() for since, until in stages.values())
    outcome = measure(served, TRAFFIC, due, rule=rule, workers=2, cost_per_hour=3.0)
    by_stage = sum(value["mean"] for name, value in outcome.exposure.items() if name != "total")
    assert by_stage == pytest.approx(outcome.exposure["total"]["mean"])
    # What is open, summed over time, is what requests were open for: here hour by hour, to within an hour each.
    open_hours = sum(sum(counts) for counts in timeline(served, TRAFFIC, every=HOUR)["open"].values())
    assert open_hours == pytest.approx(float(whole.sum()) / HOUR, abs=len(TRAFFIC))
    busy = float((served.runs.end - served.runs.start).sum())
    if served.approximate is not None:
        busy += float((served.approximate.end - served.approximate.start).sum())
    assert outcome.compute_hours == pytest.approx(busy / HOUR)
    assert outcome.cost == pytest.approx(3 * busy / HOUR)
    for table in (outcome.by_regime, outcome.by_reason):
        assert sum(row["requests"] for row in table.values()) == len(TRAFFIC)
        late = sum(row["requests"] * (1 - row["in_time"]) for row in table.values())
        assert late == pytest.approx(outcome.late)
    assert outcome.in_time == pytest.approx(1 - outcome.late / len(TRAFFIC))


@pytest.mark.parametrize("rule", SIMULATED)
def test_no_two_runs_at_once_on_a_worker(rule: str) -> None:
    served = serve(rule, TRAFFIC, TRAFFIC.due(POLICY), SERVERS, POLICY.serving, seed=1)
    runs = [served.runs, *([served.approximate] if served.approximate is not None else [])]
    starts = np.sort(np.concatenate([r.start for r in runs]))
    ends = np.sort(np.concatenate([r.end for r in runs]))
    running = np.arange(1, len(starts) + 1) - np.searchsorted(ends, starts, side="right")
    assert running.max() <= SERVERS.workers


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 15)), min_size=1, max_size=20))
def test_peak_backlog_is_that_of_every_moment(spans: list[tuple[int, int]]) -> None:
    spans.sort()
    received = np.array([a for a, _ in spans], dtype=np.int64)
    ends = np.array([a + b for a, b in spans], dtype=np.int64)
    runs = Runs(received, ends, np.ones(len(spans), dtype=np.int64))
    # Looked at just before each moment: who came at the moment at which another left never met them.
    wanted = max(sum(a < t <= a + b for a, b in spans) for t in range(40))
    assert peak_backlog(received, runs) == wanted


def test_a_request_that_ends_when_it_is_due_is_late() -> None:
    received = np.array([midnight(date(2026, 1, 5))], dtype=np.int64)
    none = np.zeros(1, dtype=np.int8)
    traffic = Traffic(received=received, regime=none, regimes=("all",), reason=none)
    served = Served(runs=Runs.of(received, received + DAY, [1]), run_of=none.astype(np.int64))
    late = measure(served, traffic, received + DAY, rule="now", workers=1)
    kept = measure(served, traffic, received + DAY + 1, rule="now", workers=1)
    worse = measure(served, traffic, received + DAY // 2, rule="now", workers=1)
    assert (late.late, kept.late, worse.late) == (1, 0, 1)
    assert (kept.worst_lateness_days, worse.worst_lateness_days) == (0.0, 0.5)
    assert (kept.utilisation, kept.compute_hours, kept.days_max) == (1.0, 24.0, 1.0)


def requests_that_take(days: list[int]) -> tuple[Traffic, Served]:
    """All at one moment, a run each."""
    received = np.full(len(days), midnight(date(2026, 1, 5)), dtype=np.int64)
    none = np.zeros(len(days), dtype=np.int8)
    runs = Runs(received, received + np.array(days, dtype=np.int64) * DAY, np.ones(len(days), dtype=np.int64))
    traffic = Traffic(received=received, regime=none, regimes=("all",), reason=none)
    return traffic, Served(runs=runs, run_of=np.arange(len(days)))


def test_percentiles_and_utilisation_by_hand() -> None:
    traffic, served = requests_that_take(list(range(21)))
    found = measure(served, traffic, traffic.received + 30 * DAY, rule="now", workers=21)
    assert (found.days_median, found.days_p95, found.days_max) == (10.0, 19.0, 20.0)
    assert found.exposure["unsuppressed"] == found.exposure["total"] == {"mean": 10.0, "p95": 19.0}
    assert found.compute_hours == 210 * 24 and found.utilisation == pytest.approx(0.5)


def test_promised_hours_that_are_kept_and_not() -> None:
    traffic, exact = requests_that_take([9, 9, 9, 1])
    start = traffic.received[:3]
    approximate = Runs(start, start + np.array([23, 24, 25], dtype=np.int64) * HOUR, np.ones(3, dtype=np.int64))
    served = Served(
        runs=exact.runs,
        run_of=exact.run_of,
        approximate=approximate,
        approximate_of=np.array([0, 1, 2, -1]),
        suppress_after=2 * DAY,
    )
    due = traffic.received + 30 * DAY
    found = measure(served, traffic, due, rule="escalation", workers=9, approximate_within_hours=24)
    assert found.approximated_in_time == 0.75  # the last one was exact within the day
    # Hidden only after two days, when all of them had been approximated or erased: that stage was passed over.
    assert found.exposure["suppressed"]["mean"] == 0.0
    assert found.exposure["unsuppressed"]["mean"] == pytest.approx((23 + 24 + 25 + 24) / 4 / 24)
    assert found.runs == {"exact": 4, "approximate": 3}


def test_timeline_by_hand() -> None:
    start = midnight(date(2026, 1, 5))
    received = start + np.array([1, 2, 30], dtype=np.int64) * HOUR
    none = np.zeros(3, dtype=np.int8)
    traffic = Traffic(received=received, regime=none, regimes=("all",), reason=none)
    served = Served(
        runs=Runs.of([start + 50 * HOUR], [start + 51 * HOUR], [3]),
        run_of=np.zeros(3, dtype=np.int64),
        approximate=Runs.of([start + 26 * HOUR], [start + 27 * HOUR], [2]),
        approximate_of=np.array([0, 0, -1]),
        suppress_after=HOUR,
    )
    by_day = {"unsuppressed": [0, 0, 0], "suppressed": [2, 1, 0], "approximated": [0, 2, 0]}
    assert timeline(served, traffic) == {"every_days": 1.0, "open": by_day}
    assert timeline(served, traffic, most=3) == timeline(served, traffic)
    two_days = {"unsuppressed": [0, 0], "suppressed": [1, 0], "approximated": [2, 0]}
    assert timeline(served, traffic, most=2) == {"every_days": 2.0, "open": two_days}


def test_a_burst_breaks_deadlines_that_held() -> None:
    servers = Servers(workers=1, exact=Work(run=Lognormal(median=600.0, p95=900.0), per_request_seconds=60.0))
    policy = Policy(serving=Serving(largest_batch=500))
    quiet = poisson_traffic(20_000, days=200, seed=0)
    hit = poisson_traffic(20_000, days=200, bursts=[Burst(day=60, requests=40_000, half_life_days=1)], seed=0)
    before = simulate(quiet, policy, servers, rule="batched", seed=0)
    after = simulate(hit, policy, servers, rule="batched", seed=0)
    assert before.in_time == 1.0 and before.worst_lateness_days == 0.0
    assert after.in_time < 0.75 and after.worst_lateness_days > 3
    assert after.peak_backlog > 40_000


@pytest.mark.parametrize("rule", SIMULATED)
def test_the_same_twice_and_another_seed_differs(rule: str) -> None:
    one, two, other = (simulate(TRAFFIC, POLICY, SERVERS, rule=rule, seed=s) for s in (1, 1, 2))
    assert one == two
    assert one.compute_hours != other.compute_hours


def test_the_policy_s_own_rule_is_the_default() -> None:
    policy = Policy(serving=Serving(rule="periodic", period_days=3))
    assert simulate(TRAFFIC, policy, SERVERS).rule == "periodic"
    assert simulate(TRAFFIC, policy, SERVERS).period_days == 3
    assert simulate(TRAFFIC, policy, SERVERS, rule="now").period_days is None


ROOMY = Policy(serving=Serving(largest_batch=100_000))


# --- the grid ---------------------------------------------------------------------------------------------------------


def test_grid_holds_every_pair_and_each_is_a_simulation_of_its_own() -> None:
    grid = sweep(TRAFFIC, POLICY, SERVERS, deadlines=(30, 10), periods=(5, 20), seed=1)
    plain = len([r for r in SIMULATED if r not in WITH_WINDOWS])
    assert len(grid.outcomes) == 2 * plain + 4 * len(WITH_WINDOWS)
    assert (grid.deadlines, grid.periods) == ((10, 30), (5, 20))
    for rule in SIMULATED:
        for deadline in (10, 30):
            policy = Policy(serving=Serving(period_days=20, largest_batch=300, cost_per_hour=3.0))
            alone = simulate(TRAFFIC, policy, SERVERS, rule=rule, deadline=Regime(days=deadline), seed=1)
            found = grid.find(rule, deadline, 20)
            assert (found.late, found.compute_hours, found.peak_backlog) == (
                alone.late,
                alone.compute_hours,
                alone.peak_backlog,
            )


def test_more_time_keeps_more_and_rarer_windows_keep_fewer() -> None:
    grid = sweep(TRAFFIC, ROOMY, SERVERS, deadlines=(5, 10, 20, 40), periods=(7, 30), rules=["periodic"], seed=1)
    kept = [[grid.find("periodic", d, p).in_time for d in grid.deadlines] for p in grid.periods]
    assert kept == [sorted(row) for row in kept]
    assert all(rare <= often for often, rare in zip(*kept, strict=True))
    # Windows 30 days apart and requests spread evenly: about (d + ½) of every 30 days are in time.
    assert kept[1][1] == pytest.approx(10.5 / 30, abs=0.06)
    assert grid.find("periodic", 5, 7).compute_hours > grid.find("periodic", 5, 30).compute_hours


def test_frontier_is_the_cheapest_that_complies() -> None:
    grid = sweep(TRAFFIC, ROOMY, SERVERS, deadlines=(10, 40), periods=(7, 30), rules=["periodic", "now"], seed=1)
    first, second = grid.frontier("periodic")
    assert first is not None and first.period_days == 7
    assert second is not None and second.period_days == 30
    hard = sweep(TRAFFIC, POLICY, SERVERS, deadlines=(1,), periods=(30,), rules=["periodic"], target=1.0, seed=1)
    assert hard.frontier("periodic") == [None]


def test_grid_refusals() -> None:
    for wrong in ({"deadlines": ()}, {"periods": ()}, {"deadlines": (0,)}, {"target": 0.0}, {"target": 1.5}):
        options = {"deadlines": (10,), "periods": (7.0,), **wrong}
        with pytest.raises(RequestError):
            sweep(TRAFFIC, POLICY, SERVERS, **options)
