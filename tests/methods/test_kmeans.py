"""Exact partitions, seeds drawn by id, the integer grid: against plain Python integers and the law of k-means++."""

from __future__ import annotations

import numpy as np
import pytest

from expunge.data.records import Records
from expunge.errors import DataError, RequestError
from expunge.methods import kmeans
from expunge.methods.kmeans import (
    Grid,
    Partition,
    Points,
    check_enough,
    check_hyper_parameters,
    check_points,
    mix,
    nearest,
    partition,
    race,
    reaches,
    record_keys,
    seed_rows,
)


def points(values: np.ndarray) -> Points:
    values = np.asarray(values, dtype=np.float64)
    return Points(coordinates=values, squares=(values**2).sum(1))


def records(x: np.ndarray) -> Records:
    return Records(ids=np.array([f"r{i}" for i in range(len(x))]), columns={"x": x})


@pytest.mark.parametrize("d", [1, 2, 3, 50, 64, 65, 784, 5000])
def test_the_grid_has_as_many_bits_as_stay_exact(d: int) -> None:
    bits = Grid(exponent=0, dimensions=d).bits
    assert 4 * d * 4**bits <= 2**53
    power_of_two = 2 ** int(np.ceil(np.log2(d)))
    assert 4 * power_of_two * 4 ** (bits + 1) > 2**53


def test_reaches_counts_a_power_of_two_with_those_below_it() -> None:
    x = np.array([[1.0, 0], [1.0001, 0], [-2.0, 1], [0.5, -0.25], [0, 0], [0.3, -3]])
    assert reaches(x).tolist() == [0, 1, 1, -1, -900, 2]
    assert reaches(x.astype(np.float32)).tolist() == [0, 1, 1, -1, -900, 2]
    assert reaches(np.array([[7, 0], [8, 1]], dtype=np.uint8)).tolist() == [3, 3]


@pytest.mark.parametrize("exponent", [-900, -3, 0, 1, 400])
def test_coordinates_are_whole_bounded_and_come_back(exponent: int) -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-1, 1, (50, 3)), [[1, -1, 0.0], [-0.0, -1e-30, 1e-30]]]) * 2.0**exponent
    grid = Grid(exponent=exponent, dimensions=3)
    got = grid.points(x)
    assert (got.coordinates == np.rint(got.coordinates)).all()
    assert np.abs(got.coordinates).max() == grid.bound
    assert not np.signbit(got.coordinates[got.coordinates == 0]).any()
    assert np.abs(grid.values(got.coordinates) - x).max() <= 0.5 / grid.scale
    assert got.squares.tolist() == [sum(int(c) ** 2 for c in row) for row in got.coordinates]


def plain_partition(values: np.ndarray, centres: np.ndarray) -> tuple[list[int], list[list[int]], int]:
    """By Python integers, which know no rounding."""
    counts, sums, loss = [0] * len(centres), [[0] * values.shape[1] for _ in centres], 0
    for row in values.astype(int).tolist():
        distances = [sum((a - b) ** 2 for a, b in zip(row, c, strict=True)) for c in centres.astype(int).tolist()]
        j = distances.index(min(distances))
        counts[j] += 1
        sums[j] = [s + v for s, v in zip(sums[j], row, strict=True)]
        loss += distances[j]
    return counts, sums, loss


@pytest.mark.parametrize("d", [1, 3, 40])
def test_a_partition_is_exact_at_the_largest_coordinates(d: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmeans, "CHUNK_VALUES", 1)  # chunks of 256 rows
    rng = np.random.default_rng(d)
    bound = int(Grid(exponent=0, dimensions=d).bound)
    values = rng.integers(-bound, bound + 1, (600, d)).astype(float)
    values[:100] = np.sign(values[:100]) * bound
    centres = rng.integers(-bound, bound + 1, (3, 4, d)).astype(float)
    got = partition(points(values), centres)
    for p in range(3):
        counts, sums, loss = plain_partition(values, centres[p])
        assert got.counts[p].tolist() == counts
        assert got.sums[p].tolist() == sums
        assert got.loss()[p] == loss
    assert (got.losses[:, 1] < kmeans.LIMB).all() and (got.losses >= 0).all()


def test_rows_can_be_subtracted_from_a_partition() -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(-(2**20), 2**20, (300, 5)).astype(float)
    centres = values[:8].reshape(2, 4, 5)
    for gone in ([0], [5, 9, 200], list(range(100))):
        whole, some = partition(points(values), centres), partition(points(values[gone]), centres)
        left = partition(points(np.delete(values, gone, axis=0)), centres)
        got = whole.without(some)
        for name in ("counts", "sums", "losses"):
            np.testing.assert_array_equal(getattr(got, name), getattr(left, name))


def test_losses_borrow() -> None:
    def one(high: int, low: int) -> Partition:
        return Partition(counts=np.zeros((1, 1), int), sums=np.zeros((1, 1, 1), int), losses=np.array([[high, low]]))

    assert one(3, 5).without(one(1, 7)).losses.tolist() == [[1, 5 - 7 + kmeans.LIMB]]
    assert one(3, 5).without(one(1, 7)).loss() == [3 * kmeans.LIMB + 5 - kmeans.LIMB - 7]


