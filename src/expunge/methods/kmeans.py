"""What both forms of k-means share: points on an integer grid, seeds drawn by id, partitions with exact sums.

Floating-point sums depend on the order of their terms, so that taking a row out of a sum and never having put it in
give different bits. Here every coordinate is an integer, held in float64 and so small that no sum or product that
occurs exceeds 2⁵³: matrix products are then exact in whatever order the library works, and a row that is subtracted
leaves nothing behind.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from expunge.data.records import Array, Records
from expunge.errors import DataError, RequestError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]

MOST_RECORDS = 2**26
LARGEST_EXPONENT, SMALLEST_EXPONENT = 500, -900
LIMB = 2**26
CHUNK_VALUES = 2**21


def check_hyper_parameters(name: str, *, clusters: int, iterations: int) -> None:
    """Refuse a number of clusters or iterations below 1.

    Raises:
        RequestError.
    """
    for what, value in (("clusters", clusters), ("iterations", iterations)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise RequestError(
                f"{name} needs a whole number of {what} of at least 1, got {value!r}", "Correct its hyper-parameters"
            )


def check_points(records: Records) -> None:
    """Refuse features that are no flat vectors of moderate numbers.

    Raises:
        DataError: ``x`` is not (n, d) with d ≥ 1, holds magnitudes from 2⁵⁰⁰, or has more than 2²⁶ rows.
    """
    x = records.x
    if x.ndim != 2 or not x.shape[1]:
        raise DataError(f"features have shape {x.shape}, expected (n, d)", "Flatten each record to a vector of numbers")
    if len(x) > MOST_RECORDS:
        raise DataError(f"there are {len(x)} records and at most {MOST_RECORDS} are summed exactly", "Take a sample")
    if len(x) and int(reaches(x).max()) > LARGEST_EXPONENT:
        raise DataError("a feature is 2⁵⁰⁰ or more, and squared distances would overflow", "Rescale the features")


def check_enough(name: str, clusters: int, count: int) -> None:
    """Refuse more clusters than records.

    Raises:
        DataError.
    """
    if count < clusters:
        raise DataError(
            f"{name} makes {clusters} clusters and {count} records are or would be left",
            "Give more records, or fit anew with fewer clusters",
        )


# --- integer coordinates ----------------------------------------------------------------------------------------------


def reaches(x: Array) -> Integers:
    """(n,) the least exponent r with every |value| of the row at most 2^r; −900 for rows of zeros and smaller ones."""
    largest = np.maximum(x.max(axis=1), -x.min(axis=1).astype(np.float64)).astype(np.float64)
    mantissas, exponents = np.frexp(largest)
    exponents = exponents.astype(np.int64) - (mantissas == 0.5)
    return np.where(largest > 0, np.maximum(exponents, SMALLEST_EXPONENT), SMALLEST_EXPONENT)


def whole(values: Floats) -> Floats:
    """`values` rounded to integers in place, with no minus zero: equal numbers must be equal bytes."""
    np.rint(values, out=values)
    values += 0.0
    return values


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The grid of step 2^(exponent − bits): rows within ±2^exponent become integers within ±2^bits.

    A squared distance is at most 4·d·4^bits; `bits` is the largest number that keeps it within 2⁵³.
    """

    exponent: int
    dimensions: int

    @property
    def bits(self) -> int:
        return (51 - math.ceil(math.log2(self.dimensions))) // 2

    @property
    def scale(self) -> float:
        """Grid steps in one unit of the features."""
        return math.ldexp(1.0, self.bits - self.exponent)

    @property
    def bound(self) -> float:
        """The largest coordinate, in steps."""
        return math.ldexp(1.0, self.bits)

    def points(self, x: Array) -> Points:
        coordinates = x.astype(np.float64)
        coordinates *= self.scale
        whole(coordinates)
        return Points(coordinates=coordinates, squares=np.einsum("nd,nd->n", coordinates, coordinates))

    def values(self, coordinates: Floats) -> Floats:
        """In the units of the features; exact, since the step is a power of two."""
        return coordinates / self.scale


@dataclass(frozen=True, kw_only=True, eq=False)
class Points:
    """Rows on a grid: `coordinates` (n, d) and `squares` (n,), their squared lengths; integers in float64."""

    coordinates: Floats
    squares: Floats

    def __len__(self) -> int:
        return len(self.squares)


# --- seeds ------------------------------------------------------------------------------------------------------------


