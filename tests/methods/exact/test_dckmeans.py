"""Divide-and-conquer k-means: only the path above a leaf is computed again, and equals a fresh fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.data.digits import load_digits
from expunge.data.records import Records
from expunge.errors import DataError, RequestError
from expunge.methods.exact.dckmeans import ROOT, DivideAndConquerKMeans
from expunge.methods.kmeans import Grid, Points, reaches, record_keys, seed_rows
from expunge.training.seeds import derive


def table(x: Any) -> Records:
    x = np.asarray(x)
    return Records(ids=np.array([f"r{i}" for i in range(len(x))]), columns={"x": x})


def blobs(n: int, d: int, k: int, seed: int = 0) -> Records:
    rng = np.random.default_rng(seed)
    x = rng.random((k, d))[rng.integers(0, k, n)] + rng.normal(0, 0.05, (n, d))
    return table(x.astype(np.float32))


def mean_loss(x: np.ndarray, centres: np.ndarray) -> float:
    return float(((x[:, None] - centres) ** 2).sum(-1).min(1).mean())


def lloyd(x: np.ndarray, centres: np.ndarray, iterations: int) -> np.ndarray:
    for _ in range(iterations):
        labels = ((x[:, None] - centres) ** 2).sum(-1).argmin(1)
        filled = [(labels == j).any() for j in range(len(centres))]
        centres = np.stack([x[labels == j].mean(0) if filled[j] else centres[j] for j in range(len(centres))])
    return centres


# --- the algorithm ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_a_tree_of_one_node_is_lloyd_from_its_seeds(iterations: int) -> None:
    records = blobs(300, 3, 5)
    state = DivideAndConquerKMeans(clusters=4, widths=(1,), iterations=iterations).fit(records, seed=2)
    keys = record_keys(records.ids, derive(2, "kmeans", "record"))
    x = records.x.astype(np.float64)
    grid = Grid(exponent=int(np.ceil(np.log2(np.abs(x).max()))), dimensions=3)
    whole = np.rint(x * grid.scale)
    seeds = seed_rows(Points(coordinates=whole, squares=(whole**2).sum(1)), keys, 4)
    np.testing.assert_allclose(state.parts[ROOT]["centres"], lloyd(x, x[seeds], iterations), atol=1e-5)


def test_centroids_are_on_the_grid_of_their_node() -> None:
    records = blobs(300, 3, 5)
    state = DivideAndConquerKMeans(clusters=4, widths=(1, 2)).fit(records)
    for number in range(2):
        members = records.x[state.parts["leaves"]["leaf"] == number]
        grid = Grid(exponent=int(reaches(members).max()), dimensions=3)
        steps = state.parts[f"node-1-{number}"]["centres"] * grid.scale
        np.testing.assert_array_equal(steps, np.rint(steps))


def test_every_node_clusters_the_centroids_below_it() -> None:
    learner = DivideAndConquerKMeans(clusters=3, widths=(1, 2, 6))
    records = blobs(240, 2, 3)
    state = learner.fit(records, seed=1)
    assert set(state.parts) == {"leaves", ROOT, "node-1-0", "node-1-1", *(f"node-2-{i}" for i in range(6))}
    leaf = state.parts["leaves"]["leaf"]
    for number in range(6):
        members = records.x[leaf == number].astype(float)
        centres = state.parts[f"node-2-{number}"]["centres"]
        assert mean_loss(members, centres) < 0.05
        np.testing.assert_allclose(lloyd(members, centres, 1), centres, atol=1e-4)  # ten iterations have converged
    for name, below in (
        ("node-1-0", ["node-2-0", "node-2-1", "node-2-2"]),
        ("node-1-1", ["node-2-3", "node-2-4", "node-2-5"]),
        (ROOT, ["node-1-0", "node-1-1"]),
    ):
        rows, centres = np.concatenate([state.parts[b]["centres"] for b in below]), state.parts[name]["centres"]
        np.testing.assert_allclose(lloyd(rows, centres, 1), centres, atol=1e-6)


def test_leaves_are_uniform_and_stay_when_others_go() -> None:
    records = blobs(4_000, 1, 2)
    learner = DivideAndConquerKMeans(clusters=2, widths=(1, 8), iterations=1)
    leaf = learner.fit(records, seed=0).parts["leaves"]["leaf"]
    sizes = np.bincount(leaf, minlength=8)
    assert ((sizes - 500) ** 2 / 500).sum() < 24.3  # χ², 7 degrees, 0.1%
    half = records.take(np.arange(0, 4_000, 2))
    np.testing.assert_array_equal(learner.fit(half, seed=0).parts["leaves"]["leaf"], leaf[::2])
    assert (learner.fit(records, seed=1).parts["leaves"]["leaf"] != leaf).mean() > 0.8


def test_the_order_of_the_rows_does_not_matter() -> None:
    records = blobs(200, 3, 4)
    shuffled = records.take(np.random.default_rng(0).permutation(200))
    learner = DivideAndConquerKMeans(clusters=4, widths=(1, 4))
    one, two = learner.fit(records).parts, learner.fit(shuffled).parts
    for name in one:
        if name != "leaves":
            np.testing.assert_array_equal(one[name]["centres"], two[name]["centres"])


def test_leaves_with_few_rows_or_none() -> None:
    records = blobs(6, 2, 2)
    state = DivideAndConquerKMeans(clusters=3, widths=(1, 64)).fit(records)
    sizes = np.bincount(state.parts["leaves"]["leaf"], minlength=64)
    for number, size in enumerate(sizes):
        assert len(state.parts[f"node-1-{number}"]["centres"]) == min(size, 3)
    assert len(state.parts[ROOT]["centres"]) == 3


def test_an_empty_cluster_keeps_its_centroid() -> None:
    records = table(np.repeat([[0.0], [1.0]], 20, axis=0))
    state = DivideAndConquerKMeans(clusters=4, widths=(1, 2)).fit(records)
    assert sorted(set(state.parts[ROOT]["centres"].ravel().tolist())) == [0.0, 1.0]


# --- forgetting -------------------------------------------------------------------------------------------------------


def test_only_the_path_from_leaf_to_root_is_computed_again() -> None:
    learner = DivideAndConquerKMeans(clusters=3, widths=(1, 2, 8))
    records = blobs(400, 3, 3)
    state = learner.fit(records, seed=1)
    old, leaf = state.parts, state.parts["leaves"]["leaf"]
    number = int(leaf[7])
    state, unlearned = learner.forget(state, ["r7"])
    path = {"leaves", f"node-2-{number}", f"node-1-{number // 4}", ROOT}
    assert {name for name in old if state.parts[name] is not old[name]} == path
    assert unlearned.trace == ({"stage": "leaves", "recomputed": [number], "changed": [number]},)
    size = int((leaf == number).sum()) - 1
    most = size * (3 + 10) + 4 * 3 * (3 + 10) + 2 * 3 * (3 + 10)
    assert size * (3 + 1) <= unlearned.cost.examples <= most


def test_a_leaf_that_comes_out_the_same_ends_the_climb() -> None:
    records = table(np.repeat([[0.25], [1.0]], 40, axis=0))
    learner = DivideAndConquerKMeans(clusters=2, widths=(1, 4))
    state = learner.fit(records)
    old = state.parts
    state, unlearned = learner.forget(state, ["r3"])
    assert unlearned.trace[0]["changed"] == []
    assert state.parts[ROOT] is old[ROOT]
    assert state.digest() == learner.fit(records.without(["r3"])).digest()


def test_a_leaf_can_be_emptied() -> None:
    records = blobs(40, 2, 2)
    learner = DivideAndConquerKMeans(clusters=2, widths=(1, 8))
    state = learner.fit(records, seed=4)
    number = int(state.parts["leaves"]["leaf"][0])
    gone = records.ids[state.parts["leaves"]["leaf"] == number].tolist()
    state, _ = learner.forget(state, gone)
    assert state.parts[f"node-1-{number}"]["centres"].shape == (0, 2)
    assert state.digest() == learner.fit(records.without(gone), seed=4).digest()


def test_several_rows_of_several_leaves_in_any_order() -> None:
    records = blobs(120, 2, 3)
    learner = DivideAndConquerKMeans(clusters=3, widths=(1, 5))
    gone = ["r100", "r3", "r50", "r4", "r119", "r0"]
    state, _ = learner.forget(learner.fit(records), gone)
    assert state.digest() == learner.fit(records.without(gone)).digest()
    state, _ = learner.forget(state, ["r118", "r1"])
    assert state.digest() == learner.fit(records.without([*gone, "r118", "r1"])).digest()


@settings(deadline=None, max_examples=25)
@given(
    data=st.data(),
    n=st.integers(6, 40),
    clusters=st.integers(1, 4),
    widths=st.sampled_from([(1,), (1, 3), (1, 2, 4), (1, 1, 2), (1, 40)]),
    seed=st.integers(0, 5),
)
def test_any_sequence_equals_a_fresh_fit(
    data: st.DataObject, n: int, clusters: int, widths: tuple[int, ...], seed: int
) -> None:
    values = st.lists(st.integers(-6, 6), min_size=2 * n, max_size=2 * n)
    records = table(np.array(data.draw(values), dtype=float).reshape(n, 2) / 3)
    learner = DivideAndConquerKMeans(clusters=clusters, widths=widths, iterations=4)
    state = learner.fit(records, seed=seed)
    while len(state.rows) > clusters and data.draw(st.booleans()):
        left = state.rows.records().ids.tolist()
        most = len(left) - clusters
        gone = data.draw(st.lists(st.sampled_from(left), min_size=1, max_size=min(most, 5)))
        state, _ = learner.forget(state, gone)
        assert state.digest() == learner.fit(state.rows.records(), seed=seed).digest()


def test_a_row_of_a_hundred_thousand_costs_its_leaf() -> None:
    records = blobs(100_000, 5, 10)
    learner = DivideAndConquerKMeans(clusters=10, widths=(1, 100), iterations=3)
    state, unlearned = learner.forget(learner.fit(records), ["r31"])
    assert unlearned.cost.examples <= (1_200 + 1_000) * (10 + 3)
    assert len(state.parts["leaves"]["leaf"]) == 99_999


def test_refuses_too_few_records_before_anything_changes() -> None:
    records, learner = blobs(6, 2, 2), DivideAndConquerKMeans(clusters=5)
    state = learner.fit(records)
    before = state.digest()
    with pytest.raises(DataError, match="5 clusters and 4 records"):
        learner.forget(state, ["r0", "r1"])
    assert state.digest() == before
    with pytest.raises(DataError, match="7 clusters and 6 records"):
        DivideAndConquerKMeans(clusters=7).fit(records)
    with pytest.raises(DataError, match="expected \\(n, d\\)"):
        DivideAndConquerKMeans(clusters=2).fit(table(np.ones((4, 2, 2))))


@pytest.mark.parametrize(
    "widths", [(), (2,), (1, 0), (1, 4, 6), (1, 4, 2), (1, 2**17), (1, 2.0), (1, True), (True,), ("1",)]
)
def test_refuses_widths(widths: tuple[int, ...]) -> None:
    with pytest.raises(RequestError, match="dckmeans needs widths"):
        DivideAndConquerKMeans(widths=widths)


@pytest.mark.parametrize("wrong", [{"clusters": 0}, {"iterations": 0}])
def test_refuses_hyper_parameters(wrong: dict[str, int]) -> None:
    with pytest.raises(RequestError, match="dckmeans needs"):
        DivideAndConquerKMeans(**wrong)  # type: ignore[arg-type]


def test_predicts_the_nearest_centroid_of_the_root() -> None:
    records = blobs(200, 3, 4)
    learner = DivideAndConquerKMeans(clusters=4)
    state = learner.fit(records)
    centres = state.parts[ROOT]["centres"]
    expected = ((records.x[:, None].astype(float) - centres) ** 2).sum(-1).argmin(1)
    np.testing.assert_array_equal(learner.predict(state, records.x), expected)
    assert learner.extra_bytes(state) == state.stored_bytes - centres.nbytes


def test_on_digits_the_loss_is_near_that_of_lloyd_and_forgetting_is_cheaper() -> None:
    digits = load_digits()
    x = digits.x.reshape(len(digits), -1)
    records = Records(ids=digits.ids, columns={"x": x})
    learner, plain = DivideAndConquerKMeans(clusters=10), DivideAndConquerKMeans(clusters=10, widths=(1,))
    losses, lloyds, costs = [], [], []
    for seed in range(4):
        state = learner.fit(records, seed=seed)
        losses.append(mean_loss(x, state.parts[ROOT]["centres"]))
        lloyds.append(mean_loss(x, plain.fit(records, seed=seed).parts[ROOT]["centres"]))
        for record_id in np.random.default_rng(seed).choice(records.ids, 5, replace=False).tolist():
            state, unlearned = learner.forget(state, [record_id])
            costs.append(unlearned.cost.examples)
    assert np.mean(losses) / np.mean(lloyds) < 1.12
    assert np.mean(costs) < len(records) * 20 / 5
