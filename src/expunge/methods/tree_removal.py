"""Taking records out of DaRE trees: statistics on their way down are updated, subtrees whose split changes are regrown.

The trees of a forest are walked together, a level at a time, so that the nodes that have to look at their records share
one search. What comes out is, array for array, what `expunge.methods.trees.grow` makes of the records that are left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from expunge.data.records import Array
from expunge.methods.tree_editor import Editor, Regrown
from expunge.methods.tree_keys import Ints, Keys, child_keys, middle
from expunge.methods.tree_splits import Part, Rules, Table, greedy_splits, is_valid, purity
from expunge.methods.trees import GREEDY, LEAF, RANDOM, REMEMBERED, choose, grow, is_leaf, no_stats, replace_slots


@dataclass(frozen=True, kw_only=True)
class Leaving:
    """The records that go, and those before and after.

    Args:
        x: (m, d) float32. y: (m,) class numbers. ranks: (m,) among the records before.
        alive: positions of the records before, rising. stays: (len(alive),) whether each is kept.
    """

    x: Array
    y: Array
    ranks: Array
    alive: Ints
    stays: Array


@dataclass(kw_only=True)
class Visit:
    """A node on the way of records that leave.

    Args:
        start: where the node's records begin in ``order``. records: which of the leaving ones pass.
        above: the nodes over it. threshold: its new one. stale: slots whose candidates have to be found again.
    """

    editor: Editor
    tree: int
    node: int
    start: int
    depth: int
    records: Array
    above: tuple[int, ...]
    threshold: float | None = None
    stale: Array | None = None


def remove(
    parts: Sequence[Part], roots: Keys, table: Table, rules: Rules, leaving: Leaving
) -> tuple[list[Part], int, list[dict[str, Any]]]:
    """The trees without the records in `leaving`; `parts` are not written to.

    Args:
        parts: trees. roots: keys of their roots. table: features and labels by position.

    Returns:
        new trees; how many rows were worked through (a record that leaves counts once a node on its way, one that stays
        once a node whose split was searched for among its records); an event for every subtree that was grown anew.
    """
    editors = [Editor.of(part) for part in parts]
    everything = np.arange(len(leaving.ranks))
    visits = [
        Visit(editor=editor, tree=tree, node=0, start=0, depth=0, records=everything, above=())
        for tree, editor in enumerate(editors)
    ]
    keys, worked = roots, 0
    while visits:
        worked += sum(len(visit.records) for visit in visits)
        verdicts = [update(visit, rules, leaving) for visit in visits]
        stale = [n for n, visit in enumerate(visits) if visit.stale is not None]
        worked += _refresh([visits[n] for n in stale], keys[stale], table, rules, leaving)
        for n in stale:
            verdicts[n] = is_best(visits[n], rules)
        search = [number for number, verdict in enumerate(verdicts) if verdict is False]
        kept, rows = _search([visits[n] for n in search], keys[search], table, rules, leaving)
        worked += rows
        down = [n for n, verdict in enumerate(verdicts) if verdict]
        down = sorted(down + [n for n, same in zip(search, kept, strict=True) if same])
        visits, keys = _children([visits[n] for n in down], keys[down], leaving)
    jobs = [(tree, job) for tree, editor in enumerate(editors) for job in editor.regrown]
    subtrees, rows = grow(table, rules, [(job.rows, job.key, job.depth) for _, job in jobs]) if jobs else ([], 0)
    events = [{"event": "regrown", "tree": tree, "depth": job.depth, "rows": len(job.rows)} for tree, job in jobs]
    new_rank = np.cumsum(leaving.stays) - 1
    rank_at = np.zeros(int(leaving.alive[-1]) + 1, dtype=np.int64)
    rank_at[leaving.alive] = new_rank
    supply = iter(subtrees)
    return [editor.finish(supply, new_rank, rank_at) for editor in editors], worked + rows, events


def update(visit: Visit, rules: Rules, leaving: Leaving) -> bool | None:
    """Bring a node's statistics up to date.

    Returns:
        true if its split stays, false if its records must be looked at to know, None at a leaf or if only
        ``visit.stale`` slots must be looked at.
    """
    part, node = visit.editor.part, visit.node
    before = int(part["counts"][node].sum())
    part["counts"][node] -= np.bincount(leaving.y[visit.records], minlength=rules.classes).astype(np.int32)
    after = part["counts"][node].astype(np.int64)
    if part["kind"][node] == LEAF:
        ranks = part["order"][visit.start : visit.start + before]
        visit.editor.gone.append(visit.start + np.searchsorted(ranks, leaving.ranks[visit.records]))
        return None
    if is_leaf(rules, after[None], np.array([visit.depth]))[0]:
        return False
    if part["kind"][node] == RANDOM:
        number = visit.editor.random_at[node]
        values = leaving.x[visit.records, part["attribute"][node]]
        part["extreme_counts"][number] -= (values[:, None] == part["extremes"][number]).sum(axis=0).astype(np.int32)
        return bool((part["extreme_counts"][number] > 0).all())
    if part["kind"][node] == REMEMBERED and after.sum() > rules.cache_above:
        return _update_entries(visit, rules, leaving, after)
    return False


def _update_entries(visit: Visit, rules: Rules, leaving: Leaving, after: Ints) -> bool | None:
    """Update the remembered thresholds and see which slots may have others now; returns as `update` does.

    A value with a higher hash than the k-th valid threshold is not remembered and cannot become a candidate while that
    one stays valid; one with a lower hash is remembered with its successor, whether valid or not. So the candidates can
    only change when a remembered value or its successor loses its last record, or a full slot loses a valid threshold.
    """
    part, node = visit.editor.part, visit.node
    kept, span = visit.editor.kept_at[node], visit.editor.entries(node)
    attributes, number = part["slot_attribute"][kept], part["slot_entries"][kept]
    entries = span.stop - span.start
    # not remembered, or so many records leave at once that sorting the others is cheaper
    if (number < 0).any() or len(visit.records) * entries > after.sum() * rules.candidates:
        return False
    slot = np.repeat(np.arange(len(number)), number)
    value, next_value = part["value"][span], part["next_value"][span]
    at, next_at, below = part["at"][span], part["next_at"][span], part["below"][span]
    were_valid = np.bincount(slot[is_valid(at, next_at)], minlength=len(number))
    for label in np.unique(leaving.y[visit.records]):
        mine = visit.records[leaving.y[visit.records] == label]
        values = leaving.x[mine[:, None], attributes[slot]]
        at[:, label] -= (values == value).sum(axis=0).astype(np.int32)
        next_at[:, label] -= (values == next_value).sum(axis=0).astype(np.int32)
        below[:, label] -= (values <= value).sum(axis=0).astype(np.int32)
    lost = np.zeros(len(number), dtype=bool)
    lost[slot[~(at.any(axis=1) & next_at.any(axis=1))]] = True
    are_valid = np.bincount(slot[is_valid(at, next_at)], minlength=len(number))
    lost |= (are_valid < were_valid) & (were_valid == rules.thresholds)
    if lost.any():
        visit.stale = np.flatnonzero(lost)
        return None
    return is_best(visit, rules)


def is_best(visit: Visit, rules: Rules) -> bool:
    """Whether the best of the remembered thresholds is the node's; false if none is valid."""
    part, node = visit.editor.part, visit.node
    stats = visit.editor.stats_of(node)
    attributes, number = stats["slot_attribute"][0], stats["slot_entries"][0]
    valid = np.flatnonzero(is_valid(stats["at"], stats["next_at"]))
    if (number < 0).any() or not len(valid):
        return False
    below = stats["below"][valid].astype(np.int64)
    total = np.broadcast_to(part["counts"][node].astype(np.int64), below.shape)
    best = valid[np.argmax(purity(below, total, rules.criterion))]
    slot = int(np.searchsorted(np.cumsum(number), best, side="right"))
    threshold = middle(stats["value"][best : best + 1], stats["next_value"][best : best + 1])[0]
    return bool(attributes[slot] == part["attribute"][node] and threshold == part["threshold"][node])


