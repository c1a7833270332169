"""Splits of a DaRE tree: which attributes and thresholds a node may use, and which of them is best.

Everything random is a keyed hash (`expunge.methods.tree_keys`): of the node's place in its tree, of the attribute, of
the value below a threshold. So the candidates are a function of the node's records alone, however these came to be the
ones that are left. Many nodes, of one tree or of many, are worked through at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from expunge.data.records import Array
from expunge.methods.tree_keys import (
    Ints,
    Keys,
    as_float32,
    attribute_order,
    decode,
    encode,
    middle,
    random_threshold,
    rank_values,
    slot_keys,
)

Part = dict[str, Array]

# A slot whose k valid thresholds are hidden among more than this many times k others is not worth remembering.
ENTRIES_PER_THRESHOLD = 16
# Values sorted at once: bounds memory; one node may exceed it.
CHUNK = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How trees are grown; the names are explained in `expunge.methods.exact.dare.DareForest`."""

    classes: int
    attributes: int
    candidates: int
    thresholds: int
    criterion: str
    max_depth: int | None
    random_depth: int
    min_samples_split: int
    cache_above: int


@dataclass(frozen=True)
class Table:
    """Features (positions, d) and labels (positions,); features are read as float32, as scikit-learn's trees do."""

    x: Array
    y: Array

    def values(self, rows: Array, attributes: Array) -> npt.NDArray[np.float32]:
        """``x[rows, attributes]``; adding zero makes -0.0 and 0.0 one value."""
        return as_float32(self.x[rows, attributes])


# --- criteria ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _x_log_x(size: int) -> npt.NDArray[np.float64]:
    # a power of two, so that no number is ever computed in the remainder loop of a vectorised logarithm
    numbers = np.arange(size, dtype=np.float64)
    return numbers * np.log(np.maximum(numbers, 1.0))


def purity(left: Ints, total: Ints, criterion: str) -> npt.NDArray[np.float64]:
    """How pure the two sides are, higher is better: n minus the weighted Gini impurity, or minus the weighted entropy.

    Args:
        left, total: (splits, classes) whole numbers. Every step is exact or one rounding of whole numbers, in a fixed
            order, so that equal counts give equal bits.
    """
    result = np.zeros(len(left))
    right = total - left
    for side in (left, right):
        n = side.sum(axis=1)
        if criterion == "gini":
            result += (side * side).sum(axis=1) / n
        else:
            table = _x_log_x(1 << max(6, int(n.max(initial=0)).bit_length()))
            for c in range(side.shape[1]):
                result += table[side[:, c]]
            result -= table[n]
    return result


def is_valid(at: Array, next_at: Array) -> npt.NDArray[np.bool_]:
    """Whether records of different classes lie on either side, given class counts (n, classes) of the two values."""
    pure = ((at > 0).sum(axis=1) == 1) & ((next_at > 0).sum(axis=1) == 1)
    return np.asarray(~(pure & (at.argmax(axis=1) == next_at.argmax(axis=1))))


# --- the best split of many nodes -------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Splits:
    """A split a node: attribute (-1 where all are constant), threshold, class counts on the left.

    `stats` holds, for each node in `remembered` (their numbers), what `expunge.methods.trees` keeps; `extremes` and
    `extreme_counts` are of random nodes: least and greatest value and how many records have them.
    """

    attribute: npt.NDArray[np.int32]
    threshold: npt.NDArray[np.float64]
    left: Ints
    stats: dict[int, Part]
    extremes: npt.NDArray[np.float32]
    extreme_counts: npt.NDArray[np.int32]


