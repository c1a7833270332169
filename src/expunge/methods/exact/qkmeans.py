"""k-means whose centroids snap to a lattice, so that a single row seldom matters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from expunge.data.records import FEATURES, Array, Records
from expunge.errors import RequestError
from expunge.methods.kmeans import (
    Floats,
    Grid,
    Integers,
    Partition,
    check_enough,
    check_hyper_parameters,
    check_points,
    nearest,
    partition,
    reaches,
    record_keys,
    seed_rows,
    whole,
)
from expunge.methods.learner import Job, Learned, Learner, Part, State
from expunge.training.seeds import derive


@dataclass(frozen=True, kw_only=True)
class QuantisedKMeans(Learner):
    """Lloyd's iterations with every centroid rounded to a lattice of step ε with a random phase θ:

        c_j = (Σ_{i∈π_j} x_i + (t − |π_j|)₊ ĉ_j) / max(|π_j|, t),  t = γn/k,    ĉ_j ← ε(⌊c_j/ε − θ⌉ + θ)

    from k-means++ seeds, until T iterations are done or the loss no longer falls. The second term, for clusters smaller
    than t, drags the centroid to where it was: without it the mean of a few rows would jump.

    Kept of each iteration: sizes, sums and loss of the partition, and the rounded centroids. To forget a row, subtract
    it from the cluster it was in, in every iteration, and round again. If no rounded centroid changes, if the row was
    no seed and the iterations would end at the same one, retraining would come to the same centroids: done, in
    O(T·k·d). Else retrain.

    Paper: Ginart, Guan, Valiant & Zou, "Making AI Forget You" (NeurIPS 2019), arXiv 1907.05012.

    Args:
        clusters: k. iterations: T. epsilon: ε, in the units of the features, > 0. gamma: γ in [0, 1].

    This differs from the authors' code in:
        1. The same (records, seed) give the same bytes after any deletions, where the paper asks for equality in
           distribution. Coordinates are integers on a grid of step 2^(e−b), with 2^e the power of two at or above the
           largest magnitude and b from 25 bits (one feature) to 20 (784), so that sums and distances are exact. That
           no row needs e any more is one of the things that force a retraining.
        2. k-means++ draws by a race of exponential times, each a hash of (seed, record id, draw): the same law, and
           taking out a row that lost changes no draw. The phases come from the seed. A retraining uses the same draws
           again; the expected number of retrainings stays that of fresh phases, since θ is independent of the rows.
        3. The first seed counts as a seed; their set of seeds lacks it.
        4. The deleted row is looked up by the rounded centroids that made the partition, and its sums are updated
           where they are kept; their check looks it up by the centroids that came out of it, and writes to the
           iteration before the last.
        5. A mean is recomputed from sum and size; theirs takes x/|π_j| off the mean and leaves the rest of it
           divided by the old size. t falls with n, which moves all small clusters, and all of them are checked.
        6. That the loss still falls, or still does not, is checked too, with exact losses.
        7. An empty cluster keeps its centroid (γ-correction at size 0); theirs draws a seed and then drags it back to
           the same place.
        8. Rounded centroids outside of ±2^e are moved to its edge, where ε is larger than the data.
    """

    name: ClassVar[str] = "qkmeans"
    summary: ClassVar[str] = "k-means with centroids rounded to a lattice; retrains only if one of them would move"
    paper: ClassVar[str] = "arXiv:1907.05012"
    equality: ClassVar[str | None] = "bitwise"
    task: ClassVar[str] = "clustering"

    clusters: int = 8
    iterations: int = 10
    epsilon: float = 0.05
    gamma: float = 0.2

    def __post_init__(self) -> None:
        check_hyper_parameters(self.name, clusters=self.clusters, iterations=self.iterations)
        if not (self.epsilon > 0 and math.isfinite(self.epsilon) and 0 <= self.gamma <= 1):
            raise RequestError(
                f"qkmeans needs epsilon > 0 and gamma in [0, 1], got {self.epsilon} and {self.gamma}",
                "Correct its hyper-parameters",
            )

    def check(self, records: Records) -> None:
        super().check(records)
        check_points(records)
        check_enough(self.name, self.clusters, len(records))

    def learn(self, records: Records, *, seed: int, job: Job) -> Learned:
        reach = reaches(records.x)
        grid = Grid(exponent=int(reach.max()), dimensions=records.x.shape[1])
        points = grid.points(records.x)
        seeds = seed_rows(points, record_keys(records.ids, derive(seed, "kmeans", "record")), self.clusters)
        centres = [points.coordinates[seeds]]
        partitions = [partition(points, centres[0][None])]
        phases: list[Floats] = []
        for done in range(1, self.iterations + 1):
            phase = np.random.Generator(np.random.Philox(key=derive(seed, "kmeans", "phase", done)))
            phases.append(phase.random(grid.dimensions))
            last = partitions[-1]
            centres.append(self.rounded(last.counts, last.sums, centres[-1][None], phases[-1], len(points), grid)[0])
            partitions.append(partition(points, centres[-1][None]))
            if job.progress:
                job.progress("iterations", done, self.iterations)
            if kept([p.loss()[0] for p in partitions]) < done:
                break
        history = Partition(
            counts=np.concatenate([p.counts for p in partitions]),
            sums=np.concatenate([p.sums for p in partitions]),
            losses=np.concatenate([p.losses for p in partitions]),
        )
        iterations: Part = {
            "centres": np.stack(centres),
            "phases": np.stack(phases),
            "counts": history.counts,
            "sums": history.sums,
            "losses": history.losses,
        }
        return Learned(
            parts={
                "model": {"centres": grid.values(centres[kept(history.loss())])},
                "range": {"exponent": integers(grid.exponent), "top": integers(np.sum(reach == grid.exponent))},
                "iterations": iterations,
            },
            facts={"seeds": records.ids[seeds].tolist()},
            examples=len(points) * (self.clusters + len(partitions)),
        )

    def rounded(
        self, counts: Integers, sums: Integers, before: Floats, phases: Floats, count: int, grid: Grid
    ) -> Floats:
        """(p, k, d) centroids of p partitions of `count` rows, after the centroids `before`; phases (p, d) or (d,)."""
        least = self.gamma * count / self.clusters
        weight = np.maximum(counts, least)[:, :, None]
        lacking = np.maximum(least - counts, 0.0)[:, :, None]
        centroids = np.where(weight > 0, (sums + lacking * before) / np.where(weight > 0, weight, 1.0), before)
        step, phase = self.epsilon * grid.scale, np.atleast_2d(phases)[:, None, :]
        snapped = whole(step * (np.rint(centroids / step - phase) + phase))
        return np.clip(snapped, -grid.bound, grid.bound)

    def remove(self, state: State, ids: tuple[str, ...], *, job: Job) -> Learned:
        check_enough(self.name, self.clusters, len(state.rows) - len(ids))
        x = state.rows.column(FEATURES)[state.rows.at(ids)]
        parts, why = self.updated(state, ids, x)
        looked = len(x) * len(state.parts["iterations"]["centres"])
        if parts is not None:
            return Learned(parts=parts, facts=state.facts, examples=looked, trace=({"stage": "kept"},))
        fresh = self.learn(state.rows.without(ids), seed=state.seed, job=job)
        return Learned(
            parts=fresh.parts,
            facts=fresh.facts,
            examples=looked + fresh.examples,
            trace=({"stage": "retrained", **why},),
        )

    def updated(self, state: State, ids: tuple[str, ...], x: Array) -> tuple[dict[str, Part] | None, dict[str, Any]]:
        """The parts without the rows `x`, or None and why retraining would come to other centroids."""
        if not set(ids).isdisjoint(state.facts["seeds"]):
            return None, {"reason": "a seed"}
        span, old = state.parts["range"], state.parts["iterations"]
        grid = Grid(exponent=int(span["exponent"][0]), dimensions=x.shape[1])
        top = int(span["top"][0]) - int(np.sum(reaches(x) == grid.exponent))
        if not top:
            return None, {"reason": "the range of the features"}
        before = Partition(counts=old["counts"], sums=old["sums"], losses=old["losses"])
        after = before.without(partition(grid.points(x), old["centres"]))
        count = len(state.rows) - len(ids)
        again = self.rounded(after.counts[:-1], after.sums[:-1], old["centres"][:-1], old["phases"], count, grid)
        moved = (again != old["centres"][1:]).any(axis=(1, 2))
        if moved.any():
            return None, {"reason": "a centroid", "iteration": int(np.argmax(moved)) + 1}
        if kept(after.loss()) != kept(before.loss()):
            return None, {"reason": "the last iteration"}
        return {
            "model": state.parts["model"],
            "range": {"exponent": span["exponent"], "top": integers(top)},
            "iterations": {**old, "counts": after.counts, "sums": after.sums, "losses": after.losses},
        }, {}

    def predict(self, state: State, x: Array) -> Array:
        return nearest(x, state.parts["model"]["centres"])

    def extra_bytes(self, state: State) -> int:
        return sum(array.nbytes for array in state.parts["iterations"].values())


def kept(losses: list[int]) -> int:
    """How many iterations count, given the loss of the seeds and of each iteration: all before the first that does not
    lower the loss. The first one always counts: seeds are records, and a model of records would publish them."""
    rising = (i for i in range(2, len(losses)) if losses[i] >= losses[i - 1])
    return next(rising, len(losses)) - 1


def integers(value: int | np.integer[Any]) -> Integers:
    """(1,) int64."""
    return np.array([value], dtype=np.int64)
