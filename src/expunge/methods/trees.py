"""DaRE trees as flat arrays: growing them, level by level, and walking down them.

A tree is a part of a learner's state. Its nodes stand in preorder: the left child of node i is i + 1, the right one is
i + 1 + size[i + 1]. Its records stand leaf after leaf, in ``order``, so that the records of any node are one slice.

============== ============== ==========================================================================================
array          shape          content
============== ============== ==========================================================================================
kind           (nodes,)       LEAF, RANDOM, GREEDY, or REMEMBERED: greedy with statistics of its thresholds
attribute      (nodes,)       tested by the node, -1 at a leaf
threshold      (nodes,)       records with a value of at most this go left
size           (nodes,)       nodes of the subtree
counts         (nodes, c)     records of each class
order          (n,)           ranks of the remaining records, leaf after leaf, rising within a leaf
extremes       (random, 2)    least and greatest value of the attribute at each random node, in preorder
extreme_counts (random, 2)    how many records have them
slot_attribute (kept, p)      candidate attributes of each remembered node, in preorder; -1 for none
slot_entries   (kept, p)      entries of each, -1 if they are too many to remember
value          (entries,)     values of the attribute with the lowest keyed hashes, up to the k-th valid threshold
next_value     (entries,)     the next greater value: the threshold is halfway
at, next_at    (entries, c)   class counts of the records with these two values; they say whether a threshold is valid
below          (entries, c)   class counts of the records on the left of the threshold
============== ============== ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from expunge.data.records import Array
from expunge.methods.tree_keys import Ints, Keys, as_float32, child_keys
from expunge.methods.tree_splits import Part, Rules, Splits, Table, empty_splits, greedy_splits, random_splits, ranges

LEAF, RANDOM, GREEDY, REMEMBERED = 0, 1, 2, 3

NODES = ("kind", "attribute", "threshold", "size", "counts")
RANDOMS = ("extremes", "extreme_counts")
SLOTS = ("slot_attribute", "slot_entries")
ENTRIES = ("value", "next_value", "at", "next_at", "below")


def is_leaf(rules: Rules, counts: Ints, depths: Ints) -> Array:
    """(nodes,) whether a node may not be split whatever its records' features, given class counts (nodes, classes)."""
    total = counts.sum(axis=1)
    leaf = (counts.max(axis=1) == total) | (total < rules.min_samples_split)
    return np.asarray(leaf if rules.max_depth is None else leaf | (depths >= rules.max_depth))


def choose(table: Table, rules: Rules, rows: Ints, sizes: Ints, keys: Keys, depths: Ints, counts: Ints) -> Splits:
    """The split of every node, by the rule of its depth; none of the nodes is a leaf by `is_leaf`."""
    out = empty_splits(len(sizes), rules.classes)
    starts = np.cumsum(sizes) - sizes
    at_random = depths < rules.random_depth
    for chosen, is_random in ((np.flatnonzero(at_random), True), (np.flatnonzero(~at_random), False)):
        if not len(chosen):
            continue
        mine = rows[ranges(starts[chosen], sizes[chosen])]
        if is_random:
            part = random_splits(table, rules, mine, sizes[chosen], keys[chosen])
        else:
            part = greedy_splits(table, rules, mine, sizes[chosen], keys[chosen], counts[chosen])
        for name in ("attribute", "threshold", "left", "extremes", "extreme_counts"):
            getattr(out, name)[chosen] = getattr(part, name)
        out.stats |= {int(chosen[node]): stats for node, stats in part.stats.items()}
    return out


def grow(table: Table, rules: Rules, jobs: Sequence[tuple[Array, int, int]]) -> tuple[list[Part], int]:
    """A tree for every job, all of them a level at a time.

    Args:
        jobs: rows (rising positions in `table`), key and depth of the root of each; at least one row each.

    Returns:
        trees, whose ``order`` holds positions; how many rows were sorted, counted once for every node they came to.
    """
    classes = rules.classes
    sizes = np.array([len(rows) for rows, _, _ in jobs], dtype=np.int64)
    order = np.concatenate([np.asarray(rows, dtype=np.int64) for rows, _, _ in jobs])
    starts = np.cumsum(sizes) - sizes
    keys = np.array([key for _, key, _ in jobs], dtype=np.uint64)
    depths = np.array([depth for _, _, depth in jobs], dtype=np.int64)
    owner = np.arange(len(jobs))
    first, worked = 0, 0
    levels: list[dict[str, Array]] = []
    stats: list[dict[int, Part]] = []
    while len(sizes):
        count = len(sizes)
        where = ranges(starts, sizes)
        segment = np.repeat(np.arange(count), sizes)
        rows = order[where]
        counts = np.bincount(segment * classes + table.y[rows], minlength=count * classes).reshape(count, classes)
        kind = np.zeros(count, dtype=np.int8)
        attribute, threshold = np.full(count, -1, dtype=np.int32), np.zeros(count)
        extremes, extreme_counts = np.zeros((count, 2), dtype=np.float32), np.zeros((count, 2), dtype=np.int32)
        tried = np.flatnonzero(~is_leaf(rules, counts, depths))
        found = tried
        stats.append({})
        if len(tried):
            mine = rows[ranges((np.cumsum(sizes) - sizes)[tried], sizes[tried])]
            worked += len(mine)
            splits = choose(table, rules, mine, sizes[tried], keys[tried], depths[tried], counts[tried])
            attribute[tried], threshold[tried] = splits.attribute, splits.threshold
            extremes[tried], extreme_counts[tried] = splits.extremes, splits.extreme_counts
            stats[-1] = {first + int(tried[node]): part for node, part in splits.stats.items()}
            found = tried[splits.attribute >= 0]
            kind[found] = np.where(
                depths[found] < rules.random_depth,
                RANDOM,
                np.where(sizes[found] > rules.cache_above, REMEMBERED, GREEDY),
            )
        child = np.full(count, -1, dtype=np.int64)
        child[found] = first + count + 2 * np.arange(len(found))
        levels.append(
            {
                "kind": kind,
                "attribute": attribute,
                "threshold": threshold,
                "counts": counts.astype(np.int32),
                "extremes": extremes,
                "extreme_counts": extreme_counts,
                "child": child,
                "owner": owner,
            }
        )
        # stable partition within each slice, so that records stay leaf after leaf and rising within a leaf
        inner = (child >= 0)[segment]
        rows, where, segment = rows[inner], where[inner], segment[inner]
        left = table.values(rows, attribute[segment]) <= threshold[segment]
        order[where] = rows[np.argsort(2 * segment + ~left, kind="stable")]
        left_sizes = np.bincount(segment[left], minlength=count)[found]
        first += count
        both = np.stack([left_sizes, sizes[found] - left_sizes], axis=1)
        starts = np.stack([starts[found], starts[found] + left_sizes], axis=1).ravel()
        sizes = both.ravel()
        keys = np.stack(child_keys(keys[found]), axis=1).ravel()
        depths, owner = np.repeat(depths[found] + 1, 2), np.repeat(owner[found], 2)
    return _preorder(rules, levels, stats, order, [len(rows) for rows, _, _ in jobs]), worked


