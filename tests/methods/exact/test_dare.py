"""A DaRE forest forgets to the last bit, and is the forest that a slow and plain search would grow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from expunge.data.records import Array, Records
from expunge.errors import DataError, ModelError, RequestError
from expunge.methods import trees as flat
from expunge.methods.exact.dare import DareForest
from expunge.methods.learner import Job, State, part_digest
from expunge.methods.tree_keys import (
    attribute_order,
    child_keys,
    decode,
    encode,
    random_threshold,
    rank_values,
    slot_keys,
)
from expunge.methods.tree_splits import purity
from expunge.training.seeds import derive


def table(x: Any, y: Any, classes: tuple[str, ...] = ()) -> Records:
    x, y = np.asarray(x, dtype=np.float32), np.asarray(y, dtype=np.int64)
    return Records(ids=np.array([f"r{k}" for k in range(len(x))]), columns={"x": x, "y": y}, classes=classes)


def mixed(n: int, d: int, classes: int, seed: int, grain: int) -> Records:
    """Features from binary to continuous (`grain` decimals), with the class hidden in the first ones and noise."""
    rng = np.random.default_rng(seed)
    x = np.where(rng.random((n, d)) < 0.3, rng.integers(-1, 2, (n, d)), rng.normal(size=(n, d)).round(grain))
    y = np.floor(x[:, 0] * 2 + x[:, d // 2] * x[:, -1] + 0.7 * rng.normal(size=n)).astype(np.int64) % classes
    return table(x, y)


# --- a plain reference: one node at a time, every threshold counted from the records ----------------------------------


def gini_or_entropy(left: Array, right: Array, criterion: str) -> float:
    return float(purity(left[None], (left + right)[None], criterion)[0])


class Plain:
    """A tree of the same rules, recursively, in lists."""

    def __init__(self, learner: DareForest, x: Array, y: Array, classes: int, root: int) -> None:
        self.learner, self.x, self.y, self.classes = learner, np.asarray(x, np.float32), y, classes
        self.p = min(learner.attributes or max(1, int(np.sqrt(x.shape[1]))), x.shape[1])
        self.nodes: list[list[Any]] = []
        self.order: list[int] = []
        self.extremes: list[Any] = []
        self.slots: list[Any] = []
        self.entries: list[Any] = []
        self.grow(np.arange(len(x)), np.uint64(root), 0)

    def count(self, rows: Array) -> Array:
        return np.bincount(self.y[rows], minlength=self.classes)

    def grow(self, rows: Array, key: np.uint64, depth: int) -> int:
        node = [0, -1, 0.0, 1, self.count(rows).tolist()]
        self.nodes.append(node)
        split = None
        too_deep = self.learner.max_depth is not None and depth >= self.learner.max_depth
        if len(set(self.y[rows])) > 1 and len(rows) >= self.learner.min_samples_split and not too_deep:
            split = (self.at_random if depth < self.learner.random_depth else self.greedy)(rows, np.array([key]))
        if split is None:
            self.order += rows.tolist()
            return 1
        node[0], node[1], node[2] = split
        left = self.x[rows, node[1]] <= node[2]
        keys = [k[0] for k in child_keys(np.array([key]))]
        node[3] += self.grow(rows[left], keys[0], depth + 1) + self.grow(rows[~left], keys[1], depth + 1)
        return int(node[3])

    def at_random(self, rows: Array, key: Array) -> tuple[int, int, float] | None:
        for a in attribute_order(key, self.x.shape[1])[0]:
            v = self.x[rows, a]
            if v.min() < v.max():
                low, high = v.min(), v.max()
                self.extremes.append((low, high, int((v == low).sum()), int((v == high).sum())))
                cut = random_threshold(slot_keys(key, np.array([a])), np.array([low]), np.array([high]))
                return flat.RANDOM, int(a), float(cut[0])
        return None

    def greedy(self, rows: Array, key: Array) -> tuple[int, int, float] | None:
        order = attribute_order(key, self.x.shape[1])[0]
        for first in range(0, len(order), self.p):
            block = order[first : first + self.p]
            if all(len(set(self.x[rows, a])) == 1 for a in block):
                continue
            best: tuple[float, int, float] | None = None
            entries = []
            for a in block:
                options = self.thresholds(rows, int(a), key)
                valid = [o for o in options if o["valid"]]
                limit = sorted(o["rank"] for o in valid)[: self.learner.thresholds]
                keep = [o for o in options if len(limit) < self.learner.thresholds or o["rank"] <= limit[-1]]
                entries.append((int(a), keep))
                for o in keep:
                    right = self.count(rows) - o["below"]
                    score = gini_or_entropy(o["below"], right, self.learner.criterion)
                    if o["valid"] and (best is None or score > best[0]):
                        best = (score, int(a), (float(o["value"]) + float(o["next"])) / 2)
            assert best is not None
            if len(rows) > self.learner.cache_above:
                many = [len(keep) > 16 * self.learner.thresholds for _, keep in entries]
                pad = self.p - len(block)
                self.slots.append(
                    (
                        [a for a, _ in entries] + [-1] * pad,
                        [-1 if m else len(k) for m, (_, k) in zip(many, entries, strict=True)] + [0] * pad,
                    )
                )
                self.entries += [o for m, (_, k) in zip(many, entries, strict=True) if not m for o in k]
                return flat.REMEMBERED, best[1], best[2]
            return flat.GREEDY, best[1], best[2]
        return None

    def thresholds(self, rows: Array, a: int, key: Array) -> list[dict[str, Any]]:
        v, y = self.x[rows, a], self.y[rows]
        values = np.unique(v)
        ranks = rank_values(encode(values + np.float32(0)), np.repeat(slot_keys(key, np.array([a])), len(values)))
        out = []
        for k in range(len(values) - 1):
            here, there = y[v == values[k]], y[v == values[k + 1]]
            out.append(
                {
                    "value": values[k],
                    "next": values[k + 1],
                    "rank": int(ranks[k]),
                    "at": np.bincount(here, minlength=self.classes),
                    "next_at": np.bincount(there, minlength=self.classes),
                    "below": self.count(rows[v <= values[k]]),
                    "valid": any(p != q for p in here for q in there),
                }
            )
        return out

    def part(self) -> dict[str, Array]:
        kind, attribute, threshold, size, counts = (list(column) for column in zip(*self.nodes, strict=True))
        c, e = self.classes, self.entries
        return {
            "kind": np.array(kind, np.int8),
            "attribute": np.array(attribute, np.int32),
            "threshold": np.array(threshold, np.float64),
            "size": np.array(size, np.int32),
            "counts": np.array(counts, np.int32),
            "order": np.array(self.order, np.int32),
            "extremes": np.array([x[:2] for x in self.extremes], np.float32).reshape(-1, 2),
            "extreme_counts": np.array([x[2:] for x in self.extremes], np.int32).reshape(-1, 2),
            "slot_attribute": np.array([s[0] for s in self.slots], np.int32).reshape(-1, self.p),
            "slot_entries": np.array([s[1] for s in self.slots], np.int32).reshape(-1, self.p),
            "value": np.array([o["value"] for o in e], np.float32),
            "next_value": np.array([o["next"] for o in e], np.float32),
            "at": np.array([o["at"] for o in e], np.int32).reshape(-1, c),
            "next_at": np.array([o["next_at"] for o in e], np.int32).reshape(-1, c),
            "below": np.array([o["below"] for o in e], np.int32).reshape(-1, c),
        }


def assert_plain(learner: DareForest, state: State) -> None:
    """Every array of every tree is that of the plain reference on the records that are left."""
    records = state.rows.records()
    classes = max(len(records.classes), int(records.y.max()) + 1)
    x = records.x.reshape(len(records), -1)
    for tree in range(learner.trees):
        plain = Plain(learner, x, records.y, classes, derive(state.seed, "dare", tree)).part()
        mine = state.parts[f"tree.{tree:03d}"]
        assert sorted(mine) == sorted(plain)
        for name, expected in plain.items():
            assert mine[name].dtype == expected.dtype, name
            np.testing.assert_array_equal(mine[name], expected, err_msg=name)


@st.composite
def learners(draw: st.DrawFn) -> DareForest:
    return DareForest(
        trees=draw(st.integers(1, 3)),
        max_depth=draw(st.sampled_from([None, None, 1, 4])),
        random_depth=draw(st.integers(0, 3)),
        thresholds=draw(st.sampled_from([1, 2, 5, 25])),
        attributes=draw(st.sampled_from([None, None, 2, 9])),
        criterion=draw(st.sampled_from(["gini", "entropy"])),
        min_samples_split=draw(st.sampled_from([2, 2, 5])),
        cache_above=draw(st.sampled_from([0, 0, 4, 20, 1000])),
    )


@st.composite
def tables(draw: st.DrawFn) -> Records:
    n, d, classes = draw(st.integers(2, 90)), draw(st.integers(1, 7)), draw(st.integers(1, 4))
    return mixed(n, d, classes, draw(st.integers(0, 999)), draw(st.sampled_from([0, 1, 6])))


@settings(max_examples=20, deadline=None)
@given(learner=learners(), records=tables(), seed=st.integers(0, 5))
def test_trees_are_those_of_a_plain_search(learner: DareForest, records: Records, seed: int) -> None:
    assert_plain(learner, learner.fit(records, seed=seed))


@settings(max_examples=40, deadline=None)
@given(learner=learners(), records=tables(), seed=st.integers(0, 5), data=st.data())
def test_any_sequence_of_requests_ends_in_the_bytes_of_a_fresh_fit(
    learner: DareForest, records: Records, seed: int, data: st.DataObject
) -> None:
    state, left = learner.fit(records, seed=seed), records.ids.tolist()
    while len(left) > 1 and data.draw(st.integers(0, 4)):
        gone = data.draw(st.lists(st.sampled_from(left), min_size=1, max_size=min(4, len(left) - 1), unique=True))
        before, digests = state.parts, state.part_digests()
        state, _ = learner.forget(state, gone)
        assert {name: part_digest(part) for name, part in before.items()} == digests  # nothing was written to
        left = [i for i in left if i not in gone]
        assert state.digest() == learner.fit(records.select(left), seed=seed).digest()


def test_a_long_life_one_record_at_a_time_down_to_the_last() -> None:
    records = mixed(60, 5, 3, seed=4, grain=2)
    learner = DareForest(trees=2, random_depth=1, thresholds=3, cache_above=3)
    state, left = learner.fit(records, seed=1), records.ids.tolist()
    for gone in np.random.default_rng(0).permutation(left)[:-1].tolist():
        state, _ = learner.forget(state, [gone])
        left.remove(gone)
        assert state.digest() == learner.fit(records.select(left), seed=1).digest()


def test_statistics_equal_a_recount_after_requests_at_random_nodes() -> None:
    records = mixed(400, 6, 3, seed=2, grain=1)
    learner = DareForest(trees=2, random_depth=1, thresholds=4, cache_above=10)
    state = learner.fit(records, seed=3)
    rng = np.random.default_rng(0)
    for tree in ("tree.000", "tree.001"):
        for _ in range(6):  # a record out of a random node, so that small nodes are met as often as large ones
            part = state.parts[tree]
            leaf = int(rng.choice(np.flatnonzero(part["kind"] == flat.LEAF)))
            start = int(part["counts"][:leaf][part["kind"][:leaf] == flat.LEAF].sum())
            state, _ = learner.forget(state, [str(state.rows.records().ids[part["order"][start]])])
        assert_plain(learner, state)


def test_a_crowd_that_leaves_at_once() -> None:
    records = mixed(600, 6, 3, seed=5, grain=3)
    learner = DareForest(trees=2, thresholds=5, cache_above=20)
    gone = records.ids[np.random.default_rng(0).permutation(600)[:350]].tolist()
    state, _ = learner.forget(learner.fit(records), gone)
    left = [i for i in records.ids.tolist() if i not in set(gone)]
    assert state.digest() == learner.fit(records.select(left)).digest()


# --- what a deletion does ---------------------------------------------------------------------------------------------


def stump(x: list[float], y: list[int], **settings: Any) -> tuple[DareForest, Records, State]:
    learner = DareForest(**({"trees": 1, "cache_above": 0} | settings))
    records = table(np.array(x)[:, None], y)
    return learner, records, learner.fit(records)


def fresh(learner: DareForest, records: Records, gone: list[str]) -> str:
    return learner.fit(records.without(gone)).digest()


def test_a_split_that_stays_best_keeps_its_subtrees() -> None:
    learner, records, state = stump([0, 0, 2, 3, 10, 11, 12, 13], [0, 0, 0, 0, 1, 1, 1, 1])
    after, outcome = learner.forget(state, ["r0"])
    assert outcome.trace == ()
    assert after.parts["tree.000"]["threshold"].tolist() == [6.5, 0, 0]
    part = after.parts["tree.000"]
    assert part["value"].tolist() == [0, 2, 3, 10, 11, 12]
    assert part["below"].tolist() == [[1, 0], [2, 0], [3, 0], [3, 1], [3, 2], [3, 3]]
    assert outcome.cost.examples == 2  # the root and a leaf
    assert after.digest() == fresh(learner, records, ["r0"])


def test_a_split_that_is_no_longer_best_grows_its_subtree_anew() -> None:
    learner, records, state = stump([0, 1, 2, 3, 4, 5], [0, 0, 1, 0, 1, 1], max_depth=1)
    assert state.parts["tree.000"]["threshold"][0] in (1.5, 3.5)  # equally good
    gone = "r2" if state.parts["tree.000"]["threshold"][0] == 1.5 else "r3"
    after, outcome = learner.forget(state, [gone])
    assert [(event["event"], event["depth"], event["rows"]) for event in outcome.trace] == [("regrown", 0, 5)]
    # one clean cut remains, halfway to the neighbour of the record that left
    assert after.parts["tree.000"]["threshold"][0] == (3.5 if gone == "r2" else 1.5)
    assert after.digest() == fresh(learner, records, [gone])


def test_a_subtree_is_grown_anew_below_a_node_that_stays() -> None:
    x = [0, 1, 2, 3, 4, 5, *range(100, 120)]
    y = [0, 0, 1, 0, 1, 1, *[2] * 20]
    learner, records, state = stump(x, y, max_depth=2)
    part = state.parts["tree.000"]
    assert part["threshold"][0] == 52.5
    gone = "r2" if part["threshold"][1] == 1.5 else "r3"
    after, outcome = learner.forget(state, [gone])
    assert [(event["depth"], event["rows"]) for event in outcome.trace] == [(1, 5)]
    assert after.parts["tree.000"]["threshold"][0] == 52.5
    assert after.digest() == fresh(learner, records, [gone])


def test_a_threshold_moves_with_its_neighbour_and_the_subtrees_stay() -> None:
    learner, records, state = stump([0, 1, 2, 10, 11, 12], [0, 0, 0, 1, 1, 1])
    after, outcome = learner.forget(state, ["r3"])
    assert outcome.trace == ()
    assert state.parts["tree.000"]["threshold"][0] == 6.0
    assert after.parts["tree.000"]["threshold"][0] == 6.5
    assert after.digest() == fresh(learner, records, ["r3"])


def test_a_threshold_that_loses_its_validity_is_replaced() -> None:
    # 1.5 is valid only thanks to r2, the one record of class 1 among those with the value 2
    x = [0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 4]
    y = [0, 0, 0, 0, 0, 0, 1, 0, 1, 1, 1]
    learner = DareForest(trees=1, thresholds=1, cache_above=0, max_depth=1)
    records = table(np.array(x)[:, None], y)
    met = 0
    for seed in range(40):
        state = learner.fit(records, seed=seed)
        part = state.parts["tree.000"]
        if part["threshold"][0] != 1.5:
            continue
        met += 1
        after, outcome = learner.forget(state, ["r6"])
        assert after.parts["tree.000"]["threshold"][0] in (2.5, 3.5)
        assert outcome.trace[0]["event"] == "regrown"
        assert after.digest() == learner.fit(records.without(["r6"]), seed=seed).digest()
    assert met > 5


def test_an_invalid_boundary_that_becomes_valid_is_noticed() -> None:
    # between 0 and 1 there is nothing to tell apart until the value 1 is gone; the only threshold was 1.5
    x, y = [0, 0, 0, 0, 1, 2, 2, 2, 2], [0, 0, 0, 0, 0, 1, 1, 1, 1]
    for seed in range(5):
        learner = DareForest(trees=1, thresholds=1, cache_above=0)
        records = table(np.array(x)[:, None], y)
        after, outcome = learner.forget(learner.fit(records, seed=seed), ["r4"])
        assert after.parts["tree.000"]["threshold"][0] == 1.0
        assert outcome.trace == ()
        assert after.digest() == learner.fit(records.without(["r4"]), seed=seed).digest()


def test_a_random_node_stays_until_its_range_is_left() -> None:
    rng = np.random.default_rng(0)
    records = table(rng.normal(size=(300, 4)), rng.integers(0, 2, 300))
    learner = DareForest(trees=20, random_depth=1, max_depth=1)
    state = learner.fit(records)
    roots = {name: float(part["threshold"][0]) for name, part in state.parts.items()}
    moved = 0
    for column in range(4):
        for row in (int(records.x[:, column].argmin()), int(records.x[:, column].argmax())):
            after, outcome = learner.forget(state.copy(), [f"r{row}"])
            moved += len(outcome.trace)
            same = {name for name, part in after.parts.items() if float(part["threshold"][0]) == roots[name]}
            assert len(same) == 20 - len({event["tree"] for event in outcome.trace})
    assert moved <= 6  # of 160 pairs of an extreme record and a tree, a quarter of them the tree's own attribute


def test_the_last_record_of_the_last_class_takes_its_column_along() -> None:
    learner, records, state = stump([0, 1, 2, 3, 4], [0, 1, 0, 1, 2])
    after, _ = learner.forget(state, ["r4"])
    assert after.parts["tree.000"]["counts"].shape[1] == 2
    assert learner.scores(after, records.x).shape == (5, 2)
    assert after.digest() == fresh(learner, records, ["r4"])


def test_a_class_with_a_name_keeps_its_column() -> None:
    learner = DareForest(trees=2, cache_above=0)
    records = table(np.arange(5.0)[:, None], [0, 1, 0, 1, 2], classes=("a", "b", "c", "d"))
    after, _ = learner.forget(learner.fit(records), ["r4"])
    assert after.parts["tree.000"]["counts"].shape[1] == 4
    assert after.digest() == fresh(learner, records, ["r4"])


def test_equal_rows_of_different_classes_are_a_leaf() -> None:
    learner, records, state = stump([1, 1, 1, 2], [0, 1, 1, 0])
    after, _ = learner.forget(state, ["r3"])
    assert after.parts["tree.000"]["kind"].tolist() == [flat.LEAF]
    np.testing.assert_allclose(learner.probabilities(after, records.x)[0], [1 / 3, 2 / 3])
    assert after.digest() == fresh(learner, records, ["r3"])


@pytest.mark.parametrize("goes", [1, 2])
def test_a_node_that_becomes_small_keeps_no_statistics(goes: int) -> None:
    x = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    learner, records, state = stump(x, [0] * 6 + [1] * 6, cache_above=11)
    assert state.parts["tree.000"]["kind"][0] == flat.REMEMBERED
    gone = ["r0", "r11"][:goes]
    after, outcome = learner.forget(state, gone)
    assert after.parts["tree.000"]["kind"][0] == flat.GREEDY
    assert len(after.parts["tree.000"]["value"]) == 0 and outcome.trace == ()
    assert after.digest() == learner.fit(records.without(gone)).digest()


def test_a_slot_with_too_many_values_to_watch_is_not_remembered() -> None:
    # two valid thresholds among 79: the values up to the first of them in rank are many
    records = table(np.arange(80.0)[:, None], [0] * 40 + [1] + [0] * 39)
    learner = DareForest(trees=6, thresholds=1, cache_above=0)
    state = learner.fit(records)
    assert_plain(learner, state)
    roots = [int(part["slot_entries"][0, 0]) for part in state.parts.values()]
    assert -1 in roots
    left = records.ids.tolist()
    for gone in ("r3", "r70", "r39", "r41"):
        state, _ = learner.forget(state, [gone])
        left.remove(gone)
        assert state.digest() == learner.fit(records.select(left)).digest()


def test_what_is_remembered_changes_no_tree() -> None:
    records = mixed(300, 6, 3, seed=0, grain=2)
    states = [DareForest(trees=3, thresholds=4, cache_above=c).fit(records) for c in (0, 30, 1000)]
    for name, part in states[0].parts.items():
        for other in states[1:]:
            for array in ("attribute", "threshold", "size", "counts", "order"):
                np.testing.assert_array_equal(part[array], other.parts[name][array])


def test_trees_do_not_depend_on_those_grown_beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    records = mixed(120, 6, 3, seed=1, grain=2)
    together = DareForest(trees=6, random_depth=1, cache_above=9).fit(records)
    monkeypatch.setattr("expunge.methods.exact.dare.ROWS_TOGETHER", 1)
    monkeypatch.setattr("expunge.methods.tree_splits.CHUNK", 50)
    assert DareForest(trees=6, random_depth=1, cache_above=9).fit(records).digest() == together.digest()


def test_more_than_a_thousand_trees_keep_their_order() -> None:
    learner = DareForest(trees=1001, max_depth=1, cache_above=0)
    records = mixed(6, 2, 2, seed=0, grain=3)
    after, _ = learner.forget(learner.fit(records), ["r2"])
    assert after.digest() == fresh(learner, records, ["r2"])


def test_integers_images_and_signed_zeros_are_features_too() -> None:
    x = np.array([[[0, 5], [1, 2]], [[3, 5], [1, 0]], [[3, 5], [7, 0]], [[0, 1], [1, 0]]])
    records = Records(ids=["a", "b", "c", "d"], columns={"x": x, "y": np.array([0, 1, 1, 0], dtype=np.uint8)})
    learner = DareForest(trees=5, cache_above=0)
    after, _ = learner.forget(learner.fit(records), ["b"])
    assert after.digest() == learner.fit(records.without(["b"])).digest()
    assert learner.predict(learner.fit(records), x).tolist() == [0, 1, 1, 0]
    # -0.0 and 0.0 are one value: there is nothing to split
    _, _, state = stump([-0.0, 0.0], [0, 1])
    assert state.parts["tree.000"]["kind"].tolist() == [flat.LEAF]


# --- the randomness ---------------------------------------------------------------------------------------------------


def test_every_valid_threshold_is_as_likely_as_another_and_no_other_is_taken() -> None:
    x, y = np.arange(12.0), np.array([0, 1, 0, 1, 1, 1, 0, 1, 0, 0, 1, 0])
    valid = {k + 0.5 for k in range(11) if y[k] != y[k + 1]}
    state = DareForest(trees=1600, thresholds=1, max_depth=1).fit(table(x[:, None], y))
    taken = [float(part["threshold"][0]) for part in state.parts.values()]
    values, counts = np.unique(taken, return_counts=True)
    assert set(values.tolist()) == valid
    expected = 1600 / len(valid)
    assert ((counts - expected) ** 2 / expected).sum() < 24.3  # chi-square with 7 degrees of freedom, p = 0.001


def test_candidate_attributes_are_uniform() -> None:
    keys = np.arange(6000, dtype=np.uint64) * np.uint64(7919)
    order = attribute_order(keys, 5)
    assert (np.sort(order, axis=1) == np.arange(5)).all()
    for place in range(5):
        counts = np.bincount(order[:, place], minlength=5)
        assert ((counts - 1200) ** 2 / 1200).sum() < 18.5  # 4 degrees of freedom, p = 0.001


def test_the_two_sides_of_a_node_and_the_levels_have_keys_of_their_own() -> None:
    keys = np.arange(1000, dtype=np.uint64)
    left, right = child_keys(keys)
    assert len(np.unique(np.concatenate([keys, left, right, *child_keys(left), *child_keys(right)]))) == 7000


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 2.5), (999, 1001), (1e-3, 1.1e-3), (-1e30, 1e30)])
def test_random_thresholds_are_uniform_in_the_range(low: float, high: float) -> None:
    n = 4000
    keys = np.arange(n, dtype=np.uint64)
    cuts = random_threshold(keys, np.full(n, low, np.float32), np.full(n, high, np.float32))
    low, high = float(np.float32(low)), float(np.float32(high))
    assert (cuts >= low).all() and (cuts < high).all()
    share = np.sort((cuts - low) / (high - low))
    assert np.abs(share - (np.arange(n) + 0.5) / n).max() < 1.95 / np.sqrt(n)  # Kolmogorov-Smirnov, p = 0.001


def test_a_random_threshold_survives_a_narrower_range_that_holds_it() -> None:
    keys = np.arange(2000, dtype=np.uint64)
    wide = random_threshold(keys, np.full(2000, 0.1, np.float32), np.full(2000, 1.0, np.float32))
    narrow = random_threshold(keys, np.full(2000, 0.15, np.float32), np.full(2000, 0.9, np.float32))
    inside = (wide >= np.float32(0.15)) & (wide < np.float32(0.9))
    assert 1500 < inside.sum() < 1800
    assert (wide == narrow)[inside].all()


def test_ranks_are_a_permutation_and_codes_keep_the_order_of_floats() -> None:
    values = np.sort(np.random.default_rng(0).normal(size=5000).astype(np.float32) * 1e3)
    codes = encode(values)
    assert (np.diff(codes.astype(np.int64)) >= 0).all() and (decode(codes) == values).all()
    codes = np.arange(1 << 16, dtype=np.uint32)
    ranks = rank_values(codes, np.full(len(codes), 12345678901234567, dtype=np.uint64))
    assert len(np.unique(ranks)) == len(codes)
    assert abs(np.corrcoef(codes, ranks)[0, 1]) < 0.02


# --- the forest as a classifier ---------------------------------------------------------------------------------------


def test_purity_orders_splits_as_the_definitions_do() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.integers(1, 9, (50, 3)), rng.integers(0, 9, (50, 3))
    right[:, 0] += 1
    total = np.array([60, 60, 60])
    right = total - left

    def impurity(side: Array, criterion: str) -> float:
        share = side / side.sum()
        if criterion == "gini":
            return float(1 - (share**2).sum())
        share = share[share > 0]
        return float(-(share * np.log(share)).sum())

    for criterion in ("gini", "entropy"):
        mine = purity(left, np.broadcast_to(total, left.shape), criterion)
        weighted = np.array(
            [
                a.sum() * impurity(a, criterion) + b.sum() * impurity(b, criterion)
                for a, b in zip(left, right, strict=True)
            ]
        )
        expected = 180 - weighted if criterion == "gini" else -weighted
        np.testing.assert_allclose(mine, expected, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("criterion", ["gini", "entropy"])
def test_with_all_thresholds_and_attributes_the_root_is_scikit_learns(criterion: str) -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(150, 4)).astype(np.float32)
        y = (x[:, seed % 4] + rng.normal(size=150) > 0.3).astype(int) + (x[:, 1] > 1)
        learner = DareForest(trees=1, max_depth=1, thresholds=1000, attributes=4, criterion=criterion)
        part = learner.fit(table(x, y)).parts["tree.000"]
        reference = DecisionTreeClassifier(max_depth=1, criterion=criterion, random_state=0).fit(x, y).tree_
        assert part["attribute"][0] == reference.feature[0]
        assert part["threshold"][0] == pytest.approx(reference.threshold[0], abs=1e-12)


def census(n: int) -> tuple[Array, Array]:
    """Like Adult: a few skewed numbers, many one-hot columns, a label that a quarter of the records have."""
    rng = np.random.default_rng(7)
    numbers = np.stack([rng.gamma(4, 10, n), rng.exponential(1, n) * (rng.random(n) < 0.1), rng.normal(40, 12, n)], 1)
    kinds = [rng.choice(k, n, p=rng.dirichlet(np.ones(k))) for k in (8, 16, 7, 5, 2)]
    effects = [rng.normal(size=k) for k in (8, 16, 7, 5, 2)]
    signal = numbers[:, 0] / 20 + 2 * (numbers[:, 1] > 0.5) + (numbers[:, 2] > 45)
    signal = signal + sum(e[k] for e, k in zip(effects, kinds, strict=True)) + rng.logistic(size=n)
    x = np.concatenate([numbers.round(0), *[np.eye(len(e))[k] for e, k in zip(effects, kinds, strict=True)]], axis=1)
    return x.astype(np.float32), (signal > np.quantile(signal, 0.76)).astype(np.int64)


@pytest.mark.parametrize(
    ("data", "settings_"),
    [
        ("digits", {}),
        ("breast_cancer", {}),
        ("breast_cancer", {"criterion": "entropy"}),
        ("breast_cancer", {"random_depth": 2}),
        ("census", {"max_depth": 10}),
    ],
)
def test_accuracy_is_within_two_points_of_scikit_learns_forest(data: str, settings_: dict[str, Any]) -> None:
    if data == "census":
        x, y = census(2500)
    else:
        x, y = {"digits": load_digits, "breast_cancer": load_breast_cancer}[data](return_X_y=True)
    rows = np.random.default_rng(0).permutation(len(x))
    train, test = rows[: len(x) // 2], rows[len(x) // 2 :]
    learner = DareForest(trees=50, **settings_)
    state = learner.fit(table(x[train], y[train]))
    mine = np.mean(learner.predict(state, x[test]) == y[test])
    reference = RandomForestClassifier(
        50, max_depth=learner.max_depth, criterion=learner.criterion, random_state=0
    ).fit(x[train], y[train])
    assert mine >= reference.score(x[test], y[test]) - 0.02


def test_probabilities_are_mean_leaf_frequencies() -> None:
    records = mixed(150, 5, 3, seed=3, grain=1)
    learner = DareForest(trees=4, max_depth=3)
    state = learner.fit(records)
    expected = np.zeros((150, 3))
    for part in state.parts.values():
        for row in range(150):
            node = 0
            while part["attribute"][node] >= 0:
                left = records.x[row, part["attribute"][node]] <= part["threshold"][node]
                node = node + 1 if left else node + 1 + part["size"][node + 1]
            expected[row] += part["counts"][node] / part["counts"][node].sum() / 4
    np.testing.assert_allclose(learner.probabilities(state, records.x), expected, atol=1e-12)
    np.testing.assert_array_equal(learner.predict(state, records.x), expected.argmax(axis=1))
    np.testing.assert_allclose(np.exp(learner.scores(state, records.x)), np.maximum(expected, 1e-12), rtol=1e-9)


def test_a_deletion_works_through_a_small_share_of_what_a_fit_does() -> None:
    x, y = census(4000)
    learner = DareForest(trees=5, max_depth=10, random_depth=3, cache_above=200)
    records = table(x, y)
    state = learner.fit(records)
    refit = learner.learn(records, seed=0, job=Job()).examples
    costs = []
    for gone in np.random.default_rng(0).permutation(records.ids)[:30].tolist():
        state, outcome = learner.forget(state, [gone])
        costs.append(outcome.cost.examples)
    assert refit > 5 * 4000 * 5
    assert np.mean(costs) < refit / 20
    assert min(costs) >= 5  # at least a node in every tree


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings_",
    [
        {"trees": 0},
        {"trees": 2.5},
        {"trees": True},
        {"max_depth": 0},
        {"random_depth": -1},
        {"thresholds": 0},
        {"attributes": 0},
        {"criterion": "mse"},
        {"min_samples_split": 1},
        {"cache_above": -1},
    ],
)
def test_hyper_parameters_out_of_range_are_refused(settings_: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        DareForest(**settings_)


def test_features_that_are_no_float32_are_refused() -> None:
    records = Records(ids=["a", "b"], columns={"x": np.array([[1e39], [0.0]]), "y": np.array([0, 1])})
    with pytest.raises(DataError, match=r"3\.4e38"):
        DareForest(trees=1).fit(records)
    with pytest.raises(DataError, match="real numbers"):
        DareForest(trees=1).fit(Records(ids=["a", "b"], columns={"x": np.array([[1j], [0.0]]), "y": np.array([0, 1])}))
    with pytest.raises(DataError, match="classes"):
        DareForest(trees=1).fit(table([[0.0], [1.0]], [0, 5000]))


def test_rows_of_another_width_are_refused() -> None:
    learner, _, state = stump([0, 1], [0, 1])
    with pytest.raises(ModelError, match="2 features"):
        learner.predict(state, np.zeros((3, 2)))
