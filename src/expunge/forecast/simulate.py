"""The procedure itself, carried out on row numbers: place rows, draw requests, count what is trained again.

It shares no formula with `expunge.forecast.formulas` and is what they are checked against.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from expunge.forecast.formulas import check_requests
from expunge.forecast.layout import Layout, check_count

Costs = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

# Row places held at once: bounds memory, and is a part of what a seed means.
BLOCK = 4_000_000


def simulate(layout: Layout, requests: int, *, batch: bool = False, runs: int = 1000, seed: int = 0) -> Costs:
    """(runs,) example gradients of forgetting `requests` rows, each run with its own placing and its own requests.

    A function of the arguments alone. Memory is bounded, time goes with runs × rows (and, one after the other, with
    runs × requests × shards × slices).

    Raises:
        RequestError: no request, as many as there are rows, or no run.
    """
    check_requests(layout, requests)
    check_count("runs", runs)
    each = max(1, BLOCK // layout.rows)
    costs = []
    for start in range(0, runs, each):
        rng = np.random.Generator(np.random.Philox(key=[seed, start]))
        shard, part = place(layout, min(each, runs - start), rng)
        removed = draw(layout.rows, requests, len(shard), rng)
        costs.append((_at_once if batch else _in_turn)(layout, shard, part, removed))
    return np.concatenate(costs)


def place(layout: Layout, runs: int, rng: np.random.Generator) -> tuple[Counts, Counts]:
    """(runs, rows) shard numbers and slice numbers, both from 0."""
    shape = (runs, layout.rows)
    if layout.placing == "hashed":
        return rng.integers(layout.shards, size=shape), rng.integers(layout.slices, size=shape)
    shards, parts = [], []
    for s, rows in enumerate(np.array_split(np.arange(layout.rows), layout.shards)):
        for r, own in enumerate(np.array_split(rows, layout.slices)):
            shards += [s] * len(own)
            parts += [r] * len(own)
    order = rng.permuted(np.broadcast_to(np.arange(layout.rows), shape), axis=1)
    return np.asarray(shards)[order], np.asarray(parts)[order]


def draw(rows: int, requests: int, runs: int, rng: np.random.Generator) -> Counts:
    """(runs, requests) different row numbers in the order in which they are asked for."""
    return np.stack([rng.choice(rows, requests, replace=False) for _ in range(runs)])


def _restart(layout: Layout) -> Counts:
    """(R,) for a row of each slice the first stage that must run again, from 0."""
    kept = [0, *(layout.kept or range(1, layout.slices + 1))]
    return np.array([max(t for t in kept if t < r) for r in range(1, layout.slices + 1)])


def _at_once(layout: Layout, shard: Counts, part: Counts, removed: Counts) -> Costs:
    runs, restart = len(shard), _restart(layout)
    run = np.arange(runs)[:, None]
    first = np.full((runs, layout.shards), layout.slices)
    np.minimum.at(first, (run, shard[run, removed]), restart[part[run, removed]])
    remains = np.ones(shard.shape, dtype=bool)
    remains[run, removed] = False
    seen = np.cumsum(_count(layout, shard, part, remains), axis=2)
    again = np.arange(layout.slices) >= first[:, :, None]
    costs: Costs = (_worked(layout, seen) * again).sum(axis=(1, 2))
    return costs


def _in_turn(layout: Layout, shard: Counts, part: Counts, removed: Counts) -> Costs:
    runs, restart = np.arange(len(shard)), _restart(layout)
    counts = _count(layout, shard, part, np.ones(shard.shape, dtype=bool))
    costs = np.zeros(len(shard))
    for asked in removed.T:
        s, r = shard[runs, asked], part[runs, asked]
        counts[runs, s, r] -= 1
        seen = np.cumsum(counts[runs, s], axis=1)
        again = np.arange(layout.slices) >= restart[r][:, None]
        costs += (_worked(layout, seen) * again).sum(axis=1)
    return costs


def _count(layout: Layout, shard: Counts, part: Counts, chosen: npt.NDArray[np.bool_]) -> Counts:
    """(runs, S, R) chosen rows of each slice."""
    runs = len(shard)
    cell = (np.arange(runs)[:, None] * layout.shards + shard) * layout.slices + part
    cells = runs * layout.shards * layout.slices
    return np.bincount(cell[chosen], minlength=cells).reshape(runs, layout.shards, layout.slices)


def _worked(layout: Layout, seen: Counts) -> Costs:
    """Example gradients of training each stage on its rows, seen (..., R): passes, or step after step until done."""
    epochs = np.broadcast_to(np.asarray(layout.stage_epochs, dtype=float), seen.shape)
    if layout.batch_size is None:
        passes: Costs = seen * epochs
        return passes
    left = np.ceil(np.round(np.ceil(seen / layout.batch_size) * epochs, 9))
    worked, position = np.zeros(seen.shape), np.zeros(seen.shape, dtype=np.int64)
    while (stepping := left > 0).any():
        step = np.minimum(layout.batch_size, seen - position)
        worked += np.where(stepping, step, 0)
        position = np.where(position + step >= seen, 0, position + step)
        left -= 1
    return worked