def _refresh(visits: list[Visit], keys: Keys, table: Table, rules: Rules, leaving: Leaving) -> int:
    """Find the candidates of the stale slots again from the nodes' records; returns how many rows were looked at."""
    if not visits:
        return 0
    stale = [visit.stale if visit.stale is not None else np.zeros(0, dtype=np.int64) for visit in visits]
    times = np.array([len(slots) for slots in stale])
    rows = [_rows(visit, leaving) for visit in visits]
    stats = [visit.editor.stats_of(visit.node) for visit in visits]
    splits = greedy_splits(
        table,
        rules,
        np.concatenate([mine for mine, again in zip(rows, times, strict=True) for _ in range(again)]),
        np.repeat([len(mine) for mine in rows], times),
        np.repeat(keys, times),
        np.repeat([visit.editor.part["counts"][visit.node].astype(np.int64) for visit in visits], times, axis=0),
        np.concatenate([old["slot_attribute"][0][slots] for old, slots in zip(stats, stale, strict=True)])[:, None],
    )
    number = 0
    for visit, old, slots in zip(visits, stats, stale, strict=True):
        new: dict[int, Part] = {}
        for slot in slots.tolist():
            new[slot] = splits.stats.get(number, no_stats(rules))
            number += 1
        visit.editor.stats[visit.node] = replace_slots(old, new)
    return int((times * [len(mine) for mine in rows]).sum())


