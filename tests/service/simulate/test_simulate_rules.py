"""Every rule by hand, and against a simulation that looks at every microsecond."""

from __future__ import annotations

from datetime import date

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from expunge.errors import DataError, RequestError, UnknownName
from expunge.forecast.formulas import expected_cost
from expunge.forecast.layout import Layout
from expunge.service.policy import Policy, Serving
from expunge.service.simulate.batched import Beside, serve_batched
from expunge.service.simulate.measure import measure
from expunge.service.simulate.rules import SIMULATED, gathered, serve, serve_periodic, windows
from expunge.service.simulate.servers import Draws, Lognormal, Measured, Servers, Work
from expunge.service.simulate.times import DAY, HOUR, midnight
from expunge.service.simulate.traffic import STEADY, Traffic, poisson_traffic
from expunge.service.simulate.waiting import starts_in_order

MONDAY = date(2026, 1, 5)
ZERO = midnight(MONDAY)
HALF_HOUR = Lognormal(median=1800.0, p95=1800.0)


def traffic_of(hours: list[float]) -> Traffic:
    received = np.array([ZERO + round(h * HOUR) for h in hours], dtype=np.int64)
    none = np.zeros(len(hours), dtype=np.int8)
    return Traffic(received=received, regime=none, regimes=("all",), reason=none)


def hours_of(moments: npt.NDArray[np.int64]) -> list[float]:
    return ((moments - ZERO) / HOUR).tolist()


THREE = traffic_of([1.0, 1.25, 30.0])
DUE = np.array([ZERO + h * HOUR for h in (49, 49, 78)], dtype=np.int64)
# A run takes half an hour, and as long again to be evaluated: an hour.
SERVERS = Servers(
    workers=1,
    exact=Work(run=HALF_HOUR, evaluation=HALF_HOUR),
    approximate=Work(run=HALF_HOUR),
    suppress_seconds=360.0,
)


def test_three_requests_now() -> None:
    served = serve("now", THREE, DUE, SERVERS, Serving(), seed=0)
    assert hours_of(served.runs.start) == [1.0, 2.0, 30.0]
    assert hours_of(served.fulfilled) == [2.0, 3.0, 31.0]
    two = serve("now", THREE, DUE, Servers(workers=2, exact=SERVERS.exact), Serving(), seed=0)
    assert hours_of(two.fulfilled) == [2.0, 2.25, 31.0]


def test_three_requests_batched() -> None:
    served = serve("batched", THREE, DUE, SERVERS, Serving(margin_hours=6), seed=0)
    # start_by = 49 − 1 − 6 = 42, by when the third has come too.
    assert hours_of(served.runs.start) == [42.0] and served.runs.size.tolist() == [3]
    assert hours_of(served.fulfilled) == [43.0, 43.0, 43.0]
    early = serve("batched", THREE, DUE, SERVERS, Serving(margin_hours=20), seed=0)
    assert hours_of(early.runs.start) == [28.0, 57.0] and early.runs.size.tolist() == [2, 1]
    small = serve("batched", THREE, DUE, SERVERS, Serving(margin_hours=6, largest_batch=1), seed=0)
    assert hours_of(small.runs.start) == [42.0, 43.0, 71.0]


def test_three_requests_periodic() -> None:
    served = serve("periodic", THREE, DUE, SERVERS, Serving(period_days=2), seed=0)
    assert hours_of(served.fulfilled) == [49.0, 49.0, 49.0] and len(served.runs) == 1
    daily = serve("periodic", THREE, DUE, SERVERS, Serving(period_days=1), seed=0)
    assert hours_of(daily.fulfilled) == [25.0, 25.0, 49.0]
    one_each = serve("periodic", THREE, DUE, SERVERS, Serving(period_days=2, largest_batch=2), seed=0)
    assert hours_of(one_each.fulfilled) == [49.0, 49.0, 50.0]
    # A day kept free before the first due date: the window at 48 would be too late.
    guarded = serve("periodic_guarded", THREE, DUE, SERVERS, Serving(period_days=2, margin_hours=24), seed=0)
    assert hours_of(guarded.runs.start) == [24.0, 48.0] and guarded.runs.size.tolist() == [2, 1]


