"""A random forest that forgets: DaRE, data removal-enabled trees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from expunge.data.records import Array, Records
from expunge.errors import DataError, ModelError, RequestError
from expunge.methods.learner import Job, Learned, Learner, State
from expunge.methods.tree_keys import as_float32
from expunge.methods.tree_removal import Leaving, remove
from expunge.methods.tree_splits import Rules, Table
from expunge.methods.trees import grow, leaves
from expunge.training.seeds import derive

# Trees are grown together while they have at most this many records: what a call of numpy costs is then shared.
ROWS_TOGETHER = 1 << 17
# A node, an attribute, a value and a class are packed into 64 bits to be sorted.
MOST_CLASSES = 1 << 10
# Least probability whose logarithm is given as a score.
FLOOR = 1e-12

CRITERIA = ("gini", "entropy")


@dataclass(frozen=True, kw_only=True)
class DareForest(Learner):
    """Trees with random nodes on top and, below, the best of k valid thresholds for each of √d attributes.

    A threshold lies halfway between two neighbouring values of an attribute among a node's records; it is valid if two
    records of different classes have these values. The best one maximises, with class counts L on the left (n_L in all)
    and R on the right, Σ_c L_c²/n_L + Σ_c R_c²/n_R (``gini``: n minus the weighted Gini impurity) or
    Σ_c L_c ln(L_c/n_L) + Σ_c R_c ln(R_c/n_R) (``entropy``). A node above `random_depth` takes a random attribute that
    is not constant and a threshold uniform in its range. Every tree sees every record; the forest's probability is the
    mean over trees of the class frequencies in the leaf.

    Deleting a record walks down each tree, updates the statistics that are kept, and grows a subtree anew where the
    split is no longer the one that a fresh fit would choose. All choices are keyed hashes of (seed, tree, path,
    attribute, value), so that the result is a fresh fit's, bit for bit.

    Paper: Brophy & Lowd, "Machine Unlearning for Random Forests", ICML 2021, arXiv 2009.05567.

    Args:
        trees: T. max_depth: d_max, edges from the root, None: no limit. random_depth: d_rmax, levels of random nodes.
        thresholds: k, valid thresholds an attribute at a node.
        attributes: candidates at a node, None for ⌊√d⌋. criterion: ``gini`` or ``entropy``.
        min_samples_split: fewer records are a leaf.
        cache_above: threshold statistics are kept at nodes of more records than this and found again from the records
            at the others. It changes memory and speed, never a tree's splits.

    Raises:
        RequestError: a hyper-parameter out of its range. DataError: features that are no real float32 numbers, or too
            many classes.

    This differs from the authors' code in: see docs/methods/dare.md.
    """

    name: ClassVar[str] = "dare"
    summary: ClassVar[str] = "Random forest with cached statistics that regrows only the subtrees whose split changes"
    paper: ClassVar[str] = "arXiv:2009.05567"
    equality: ClassVar[str | None] = "bitwise"

    trees: int = 100
    max_depth: int | None = None
    random_depth: int = 0
    thresholds: int = 25
    attributes: int | None = None
    criterion: str = "gini"
    min_samples_split: int = 2
    cache_above: int = 1000

    def __post_init__(self) -> None:
        least = {"trees": 1, "random_depth": 0, "thresholds": 1, "min_samples_split": 2, "cache_above": 0}
        least |= {name: 1 for name in ("max_depth", "attributes") if getattr(self, name) is not None}
        for name, bound in least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < bound:
                raise RequestError(
                    f"dare needs a whole number of at least {bound} for {name}, got {value!r}", "Correct it"
                )
        if self.criterion not in CRITERIA:
            raise RequestError(f"dare has no criterion {self.criterion!r}", f"Choose one of {', '.join(CRITERIA)}")

    def learn(self, records: Records, *, seed: int, job: Job) -> Learned:
        x = records.x.reshape(len(records), -1)
        if x.dtype.kind not in "iuf" or not x.shape[1] or np.abs(as_float32(x)).max() == np.inf:
            raise DataError(
                f"features of type {x.dtype} and width {x.shape[1]}: a tree needs real numbers within ±3.4e38",
                "Scale the features, or give at least one",
            )
        classes = self._classes(records, int(records.y.max()))
        if classes > MOST_CLASSES:
            raise DataError(f"there are {classes} classes, and at most {MOST_CLASSES} can be told apart", "Merge some")
        rules, table = self._rules(classes, x.shape[1]), Table(x, records.y.astype(np.int64))
        everything, roots = np.arange(len(records)), self._roots(seed)
        parts, examples = {}, 0
        digits = max(3, len(str(self.trees - 1)))  # names in the order of the trees
        together = max(1, ROWS_TOGETHER // len(records))
        for first in range(0, self.trees, together):
            some = range(first, min(first + together, self.trees))
            grown, rows = grow(table, rules, [(everything, int(roots[tree]), 0) for tree in some])
            examples += rows
            for tree, part in zip(some, grown, strict=True):
                parts[f"tree.{tree:0{digits}d}"] = part | {"order": part["order"].astype(np.int32)}
            if job.progress:
                job.progress("trees", some.stop, self.trees)
        return Learned(parts=parts, facts={"attributes": x.shape[1]}, examples=examples)

    def remove(self, state: State, ids: tuple[str, ...], *, job: Job) -> Learned:
        rows, names = state.rows, sorted(state.parts)
        where = rows.at(ids)
        alive = np.flatnonzero(rows.alive)
        ranks = np.searchsorted(alive, where)
        stays = np.ones(len(alive), dtype=bool)
        stays[ranks] = False
        width = int(state.facts["attributes"])
        table = Table(rows.column("x").reshape(-1, width), np.asarray(rows.column("y"), dtype=np.int64))
        parts = [dict(state.parts[name]) for name in names]
        classes = parts[0]["counts"].shape[1]
        leaving = Leaving(x=as_float32(table.x[where]), y=table.y[where], ranks=ranks, alive=alive, stays=stays)
        after, examples, events = remove(parts, self._roots(state.seed), table, self._rules(classes, width), leaving)
        highest = int(np.flatnonzero(after[0]["counts"][0])[-1])
        fewer = self._classes(rows.select(ids), highest)
        if fewer < classes:  # nobody is left of the last class: a fresh fit would not know it
            for part in after:
                for name in ("counts", "at", "next_at", "below"):
                    part[name] = np.ascontiguousarray(part[name][:, :fewer])
        return Learned(
            parts=dict(zip(names, after, strict=True)), facts=state.facts, examples=examples, trace=tuple(events)
        )

    def predict(self, state: State, x: Array) -> Array:
        return np.asarray(self.probabilities(state, x).argmax(axis=1))

    def scores(self, state: State, x: Array) -> Array:
        """(n, classes) logarithms of `probabilities`, those under 1e-12 as if they were 1e-12."""
        return np.asarray(np.log(np.maximum(self.probabilities(state, x), FLOOR)))

    def probabilities(self, state: State, x: Array) -> Array:
        """(n, classes) mean class frequencies over the trees.

        Raises:
            ModelError: the rows have another number of features than the forest.
        """
        x = np.asarray(x).reshape(len(x), -1)
        if x.shape[1] != state.facts["attributes"]:
            raise ModelError(
                f"rows of {x.shape[1]} features, and the forest knows {state.facts['attributes']}",
                "Give the features it was fitted with, in their order",
            )
        parts = [dict(state.parts[name]) for name in sorted(state.parts)]
        total = np.zeros((len(x), parts[0]["counts"].shape[1]))
        for part in parts:
            counts = part["counts"][leaves(part, x)].astype(np.float64)
            total += counts / counts.sum(axis=1, keepdims=True)
        return total / len(parts)

    def extra_bytes(self, state: State) -> int:
        """Bytes of all that prediction does not need."""
        needed = ("attribute", "threshold", "size", "counts")
        return sum(a.nbytes for part in state.parts.values() for name, a in part.items() if name not in needed)

    def _classes(self, records: Records, highest: int) -> int:
        return max(len(records.classes), highest + 1)

    def _roots(self, seed: int) -> Array:
        return np.array([derive(seed, "dare", tree) for tree in range(self.trees)], dtype=np.uint64)

    def _rules(self, classes: int, width: int) -> Rules:
        return Rules(
            classes=classes,
            attributes=width,
            candidates=min(self.attributes or max(1, int(np.sqrt(width))), width),
            thresholds=self.thresholds,
            criterion=self.criterion,
            max_depth=self.max_depth,
            random_depth=self.random_depth,
            min_samples_split=self.min_samples_split,
            cache_above=self.cache_above,
        )