def ranges(starts: Array, lengths: Array) -> Ints:
    """The numbers start .. start + length - 1 of every pair, one after another."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - ends + lengths, lengths) + np.arange(ends[-1] if len(ends) else 0)


def empty_splits(nodes: int, classes: int) -> Splits:
    return Splits(
        attribute=np.full(nodes, -1, dtype=np.int32),
        threshold=np.zeros(nodes),
        left=np.zeros((nodes, classes), dtype=np.int64),
        stats={},
        extremes=np.zeros((nodes, 2), dtype=np.float32),
        extreme_counts=np.zeros((nodes, 2), dtype=np.int32),
    )


def random_splits(table: Table, rules: Rules, rows: Ints, sizes: Ints, keys: Keys) -> Splits:
    """The first attribute in the node's random order that is not constant, and a uniform threshold in its range."""
    out = empty_splits(len(sizes), rules.classes)
    order = attribute_order(keys, rules.attributes)
    starts = np.cumsum(sizes) - sizes
    todo = np.arange(len(sizes))
    for turn in range(rules.attributes):
        segment = np.repeat(np.arange(len(todo)), sizes[todo])
        mine = rows[ranges(starts[todo], sizes[todo])]
        attribute = order[todo, turn]
        values = table.values(mine, attribute[segment])
        first = np.cumsum(sizes[todo]) - sizes[todo]
        low, high = np.minimum.reduceat(values, first), np.maximum.reduceat(values, first)
        done = low < high
        node = todo[done]
        out.attribute[node] = attribute[done]
        out.extremes[node] = np.stack([low, high], axis=1)[done]
        for side, bound in enumerate((low, high)):
            out.extreme_counts[node, side] = np.add.reduceat((values == bound[segment]).astype(np.int64), first)[done]
        threshold = np.zeros(len(todo))
        threshold[done] = random_threshold(slot_keys(keys[node], attribute[done]), low[done], high[done])
        out.threshold[node] = threshold[done]
        below = (values <= threshold[segment]) & done[segment]
        counts = np.bincount(
            segment[below] * rules.classes + table.y[mine[below]], minlength=len(todo) * rules.classes
        ).reshape(len(todo), rules.classes)
        out.left[node] = counts[done]
        todo = todo[~done]
        if not len(todo):
            break
    return out


def greedy_splits(
    table: Table, rules: Rules, rows: Ints, sizes: Ints, keys: Keys, counts: Ints, only: Ints | None = None
) -> Splits:
    """The best of k valid thresholds for each candidate attribute.

    The candidates are the first `rules.candidates` attributes in the node's random order or, where these are all
    constant, the next as many. Among equally good splits the earlier attribute and then the smaller value wins.

    Args:
        rows: positions in `table`, node after node, `sizes` of them each. keys: of the nodes. counts: (nodes, classes).
        only: (nodes, slots) the candidates, if they are known.
    """
    out = empty_splits(len(sizes), rules.classes)
    starts = np.cumsum(sizes) - sizes
    chunk = np.cumsum(sizes) * rules.candidates // CHUNK
    for number in np.unique(chunk):
        todo = np.flatnonzero(chunk == number)
        order = attribute_order(keys[todo], rules.attributes) if only is None else only[todo]
        for first in range(0, order.shape[1], rules.candidates):
            mine = rows[ranges(starts[todo], sizes[todo])]
            attributes = order[:, first : first + rules.candidates]
            done = _search(table, rules, mine, todo, sizes[todo], keys[todo], counts[todo], attributes, out)
            todo, order = todo[~done], order[~done]
            if not len(todo):
                break
    return out