def test_of_equally_near_centres_the_first_gets_the_row() -> None:
    got = partition(points(np.array([[0.0], [2.0]])), np.array([[[2.0], [-2.0], [2.0]]]))
    assert got.counts.tolist() == [[2, 0, 0]]
    assert nearest(np.array([[0.0], [2.0], [-1.0]]), np.array([[2.0], [-2.0], [2.0]])).tolist() == [0, 0, 1]


def test_nearest_is_nearest() -> None:
    rng = np.random.default_rng(2)
    x, centres = rng.normal(size=(500, 7)).astype(np.float32), rng.normal(size=(9, 7))
    expected = ((x[:, None] - centres) ** 2).sum(-1).argmin(1)
    np.testing.assert_array_equal(nearest(x, centres), expected)
    for wrong in (x[:, :3], x[0]):
        with pytest.raises(DataError, match="expected \\(n, 7\\)"):
            nearest(wrong, centres)


# --- seeds ------------------------------------------------------------------------------------------------------------


def test_keys_and_draws_depend_on_the_id_the_salt_and_the_turn_alone() -> None:
    ids = np.array(["a", "b", "ä longer one"])
    keys = record_keys(ids, 7)
    assert keys.tolist()[:2] == record_keys(ids[:2], 7).tolist()
    assert len({*keys.tolist(), *record_keys(ids, 8).tolist()}) == 6
    draws = [mix(keys, turn).tolist() for turn in range(5)]
    assert len({z for row in draws for z in row}) == 15


def test_the_race_is_won_in_proportion_to_the_weight() -> None:
    weights = np.array([1.0, 0.0, 3.0, 6.0])
    keys = record_keys(np.array([f"{i}" for i in range(4)]), 0)
    wins = np.bincount([race(keys, turn, weights) for turn in range(20_000)], minlength=4)
    expected = 20_000 * weights / weights.sum()
    assert wins[1] == 0
    assert (((wins - expected) ** 2)[[0, 2, 3]] / expected[[0, 2, 3]]).sum() < 13.8  # χ², 2 degrees, 0.1%


def test_seeds_follow_the_law_of_k_means_plus_plus() -> None:
    values = np.array([[0.0], [1.0], [3.0], [7.0]])
    ids = np.array(["a", "b", "c", "d"])
    trials = 12_000
    seen: dict[tuple[int, ...], int] = {}
    for salt in range(trials):
        chosen = tuple(seed_rows(points(values), record_keys(ids, salt), 3))
        seen[chosen] = seen.get(chosen, 0) + 1
    statistic = 0.0
    for a in range(4):
        for b in {0, 1, 2, 3} - {a}:
            first = (values[:, 0] - values[a, 0]) ** 2
            second = np.minimum(first, (values[:, 0] - values[b, 0]) ** 2)
            for c in {0, 1, 2, 3} - {a, b}:
                expected = trials / 4 * first[b] / first.sum() * second[c] / second.sum()
                statistic += (seen.get((a, b, c), 0) - expected) ** 2 / expected
    assert statistic < 49.7  # χ², 23 degrees, 0.1%


def test_taking_out_losers_leaves_the_seeds() -> None:
    rng = np.random.default_rng(3)
    values, ids = rng.integers(0, 5, (60, 2)).astype(float), np.array([f"id-{i}" for i in range(60)])
    for salt in range(20):
        keys = record_keys(ids, salt)
        chosen = seed_rows(points(values), keys, 5)
        keep = np.sort(np.array([*chosen, *rng.choice(np.setdiff1d(np.arange(60), chosen), 20, replace=False)]))
        again = seed_rows(points(values[keep]), keys[keep], 5)
        assert keep[again].tolist() == chosen


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_seeds_are_distinct_rows_even_of_duplicates(count: int) -> None:
    values = np.array([[1.0], [1.0], [1.0], [4.0], [4.0], [4.0]])
    chosen = seed_rows(points(values), record_keys(np.array(list("abcdef")), 1), count)
    assert len(set(chosen)) == count
    assert len({float(values[i, 0]) for i in chosen}) == min(count, 2)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [{"clusters": 0}, {"iterations": 0}, {"clusters": 2.0}, {"clusters": True}])
def test_refuses_hyper_parameters(wrong: dict[str, int]) -> None:
    check_hyper_parameters("k", clusters=1, iterations=1)
    with pytest.raises(RequestError, match=next(iter(wrong))):
        check_hyper_parameters("k", **{"clusters": 1, "iterations": 1, **wrong})


def test_refuses_points_it_cannot_sum() -> None:
    check_points(records(np.ones((3, 2)) * 2.0**500))
    for x, why in (
        (np.ones((3, 2, 2)), "expected \\(n, d\\)"),
        (np.ones(3), "expected \\(n, d\\)"),
        (np.ones((3, 0)), "expected \\(n, d\\)"),
        (np.array([[1.0], [2.0**500 * 1.01]]), "overflow"),
    ):
        with pytest.raises(DataError, match=why):
            check_points(records(x))


def test_refuses_more_rows_than_sums_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kmeans.MOST_RECORDS * 2 ** Grid(exponent=0, dimensions=1).bits <= 2**53
    monkeypatch.setattr(kmeans, "MOST_RECORDS", 3)
    check_points(records(np.ones((3, 1))))
    with pytest.raises(DataError, match="at most 3"):
        check_points(records(np.ones((4, 1))))


def test_refuses_more_clusters_than_records() -> None:
    check_enough("k", 3, 3)
    with pytest.raises(DataError, match="4 clusters and 3 records"):
        check_enough("k", 4, 3)