def test_three_requests_escalated() -> None:
    # Ticks every 8 − ½ hours from Monday on: 7.5 and 30. The window at 48 comes after both.
    serving = Serving(period_days=2, approximate_within_hours=8)
    served = serve("escalation", THREE, DUE, SERVERS, serving, seed=0)
    stages = served.stages(THREE.received)
    assert hours_of(stages["unsuppressed"][1]) == pytest.approx([1.1, 1.35, 30.1])
    assert hours_of(stages["suppressed"][1]) == [8.0, 8.0, 30.5]
    assert hours_of(stages["approximated"][1]) == [49.0, 49.0, 49.0]
    outcome = measure(served, THREE, DUE, rule="escalation", workers=1, approximate_within_hours=8)
    assert outcome.exposure["unsuppressed"]["mean"] == pytest.approx(0.1 / 24)
    assert outcome.exposure["suppressed"]["mean"] == pytest.approx((6.9 + 6.65 + 0.4) / 3 / 24)
    assert outcome.exposure["approximated"]["mean"] == pytest.approx((41 + 41 + 18.5) / 3 / 24)
    assert (outcome.in_time, outcome.late, outcome.approximated_in_time) == (pytest.approx(1 / 3), 2, 1.0)
    # Those that are due at the moment at which the run ends are late.
    assert outcome.worst_lateness_days == 0.0
    guarded = serve("escalation_guarded", THREE, DUE, SERVERS, serving, seed=0)
    assert hours_of(guarded.runs.start) == [24.0, 48.0]
    assert hours_of(guarded.approximate.start) == [7.5, 30.0]


def test_an_exact_window_before_the_tick_needs_no_approximation() -> None:
    # Ticks at 3 and 30, windows at 6 and 30: the third request is at both.
    serving = Serving(period_days=0.25, approximate_within_hours=3.5)
    served = serve("escalation", THREE, DUE, SERVERS, serving, seed=0)
    assert served.approximate_of is not None and served.approximate_of.tolist() == [0, 0, -1]
    stages = served.stages(THREE.received)
    assert hours_of(stages["suppressed"][1]) == [3.5, 3.5, 31.0]
    assert hours_of(stages["approximated"][1]) == [7.0, 7.0, 31.0]


def test_kinds_of_run_share_the_worker_in_the_order_of_being_ready() -> None:
    serving = Serving(period_days=1, approximate_within_hours=24.0, largest_batch=1)
    served = serve("escalation", traffic_of([1.0, 2.0]), DUE[:2], SERVERS, serving, seed=0)
    assert hours_of(served.approximate.start) == [23.5, 24.0]
    # The window is at 24 and the second approximation, ready since 23.5, goes first.
    assert hours_of(served.runs.start) == [24.5, 25.5]


@pytest.mark.parametrize("rule", [r for r in SIMULATED if not r.startswith("escalation")])
def test_zero_run_time_keeps_everything(rule: str) -> None:
    traffic = poisson_traffic(2_000, days=60, seed=3)
    servers = Servers(exact=Work(run=Lognormal(median=0.0, p95=0.0)))
    policy = Policy(serving=Serving(period_days=20, largest_batch=100))
    due = traffic.due(policy)
    served = serve(rule, traffic, due, servers, policy.serving, seed=0)
    outcome = measure(served, traffic, due, rule=rule, workers=1, cost_per_hour=5.0)
    assert (outcome.in_time, outcome.late, outcome.cost, outcome.worst_lateness_days) == (1.0, 0, 0.0, 0.0)
    assert rule != "now" or outcome.days_max == 0.0


@pytest.mark.parametrize("workers", [1, 3])
def test_a_period_of_zero_is_now(workers: int) -> None:
    traffic = poisson_traffic(500, days=20, seed=1)
    servers = Servers(workers=workers, exact=Work(run=Lognormal(median=3000.0, p95=9000.0), evaluation=HALF_HOUR))
    due, serving = traffic.due(Policy()), Serving(period_days=0)
    now = serve("now", traffic, due, servers, serving, seed=7)
    for rule in ("periodic", "periodic_guarded"):
        assert serve(rule, traffic, due, servers, serving, seed=7).fulfilled.tolist() == now.fulfilled.tolist()
    # A microsecond is next to nothing: every window holds one request.
    tiny = serve_periodic(traffic.received, due, servers, Serving(period_days=1 / 86_400 / 1e6), seed=7)
    assert np.abs(tiny.fulfilled - now.fulfilled).max() <= 1


