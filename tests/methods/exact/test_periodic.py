"""Periodic retraining: at once or for a queue, the model is a fresh fit's; the queue tells what is still in it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.data.records import Records
from expunge.errors import EmptyForgetSet, EmptyRetainSet, RequestError, UnknownIds
from expunge.methods.exact import periodic
from expunge.methods.exact.periodic import PeriodicRetraining, pending
from expunge.methods.learner import Job, State
from expunge.recipe import Recipe, Trainer

DAY = timedelta(days=1)
START = datetime(2026, 3, 1, 9, tzinfo=UTC)
LEARNER = PeriodicRetraining(
    recipe=Recipe(
        factory="expunge.models.architectures:mlp",
        kwargs={"features": 5, "classes": 3, "width": 4},
        trainer=Trainer(epochs=1, batch_size=8),
    ),
    run_seconds=7200,
    evaluation_seconds=3600,
    margin_seconds=86400,
)


def records(n: int = 20) -> Records:
    rng = np.random.default_rng(0)
    return Records(
        ids=np.array([f"r{k}" for k in range(n)]),
        columns={"x": rng.normal(size=(n, 5)).astype(np.float32), "y": rng.integers(0, 3, n)},
    )


def deferred(state: State, *requests: tuple[list[str], int, int]) -> State:
    for ids, received, due in requests:
        state = LEARNER.defer(state, ids, received=START + received * DAY, due=START + due * DAY)
    return state


def test_a_queued_record_is_in_the_model_until_the_flush() -> None:
    fresh = LEARNER.fit(records(), seed=1)
    state = deferred(fresh, (["r3", "r4"], 0, 30), (["r9"], 2, 20))
    assert state.part_digests() == fresh.part_digests() and "r3" in state.rows
    assert [(p.id, p.received, p.due) for p in pending(state)] == [
        ("r9", START + 2 * DAY, START + 20 * DAY),
        ("r3", START, START + 30 * DAY),
        ("r4", START, START + 30 * DAY),
    ]
    assert fresh.facts == {} and pending(fresh) == () and LEARNER.due(fresh) is None
    after, unlearned = LEARNER.flush(state, now=START + 12 * DAY)
    assert after.digest() == LEARNER.fit(records().without(["r3", "r4", "r9"]), seed=1).digest()
    assert after.facts == {} and str(unlearned.guarantee) == "exact(bitwise)"
    assert unlearned.trace == (
        {
            "flushed": 3,
            "longest_exposure_seconds": 12 * 86400,
            "mean_exposure_seconds": (12 + 12 + 10) / 3 * 86400,
            "late": 0,
        },
    )


def test_the_run_starts_before_the_earliest_deadline() -> None:
    state = deferred(LEARNER.fit(records()), (["r3"], 0, 30), (["r9"], 2, 20))
    assert LEARNER.due(state) == START + 20 * DAY - timedelta(hours=24 + 3)


def test_late_answers_are_counted() -> None:
    state = deferred(LEARNER.fit(records()), (["r3"], 0, 30), (["r9"], 2, 20), (["r1"], 0, 10))
    now = START + 20 * DAY - timedelta(hours=3)
    assert LEARNER.flush(state, now=now)[1].trace[-1]["late"] == 1
    state = deferred(LEARNER.fit(records()), (["r3"], 0, 30), (["r9"], 2, 20), (["r1"], 0, 10))
    assert LEARNER.flush(state, now=now + timedelta(seconds=1))[1].trace[-1]["late"] == 2


def test_the_order_of_requests_leaves_no_trace() -> None:
    requests = [(["r3", "r4"], 0, 30), (["r9"], 2, 20), (["r4"], 1, 25)]
    state = LEARNER.fit(records())
    assert len({deferred(state, *order).digest() for order in permutations(requests)}) == 1
    assert len({json.dumps(deferred(state, *order).facts) for order in permutations(requests)}) == 1
    asked_again = deferred(state, (["r4"], 3, 40), (["r4"], 1, 25), (["r4"], 4, 50))
    assert [(p.received, p.due) for p in pending(asked_again)] == [(START + DAY, START + 25 * DAY)]


def test_a_zone_is_another_way_to_write_a_time() -> None:
    state = LEARNER.fit(records())
    east = timezone(timedelta(hours=9))
    a = LEARNER.defer(state, ["r1"], received=START, due=START + DAY)
    b = LEARNER.defer(state, ["r1"], received=START.astimezone(east), due=(START + DAY).astimezone(east))
    assert a.digest() == b.digest()


def test_forgetting_at_once_leaves_the_queue_of_the_others() -> None:
    state = deferred(LEARNER.fit(records()), (["r3", "r4"], 0, 30))
    state, _ = LEARNER.forget(state, ["r4", "r7"])
    assert [p.id for p in pending(state)] == ["r3"]
    wanted = deferred(LEARNER.fit(records().without(["r4", "r7"])), (["r3"], 0, 30))
    assert state.digest() == wanted.digest()


@settings(deadline=None, max_examples=10)
@given(data=st.data())
def test_any_sequence_of_queueing_and_flushing(data: st.DataObject) -> None:
    state, gone = LEARNER.fit(records(), seed=2), set()
    for day in range(data.draw(st.integers(1, 4))):
        left = [i for i in state.rows.records().ids.tolist() if i not in gone]
        ids = data.draw(st.lists(st.sampled_from(left), min_size=1, max_size=3))
        gone |= set(ids)
        if data.draw(st.booleans()):
            state, _ = LEARNER.forget(state, ids)
        else:
            state = deferred(state, (ids, day, day + 30))
        if pending(state) and data.draw(st.booleans()):
            state, _ = LEARNER.flush(state, now=START + 5 * DAY)
    if pending(state):
        state, _ = LEARNER.flush(state, now=START + 5 * DAY)
    assert state.digest() == LEARNER.fit(records().without(gone), seed=2).digest()


def test_refusals_come_before_anything_changes() -> None:
    state = deferred(LEARNER.fit(records()), ([f"r{k}" for k in range(9)], 1, 30), (["r9"], 3, 30))
    before = state.digest()
    times: dict[str, Any] = {"received": START, "due": START + DAY}
    for ids, error in (
        ([], EmptyForgetSet),
        (["nobody"], UnknownIds),
        ([f"r{k}" for k in range(10, 20)], EmptyRetainSet),
    ):
        with pytest.raises(error):
            LEARNER.defer(state, ids, **times)
    naive = START.replace(tzinfo=None)
    for wrong in ({"received": naive}, {"due": naive}, {"due": START - DAY}, {"due": "tomorrow"}):
        with pytest.raises(RequestError):
            LEARNER.defer(state, ["r12"], **{**times, **wrong})  # type: ignore[arg-type]
    for now in (naive, START, START + 2 * DAY):
        with pytest.raises(RequestError):
            LEARNER.flush(state, now=now)
    assert state.digest() == before
    with pytest.raises(EmptyForgetSet):
        LEARNER.flush(LEARNER.fit(records()), now=START)


def test_durations_are_checked() -> None:
    for name in ("run_seconds", "evaluation_seconds", "margin_seconds"):
        with pytest.raises(RequestError):
            PeriodicRetraining(recipe=LEARNER.recipe, **{name: -1.0})


def test_progress_is_told() -> None:
    told: list[tuple[str, int, int]] = []
    LEARNER.fit(records(), job=Job(progress=lambda what, done, total: told.append((what, done, total))))
    assert told == [("retraining", 1, 3), ("retraining", 2, 3), ("retraining", 3, 3)]


def with_dropout(features: int, classes: int) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(features, 4), torch.nn.Dropout(0.2), torch.nn.Linear(4, classes))


def test_it_trains_on_one_thread_and_the_engine_that_promises_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, str]] = []
    loop = periodic.fit

    def watched(*arguments: Any, **named: Any) -> Any:
        seen.append((torch.get_num_threads(), named["engine"].name))
        return loop(*arguments, **named)

    monkeypatch.setattr(periodic, "fit", watched)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        LEARNER.fit(records())
        made = Recipe(factory=f"{__name__}:with_dropout", kwargs={"features": 5, "classes": 3})
        PeriodicRetraining(recipe=made).fit(records())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [(1, "batched"), (1, "loop")]
