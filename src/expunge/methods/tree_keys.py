"""Randomness of trees that is looked up instead of drawn: keyed hashes of places, attributes and values.

A choice "at random" is then a function of the seed, of the node's place in its tree and of the values that are there,
never of the order in which something happened.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from expunge.data.records import Array

Ints = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
# Tries for a random threshold; each fails with a probability of at most a half.
TRIES = 64


def as_float32(x: Array) -> npt.NDArray[np.float32]:
    """float32 without negative zeros."""
    with np.errstate(over="ignore"):
        return np.asarray(x).astype(np.float32) + np.float32(0)


def mix(z: Keys) -> Keys:
    """SplitMix64's finaliser, a bijection of 64-bit numbers; arrays only, since scalars would warn of overflow."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def child_keys(keys: Keys) -> tuple[Keys, Keys]:
    """Keys of the left and the right children."""
    return mix(keys + GOLDEN), mix(keys + GOLDEN + GOLDEN)


def attribute_order(keys: Keys, attributes: int) -> Ints:
    """(nodes, d): a random order of the attributes for every node."""
    numbers = np.arange(attributes, dtype=np.uint64)
    bits = np.uint64(max(1, int(attributes - 1).bit_length()))
    hashes = mix(mix(keys ^ np.uint64(0xA77))[:, None] + (numbers + np.uint64(1)) * GOLDEN)
    packed = np.sort((hashes >> bits << bits) | numbers, axis=1)
    return (packed & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)


def slot_keys(keys: Keys, attributes: Array) -> Keys:
    """A key for an attribute at a node."""
    return mix(mix(keys ^ np.uint64(0xB0B)) + (attributes.astype(np.uint64) + np.uint64(1)) * GOLDEN)


def rank_values(codes: npt.NDArray[np.uint32], keys: Keys) -> npt.NDArray[np.uint32]:
    """A random rank for every value: a bijection under each key, hence without ties."""
    z = codes ^ (keys & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    high = (keys >> np.uint64(32)).astype(np.uint32)
    for _ in range(2):
        z = (z ^ (z >> np.uint32(16))) * np.uint32(0x7FEB352D)
        z = (z ^ (z >> np.uint32(15))) * np.uint32(0x846CA68B)
        z = (z ^ (z >> np.uint32(16))) + high
    return z


def encode(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    """Unsigned numbers in the order of the floats."""
    bits = values.view(np.uint32)
    return np.where(bits >> np.uint32(31), ~bits, bits | np.uint32(0x80000000))


def decode(codes: npt.NDArray[np.uint32]) -> npt.NDArray[np.float32]:
    """The floats of `encode`."""
    bits = np.where(codes >> np.uint32(31), codes & np.uint32(0x7FFFFFFF), ~codes)
    return bits.astype(np.uint32).view(np.float32)


def middle(low: Array, high: Array) -> npt.NDArray[np.float64]:
    """Midpoints of float32 numbers, exact in float64."""
    return (low.astype(np.float64) + high.astype(np.float64)) / 2


def random_threshold(keys: Keys, low: Array, high: Array) -> npt.NDArray[np.float64]:
    """Uniform in [low, high), and the same number as long as it stays in there and the range is of the same size.

    The t-th try is the only point of a randomly shifted lattice that the range can hold; its spacing is the smallest
    power of two above ``high - low``. The first point that falls into the range is taken: a narrower range of the same
    power of two rejects all that the wider one rejected, so it ends at the same point if it holds it.
    """
    low, high = low.astype(np.float64), high.astype(np.float64)
    exponent = np.frexp(high - low)[1]
    threshold, open_ = low.copy(), np.ones(len(low), dtype=bool)
    for attempt in range(1, TRIES + 1):
        shift = (mix(keys + np.full(len(keys), attempt, dtype=np.uint64) * GOLDEN) >> np.uint64(11)) / 2.0**53
        point = np.ldexp(np.ceil(np.ldexp(low, -exponent) - shift) + shift, exponent)
        found = open_ & (low <= point) & (point < high)
        threshold[found] = point[found]
        open_ &= ~found
        if not open_.any():
            break
    return threshold