def test_guarded_is_batched_without_windows_and_periodic_without_pressing_deadlines() -> None:
    traffic = poisson_traffic(3_000, days=120, seed=2)
    servers = Servers(workers=200, exact=Work(run=Lognormal(median=300.0, p95=600.0)))
    due = traffic.due(Policy())
    rare = Serving(period_days=100_000, epoch=date(2000, 1, 1), largest_batch=10_000)
    assert (
        serve("periodic_guarded", traffic, due, servers, rare, seed=0).fulfilled.tolist()
        == serve("batched", traffic, due, servers, rare, seed=0).fulfilled.tolist()
    )
    often = Serving(period_days=9, largest_batch=10_000)
    assert (
        serve("periodic_guarded", traffic, due, servers, often, seed=0).fulfilled.tolist()
        == serve("periodic", traffic, due, servers, often, seed=0).fulfilled.tolist()
    )


# --- against a simulation that looks at every microsecond -------------------------------------------------------------


def plain(
    ready: list[int],
    due: list[int],
    regime: list[int],
    work: Work,
    *,
    workers: int,
    margin: int,
    largest: int,
    period: int | None,
    beside: list[tuple[int, int]],
) -> tuple[list[int], list[int]]:
    """When the run of each request starts, and when each of the other runs does: one microsecond after another."""
    free = [0] * workers
    start: dict[int, int] = {}
    others: list[int] = []
    triggered: int | None = None
    takes = round(work.run.p95 * 1e6), round(work.per_request_seconds * 1e6)
    for now in range(10_000):
        if len(start) == len(ready) and len(others) == len(beside):
            break
        while True:
            pending = [i for i in range(len(ready)) if ready[i] <= now and i not in start]
            if pending and triggered is None:
                n = min(largest, len(pending))
                start_by = min(due[i] for i in pending) - (takes[0] + n * takes[1]) - margin
                window = period is not None and any(-(-ready[i] // period) * period <= now for i in pending)
                triggered = now if now >= start_by or window else None
            idle = next((w for w in range(workers) if free[w] <= now), None)
            if idle is None:
                break
            waits = beside[len(others)] if len(others) < len(beside) else None
            if waits is not None and waits[0] <= now and (triggered is None or waits[0] <= triggered):
                free[idle] = now + waits[1]
                others.append(now)
            elif triggered is not None:
                batch = sorted(pending, key=lambda i: (due[i], ready[i], regime[i], i))[:largest]
                start.update(dict.fromkeys(batch, now))
                free[idle] = now + takes[0] + len(batch) * takes[1]
                triggered = None
            else:
                break
    return [start[i] for i in range(len(ready))], others


@settings(deadline=None, max_examples=150)
@given(
    requests=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 2)), min_size=1, max_size=25),
    terms=st.tuples(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60)),
    takes=st.integers(0, 9),
    each=st.integers(0, 3),
    workers=st.integers(1, 3),
    margin=st.integers(0, 10),
    largest=st.integers(1, 9),
    period=st.one_of(st.none(), st.integers(1, 40)),
    beside=st.lists(st.tuples(st.integers(0, 80), st.integers(0, 9)), max_size=6),
)
def test_events_are_those_of_the_plain_simulation(
    requests: list[tuple[int, int]],
    terms: tuple[int, int, int],
    takes: int,
    each: int,
    workers: int,
    margin: int,
    largest: int,
    period: int | None,
    beside: list[tuple[int, int]],
) -> None:
    requests.sort(key=lambda r: r[0])
    beside.sort(key=lambda r: r[0])
    ready, regime = [r for r, _ in requests], [g for _, g in requests]
    due = [r + terms[g] for r, g in requests]
    work = Work(run=Lognormal(median=takes / 1e6, p95=takes / 1e6), per_request_seconds=each / 1e6)
    wanted = plain(
        ready, due, regime, work, workers=workers, margin=margin, largest=largest, period=period, beside=beside
    )
    served, others = serve_batched(
        np.array(ready, dtype=np.int64),
        np.array(due, dtype=np.int64),
        np.array(regime, dtype=np.int8),
        Servers(workers=workers, exact=work),
        margin=margin,
        largest=largest,
        seed=0,
        windows=None if period is None else (0, period),
        beside=Beside(*(np.array([b[k] for b in beside], dtype=np.int64) for k in (0, 1))),
    )
    assert (served.runs.start[served.run_of].tolist(), others.tolist()) == wanted
    assert np.bincount(served.run_of, minlength=len(served.runs)).tolist() == served.runs.size.tolist()