def _search(visits: list[Visit], keys: Keys, table: Table, rules: Rules, leaving: Leaving) -> tuple[list[bool], int]:
    """Choose the splits of these nodes again from their records, and order what changes to be regrown.

    Two thresholds on one attribute with as many records on the left have the same records there; then only the
    threshold moves and the subtrees stay.

    Returns:
        whether the sides of each node stay the same; how many rows were looked at.
    """
    kept = [False] * len(visits)
    if not visits:
        return kept, 0
    counts = np.stack([visit.editor.part["counts"][visit.node] for visit in visits]).astype(np.int64)
    depths = np.array([visit.depth for visit in visits])
    rows = [_rows(visit, leaving) for visit in visits]
    tried = np.flatnonzero(~is_leaf(rules, counts, depths))
    worked = 0
    if len(tried):
        sizes = np.array([len(rows[n]) for n in tried])
        worked = int(sizes.sum())
        together = np.concatenate([rows[n] for n in tried])
        splits = choose(table, rules, together, sizes, keys[tried], depths[tried], counts[tried])
        for place, n in enumerate(tried.tolist()):
            visit = visits[n]
            part, node, number = visit.editor.part, visit.node, visit.editor.random_at[visit.node]
            if splits.attribute[place] != part["attribute"][node]:
                continue
            old_left = np.count_nonzero(table.values(rows[n], part["attribute"][node]) <= part["threshold"][node])
            if splits.left[place].sum() != old_left:
                continue
            kept[n], visit.threshold = True, float(splits.threshold[place])
            if part["kind"][node] == RANDOM:
                part["extremes"][number] = splits.extremes[place]
                part["extreme_counts"][number] = splits.extreme_counts[place]
            elif part["kind"][node] == REMEMBERED:
                visit.editor.stats[node] = splits.stats.get(place)
                part["kind"][node] = REMEMBERED if place in splits.stats else GREEDY
    for n, visit in enumerate(visits):
        if not kept[n]:
            visit.editor.stats.pop(visit.node, None)
            visit.editor.regrown.append(
                Regrown(
                    node=visit.node,
                    above=visit.above,
                    key=int(keys[n]),
                    depth=visit.depth,
                    start=visit.start,
                    old_rows=len(rows[n]) + len(visit.records),
                    old_nodes=int(visit.editor.part["size"][visit.node]),
                    rows=rows[n],
                )
            )
    return kept, worked


def _rows(visit: Visit, leaving: Leaving) -> Array:
    """Positions of the records that stay at a node, rising."""
    after = int(visit.editor.part["counts"][visit.node].sum())
    ranks = np.sort(visit.editor.part["order"][visit.start : visit.start + after + len(visit.records)])
    return np.asarray(leaving.alive[ranks[leaving.stays[ranks]]])


def _children(visits: list[Visit], keys: Keys, leaving: Leaving) -> tuple[list[Visit], Keys]:
    """The nodes below that leaving records come to, and their keys; a threshold that moves does so behind them."""
    below: list[Visit] = []
    key_of: list[int] = []
    for visit, *both in zip(visits, *child_keys(keys), strict=True):
        part, node = visit.editor.part, visit.node
        goes_left = leaving.x[visit.records, part["attribute"][node]] <= part["threshold"][node]
        if visit.threshold is not None:
            part["threshold"][node] = visit.threshold
        right = node + 1 + int(part["size"][node + 1])
        middle_ = visit.start + int(part["counts"][node + 1].sum())
        for child, start, mine, key in (
            (node + 1, visit.start, goes_left, both[0]),
            (right, middle_, ~goes_left, both[1]),
        ):
            if mine.any():
                below.append(
                    Visit(
                        editor=visit.editor,
                        tree=visit.tree,
                        node=child,
                        start=start,
                        depth=visit.depth + 1,
                        records=visit.records[mine],
                        above=(*visit.above, node),
                    )
                )
                key_of.append(int(key))
    return below, np.array(key_of, dtype=np.uint64)
