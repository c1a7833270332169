"""The formulas equal an enumeration of all cases, a simulation, the published numbers, and retraining in the limit."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.errors import RequestError
from expunge.forecast import formulas, steps
from expunge.forecast.formulas import (
    expected_cost,
    log_missed,
    published_batch,
    published_sequential,
    published_slicing,
    published_slicing_many,
    retrain_cost,
    speedup,
    training_cost,
)
from expunge.forecast.layout import Layout, equal_budget_epochs, spread_evenly
from expunge.forecast.simulate import simulate

GRID = [
    # rows, shards, slices, requests, kept
    (200, 1, 1, 7, None),
    (200, 1, 6, 3, None),
    (203, 4, 1, 1, None),
    (203, 4, 5, 1, None),
    (203, 7, 3, 12, None),
    (203, 7, 6, 9, (2, 6)),
    (203, 5, 6, 4, (1, 4, 6)),
    (397, 20, 1, 16, None),
    (397, 20, 4, 64, (4,)),
]


# --- against all cases ------------------------------------------------------------------------------------------------


def cost_of(layout: Layout, place: tuple[tuple[int, int], ...], removed: tuple[int, ...]) -> Fraction:
    """One batch carried out by the book: `place` (shard, slice from 1) of each row."""
    kept = layout.kept or tuple(range(1, layout.slices + 1))
    cost = Fraction(0)
    for shard in range(layout.shards):
        hit = [place[row][1] for row in removed if place[row][0] == shard]
        if not hit:
            continue
        start = max([0, *(t for t in kept if t < min(hit))])
        for stage in range(start + 1, layout.slices + 1):
            rows = [r for r, (s, part) in enumerate(place) if s == shard and part <= stage and r not in removed]
            cost += Fraction(layout.stage_epochs[stage - 1]) * len(rows)
    return cost


def by_enumeration(layout: Layout, requests: int, batch: bool) -> Fraction:
    if layout.placing == "hashed":
        cells = list(itertools.product(range(layout.shards), range(1, layout.slices + 1)))
        places: Any = itertools.product(cells, repeat=layout.rows)
    else:
        shards = np.array_split(np.arange(layout.rows), layout.shards)
        filled = []
        for shard, rows in enumerate(shards):
            for part, own in enumerate(np.array_split(rows, layout.slices), 1):
                filled += [(shard, part)] * len(own)
        places = [tuple(filled)]  # which rows are asked for is enumerated, and that is enough
    total, cases = Fraction(0), 0
    for place in places:
        for removed in itertools.permutations(range(layout.rows), requests):
            cases += 1
            if batch:
                total += cost_of(layout, place, removed)
                continue
            gone: tuple[int, ...] = ()
            for row in removed:
                rest = tuple((-1, 0) if r in gone else p for r, p in enumerate(place))
                total += cost_of(layout, rest, (row,))
                gone = (*gone, row)
    return total / cases


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("requests", [1, 2, 3])
@pytest.mark.parametrize(
    "layout",
    [
        Layout(rows=4, shards=2, slices=2),
        Layout(rows=4, shards=1, slices=3, kept=(2, 3)),
        Layout(rows=5, shards=2, slices=1),
        Layout(rows=4, shards=1, slices=3, slice_epochs=(1.0, 0.5, 0.25), kept=(3,)),
        Layout(rows=7, shards=2, slices=2, placing="equal"),
        Layout(rows=6, shards=3, slices=2, placing="equal", epochs=4),
        Layout(rows=8, shards=1, slices=4, placing="equal", kept=(2, 4)),
        Layout(rows=7, shards=2, slices=3, placing="equal", slice_epochs=(2.0, 1.0, 4.0), kept=(1, 3)),
    ],
    ids=str,
)
def test_equals_the_mean_of_all_cases(layout: Layout, requests: int, batch: bool) -> None:
    expected = float(by_enumeration(layout, requests, batch))
    assert expected_cost(layout, requests, batch=batch) == pytest.approx(expected, rel=1e-12)


# --- against the procedure --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("placing", ["hashed", "equal"])
@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize(("rows", "shards", "slices", "requests", "kept"), GRID)
def test_simulation_agrees_within_one_percent(
    rows: int, shards: int, slices: int, requests: int, kept: Any, batch: bool, placing: Any
) -> None:
    layout = Layout(rows=rows, shards=shards, slices=slices, placing=placing, kept=kept, epochs=3)
    check_against_simulation(layout, requests, batch)


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize(
    ("shards", "slices", "epochs", "batch_size", "kept"),
    [(4, 5, 12, 24, None), (7, 6, 1, 8, (2, 6)), (20, 3, 2, 16, (3,)), (1, 1, 2.5, 32, None)],
)
def test_whole_steps_agree_with_simulation(
    shards: int, slices: int, epochs: float, batch_size: int, kept: Any, batch: bool
) -> None:
    layout = Layout(rows=203, shards=shards, slices=slices, epochs=epochs, batch_size=batch_size, kept=kept)
    check_against_simulation(layout, 9, batch)


def check_against_simulation(layout: Layout, requests: int, batch: bool) -> None:
    costs = simulate(layout, requests, batch=batch, runs=2000, seed=11)
    for seed in range(12, 60):
        error = costs.std() / math.sqrt(len(costs)) / costs.mean()
        if error < 0.0033:
            break
        costs = np.concatenate([costs, simulate(layout, requests, batch=batch, runs=2000, seed=seed)])
    assert error < 0.0033, "not enough runs to tell one percent"
    assert expected_cost(layout, requests, batch=batch) == pytest.approx(costs.mean(), rel=0.01)


def test_simulation_is_a_function_of_its_seed() -> None:
    layout = Layout(rows=50, shards=5, slices=2)
    first, again = (simulate(layout, 3, runs=20, seed=4) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, simulate(layout, 3, runs=20, seed=5))


# --- published numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("requests", "times"), [(1, 20), (4, 5.4), (8, 3.0), (16, 1.8), (64, 1.04)])
def test_published_speedups_of_batches_over_twenty_shards(requests: int, times: float) -> None:
    for placing in ("hashed", "equal"):
        found = speedup(Layout(rows=1_000_000, shards=20, placing=placing), requests, batch=True)  # type: ignore[arg-type]
        assert found == pytest.approx(times, abs=0.05 if times > 1.1 else 0.005)
    assert 1_000_000 / published_batch(1_000_000, 20, requests) == pytest.approx(found, rel=1e-2)


@pytest.mark.parametrize(("requests", "share"), [(1, 0.68), (2, 0.84), (4, 0.94), (8, 0.98)])
def test_published_shares_of_twenty_slices(requests: int, share: float) -> None:
    assert published_slicing_many(20, requests) == pytest.approx(share, abs=0.005)
    for placing in ("hashed", "equal"):
        layout = Layout(rows=100_000, slices=20, placing=placing)  # type: ignore[arg-type]
        assert 1 / speedup(layout, requests, batch=True) == pytest.approx(share, abs=0.005)


@pytest.mark.parametrize("slices", [1, 2, 5, 20, 100])
def test_one_request_costs_two_thirds_and_a_bit(slices: int) -> None:
    assert published_slicing_many(slices, 1) == pytest.approx(published_slicing(slices), rel=1e-12)
    assert speedup(Layout(rows=1000, slices=slices), 1) == pytest.approx(1 / published_slicing(slices), rel=1e-12)


@pytest.mark.parametrize("requests", [1, 3, 8])
def test_slicing_as_published_is_exact_for_hashed_slices(requests: int) -> None:
    found = 1 / speedup(Layout(rows=300, slices=7), requests, batch=True)
    assert found == pytest.approx(published_slicing_many(7, requests), rel=1e-12)


def test_published_sharding_is_near_where_shards_are_large() -> None:
    for placing in ("hashed", "equal"):
        layout = Layout(rows=1_000_000, shards=20, placing=placing)  # type: ignore[arg-type]
        assert published_sequential(1_000_000, 20, 64) == pytest.approx(expected_cost(layout, 64), rel=1e-4)
        batch = expected_cost(layout, 64, batch=True)
        assert published_batch(1_000_000, 20, 64) == pytest.approx(batch, rel=1e-4)


def test_how_far_published_sharding_is_off() -> None:
    N, S, K = 2000, 20, 30
    layout = Layout(rows=N, shards=S)
    assert expected_cost(layout, K) - published_sequential(N, S, K) == pytest.approx(K * (1 - 1 / S))
    behind = expected_cost(layout, K, batch=True) - published_batch(N, S, K)
    assert behind == pytest.approx(K * (1 - 1 / S) ** K)
    equal = replace(layout, placing="equal")
    assert published_sequential(N, S, 1) == pytest.approx(expected_cost(equal, 1))
    assert published_sequential(40, 40, 3) < 0 < expected_cost(Layout(rows=40, shards=40), 3)
    assert published_batch(40, 40, 39) < 0 < expected_cost(Layout(rows=40, shards=40), 39, batch=True)


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("placing", ["hashed", "equal"])
@pytest.mark.parametrize("requests", [1, 7, 63, 999])
def test_one_shard_of_one_slice_is_retraining(placing: Any, requests: int) -> None:
    layout = Layout(rows=1000, epochs=12, placing=placing)
    for batch in (True, False):
        assert expected_cost(layout, requests, batch=batch) == retrain_cost(layout, requests, batch=batch)
        assert speedup(layout, requests, batch=batch) == 1.0


@pytest.mark.parametrize("placing", ["hashed", "equal"])
def test_a_large_batch_is_retraining(placing: Any) -> None:
    layout = Layout(rows=100_000, shards=20, slices=5, placing=placing)
    assert speedup(layout, 10_000, batch=True) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("placing", ["hashed", "equal"])
def test_one_request_is_a_batch_of_one(placing: Any) -> None:
    layout = Layout(rows=1003, shards=7, slices=4, placing=placing, kept=(2, 4))
    assert expected_cost(layout, 1) == pytest.approx(expected_cost(layout, 1, batch=True), rel=1e-12)


def test_costs_fall_as_one_over_the_shards() -> None:
    shards = np.array([1, 2, 5, 10, 20, 50])
    costs = [expected_cost(Layout(rows=10_000, shards=int(s)), 1) for s in shards]
    slope = np.polyfit(np.log(shards), np.log(costs), 1)[0]
    assert slope == pytest.approx(-1, abs=1e-9)


@pytest.mark.parametrize("slices", [1, 2, 7, 20])
def test_slicing_has_the_budget_of_plain_training(slices: int) -> None:
    assert equal_budget_epochs(12, slices) == pytest.approx(24 / (slices + 1))
    assert training_cost(Layout(rows=840, shards=3, slices=slices, epochs=12)) == pytest.approx(840 * 12)
    even = Layout(rows=840, shards=3, slices=slices, epochs=12, placing="equal")
    assert training_cost(even) == pytest.approx(840 * 12)
    assert training_cost(replace(even, rows=839)) >= 839 * 12 - 1e-9
    whole = Layout(rows=840, shards=3, slices=slices, epochs=12, batch_size=32)
    assert training_cost(whole) >= 840 * 12 - 1e-9


def test_rounding_epochs_up_shows_in_the_cost() -> None:
    ideal = Layout(rows=1000, slices=20, epochs=5)
    rounded = replace(ideal, slice_epochs=(1.0,) * 20)
    assert expected_cost(rounded, 1) / expected_cost(ideal, 1) == pytest.approx(21 / 10)


def test_shards_of_one_row_leave_nothing_to_train() -> None:
    layout = Layout(rows=9, shards=9, placing="equal")
    assert expected_cost(layout, 4) == expected_cost(layout, 4, batch=True) == 0
    assert speedup(layout, 4) == math.inf


@pytest.mark.parametrize(
    ("rows", "block", "requests"), [(10, 3, 4), (1000, 50, 999), (50, 50, 1), (7, 3, 4), (9, 1, 8)]
)
def test_the_chance_of_a_miss(rows: int, block: int, requests: int) -> None:
    exact = Fraction(math.comb(rows - block, requests), math.comb(rows, requests))
    assert math.exp(log_missed(rows, block, requests)) == pytest.approx(float(exact), rel=1e-12)


def test_many_factors_and_the_gamma_function_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    product = log_missed(10**7, 9_000, 8_000)
    monkeypatch.setattr(formulas, "MOST_FACTORS", 100)
    assert log_missed(10**7, 9_000, 8_000) == pytest.approx(product, rel=1e-6)


def test_many_sizes_are_interpolated_between(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(rows=900, shards=4, slices=4, epochs=1, batch_size=16)
    exact = expected_cost(layout, 500)
    monkeypatch.setattr(steps, "MOST_SIZES", 40)
    assert expected_cost(layout, 500) == pytest.approx(exact, rel=1e-3)
    assert expected_cost(layout, 500) != exact


def test_a_large_table_takes_no_time() -> None:
    hashed = Layout(rows=10**9, shards=1000, slices=50)
    assert speedup(hashed, 1) == pytest.approx(1000 / published_slicing(50))
    for K in (1, 10, 100_000):
        one, other = (expected_cost(replace(hashed, placing=p), K, batch=True) for p in ("hashed", "equal"))  # type: ignore[arg-type]
        assert one == pytest.approx(other, rel=1e-4)


# --- properties -------------------------------------------------------------------------------------------------------

layouts = st.builds(
    lambda rows, shards, slices, epochs, placing: Layout(
        rows=rows * shards * slices, shards=shards, slices=slices, epochs=epochs, placing=placing
    ),
    rows=st.integers(3, 50),
    shards=st.integers(1, 30),
    slices=st.integers(1, 12),
    epochs=st.sampled_from([0.5, 1, 12]),
    placing=st.sampled_from(["hashed", "equal"]),
)
quick = settings(deadline=None, max_examples=60)
LITTLE = 1 + 1e-9


@quick
@given(layouts, st.floats(0, 1), st.booleans())
def test_never_dearer_than_retraining_and_a_batch_never_dearer_than_its_requests(
    layout: Layout, share: float, batch: bool
) -> None:
    K = 1 + int(share * (layout.rows - 2))
    assert 0 < expected_cost(layout, K, batch=batch) <= retrain_cost(layout, K, batch=batch) * LITTLE
    assert expected_cost(layout, K, batch=True) <= expected_cost(layout, K) * LITTLE


@quick
@given(layouts, st.floats(0, 1), st.booleans())
def test_more_shards_and_more_slices_cost_less(layout: Layout, share: float, batch: bool) -> None:
    hashed = replace(layout, placing="hashed")
    K = 1 + int(share * (layout.rows - 2))
    cost = expected_cost(hashed, K, batch=batch)
    assert expected_cost(replace(hashed, shards=layout.shards + 1), K, batch=batch) <= cost * LITTLE
    assert expected_cost(replace(hashed, slices=layout.slices + 1), K, batch=batch) <= cost * LITTLE


@quick
@given(layouts, st.floats(0, 1))
def test_a_larger_batch_is_sped_up_less_and_more_requests_cost_more(layout: Layout, share: float) -> None:
    K = 1 + int(share * (layout.rows - 3))
    assert speedup(layout, K + 1, batch=True) <= speedup(layout, K, batch=True) * LITTLE
    assert expected_cost(layout, K + 1) >= expected_cost(layout, K)


@quick
@given(layouts, st.data(), st.booleans())
def test_fewer_checkpoints_cost_more(layout: Layout, data: Any, batch: bool) -> None:
    K = data.draw(st.integers(1, layout.rows - 1))
    inner = data.draw(st.sets(st.integers(1, layout.slices - 1))) if layout.slices > 1 else set()
    kept = (*sorted(inner), layout.slices)
    fewer = replace(layout, kept=kept)
    least = replace(layout, kept=(layout.slices,))
    costs = [expected_cost(one, K, batch=batch) for one in (layout, fewer, least)]
    assert costs[0] <= costs[1] * LITTLE
    assert costs[1] <= costs[2] * LITTLE


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"rows": 0}, "rows must be a whole number"),
        ({"shards": 0}, "shards must be"),
        ({"slices": -1}, "slices must be"),
        ({"shards": 101}, "101 shards are more than the 100 rows"),
        ({"shards": 20, "slices": 6}, "120 slices"),
        ({"shards": True}, "shards must be"),
        ({"epochs": 0}, "epochs must be positive"),
        ({"epochs": math.nan}, "epochs must be positive"),
        ({"placing": "sorted"}, "hashed or equal"),
        ({"slices": 3, "slice_epochs": (1.0, 2.0)}, "2 slices and there are 3"),
        ({"slices": 2, "slice_epochs": (1.0, 0.0)}, "positive"),
        ({"slices": 3, "kept": (1, 2)}, "rising order, the last being 3"),
        ({"slices": 3, "kept": (2, 1, 3)}, "rising"),
        ({"slices": 3, "kept": ()}, "rising"),
        ({"slices": 3, "kept": (0, 3)}, "rising"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 8, "placing": "equal"}, "hashed rows only"),
    ],
)
def test_a_layout_that_cannot_be_is_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(RequestError, match=match):
        Layout(**{"rows": 100, **options})


@pytest.mark.parametrize(("requests", "match"), [(0, "requests must be"), (100, "all 100 rows"), (1.5, "whole number")])
def test_requests_that_cannot_be_are_refused(requests: Any, match: str) -> None:
    layout = Layout(rows=100)
    for ask in (expected_cost, retrain_cost, simulate):
        with pytest.raises(RequestError, match=match):
            ask(layout, requests)


@pytest.mark.parametrize("kept", [0, 4])
def test_checkpoints_that_cannot_be_kept_are_refused(kept: int) -> None:
    with pytest.raises(RequestError, match="between 1 and 3"):
        spread_evenly(3, kept)