def test_of_equal_due_dates_those_that_came_first_go_first_whatever_their_regime() -> None:
    served, _ = serve_batched(
        np.array([0, 1, 2, 3, 4], dtype=np.int64),
        np.array([100, 100, 100, 100, 90], dtype=np.int64),
        np.array([1, 0, 1, 0, 2], dtype=np.int8),
        Servers(exact=Work(run=Lognormal(median=0.0, p95=0.0))),
        margin=0,
        largest=3,
        seed=0,
    )
    assert served.run_of.tolist() == [0, 0, 1, 1, 0]
    assert served.runs.start.tolist() == [90, 100]


@settings(deadline=None, max_examples=60)
@given(
    runs=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 12)), min_size=1, max_size=40),
    workers=st.integers(1, 5),
)
@example(runs=[(0, 5), (0, 5), (1, 5)], workers=2)
def test_waiting_is_that_of_a_queue_looked_at_run_by_run(runs: list[tuple[int, int]], workers: int) -> None:
    runs.sort(key=lambda r: r[0])
    free = [0] * workers
    wanted = []
    for ready, takes in runs:
        worker = free.index(min(free))
        wanted.append(max(ready, free[worker]))
        free[worker] = wanted[-1] + takes
    ready_at, durations = (np.array([r[k] for r in runs], dtype=np.int64) for k in (0, 1))
    assert starts_in_order(ready_at, durations, workers).tolist() == wanted


