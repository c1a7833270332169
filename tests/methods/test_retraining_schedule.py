"""Earliest deadline first: nothing is late that could be in time, and the closed forms are what simulation shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.errors import RequestError
from expunge.methods.retraining_schedule import Ask, Durations, expected_exposure, expected_speedup, schedule

HOURS = Durations(run=2.0, evaluation=1.0, margin=4.0)


def asks(*pairs: tuple[float, float]) -> list[Ask]:
    return [Ask(received=r, due=d) for r, d in pairs]


def test_one_run_before_the_earliest_deadline() -> None:
    # Due at 30, 100 and 60: the first must start at 30 − 7 = 23; the one received at 24 has a run of its own, at 53.
    plan = schedule(asks((0, 30), (10, 100), (24, 60)), HOURS)
    assert plan.starts == (23.0, 53.0) and plan.sizes == (2, 1)
    assert plan.exposures == (26.0, 16.0, 32.0) and plan.late == 0
    assert plan.speedup == 1.5 and plan.mean_exposure == pytest.approx(74 / 3)


def test_a_later_request_with_an_earlier_deadline_pulls_the_run_forward() -> None:
    plan = schedule(asks((0, 100), (10, 30)), HOURS)
    assert plan.starts == (23.0,) and plan.sizes == (2,)


def test_what_is_received_in_the_moment_of_the_start_goes_with_it() -> None:
    assert schedule(asks((0, 30), (23, 60)), HOURS).sizes == (2,)


def test_a_deadline_that_cannot_be_kept_starts_at_once_and_is_late() -> None:
    plan = schedule(asks((5, 6)), HOURS)
    assert plan.starts == (5.0,) and plan.late == 1
    # A day too short for the margin alone is not late.
    assert schedule(asks((5, 8)), HOURS).late == 0


def test_one_run_at_a_time() -> None:
    plan = schedule(asks((0, 0), (1, 1), (2, 2)), HOURS, policy="now")
    assert plan.starts == (0.0, 3.0) and plan.sizes == (1, 2) and plan.late == 3
    assert plan.exposures == (3.0, 5.0, 4.0)


def test_now_is_one_run_a_request_when_there_is_time() -> None:
    plan = schedule(asks((10, 90), (0, 90), (50, 90)), HOURS, policy="now")
    assert plan.starts == (0.0, 10.0, 50.0) and plan.speedup == 1 and plan.exposures == (3.0, 3.0, 3.0)


def test_periodic_runs_at_multiples_whatever_the_deadlines() -> None:
    plan = schedule(asks((1, 5), (10, 90), (25, 90)), HOURS, policy="periodic", every=10.0)
    assert plan.starts == (10.0, 30.0) and plan.sizes == (2, 1) and plan.late == 1
    on_the_dot = schedule(asks((20, 90)), HOURS, policy="periodic", every=10.0)
    assert on_the_dot.starts == (20.0,)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_every_request_is_answered_once_and_in_time_where_it_can_be(data: st.DataObject) -> None:
    gap = st.floats(0, 200)
    given_asks = [
        Ask(received=r, due=r + d) for r, d in data.draw(st.lists(st.tuples(gap, gap), min_size=1, max_size=12))
    ]
    policy = data.draw(st.sampled_from(["now", "batched", "periodic"]))
    every = data.draw(st.floats(0.1, 50)) if policy == "periodic" else None
    plan = schedule(given_asks, HOURS, policy=policy, every=every)
    assert sum(plan.sizes) == len(given_asks) and min(plan.sizes) >= 1
    assert all(b >= a + HOURS.work - 1e-9 for a, b in zip(plan.starts, plan.starts[1:], strict=False))
    assert min(plan.exposures) >= HOURS.work - 1e-9
    roomy = [Ask(received=a.received, due=a.received + 500) for a in given_asks]
    assert schedule(roomy, HOURS).late == 0  # two runs fit between any receipt and its deadline


def test_expected_speedup_and_exposure_are_what_simulation_shows() -> None:
    rng = np.random.default_rng(0)
    received = np.cumsum(rng.exponential(5.0, 40_000))
    durations = Durations(run=1e-9)
    for wait in (0.0, 5.0, 40.0):
        plan = schedule([Ask(received=r, due=r + wait + 1e-9) for r in received.tolist()], durations)
        assert plan.speedup == pytest.approx(expected_speedup(0.2, wait), rel=0.01)
        assert plan.mean_exposure == pytest.approx(expected_exposure(0.2, wait, 0.0), rel=0.01, abs=1e-6)
    assert expected_exposure(0.2, 5.0, 3.0) == pytest.approx(5 * 1.5 / 2 + 3)


@pytest.mark.parametrize("wrong", [{"run": -1.0}, {"run": float("nan")}, {"run": 1.0, "margin": float("inf")}])
def test_durations_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        Durations(**wrong)


def test_nonsense_is_refused() -> None:
    one = asks((0, 9))
    with pytest.raises(RequestError):
        schedule([], HOURS)
    with pytest.raises(RequestError):
        schedule(one, HOURS, policy="later")  # type: ignore[arg-type]
    for policy, every in (("periodic", None), ("periodic", 0.0), ("batched", 5.0)):
        with pytest.raises(RequestError):
            schedule(one, HOURS, policy=policy, every=every)  # type: ignore[arg-type]
    with pytest.raises(RequestError):
        Ask(received=2.0, due=1.0)
    for rate, wait in ((-1.0, 1.0), (1.0, -1.0), (float("nan"), 1.0)):
        with pytest.raises(RequestError):
            expected_speedup(rate, wait)
        with pytest.raises(RequestError):
            expected_exposure(rate, wait, 1.0)
