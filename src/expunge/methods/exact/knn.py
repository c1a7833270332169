"""k nearest neighbours by exact search: the rows are the model, so that erasing a row is forgetting it.

Cover & Hart 1967, *Nearest Neighbor Pattern Classification* (IEEE Trans. Information Theory 13(1)): a point gets the
class that most of its k nearest records have. Nothing is learned beyond the rows, and a `forget` costs the same in a
table of a thousand rows and of a million.

**Bitwise.** The neighbours of a query are the k records that come first in the order

    (d²(q, x), h(id), id),   d²(q, x) = Σ_j (q_j − x_j)² in float64, added up from j = 1,                     (1)

with h SHA-256 of the id salted with the seed. The order is a function of the values and the ids alone: not of row
numbers, of the rows that are gone, or of how the search is cut into blocks. A matrix product finds the candidates fast,
|q|² − 2q·x + |x|², and its rounding depends on all of those; but it is off by no more than

    |error| ≤ 2(d + 4)·u·(|q| + |x|)²,   u = 2⁻⁵²,                                                            (2)

so that whatever could be among the nearest by (1) is kept, and (1) decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from expunge.data.records import Array, Records
from expunge.data.splits import unit_hash
from expunge.errors import DataError, ModelError, RequestError
from expunge.methods.learner import Job, Learned, Learner, State

Float = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

QUERIES, ROWS, PAIRS = 128, 8192, 65536
ROUNDING = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, kw_only=True)
class NearestNeighbours(Learner):
    """Classification by the mean vote of the nearest records, Euclidean distance.

    Args:
        neighbours: k ≥ 1; all records vote where there are fewer.
        smoothing: > 0; votes added to every class for `scores`, which would be −∞ for a class without a vote.
    """

    name: ClassVar[str] = "knn"
    summary: ClassVar[str] = "k nearest neighbours by exact search: forgetting is erasing the row"
    paper: ClassVar[str] = "Cover & Hart 1967 (IEEE Trans. Information Theory)"
    equality: ClassVar[str | None] = "bitwise"
    task: ClassVar[str] = "classification"

    neighbours: int = 5
    smoothing: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.neighbours, bool) or not isinstance(self.neighbours, int) or self.neighbours < 1:
            raise RequestError(f"neighbours is {self.neighbours!r}, expected a whole number ≥ 1", "Try 5")
        if not 0 < self.smoothing < float("inf"):
            raise RequestError(f"smoothing is {self.smoothing!r}, expected a finite number > 0", "Try 1")

    def learn(self, records: Records, *, seed: int, job: Job) -> Learned:
        # 0 stands for "as many as the labels say": a number counted here would tell of a class that is gone
        return Learned(parts={}, facts={"classes": len(records.classes)})

    def remove(self, state: State, ids: tuple[str, ...], *, job: Job) -> Learned:
        return Learned(parts={}, facts=state.facts, trace=({"event": "erased", "rows": len(ids)},))

    def predict(self, state: State, x: Array) -> Integers:
        """(n,) int64: the class with the most votes, of several the one with the smallest number."""
        return np.asarray(self.votes(state, x).argmax(axis=1), dtype=np.int64)

    def scores(self, state: State, x: Array) -> Float:
        """(n, classes) float64, nats: log((votes + smoothing) / (k + smoothing · classes))."""
        votes = self.votes(state, x)
        k = min(self.neighbours, len(state.rows))
        return np.asarray(np.log((votes + self.smoothing) / (k + self.smoothing * votes.shape[1])))

    def votes(self, state: State, x: Array) -> Integers:
        """(n, classes) how many of the k nearest records have the class."""
        nearest = self.nearest(state, x)
        labels = state.rows.column("y")
        classes = int(state.facts["classes"]) or int(labels.max()) + 1  # erased rows read 0
        votes = np.zeros((len(nearest), classes), dtype=np.int64)
        np.add.at(votes, (np.arange(len(nearest))[:, None], labels[nearest]), 1)
        return votes

    def nearest(self, state: State, x: Array) -> Integers:
        """(n, k) positions in ``state.rows`` of the nearest records by (1), nearest first.

        Raises:
            ModelError: another shape of features.
        """
        table = state.rows.column("x")
        if x.shape[1:] != table.shape[1:]:
            raise ModelError(
                f"features have shape {x.shape}, expected (n, {', '.join(map(str, table.shape[1:]))})",
                "Give the columns that the model was fitted on",
            )
        width = math.prod(x.shape[1:])
        queries, flat = x.reshape(len(x), width), table.reshape(len(table), width)
        k = min(self.neighbours, len(state.rows))
        found = np.empty((len(x), k), dtype=np.int64)
        for first in range(0, len(x), QUERIES):
            block = np.asarray(queries[first : first + QUERIES], np.float64)
            who, what = _candidates(block, flat, state.rows.alive, k)
            distance = _distances(block, flat, who, what)
            for query in range(len(block)):
                mine = slice(*np.searchsorted(who, [query, query + 1]))
                found[first + query] = _first(distance[mine], what[mine], k, state)
        return found


def _candidates(queries: Float, table: Array, alive: npt.NDArray[np.bool_], k: int) -> tuple[Integers, Integers]:
    """Pairs (query, row), sorted by query, among which are the k nearest of every query, by (2)."""
    margin = 2 * (queries.shape[1] + 4) * ROUNDING
    q2 = _squares(queries)
    upper = np.full((len(queries), k), np.inf)  # the k-th nearest is nearer than the largest of these
    pairs: list[tuple[Integers, Integers, Float]] = []
    for first in range(0, len(table), ROWS):
        here = first + np.flatnonzero(alive[first : first + ROWS])
        if not len(here):
            continue
        whole = len(here) == min(ROWS, len(table) - first)
        rows = np.asarray(table[first : first + ROWS] if whole else table[here], np.float64)
        r2 = _squares(rows)
        approximate = queries @ rows.T
        approximate *= -2
        approximate += q2[:, None]
        approximate += r2
        error = margin * (np.sqrt(q2) + np.sqrt(r2.max())) ** 2 + np.finfo(np.float64).tiny
        best = np.partition(approximate, min(k, len(here)) - 1, axis=1)[:, :k] + error[:, None]
        upper = np.partition(np.concatenate([upper, best], axis=1), k - 1, axis=1)[:, :k]
        who, what = np.nonzero(approximate <= (upper.max(axis=1) + error)[:, None])
        pairs.append((who, here[what], approximate[who, what] - error[who]))
    who, what, low = (np.concatenate(column) for column in zip(*pairs, strict=True))
    keep = low <= upper.max(axis=1)[who]
    order = np.argsort(who[keep], kind="stable")
    return who[keep][order], what[keep][order]


def _squares(rows: Float) -> Float:
    """(n,) squared lengths."""
    squares: Float = np.einsum("ij,ij->i", rows, rows)
    if not np.isfinite(squares).all():
        raise DataError("the squared length of a row of features overflows", "Scale the features down")
    return squares


def _distances(queries: Float, table: Array, who: Integers, what: Integers) -> Float:
    """(pairs,) d² by (1): feature after feature, because numpy's own sums depend on the shape of the array."""
    result = np.zeros(len(who))
    for first in range(0, len(who), PAIRS):
        pairs = slice(first, first + PAIRS)
        difference = np.asarray(table[what[pairs]], np.float64) - queries[who[pairs]]
        for column in np.ascontiguousarray(difference.T):
            result[pairs] += column * column
    return result


def _first(distance: Float, rows: Integers, k: int, state: State) -> Integers:
    """(k,) those of `rows` that come first by (1); ids are hashed only where distances are equal."""
    order = np.argsort(distance, kind="stable")
    ranked = distance[order]
    last = ranked[k - 1]
    order = order[: int(np.searchsorted(ranked, last, side="right"))]
    ranked = distance[order]
    if len(order) == k and (np.diff(ranked) > 0).all():
        return np.asarray(rows[order])
    ids = state.rows.table.ids[rows[order]]
    hashed = unit_hash(ids, f"nearest neighbours {state.seed}")
    return np.asarray(rows[order[np.lexsort((ids, hashed, ranked))[:k]]])
