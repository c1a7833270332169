"""k-means by divide and conquer: a row is in one leaf of a tree, and only the path above it depends on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from expunge.data.records import FEATURES, Array, Records
from expunge.errors import RequestError
from expunge.methods.kmeans import (
    Floats,
    Grid,
    Keys,
    check_enough,
    check_hyper_parameters,
    check_points,
    mix,
    nearest,
    partition,
    reaches,
    record_keys,
    seed_rows,
    whole,
)
from expunge.methods.learner import Job, Learned, Learner, Part, State
from expunge.training.seeds import derive

ROOT = "node-0-0"
MOST_LEAVES = 2**16
LEAF_TURN = 2**32  # past every draw of a seed, so that the leaf says nothing about the draws


@dataclass(frozen=True, kw_only=True)
class DivideAndConquerKMeans(Learner):
    """Every row goes to one of w leaves at random. Each leaf runs k-means++ and T Lloyd iterations on its own rows; the
    centroids of the children are the rows of their parent, which does the same, up to the root, whose centroids are
    the model:

        c(node) = kmeans(c(child_1) ∪ … ∪ c(child_b)),   c(leaf) = kmeans({x_i : leaf(i) = leaf})

    To forget a row, compute its leaf and the nodes above it again: O((n/w + wk)·k·d·T) for a root over w leaves.

    Paper: Ginart, Guan, Valiant & Zou, "Making AI Forget You" (NeurIPS 2019), arXiv 1907.05012.

    Args:
        clusters: k, at every node. iterations: T, at every node.
        widths: nodes at each level from the root down: first 1, never falling, each a multiple of the one before, at
            most 65,536; (1,) is one k-means of everything.

    This differs from the authors' code in:
        1. The same (records, seed) give the same bytes after any deletions, where the paper asks for equality in
           distribution: a row's leaf is a hash of (seed, its id), k-means++ draws by a race of exponential times that
           are hashes of (seed, its id, draw), and every node works on integer coordinates, on a grid of its own range.
           Means are rounded to that grid (2⁻²² of the largest magnitude at 64 features).
        2. An empty cluster keeps its centroid instead of drawing a new seed.
        3. A leaf of fewer than k rows hands up as many centroids as it has rows; theirs fails.
        4. k is the same at every level; theirs takes one a level.
        5. A node whose children come out as they were is not computed again; nor does a node iterate on once nothing
           moves. Neither changes a bit of the result.
    """

    name: ClassVar[str] = "dckmeans"
    summary: ClassVar[str] = "k-means over a tree of random leaves; recomputes one path from leaf to root"
    paper: ClassVar[str] = "arXiv:1907.05012"
    equality: ClassVar[str | None] = "bitwise"
    task: ClassVar[str] = "clustering"

    clusters: int = 8
    iterations: int = 10
    widths: tuple[int, ...] = (1, 16)

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))  # a request brings a list
        check_hyper_parameters(self.name, clusters=self.clusters, iterations=self.iterations)
        whole = all(isinstance(w, int) and not isinstance(w, bool) and w >= 1 for w in self.widths)
        chain = zip(self.widths, self.widths[1:], strict=False)
        if not whole or self.widths[:1] != (1,) or any(b % a for a, b in chain) or self.widths[-1] > MOST_LEAVES:
            raise RequestError(
                f"dckmeans needs widths that begin with 1, each a multiple of the one before, up to {MOST_LEAVES}; got "
                f"{self.widths}",
                "Correct its hyper-parameters: (1, 16) is a root over 16 leaves",
            )

    def check(self, records: Records) -> None:
        super().check(records)
        check_points(records)
        check_enough(self.name, self.clusters, len(records))

    @property
    def leaves(self) -> int:
        return self.widths[-1]

    def learn(self, records: Records, *, seed: int, job: Job) -> Learned:
        keys = record_keys(records.ids, derive(seed, "kmeans", "record"))
        leaf = (mix(keys, LEAF_TURN) % np.uint64(self.leaves)).astype(np.uint16)
        parts: dict[str, Part] = {"leaves": {"leaf": leaf}}
        examples = 0
        order = np.argsort(leaf, kind="stable")
        ends = np.cumsum(np.bincount(leaf, minlength=self.leaves))
        for number, members in enumerate(np.split(order, ends[:-1])):
            centres, worked = self.node(records.x[members], keys[members])
            parts[self.leaf_name(number)] = {"centres": centres, "keys": keys[members]}
            examples += worked
            if job.progress:
                job.progress("leaves", number + 1, self.leaves)
        examples += self.climb(parts, set(range(self.leaves)), seed)
        return Learned(parts=parts, examples=examples)

    def remove(self, state: State, ids: tuple[str, ...], *, job: Job) -> Learned:
        check_enough(self.name, self.clusters, len(state.rows) - len(ids))
        rows, leaf = state.rows, state.parts["leaves"]["leaf"]
        places = np.flatnonzero(rows.alive)
        gone = np.searchsorted(places, np.sort(rows.at(ids)))
        parts: dict[str, Part] = {**state.parts, "leaves": {"leaf": np.delete(leaf, gone)}}
        touched = np.unique(leaf[gone]).tolist()
        changed, examples = set(), 0
        for number in touched:
            old = state.parts[self.leaf_name(number)]
            members = np.flatnonzero(leaf == number)
            stay = ~np.isin(members, gone)
            x, keys = rows.column(FEATURES)[places[members[stay]]], old["keys"][stay]
            centres, worked = self.node(x, keys)
            examples += worked
            parts[self.leaf_name(number)] = {"centres": centres, "keys": keys}
            if not np.array_equal(centres, old["centres"]):
                changed.add(number)
        examples += self.climb(parts, changed, state.seed)
        trace = ({"stage": "leaves", "recomputed": touched, "changed": sorted(changed)},)
        return Learned(parts=parts, facts=state.facts, examples=examples, trace=trace)

    def climb(self, parts: dict[str, Part], changed: set[int], seed: int) -> int:
        """Compute the nodes above the changed leaves again, in `parts`; how many rows that worked through."""
        examples = 0
        for level in range(len(self.widths) - 2, -1, -1):
            each = self.widths[level + 1] // self.widths[level]
            above = set()
            for number in sorted({child // each for child in changed}):
                below = [
                    parts[self.node_name(level + 1, c)]["centres"] for c in range(number * each, (number + 1) * each)
                ]
                x = np.concatenate(below)
                salt = np.uint64(derive(seed, "kmeans", "node", level, number))
                centres, worked = self.node(x, mix(np.arange(len(x), dtype=np.uint64) ^ salt, 0))
                examples += worked
                name = self.node_name(level, number)
                if name not in parts or not np.array_equal(centres, parts[name]["centres"]):
                    parts[name] = {"centres": centres}
                    above.add(number)
            changed = above
        return examples

    def node(self, x: Array, keys: Keys) -> tuple[Floats, int]:
        """Up to k centroids of the rows (m, d), in the units of the features, and how many rows were worked through."""
        clusters = min(self.clusters, len(x))
        if not clusters:
            return np.empty((0, x.shape[1])), 0
        grid = Grid(exponent=int(reaches(x).max()), dimensions=x.shape[1])
        points = grid.points(x)
        centres = points.coordinates[seed_rows(points, keys, clusters)]
        passes = clusters
        for _ in range(self.iterations):
            cells = partition(points, centres[None])
            passes += 1
            filled = cells.counts[0, :, None] > 0
            means = whole(cells.sums[0] / np.maximum(cells.counts[0, :, None], 1))
            moved = np.where(filled, means, centres)
            if np.array_equal(moved, centres):
                break
            centres = moved
        return grid.values(centres), len(x) * passes

    def leaf_name(self, number: int) -> str:
        return self.node_name(len(self.widths) - 1, number)

    def node_name(self, level: int, number: int) -> str:
        return f"node-{level}-{number}"

    def predict(self, state: State, x: Array) -> Array:
        return nearest(x, state.parts[ROOT]["centres"])

    def extra_bytes(self, state: State) -> int:
        return state.stored_bytes - state.parts[ROOT]["centres"].nbytes