def _preorder(
    rules: Rules, levels: list[dict[str, Array]], stats: list[dict[int, Part]], order: Ints, rows: list[int]
) -> list[Part]:
    """Cut what was grown level by level into one tree a job, nodes in preorder."""
    nodes = {name: np.concatenate([level[name] for level in levels]) for name in levels[0]}
    child, owner = nodes.pop("child"), nodes.pop("owner")
    total, jobs = len(child), len(rows)
    size = np.ones(total, dtype=np.int64)
    bounds = np.cumsum([0, *(len(level["child"]) for level in levels)]).tolist()
    spans = [slice(a, b) for a, b in pairwise(bounds)]
    for span in reversed(spans):
        inner = np.arange(span.start, span.stop)[child[span] >= 0]
        size[inner] += size[child[inner]] + size[child[inner] + 1]
    place = np.zeros(total, dtype=np.int64)
    place[:jobs] = np.cumsum(size[:jobs]) - size[:jobs]
    for span in spans:
        inner = np.arange(span.start, span.stop)[child[span] >= 0]
        place[child[inner]] = place[inner] + 1
        place[child[inner] + 1] = place[inner] + 1 + size[child[inner]]
    by_place = np.argsort(place)
    nodes["size"] = size.astype(np.int32)
    nodes = {name: array[by_place] for name, array in nodes.items()}
    remembered: list[dict[int, Part]] = [{} for _ in range(jobs)]
    for level in stats:
        for node, part in level.items():
            remembered[int(owner[node])][int(place[node])] = part
    trees, node, row = [], 0, 0
    for job in range(jobs):
        span = slice(node, node + int(size[job]))
        tree: Part = {name: nodes[name][span].copy() for name in NODES}
        at_random = tree["kind"] == RANDOM
        tree |= {name: nodes[name][span][at_random] for name in RANDOMS}
        tree |= join_stats(rules, [part for _, part in sorted(remembered[job].items())])
        tree["order"] = order[row : row + rows[job]]
        trees.append(tree)
        node, row = span.stop, row + rows[job]
    return trees


def no_stats(rules: Rules) -> Part:
    """The statistics of no node."""
    c, p = rules.classes, rules.candidates
    return {
        "slot_attribute": np.zeros((0, p), dtype=np.int32),
        "slot_entries": np.zeros((0, p), dtype=np.int32),
        "value": np.zeros(0, dtype=np.float32),
        "next_value": np.zeros(0, dtype=np.float32),
        "at": np.zeros((0, c), dtype=np.int32),
        "next_at": np.zeros((0, c), dtype=np.int32),
        "below": np.zeros((0, c), dtype=np.int32),
    }


def join_stats(rules: Rules, pieces: Sequence[Part]) -> Part:
    """Statistics of several nodes, one after another."""
    pieces = [no_stats(rules), *pieces]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in (*SLOTS, *ENTRIES)}


def replace_slots(stats: Part, new: Mapping[int, Part]) -> Part:
    """The statistics of a node with some slots' entries replaced by those in `new`, each of a node with one slot."""
    number = stats["slot_entries"][0].copy()
    ends = np.cumsum(np.maximum(number, 0))
    pieces: dict[str, list[Array]] = {name: [] for name in ENTRIES}
    for slot, end in enumerate(ends.tolist()):
        for name in ENTRIES:
            old = stats[name][end - max(int(number[slot]), 0) : end]
            pieces[name].append(new[slot][name] if slot in new else old)
    for slot, part in new.items():
        number[slot] = part["slot_entries"][0, 0] if len(part["slot_entries"]) else 0
    result = {name: np.concatenate(arrays) for name, arrays in pieces.items()}
    return {"slot_attribute": stats["slot_attribute"], "slot_entries": number[None], **result}


def leaves(tree: Part, x: Array) -> Ints:
    """(n,) the node number of the leaf that every row of `x` (n, d) comes to."""
    node = np.zeros(len(x), dtype=np.int64)
    walking = np.arange(len(x))
    while len(walking):
        walking = walking[tree["attribute"][node[walking]] >= 0]
        here = node[walking]
        left = as_float32(x[walking, tree["attribute"][here]]) <= tree["threshold"][here]
        node[walking] = np.where(left, here + 1, here + 1 + tree["size"][here + 1])
    return node
