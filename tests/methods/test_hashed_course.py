"""A row's step follows from its id alone, every row is seen once a pass, and checkpoints stand where they can help."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.errors import RequestError
from expunge.methods.hashed_course import HashedCourse, mixed, row_keys

IDS = [f"row-{k}" for k in range(400)]


def zeros(n: int) -> np.ndarray:
    return np.zeros(n, np.int64)


def test_a_key_follows_from_the_id_and_the_seed() -> None:
    keys = row_keys(IDS, 1)
    assert keys.dtype == np.uint64 and len(set(keys.tolist())) == len(IDS)
    np.testing.assert_array_equal(row_keys(IDS[7:9], 1), keys[7:9])
    assert not np.isin(row_keys(IDS, 2), keys).any()
    assert len(row_keys([], 1)) == 0


def test_mixing_is_splitmix64() -> None:
    # The published sequence of splitmix64 from state 1234567, whose n-th output mixes state + n·gamma.
    gamma = 0x9E3779B97F4A7C15
    states = np.array([(1234567 + k * gamma) % 2**64 for k in range(3)], np.uint64)
    assert mixed(states, 0).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert mixed(states, 5)[0] != mixed(states, 0)[0]


def test_every_pass_sees_every_row_once_in_its_own_order() -> None:
    course = HashedCourse(seed=3, epochs=3, steps_per_epoch=7)
    keys = row_keys(IDS, 3)
    orders = []
    for number in range(3):
        batches = course.block(number, keys, zeros(len(keys)))
        assert len(batches) == 7
        order = np.concatenate(batches)
        assert sorted(order.tolist()) == list(range(len(IDS)))
        orders.append(order.tolist())
        sizes = [len(b) for b in batches]
        assert min(sizes) > 57 - 4 * 7.5 and max(sizes) < 57 + 4 * 7.5  # binomial: 400 rows, 7 steps
    assert orders[0] != orders[1] != orders[2]
    assert (
        orders[0]
        != np.concatenate(HashedCourse(seed=4, epochs=3, steps_per_epoch=7).block(0, keys, zeros(400))).tolist()
    )


@settings(deadline=None, max_examples=25)
@given(gone=st.sets(st.integers(0, 59), max_size=59), seed=st.integers(0, 5), steps=st.integers(1, 20))
def test_taking_rows_out_moves_no_other(gone: set[int], seed: int, steps: int) -> None:
    course = HashedCourse(seed=seed, epochs=2, steps_per_epoch=steps, periods=2)
    ids, periods = np.array(IDS[:60]), np.arange(60) % 2
    keep = np.array([k not in gone for k in range(60)])
    for number in range(4):
        before = course.block(number, row_keys(ids, seed), periods)
        after = course.block(number, row_keys(ids[keep], seed), periods[keep])
        for b, a in zip(before, after, strict=True):
            assert [i for i in ids[b].tolist() if i in set(ids[keep].tolist())] == ids[keep][a].tolist()


def test_the_first_step_is_where_the_first_pass_has_the_row() -> None:
    course = HashedCourse(seed=1, epochs=2, steps_per_epoch=5, periods=3)
    keys, periods = row_keys(IDS, 1), np.arange(len(IDS)) % 3
    first = course.first_steps(keys, periods)
    for period in range(3):
        for step, rows in enumerate(course.block(2 * period, keys, periods)):
            assert set(first[rows].tolist()) <= {period * 10 + step}
            assert set(periods[rows].tolist()) <= {period}


def test_checkpoints_stand_in_first_passes_only_and_as_many_as_fit() -> None:
    one = HashedCourse(seed=0, epochs=3, steps_per_epoch=8)
    assert one.checkpoint_steps(2) == [2, 4, 6]
    assert one.checkpoint_steps(1) == [1, 2, 3, 4, 5, 6, 7]
    assert one.checkpoint_steps(8) == one.checkpoint_steps(100) == []
    assert one.checkpoint_steps(1, most=3) == [2, 4, 6]
    assert one.checkpoint_steps(2, most=2) == [4]
    assert one.checkpoint_steps(1, most=0) == []
    three = HashedCourse(seed=0, epochs=3, steps_per_epoch=8, periods=3)
    assert three.checkpoint_steps(4) == [4, 24, 28, 48, 52]
    assert three.checkpoint_steps(4, most=2) == [24, 48]


@pytest.mark.parametrize(
    ("epochs", "periods", "every", "requests"), [(1, 1, 1, 1), (1, 1, 4, 3), (3, 1, 3, 1), (2, 3, 4, 2)]
)
def test_the_expected_cost_is_the_mean_over_random_rows(epochs: int, periods: int, every: int, requests: int) -> None:
    course = HashedCourse(seed=0, epochs=epochs, steps_per_epoch=16, periods=periods)
    marks = np.array([0, *course.checkpoint_steps(every)])
    keys = row_keys([str(k) for k in range(60_000)], 0)
    for period in range(periods):
        first = course.first_steps(keys, np.full(len(keys), period)).reshape(-1, requests).min(1)
        start = marks[np.searchsorted(marks, first, side="right") - 1]
        expected = course.expected_steps(marks[1:].tolist(), requests=requests, period=period)
        assert np.mean(course.steps - start) == pytest.approx(expected, abs=0.15)


def test_the_expected_cost_of_one_pass_in_closed_form() -> None:
    course = HashedCourse(seed=0, epochs=1, steps_per_epoch=24)
    for every in (1, 2, 3, 4, 6, 8, 12):
        marks = course.checkpoint_steps(every)
        assert course.expected_steps(marks) == pytest.approx((24 + 24 / (len(marks) + 1)) / 2)
    assert course.expected_steps([]) == 24
    for period, requests in ((1, 1), (-1, 1), (0, 0)):
        with pytest.raises(RequestError):
            course.expected_steps([], period=period, requests=requests)