def _search(
    table: Table,
    rules: Rules,
    rows: Ints,
    nodes: Ints,
    sizes: Ints,
    keys: Keys,
    counts: Ints,
    attributes: Ints,
    out: Splits,
) -> npt.NDArray[np.bool_]:
    """Write the best splits with `attributes` (nodes, slots) into `out`; false where they are all constant."""
    slots, k = attributes.shape[1], rules.thresholds
    segment = np.repeat(np.arange(len(nodes)), sizes)
    label_bits = np.uint64(max(1, (rules.classes - 1).bit_length()))
    # one sort of (node and attribute, value, class): no index has to be carried along
    packed = (segment[:, None] * slots + np.arange(slots)).astype(np.uint64) << np.uint64(32)
    packed |= encode(table.values(rows[:, None], attributes[segment]))
    packed = (packed << label_bits) | table.y[rows].astype(np.uint64)[:, None]
    packed = np.sort(packed, axis=None)
    label = (packed & ((np.uint64(1) << label_bits) - np.uint64(1))).astype(np.int64)
    packed >>= label_bits
    ends = np.flatnonzero(np.append(packed[1:] != packed[:-1], True))
    begins = np.append(0, ends[:-1] + 1)
    slot = (packed[ends] >> np.uint64(32)).astype(np.int64)
    code = packed[ends].astype(np.uint32)

    # boundaries: between a value and the next one of the same node and attribute
    lower = np.flatnonzero(slot[1:] == slot[:-1])
    first, last = label[begins], label[ends]
    one = (first[lower] == last[lower]) & (first[lower + 1] == last[lower + 1]) & (first[lower] == first[lower + 1])
    valid = ~one
    at_slot = slot[lower]
    valid_count = np.bincount(at_slot[valid], minlength=len(nodes) * slots)
    kept = np.repeat(sizes > rules.cache_above, slots)
    limit = np.full(len(nodes) * slots, 0xFFFFFFFF, dtype=np.uint64)
    ranked = np.flatnonzero((valid & (valid_count > k)[at_slot]) | kept[at_slot])
    rank = np.zeros(len(lower), dtype=np.uint32)
    keys_of_slots = slot_keys(keys[:, None], attributes).ravel()
    rank[ranked] = rank_values(code[lower[ranked]], keys_of_slots[at_slot[ranked]])
    full = valid_count >= k
    full &= (valid_count > k) | kept
    chosen = np.flatnonzero(valid & full[at_slot])
    in_turn = np.sort((at_slot[chosen].astype(np.uint64) << np.uint64(32)) | rank[chosen])
    where = np.cumsum(np.where(full, valid_count, 0)) - np.where(full, valid_count, 0)
    limit[full] = in_turn[where[full] + k - 1] & np.uint64(0xFFFFFFFF)
    within = rank <= limit[at_slot]

    take = np.flatnonzero(within & (valid | kept[at_slot]))
    group, take_slot = lower[take], at_slot[take]
    base = np.cumsum(np.repeat(counts, slots, axis=0), axis=0) - np.repeat(counts, slots, axis=0)
    upto = np.zeros((len(take), 3, rules.classes), dtype=np.int64)
    for c in range(rules.classes):
        running = np.append(0, np.cumsum(label == c))
        upto[:, 0, c] = running[begins[group]]
        upto[:, 1, c] = running[ends[group] + 1]
        upto[:, 2, c] = running[ends[group + 1] + 1]
    below = upto[:, 1] - base[take_slot]
    value, next_value = decode(code[group]), decode(code[group + 1])

    usable = np.flatnonzero(valid[take])
    owner = take_slot[usable] // slots
    done = np.zeros(len(nodes), dtype=bool)
    done[owner] = True
    if len(usable):
        score = purity(below[usable], counts[owner], rules.criterion)
        begin = np.flatnonzero(np.append(True, owner[1:] != owner[:-1]))
        best = np.maximum.reduceat(score, begin)
        ordinal = np.cumsum(np.append(False, owner[1:] != owner[:-1]))
        winner = usable[
            np.minimum.reduceat(np.where(score == best[ordinal], np.arange(len(usable)), len(usable)), begin)
        ]
        target = nodes[owner[begin]]
        out.attribute[target] = attributes.ravel()[take_slot[winner]]
        out.threshold[target] = middle(value[winner], next_value[winner])
        out.left[target] = below[winner]
    remember = np.flatnonzero(done & (sizes > rules.cache_above))
    if len(remember):
        entries: dict[str, Array] = {
            "value": value,
            "next_value": next_value,
            "at": (upto[:, 1] - upto[:, 0]).astype(np.int32),
            "next_at": (upto[:, 2] - upto[:, 1]).astype(np.int32),
            "below": below.astype(np.int32),
        }
        first_entry = np.searchsorted(take_slot, np.arange(len(nodes) * slots + 1))
        for node in remember.tolist():
            out.stats[int(nodes[node])] = _stats(rules, attributes[node], first_entry, node, entries)
    return done


def _stats(rules: Rules, attributes: Ints, first_entry: Ints, node: int, entries: dict[str, Any]) -> Part:
    """What is remembered of one node: its slots and their entries, none (-1) for a slot that has too many."""
    slots = len(attributes)
    bounds = first_entry[node * slots : (node + 1) * slots + 1]
    number = np.diff(bounds)
    fits = number <= ENTRIES_PER_THRESHOLD * rules.thresholds
    pad = rules.candidates - slots
    keep = ranges(bounds[:-1][fits], number[fits])
    return {
        "slot_attribute": np.append(attributes, np.full(pad, -1)).astype(np.int32)[None],
        "slot_entries": np.append(np.where(fits, number, -1), np.zeros(pad)).astype(np.int32)[None],
        **{name: array[keep] for name, array in entries.items()},
    }
