"""Sums of real features are whole numbers: exact, the same in any order, undone by subtraction."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.data.records import Array
from expunge.errors import DataError
from expunge.methods.summation import (
    BITS,
    STEP,
    VALUE_DIGITS,
    check_range,
    chunks,
    class_count,
    class_sums,
    row_sums,
    square_digits,
    value_digits,
    whole,
)

REALS = st.floats(-1e9, 1e9) | st.floats(-1e-6, 1e-6) | st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0**35, -(2.0**35)])


def squares(x: Array) -> Array:
    return square_digits(x, STEP)


def rounded(value: float) -> int:
    return round(Fraction(value) / Fraction(STEP))


def mixed(rows: int, seed: int = 0) -> Array:
    """Features of every order of magnitude."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, 3)) * 10.0 ** rng.integers(-12, 10, (rows, 3))


@settings(deadline=None, max_examples=60)
@given(st.lists(REALS, min_size=1, max_size=20))
def test_sums_are_those_of_rational_arithmetic(values: list[float]) -> None:
    x = np.array(values)[:, None]
    sums = row_sums(squares, x)
    assert sums.shape == (9, 1)
    assert whole(sums[:VALUE_DIGITS])[0] == sum(rounded(v) for v in values)
    assert whole(sums[VALUE_DIGITS:])[0] == sum(rounded(v) ** 2 for v in values)


@settings(deadline=None, max_examples=60)
@given(REALS)
def test_a_value_is_rounded_by_half_a_step_at_most(value: float) -> None:
    digits = value_digits(np.array([[value]]), STEP)
    kept = Fraction(int(whole(digits.astype(np.int64)[:, 0])[0])) * Fraction(STEP)
    assert abs(kept - Fraction(value)) <= Fraction(STEP) / 2
    assert (np.abs(digits) < 2**BITS).all()


def test_the_largest_value_has_full_digits() -> None:
    largest = np.array([[np.nextafter(STEP * 2.0**72, 0)]])
    check_range(largest, STEP)
    assert whole(row_sums(squares, largest)[VALUE_DIGITS:])[0] == rounded(float(largest[0, 0])) ** 2
    assert (square_digits(largest, STEP) <= 2**BITS).all()
    for beyond in (STEP * 2.0**72, -STEP * 2.0**72):
        with pytest.raises(DataError, match="step"):
            check_range(np.array([[0.0, beyond]]), STEP)


def test_sums_by_class_do_not_depend_on_order_or_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = mixed(500), np.random.default_rng(1).integers(0, 4, 500)
    sums = class_sums(squares, x, y, 5)
    assert sums.shape == (5, 9, 3) and not sums[4].any()
    shuffle = np.random.default_rng(2).permutation(500)
    np.testing.assert_array_equal(class_sums(squares, x[shuffle], y[shuffle], 5), sums)
    np.testing.assert_array_equal(class_sums(squares, x.reshape(500, 3, 1), y, 5), sums)
    for c in range(4):
        np.testing.assert_array_equal(row_sums(squares, x[y == c]), sums[c])
    monkeypatch.setattr("expunge.methods.summation.chunks", lambda rows, width: chunks(rows, width, 40))
    np.testing.assert_array_equal(class_sums(squares, x, y, 5), sums)
    np.testing.assert_array_equal(row_sums(squares, x), sums.sum(0))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 50), st.lists(st.integers(0, 99), min_size=1, max_size=99, unique=True))
def test_subtraction_undoes_addition_bit_for_bit(seed: int, gone: list[int]) -> None:
    x = mixed(100, seed)
    left = np.setdiff1d(np.arange(100), gone)
    np.testing.assert_array_equal(row_sums(squares, x) - row_sums(squares, x[gone]), row_sums(squares, x[left]))


def test_sums_of_floats_would_not_do() -> None:
    """The reason for all this: the same with floating-point sums leaves a trace in the last bits."""
    x = mixed(100) ** 2
    total = x.sum(0)
    for row in x[:50]:
        total = total - row
    assert not np.array_equal(total, x[50:].sum(0))


def test_chunks_cover_every_row_once() -> None:
    for rows, width, cells in ((10, 3, 9), (9, 3, 9), (1, 100, 10), (0, 3, 9), (7, 0, 3)):
        covered = [k for part in chunks(rows, width, cells) for k in range(part.start, part.stop)]
        assert covered == list(range(rows))
    assert [p.stop - p.start for p in chunks(10, 3, 9)] == [3, 3, 3, 1]


def test_classes_are_those_declared_or_those_seen() -> None:
    assert class_count(np.array([0, 2]), 0) == 3
    assert class_count(np.array([0, 2]), 5) == 5
    assert class_count(np.array([0, 2]), 2) == 3
    assert class_count(np.zeros(0, int), 0) == 0


def test_nothing_has_no_sums() -> None:
    with pytest.raises(DataError):
        class_sums(squares, np.zeros((0, 2)), np.zeros(0, int), 2)
