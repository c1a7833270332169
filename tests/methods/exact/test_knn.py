"""Nearest neighbours: the search against a plain loop, ties, and what forgetting leaves behind."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.data.records import Records
from expunge.errors import DataError, EmptyRetainSet, ModelError, RequestError, UnknownIds
from expunge.guarantee import Exact
from expunge.methods.exact import knn
from expunge.methods.exact.knn import NearestNeighbours
from expunge.methods.learner import State

CLASSES = 4


def table(kind: str, n: int = 90, d: int = 5, seed: int = 0) -> Records:
    rng = np.random.default_rng(seed)
    if kind == "ties":
        x: Any = rng.integers(0, 3, (n, 2)).astype(np.float64)
    elif kind == "copies":
        x = np.repeat(rng.normal(size=(max(n // 30, 1), d)), 30, axis=0)[:n]
    elif kind == "pairs":
        x = np.repeat(rng.normal(size=(n // 2, d)), 2, axis=0)
    elif kind == "far from 0":
        x = 1e8 + rng.integers(0, 50, (n, d)) * 2.0**-20
    elif kind == "float32":
        x = rng.normal(size=(n, d)).astype(np.float32)
    else:
        x = rng.normal(size=(n, d))
    order = rng.permutation(n)
    return Records(
        ids=np.array([f"p{i}" for i in order]), columns={"x": x[:n], "y": rng.integers(0, CLASSES, len(x[:n]))}
    )


def plain(data: Records, queries: Any, k: int, seed: int = 0) -> list[list[str]]:
    """Ids of the nearest: a loop over pairs, features added up in their order, sorted by (distance, hash, id)."""
    found = []
    for query in queries.tolist():
        ranked = []
        for record_id, row in zip(data.ids.tolist(), data.x.tolist(), strict=True):
            distance = 0.0
            for a, b in zip(query, row, strict=True):
                distance += (b - a) * (b - a)
            digest = hashlib.sha256(f"nearest neighbours {seed}\x00{record_id}".encode()).digest()[:8]
            ranked.append((distance, int.from_bytes(digest, "big") >> 11, record_id))
        found.append([record_id for _, _, record_id in sorted(ranked)[:k]])
    return found


def found(learner: NearestNeighbours, state: State, queries: Any) -> list[list[str]]:
    return state.rows.table.ids[learner.nearest(state, queries)].tolist()


def queries_for(data: Records, count: int = 12) -> Any:
    """Records themselves, and points beside them."""
    x = np.asarray(data.x, np.float64)
    return np.concatenate([x[:count], x[:count] + 2.0**-21])


@pytest.mark.parametrize("blocks", [None, (1, 1, 1), (3, 7, 5)])
@pytest.mark.parametrize("kind", ["ties", "copies", "pairs", "far from 0", "float32", "normal"])
@pytest.mark.parametrize("k", [1, 4, 5])
def test_finds_what_a_plain_loop_finds(
    kind: str, k: int, blocks: tuple[int, int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if blocks:
        for name, size in zip(("QUERIES", "ROWS", "PAIRS"), blocks, strict=True):
            monkeypatch.setattr(knn, name, size)
    data = table(kind)
    queries = queries_for(data)
    learner = NearestNeighbours(neighbours=k)
    assert found(learner, learner.fit(data, seed=3), queries) == plain(data, queries, k, seed=3)


def test_the_margin_is_needed() -> None:
    """The test above would pass by luck if the matrix product alone found the nearest."""
    data = table("far from 0")
    x, queries = data.x, queries_for(data)
    product = (queries**2).sum(1)[:, None] - 2 * queries @ x.T + (x**2).sum(1)
    fast = data.ids[np.argsort(product, axis=1, kind="stable")[:, :5]].tolist()
    wanted = plain(data, queries, 5)
    assert sum(set(a) != set(b) for a, b in zip(fast, wanted, strict=True)) > len(wanted) / 2


def test_candidates_are_all_within_twice_the_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    """The k-th nearest may be too near by the error, and another record too far by it."""
    squares = np.arange(1, 21, dtype=np.float64)
    monkeypatch.setattr(knn, "ROUNDING", 3.25 / (2 * 5 * 20))  # an error of 3.25 for a query at 0 and rows up to √20
    rows, alive = np.sqrt(squares)[:, None], np.ones(20, dtype=bool)
    _, found_rows = knn._candidates(np.zeros((1, 1)), rows, alive, 2)
    assert sorted(squares[found_rows]) == [1, 2, 3, 4, 5, 6, 7, 8]


@settings(deadline=None, max_examples=30)
@given(
    kind=st.sampled_from(["ties", "copies", "pairs", "far from 0", "normal"]),
    seed=st.integers(0, 50),
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    k=st.integers(1, 7),
    rows=st.sampled_from([4, 8192]),
)
def test_any_sequence_of_forgets_equals_a_fresh_fit(kind: str, seed: int, sizes: list[int], k: int, rows: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knn, "ROWS", rows)
        data = table(kind, seed=seed)
        queries = queries_for(data)
        rng = np.random.default_rng(seed)
        learner = NearestNeighbours(neighbours=k)
        state, gone = learner.fit(data, seed=seed), set[str]()
        for size in sizes:
            left = [i for i in data.ids.tolist() if i not in gone]
            batch = rng.choice(left, size, replace=False).tolist()
            gone |= set(batch)
            state, outcome = learner.forget(state, batch)
            assert outcome.guarantee == Exact(equality="bitwise")
        fresh = learner.fit(data.without(gone), seed=seed)
        assert state.digest() == fresh.digest()
        assert found(learner, state, queries) == found(learner, fresh, queries)
        assert learner.scores(state, queries).tobytes() == learner.scores(fresh, queries).tobytes()
        assert not gone & {i for row in found(learner, state, queries) for i in row}


@pytest.mark.parametrize("kind", ["ties", "far from 0"])
def test_row_numbers_decide_nothing(kind: str) -> None:
    data = table(kind)
    learner, queries = NearestNeighbours(), queries_for(data)
    mixed = data.take(np.random.default_rng(1).permutation(len(data)))
    assert found(learner, learner.fit(data), queries) == found(learner, learner.fit(mixed), queries)


def test_the_seed_decides_between_equals() -> None:
    data = table("copies")
    learner, queries = NearestNeighbours(), queries_for(data)
    one, two = (found(learner, learner.fit(data, seed=s), queries) for s in (0, 1))
    assert one != two
    apart = table("normal")
    assert found(learner, learner.fit(apart, seed=0), apart.x) == found(learner, learner.fit(apart, seed=1), apart.x)


def test_votes_predictions_and_scores() -> None:
    data = table("normal")
    learner = NearestNeighbours(neighbours=4, smoothing=0.5)
    state = learner.fit(data)
    label = dict(zip(data.ids.tolist(), data.y.tolist(), strict=True))
    votes = [Counter(label[i] for i in row) for row in plain(data, data.x, 4)]
    # of several classes with the most votes, the one with the smallest number
    assert learner.predict(state, data.x).tolist() == [max(v, key=lambda c: (v[c], -c)) for v in votes]
    assert any(list(v.values()).count(max(v.values())) > 1 for v in votes)
    want = [[np.log((v[c] + 0.5) / (4 + 0.5 * CLASSES)) for c in range(CLASSES)] for v in votes]
    np.testing.assert_allclose(learner.scores(state, data.x), want, rtol=1e-14)
    np.testing.assert_allclose(np.exp(learner.scores(state, data.x)).sum(axis=1), 1)


def test_fewer_records_than_neighbours() -> None:
    data = table("normal", n=3)
    learner = NearestNeighbours(neighbours=5)
    state = learner.fit(data)
    assert [set(row) for row in found(learner, state, data.x)] == [set(data.ids.tolist())] * 3
    np.testing.assert_allclose(np.exp(learner.scores(state, data.x)).sum(axis=1), 1)
    state, _ = learner.forget(state, data.ids[:2].tolist())
    assert learner.predict(state, data.x).tolist() == [data.y[2]] * 3


def test_a_class_that_is_gone_leaves_no_column_unless_it_is_named() -> None:
    data = table("normal")
    last = data.ids[data.y == CLASSES - 1].tolist()
    learner = NearestNeighbours()
    state, _ = learner.forget(learner.fit(data), last)
    assert learner.scores(state, data.x).shape == (len(data), CLASSES - 1)
    named = Records(ids=data.ids, columns=data.columns, classes=("a", "b", "c", "d"))
    state, _ = learner.forget(learner.fit(named), last)
    assert learner.scores(state, data.x).shape == (len(data), CLASSES)


def test_forgetting_moves_no_row() -> None:
    data = table("normal")
    learner = NearestNeighbours()
    state = learner.fit(data)
    column = state.rows.column("x")
    kept = column.copy()
    where = state.rows.at(["p7"])
    after, outcome = learner.forget(state, ["p7"])
    assert after.rows.column("x") is column
    assert not column[where].any()
    kept[where] = 0
    np.testing.assert_array_equal(column, kept)
    assert after.stored_bytes == outcome.cost.stored_bytes == outcome.cost.examples == 0


def test_images_are_flattened() -> None:
    data = table("normal", d=6)
    images = Records(ids=data.ids, columns={"x": data.x.reshape(-1, 2, 3), "y": data.y})
    learner = NearestNeighbours()
    got = learner.nearest(learner.fit(images), images.x)
    np.testing.assert_array_equal(got, learner.nearest(learner.fit(data), data.x))


def test_no_queries() -> None:
    data = table("normal")
    learner = NearestNeighbours()
    assert learner.predict(learner.fit(data), data.x[:0]).shape == (0,)


@pytest.mark.parametrize(
    "parameters",
    [
        {"neighbours": 0},
        {"neighbours": 2.0},
        {"neighbours": True},
        {"smoothing": 0.0},
        {"smoothing": float("nan")},
        {"smoothing": float("inf")},
    ],
)
def test_hyper_parameters_out_of_range(parameters: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=next(iter(parameters))):
        NearestNeighbours(**parameters)


def test_refusals() -> None:
    data = table("normal")
    learner = NearestNeighbours()
    state = learner.fit(data)
    before = state.digest()
    with pytest.raises(ModelError, match="columns"):
        learner.predict(state, data.x[:, :2])
    with pytest.raises(UnknownIds):
        learner.forget(state, ["p1", "nobody"])
    with pytest.raises(EmptyRetainSet):
        learner.forget(state, data.ids.tolist())
    assert state.digest() == before
    with pytest.raises(DataError, match="overflows"):
        learner.predict(state, data.x * 1e200)