@settings(deadline=None, max_examples=60)
@given(
    requests=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)), min_size=1, max_size=30),
    largest=st.integers(1, 6),
    period=st.integers(1, 9),
)
def test_runs_of_a_window_take_those_due_first(requests: list[tuple[int, int]], largest: int, period: int) -> None:
    requests.sort(key=lambda r: r[0])
    ready = np.array([r for r, _ in requests], dtype=np.int64)
    due = np.array([r + d for r, d in requests], dtype=np.int64)
    window = windows(ready, 5, period)
    assert ((window >= ready) & (window - ready < period) & ((window - 5) % period == 0)).all()
    at, sizes, run_of = gathered(window, due, largest)
    wanted: dict[int, int] = {}
    before, expected = 0, []
    for w in sorted(set(window.tolist())):
        mine = sorted(np.flatnonzero(window == w).tolist(), key=lambda i: (due[i], i))
        wanted |= {i: before + k // largest for k, i in enumerate(mine)}
        chunks = [len(mine[k : k + largest]) for k in range(0, len(mine), largest)]
        expected += [(w, n) for n in chunks]
        before += len(chunks)
    assert run_of.tolist() == [wanted[i] for i in range(len(requests))]
    assert list(zip(at.tolist(), sizes.tolist(), strict=True)) == expected


# --- queues and run times as the books have them ----------------------------------------------------------------------


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_mean_wait_is_that_of_pollaczek_and_khinchine(load: float) -> None:
    requests, days = 400_000, 365
    seconds = load * days * 86_400 / requests
    traffic = poisson_traffic(requests, days=days, rhythm=STEADY, seed=11)
    servers = Servers(exact=Work(run=Lognormal(median=seconds, p95=seconds)))
    served = serve("now", traffic, traffic.received, servers, Serving(), seed=0)
    waited = float((served.runs.start - traffic.received).mean()) / 1e6
    assert waited == pytest.approx(load * seconds / (2 * (1 - load)), rel=0.02)


def test_mean_wait_with_varying_run_times_and_more_workers() -> None:
    requests, days, load, workers = 300_000, 365, 0.8, 3
    mean = workers * load * days * 86_400 / requests
    exponential = Measured(tuple((-mean * np.log1p(-(np.arange(20_000) + 0.5) / 20_000)).tolist()))
    traffic = poisson_traffic(requests, days=days, rhythm=STEADY, seed=5)
    served = serve(
        "now", traffic, traffic.received, Servers(workers=workers, exact=Work(run=exponential)), Serving(), seed=0
    )
    waited = float((served.runs.start - traffic.received).mean()) / 1e6
    # Erlang's C for three servers at a load of 0.8, over c μ (1 − ρ).
    offered = workers * load
    queue = offered**3 / 6 / (1 - load)
    erlang = queue / (1 + offered + offered**2 / 2 + queue)
    assert waited == pytest.approx(erlang * mean / (workers * (1 - load)), rel=0.05)


def test_lognormal_has_the_median_and_p95_it_was_given() -> None:
    drawn = Lognormal(median=540.0, p95=810.0).draw(200_000, np.random.default_rng(0))
    assert np.quantile(drawn, [0.5, 0.95]) == pytest.approx([540.0, 810.0], rel=0.01)


def test_a_batch_shares_the_run_and_pays_for_each_request() -> None:
    work = Work(
        run=Lognormal(median=100.0, p95=100.0), evaluation=Lognormal(median=7.0, p95=7.0), per_request_seconds=2.0
    )
    sizes = np.array([1, 10], dtype=np.int64)
    assert work.durations(sizes, Draws(work, 0, "x")).tolist() == [109_000_000, 127_000_000]
    assert work.p95(10) == 127_000_000


def test_shards_touched_follow_the_forecast() -> None:
    layout = Layout(rows=10_000, shards=20)
    work = Work(run=Lognormal(median=100.0, p95=150.0), layout=layout)
    wanted = expected_cost(layout, 8, batch=True) / expected_cost(layout, 1, batch=True)
    assert 6.5 < wanted < 7.0  # eight requests hit fewer than eight of twenty shards
    assert work.p95(8) == round(150e6 * wanted)
    alone, batch = (work.durations(np.array([n]), Draws(work, 4, "x"))[0] for n in (1, 8))
    assert batch / alone == pytest.approx(wanted)
    steady = Work(run=Lognormal(median=100.0, p95=100.0), layout=layout)
    sizes = np.array([1, 8, 8, 2])
    taken = steady.durations(sizes, Draws(steady, 4, "x")).tolist()
    assert taken[:3] == [100_000_000, round(100e6 * wanted), round(100e6 * wanted)]
    one_by_one = Draws(steady, 4, "x")
    assert [one_by_one.next_duration(int(n)) for n in sizes] == taken
    with pytest.raises(RequestError, match="remove all"):
        work.p95(10_000)


def test_the_kth_run_gets_the_kth_draw_however_they_are_asked_for() -> None:
    work = Work(run=Lognormal(median=100.0, p95=200.0), evaluation=Measured((1.0, 2.0, 3.0)), per_request_seconds=0.5)
    sizes = np.arange(1, 3_001)
    one_by_one = Draws(work, 9, "exact")
    assert [one_by_one.next_duration(int(n)) for n in sizes] == work.durations(sizes, Draws(work, 9, "exact")).tolist()
    assert Draws(work, 10, "exact").next_duration(1) != Draws(work, 9, "exact").next_duration(1)


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_refusals() -> None:
    with pytest.raises(UnknownName, match="batched"):
        serve("batchd", THREE, DUE, SERVERS, Serving(), seed=0)
    with pytest.raises(RequestError, match=r"may take 0\.4"):
        serve("escalation", THREE, DUE, SERVERS, Serving(approximate_within_hours=0.4), seed=0)
    with pytest.raises(RequestError, match="approximate stage"):
        serve("escalation", THREE, DUE, Servers(exact=SERVERS.exact), Serving(), seed=0)
    with pytest.raises(DataError, match="due earlier"):
        serve("batched", THREE, DUE[::-1], SERVERS, Serving(), seed=0)
    for wrong in ({"workers": 0}, {"suppress_seconds": -1.0}, {"approval_days": float("nan")}):
        with pytest.raises(RequestError):
            Servers(exact=SERVERS.exact, **wrong)
    for median, p95 in ((-1.0, 1.0), (2.0, 1.0), (0.0, 1.0), (1.0, float("inf"))):
        with pytest.raises(RequestError):
            Lognormal(median=median, p95=p95)
    for seconds in ((), (-1.0,), (float("nan"),)):
        with pytest.raises(RequestError):
            Measured(seconds)
    with pytest.raises(RequestError):
        Work(run=HALF_HOUR, per_request_seconds=-1.0)


def test_approval_comes_before_any_run() -> None:
    servers = Servers(exact=Work(run=HALF_HOUR), approval_days=1.0)
    served = serve("now", THREE, DUE, servers, Serving(), seed=0)
    assert hours_of(served.runs.start) == [25.0, 25.5, 54.0]
    outcome = measure(served, THREE, DUE, rule="now", workers=1)
    assert outcome.days_max == pytest.approx(24.75 / 24)
    assert (served.fulfilled - THREE.received).min() >= DAY
