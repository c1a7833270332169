"""A DaRE tree while it is being changed: old arrays stay whole, the new ones are spliced from old and new spans."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from expunge.data.records import Array
from expunge.methods.tree_keys import Ints
from expunge.methods.tree_splits import Part
from expunge.methods.trees import ENTRIES, NODES, RANDOM, RANDOMS, REMEMBERED, SLOTS

# Written in place while records are taken out; the other arrays are only read.
WRITTEN = ("kind", "threshold", "size", "counts", "extremes", "extreme_counts", "at", "next_at", "below")


Span = tuple[int, int, Part | None]
"""First node, the node after the last one, and what takes their place."""


@dataclass(frozen=True, kw_only=True)
class Regrown:
    """A subtree that is replaced: its root, the nodes above it, its place in the old arrays and the rows it keeps.

    Args:
        key, depth: of the root. start, old_rows: its slice of the old ``order``. old_nodes: its nodes.
        rows: positions of the records that stay, rising.
    """

    node: int
    above: tuple[int, ...]
    key: int
    depth: int
    start: int
    old_rows: int
    old_nodes: int
    rows: Array


@dataclass
class Editor:
    """Copies of the arrays of one tree that will be written to, and the spans that will be replaced.

    Args:
        part: the arrays. random_at, kept_at: how many random and remembered nodes come before each node.
        entry_at: how many entries come before those of each remembered node.
        gone: indices into ``order`` of records that leave a leaf that stays.
        stats: new statistics of a remembered node, None if it has become too small to have any.
        regrown: subtrees to replace.
    """

    part: Part
    random_at: Ints
    kept_at: Ints
    entry_at: Ints
    gone: list[Array] = field(default_factory=list)
    stats: dict[int, Part | None] = field(default_factory=dict)
    regrown: list[Regrown] = field(default_factory=list)

    @classmethod
    def of(cls, part: Part) -> Editor:
        entries = np.maximum(part["slot_entries"], 0).sum(axis=1)
        return cls(
            part={name: array.copy() if name in WRITTEN else array for name, array in part.items()},
            random_at=np.append(0, np.cumsum(part["kind"] == RANDOM)),
            kept_at=np.append(0, np.cumsum(part["kind"] == REMEMBERED)),
            entry_at=np.append(0, np.cumsum(entries)),
        )

    def entries(self, node: int) -> slice:
        """The entries of a remembered node."""
        kept = self.kept_at[node]
        return slice(int(self.entry_at[kept]), int(self.entry_at[kept + 1]))

    def stats_of(self, node: int) -> Part:
        """The statistics of a remembered node as they are now."""
        new = self.stats.get(node)
        if new is not None:
            return new
        kept, entries = int(self.kept_at[node]), self.entries(node)
        return {name: self.part[name][kept : kept + 1] for name in SLOTS} | {
            name: self.part[name][entries] for name in ENTRIES
        }

    def finish(self, subtrees: Iterator[Part], new_rank: Ints, rank_at: Ints) -> Part:
        """The changed tree.

        Args:
            subtrees: grown for `regrown`, in its order; their ``order`` holds positions.
            new_rank: (records before,) ranks afterwards. rank_at: (positions,) the same by position.
        """
        part, count = self.part, len(self.part["kind"])
        grown = sorted(((job, next(subtrees)) for job in self.regrown), key=lambda pair: pair[0].node)
        for job, subtree in grown:
            part["size"][list(job.above)] += len(subtree["kind"]) - job.old_nodes
        staying = np.ones(len(part["order"]), dtype=bool)
        for index in self.gone:
            staying[index] = False

        nodes: list[Span] = [(job.node, job.node + job.old_nodes, subtree) for job, subtree in grown]
        result = splice(part, NODES, nodes, lambda node: node, count)
        result |= splice(part, RANDOMS, nodes, lambda node: int(self.random_at[node]), count)
        spans = sorted([*nodes, *((n, n + 1, stats) for n, stats in self.stats.items())], key=lambda span: span[0])
        result |= splice(part, SLOTS, spans, lambda node: int(self.kept_at[node]), count)
        result |= splice(part, ENTRIES, spans, lambda node: int(self.entry_at[self.kept_at[node]]), count)

        order, row = [], 0
        for job, subtree in grown:
            order += [new_rank[part["order"][row : job.start][staying[row : job.start]]], rank_at[subtree["order"]]]
            row = job.start + job.old_rows
        order.append(new_rank[part["order"][row:][staying[row:]]])
        result["order"] = np.concatenate(order).astype(np.int32)
        return result


def splice(part: Part, names: tuple[str, ...], spans: Sequence[Span], row_of: Callable[[int], int], count: int) -> Part:
    """`part`, of `count` nodes, with the nodes of each span replaced; `row_of` says where a node's rows begin."""
    result: Part = {}
    for name in names:
        pieces, row = [], 0
        for first, end, new in spans:
            pieces += [part[name][row : row_of(first)], *([] if new is None else [new[name]])]
            row = row_of(end)
        pieces.append(part[name][row : row_of(count)])
        result[name] = np.concatenate(pieces)
    return result