def record_keys(ids: Array, salt: int) -> Keys:
    """(n,) 64 bits of SHA-256 of the salted id: all that is random about a record."""
    prefix = f"{salt}\x00".encode()
    digests = b"".join(hashlib.sha256(prefix + i.encode()).digest()[:8] for i in ids.tolist())
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def mix(keys: Keys, turn: int) -> Keys:
    """(n,) 64 new bits of each key for each `turn`: the finaliser of splitmix64, a bijection of the keys."""
    z = keys + np.array([(turn + 1) * 0x9E3779B97F4A7C15 % 2**64], dtype=np.uint64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def race(keys: Keys, turn: int, weights: Floats) -> int:
    """The row drawn with probability proportional to its weight, of which one is positive.

    Each runner's time is exponential with its weight as rate and comes from its own key; the first one wins. Whoever
    takes a loser out leaves the winner the same.
    """
    uniform = ((mix(keys, turn) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    times = np.full(len(keys), np.inf)
    np.divide(-np.log(uniform), weights, out=times, where=weights > 0)
    return int(np.argmin(times))


def seed_rows(points: Points, keys: Keys, count: int) -> list[int]:
    """k-means++: `count` distinct rows, the first uniformly, then by squared distance to the nearest one drawn.

    When every row lies on a seed (fewer distinct rows than `count`), the others are drawn uniformly.
    """
    chosen: list[int] = []
    nearest = np.ones(len(points))
    for turn in range(count):
        weights = nearest
        if not weights.any():
            weights = np.ones(len(points))
            weights[chosen] = 0.0
        row = race(keys, turn, weights)
        chosen.append(row)
        centre = points.coordinates[row]
        distances = points.squares + points.squares[row] - 2.0 * (points.coordinates @ centre)
        nearest = distances if turn == 0 else np.minimum(nearest, distances)
    return chosen


# --- partitions -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class Partition:
    """What is known of `p` partitions into k clusters: `counts` (p, k) rows, `sums` (p, k, d) of coordinates and
    `losses` (p, 2), sums of squared distances as ``high · 2²⁶ + low``; all int64 and exact."""

    counts: Integers
    sums: Integers
    losses: Integers

    def without(self, gone: Partition) -> Partition:
        """The same partitions with the rows of `gone` taken out."""
        losses = self.losses - gone.losses
        borrow = losses[:, 1] < 0
        losses[:, 0] -= borrow
        losses[:, 1] += borrow * LIMB
        return Partition(counts=self.counts - gone.counts, sums=self.sums - gone.sums, losses=losses)

    def loss(self) -> list[int]:
        """Squared distances in squared grid steps, one sum a partition."""
        return [int(high) * LIMB + int(low) for high, low in self.losses]


def partition(points: Points, centres: Floats) -> Partition:
    """Give every point to its nearest centre, of equals the first, for each of p sets of centres (p, k, d)."""
    p, k, d = centres.shape
    flat = centres.reshape(p * k, d)
    lengths = np.einsum("cd,cd->c", flat, flat)
    towards = np.ascontiguousarray(-2.0 * flat.T)
    counts, sums = np.zeros(p * k, dtype=np.int64), np.zeros((p * k, d))
    high, low = np.zeros(p), np.zeros(p)
    step = max(256, CHUNK_VALUES // max(p * k, d))
    offsets = np.arange(p) * k
    for start in range(0, len(points), step):
        x = points.coordinates[start : start + step]
        scores = (x @ towards + lengths).reshape(len(x), p, k)
        labels = scores.argmin(axis=2)
        shortest = np.take_along_axis(scores, labels[:, :, None], axis=2)[:, :, 0]
        distances = shortest + points.squares[start : start + step, None]
        upper = np.floor(distances / LIMB)
        high += upper.sum(axis=0)
        low += (distances - upper * LIMB).sum(axis=0)
        cells = labels + offsets
        member = np.zeros((len(x), p * k))
        np.put_along_axis(member, cells, 1.0, axis=1)
        counts += np.bincount(cells.ravel(), minlength=p * k)
        sums += member.T @ x
    carry = np.floor(low / LIMB)
    losses = np.stack([high + carry, low - carry * LIMB], axis=1).astype(np.int64)
    return Partition(counts=counts.reshape(p, k), sums=sums.reshape(p, k, d).astype(np.int64), losses=losses)


def nearest(x: Array, centres: Floats) -> Integers:
    """(n,) number of the nearest centre (k, d), of equals the first, for features (n, d).

    Raises:
        DataError: features of another width.
    """
    x = np.asarray(x)
    if x.ndim != 2 or x.shape[1] != centres.shape[1]:
        raise DataError(
            f"features have shape {x.shape}, expected (n, {centres.shape[1]})", "Give the features that were learned"
        )
    lengths = np.einsum("cd,cd->c", centres, centres)
    step = max(256, CHUNK_VALUES // max(centres.shape))
    labels = np.empty(len(x), dtype=np.int64)
    for start in range(0, len(x), step):
        rows = x[start : start + step].astype(np.float64)
        labels[start : start + step] = (lengths - 2.0 * (rows @ centres.T)).argmin(axis=1)
    return labels
