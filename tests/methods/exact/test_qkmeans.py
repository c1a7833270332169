"""Quantised k-means: retrains if, and only if, retraining would come to something else, and equals a fresh fit."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.data.digits import load_digits
from expunge.data.records import Records
from expunge.errors import DataError, RequestError
from expunge.methods.exact.qkmeans import QuantisedKMeans, kept
from expunge.methods.kmeans import Grid
from expunge.methods.learner import State
from expunge.training.seeds import derive


def table(x: Any) -> Records:
    x = np.asarray(x)
    return Records(ids=np.array([f"r{i}" for i in range(len(x))]), columns={"x": x})


def blobs(n: int, d: int, k: int, seed: int = 0) -> Records:
    rng = np.random.default_rng(seed)
    x = rng.random((k, d))[rng.integers(0, k, n)] + rng.normal(0, 0.05, (n, d))
    return table(x.astype(np.float32))


def uniform(n: int, d: int, seed: int = 0) -> Records:
    return table(np.random.default_rng(seed).random((n, d)).astype(np.float32))


def phase(seed: int, iteration: int, d: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=derive(seed, "kmeans", "phase", iteration))).random(d)


def lloyd(x: np.ndarray, centres: np.ndarray, iterations: int) -> np.ndarray:
    for _ in range(iterations):
        labels = ((x[:, None] - centres) ** 2).sum(-1).argmin(1)
        centres = np.stack([x[labels == j].mean(0) for j in range(len(centres))])
    return centres


def mean_loss(x: np.ndarray, centres: np.ndarray) -> float:
    return float(((x[:, None] - centres) ** 2).sum(-1).min(1).mean())


# --- the algorithm ----------------------------------------------------------------------------------------------------


def test_without_rounding_and_correction_it_is_lloyd() -> None:
    records = uniform(400, 3)
    learner = QuantisedKMeans(clusters=4, iterations=5, epsilon=1e-12, gamma=0.0)
    state = learner.fit(records, seed=3)
    seeds = records.x[records.rows(state.facts["seeds"])].astype(float)
    done = len(state.parts["iterations"]["phases"])
    expected = lloyd(records.x.astype(float), seeds, kept_of(state))
    assert done == kept_of(state) == 5
    np.testing.assert_allclose(state.parts["model"]["centres"], expected, atol=1e-5)


def kept_of(state: State) -> int:
    losses = [int(h) * 2**26 + int(low) for h, low in state.parts["iterations"]["losses"]]
    return kept(losses)


def test_one_cluster_by_hand() -> None:
    x = np.array([[0.25], [0.5], [0.75], [1.0], [0.25]])
    state = QuantisedKMeans(clusters=1, iterations=1, epsilon=0.1).fit(table(x), seed=5)
    theta = phase(5, 1, 1)[0]
    expected = 0.1 * (round(0.55 / 0.1 - theta) + theta)
    assert state.parts["model"]["centres"].shape == (1, 1)
    assert state.parts["model"]["centres"][0, 0] == pytest.approx(expected, abs=2**-24)
    assert abs(state.parts["model"]["centres"][0, 0] - 0.55) <= 0.05 + 1e-6


def test_centroids_lie_on_the_lattice_of_their_iteration() -> None:
    learner = QuantisedKMeans(clusters=4, epsilon=0.07)
    state = learner.fit(blobs(300, 3, 4), seed=2)
    iterations, span = state.parts["iterations"], state.parts["range"]
    grid = Grid(exponent=int(span["exponent"][0]), dimensions=3)
    for done in range(1, len(iterations["centres"])):
        theta = phase(2, done, 3)
        np.testing.assert_array_equal(iterations["phases"][done - 1], theta)
        steps = grid.values(iterations["centres"][done]) / 0.07 - theta
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-4)
    assert len({p.tobytes() for p in iterations["phases"]}) == len(iterations["phases"])


def test_small_clusters_are_dragged_to_where_they_were() -> None:
    learner = QuantisedKMeans(clusters=2, gamma=0.5, epsilon=1e-12)
    grid = Grid(exponent=20, dimensions=1)
    unit = int(grid.scale)
    counts = np.array([[2, 38]])  # t = 0.5 · 40 / 2 = 10
    sums = np.array([[[2 * 100], [38 * 7]]]) * unit
    before = np.array([[[50.0], [60.0]]]) * unit
    got = learner.rounded(counts, sums, before, np.zeros(1), 40, grid)
    dragged = Fraction(2 * 100 + (10 - 2) * 50, 10)
    assert grid.values(got).ravel().tolist() == [float(dragged), 7.0]


def test_an_empty_cluster_keeps_its_centroid() -> None:
    learner = QuantisedKMeans(clusters=2, gamma=0.0, epsilon=1e-12)
    grid = Grid(exponent=10, dimensions=1)
    counts, sums = np.array([[0, 4]]), np.array([[[0], [8]]])
    for gamma in (0.0, 0.3):
        learner = QuantisedKMeans(clusters=2, gamma=gamma, epsilon=1e-12)
        got = learner.rounded(counts, sums, np.array([[[5.0], [1.0]]]), np.zeros(1), 4, grid)
        assert got.ravel().tolist() == [5.0, 2.0]


def test_fewer_distinct_rows_than_clusters() -> None:
    records = table(np.repeat([[0.0, 0.0], [1.0, 1.0]], 10, axis=0))
    learner = QuantisedKMeans(clusters=4, epsilon=0.01)
    state = learner.fit(records)
    assert (state.parts["iterations"]["counts"][0] == 0).sum() == 2
    assert np.isfinite(state.parts["model"]["centres"]).all()
    assert mean_loss(records.x, state.parts["model"]["centres"]) < 0.01
    state, _ = learner.forget(state, state.facts["seeds"][:2])
    assert state.digest() == learner.fit(state.rows.records()).digest()


def test_a_lattice_coarser_than_the_data_stays_within_its_range() -> None:
    records = blobs(50, 2, 2)
    centres = QuantisedKMeans(clusters=2, epsilon=1000.0).fit(records).parts["model"]["centres"]
    assert np.abs(centres).max() <= 2.0


@pytest.mark.parametrize(
    ("losses", "expected"),
    [([9, 5], 1), ([9, 12], 1), ([9, 5, 4, 3], 3), ([9, 5, 5], 1), ([9, 5, 4, 6], 2), ([9, 12, 11], 2)],
)
def test_iterations_count_until_the_loss_no_longer_falls(losses: list[int], expected: int) -> None:
    assert kept(losses) == expected


def test_the_model_is_the_last_iteration_that_lowered_the_loss() -> None:
    stopped = 0
    for seed in range(10):
        state = QuantisedKMeans(clusters=4, epsilon=0.3).fit(blobs(300, 3, 4), seed=seed)
        iterations, span = state.parts["iterations"], state.parts["range"]
        losses = [int(h) * 2**26 + int(low) for h, low in iterations["losses"]]
        grid = Grid(exponent=int(span["exponent"][0]), dimensions=3)
        np.testing.assert_array_equal(state.parts["model"]["centres"], grid.values(iterations["centres"][kept(losses)]))
        run = len(losses) - 1
        assert run == 10 or kept(losses) == run - 1
        stopped += run < 10
    assert stopped


def test_the_order_of_the_rows_does_not_matter() -> None:
    records = blobs(200, 3, 4)
    shuffled = records.take(np.random.default_rng(0).permutation(200))
    learner = QuantisedKMeans(clusters=4)
    assert learner.fit(records, seed=1).part_digests() == learner.fit(shuffled, seed=1).part_digests()
    assert learner.fit(records, seed=1).part_digests() != learner.fit(records, seed=2).part_digests()


# --- forgetting -------------------------------------------------------------------------------------------------------


def events(learner: QuantisedKMeans, records: Records, seed: int) -> dict[str, int]:
    """Forget each record alone; retraining must happen exactly where it is needed. How often each event came."""
    start = learner.fit(records, seed=seed)
    seen: dict[str, int] = {}
    for record_id in records.ids.tolist():
        state, unlearned = learner.forget(start.copy(), [record_id])
        fresh = learner.fit(records.without([record_id]), seed=seed)
        assert state.digest() == fresh.digest()
        event = unlearned.trace[0]
        why = str(event.get("reason", "kept"))
        before, after = start.parts["iterations"], fresh.parts["iterations"]
        same = np.array_equal(before["centres"], after["centres"]) and start.facts == fresh.facts
        if why == "a seed":
            assert record_id in start.facts["seeds"]
        elif why == "the range of the features":
            assert start.parts["range"]["exponent"] != fresh.parts["range"]["exponent"]
        else:
            assert record_id not in start.facts["seeds"]
            assert same == (why == "kept")
        if why == "a centroid":
            at = int(event["iteration"])  # type: ignore[call-overload]
            both = min(at, len(after["centres"]))  # the fresh fit may end earlier than that
            assert np.array_equal(before["centres"][:both], after["centres"][:both])
            assert at >= len(after["centres"]) or not np.array_equal(before["centres"][at], after["centres"][at])
        seen[why] = seen.get(why, 0) + 1
    return seen


def test_retrains_if_and_only_if_it_must() -> None:
    seen = events(QuantisedKMeans(clusters=3, epsilon=0.1), uniform(80, 2), seed=1)
    assert seen["kept"] >= 20 and seen["a centroid"] >= 20 and seen["a seed"] == 3


def test_retrains_when_the_iterations_would_end_elsewhere() -> None:
    seen: dict[str, int] = {}
    for seed in range(6):
        found = events(QuantisedKMeans(clusters=2, epsilon=0.1), uniform(20, 1, seed), seed)
        seen = {why: seen.get(why, 0) + found.get(why, 0) for why in {*seen, *found}}
    assert seen["the last iteration"] >= 5


def test_a_row_at_a_lattice_boundary_and_one_that_is_not() -> None:
    theta = phase(0, 1, 1)[0]
    edge = 2 + 0.5 + theta  # a mean just above rounds to 3 + θ, just below to 2 + θ
    x = edge + np.array([0.5] * 5 + [-0.5] * 5 + [0.1])
    records = table(x[:, None])
    learner = QuantisedKMeans(clusters=1, iterations=1, epsilon=1.0)
    start = learner.fit(records)
    assert start.parts["model"]["centres"][0, 0] == pytest.approx(3 + theta, abs=1e-6)
    seed = start.facts["seeds"][0]
    above = next(i for i in records.ids[:5] if i != seed)
    below = next(i for i in records.ids[5:10] if i != seed)
    same, kept_one = learner.forget(start.copy(), [below])
    assert kept_one.trace == ({"stage": "kept"},)
    assert same.parts["model"] is start.parts["model"]
    moved, flipped = learner.forget(start.copy(), [above])
    assert flipped.trace == ({"stage": "retrained", "reason": "a centroid", "iteration": 1},)
    assert moved.parts["model"]["centres"][0, 0] == pytest.approx(2 + theta, abs=1e-6)
    together, both = learner.forget(start.copy(), [above, below])
    assert both.trace[0]["stage"] == "kept"
    assert together.digest() == learner.fit(records.without([above, below])).digest()


def test_a_seed_forces_a_retraining_the_first_one_too() -> None:
    records = blobs(500, 2, 3)
    learner = QuantisedKMeans(clusters=3, epsilon=5.0)
    start = learner.fit(records)
    for seed in start.facts["seeds"]:
        state, unlearned = learner.forget(start.copy(), [seed])
        assert unlearned.trace[0]["reason"] == "a seed"
        assert seed not in state.facts["seeds"]
        assert state.digest() == learner.fit(records.without([seed])).digest()


def test_the_only_row_that_needs_the_range_forces_a_retraining() -> None:
    x = np.concatenate([blobs(60, 1, 2).x, [[7.0], [5.0]]])
    records, learner = table(x), QuantisedKMeans(clusters=1, epsilon=20.0, gamma=0.0)
    start = next(s for s in (learner.fit(records, seed=i) for i in range(9)) if s.facts["seeds"][0] in records.ids[:60])
    assert start.parts["range"]["top"].tolist() == [2]
    state, unlearned = learner.forget(start, ["r60"])
    assert unlearned.trace[0]["stage"] == "kept"
    state, unlearned = learner.forget(state, ["r61"])
    assert unlearned.trace[0]["reason"] == "the range of the features"
    assert state.digest() == learner.fit(records.take(np.arange(60)), seed=start.seed).digest()


@settings(deadline=None, max_examples=30)
@given(
    data=st.data(),
    n=st.integers(6, 40),
    clusters=st.integers(1, 4),
    epsilon=st.sampled_from([0.3, 2.0, 10.0, 1e-9]),
    gamma=st.sampled_from([0.0, 0.2, 1.0]),
    seed=st.integers(0, 5),
)
def test_any_sequence_equals_a_fresh_fit(
    data: st.DataObject, n: int, clusters: int, epsilon: float, gamma: float, seed: int
) -> None:
    values = st.lists(st.integers(-6, 6), min_size=2 * n, max_size=2 * n)
    records = table(np.array(data.draw(values), dtype=float).reshape(n, 2) / 3)
    learner = QuantisedKMeans(clusters=clusters, epsilon=epsilon, gamma=gamma, iterations=4)
    state = learner.fit(records, seed=seed)
    while len(state.rows) > clusters and data.draw(st.booleans()):
        left = state.rows.records().ids.tolist()
        most = len(left) - clusters
        gone = data.draw(st.lists(st.sampled_from(left), min_size=1, max_size=min(most, 5)))
        state, _ = learner.forget(state, gone)
        assert state.digest() == learner.fit(state.rows.records(), seed=seed).digest()


def test_kept_means_no_work_on_the_rows_that_stay() -> None:
    records = blobs(100_000, 5, 10)
    learner = QuantisedKMeans(clusters=10, epsilon=0.2)
    state = learner.fit(records, seed=1)
    passes = len(state.parts["iterations"]["centres"])
    seen = []
    for request in (["r5"], ["r6", "r7", "r8"], ["r70000"]):
        state, unlearned = learner.forget(state, request)
        if unlearned.trace[0]["stage"] == "kept":
            assert unlearned.cost.examples == len(request) * passes
            seen.append(request)
    assert len(seen) >= 2
    seed = state.facts["seeds"][0]
    _, retrained = learner.forget(state, [seed])
    assert retrained.cost.examples >= (100_000 - 6) * (10 + 2)


def test_refuses_too_few_records_before_anything_changes() -> None:
    records, learner = blobs(6, 2, 2), QuantisedKMeans(clusters=5)
    state = learner.fit(records)
    before = state.digest()
    with pytest.raises(DataError, match="5 clusters and 4 records"):
        learner.forget(state, ["r0", "r1"])
    assert state.digest() == before
    learner.forget(state, ["r0"])
    with pytest.raises(DataError, match="7 clusters and 6 records"):
        QuantisedKMeans(clusters=7).fit(records)
    with pytest.raises(DataError, match="expected \\(n, d\\)"):
        QuantisedKMeans(clusters=2).fit(table(np.ones((4, 2, 2))))


@pytest.mark.parametrize(
    "wrong",
    [{"clusters": 0}, {"iterations": 0}, {"epsilon": 0.0}, {"epsilon": float("inf")}, {"epsilon": float("nan")},
     {"gamma": -0.1}, {"gamma": 1.1}, {"gamma": float("nan")}],
)  # fmt: skip
def test_refuses_hyper_parameters(wrong: dict[str, float]) -> None:
    with pytest.raises(RequestError, match="qkmeans needs"):
        QuantisedKMeans(**wrong)  # type: ignore[arg-type]


def test_predicts_the_nearest_centroid() -> None:
    records = blobs(200, 3, 4)
    learner = QuantisedKMeans(clusters=4)
    state = learner.fit(records)
    centres = state.parts["model"]["centres"]
    expected = ((records.x[:, None].astype(float) - centres) ** 2).sum(-1).argmin(1)
    np.testing.assert_array_equal(learner.predict(state, records.x), expected)
    assert learner.extra_bytes(state) == sum(a.nbytes for a in state.parts["iterations"].values())


def test_on_digits_the_loss_is_near_that_of_lloyd_and_forgetting_is_cheaper() -> None:
    """Few rows in many dimensions are where rounding helps least: a coarse lattice is needed to save anything."""
    digits = load_digits()
    x = digits.x.reshape(len(digits), -1)
    records = Records(ids=digits.ids, columns={"x": x})
    ratios, rates, costs = {}, {}, {}
    for epsilon in (0.05, 0.5):
        learner = QuantisedKMeans(clusters=10, epsilon=epsilon)
        losses, plain, stages, cost = [], [], [], []
        for seed in range(3):
            state = learner.fit(records, seed=seed)
            fit = len(records) * (10 + len(state.parts["iterations"]["centres"]))
            losses.append(mean_loss(x, state.parts["model"]["centres"]))
            plain.append(mean_loss(x, lloyd(x, x[records.rows(state.facts["seeds"])], 10)))
            for record_id in np.random.default_rng(seed).choice(records.ids, 10, replace=False).tolist():
                state, unlearned = learner.forget(state, [record_id])
                stages.append(unlearned.trace[0]["stage"] == "retrained")
                cost.append(unlearned.cost.examples / fit)
        ratios[epsilon] = np.mean(losses) / np.mean(plain)
        rates[epsilon], costs[epsilon] = np.mean(stages), np.mean(cost)
    assert 0.97 < ratios[0.05] < 1.03
    assert ratios[0.5] < 1.8
    assert rates[0.5] < 0.6 < rates[0.05]
    assert costs[0.5] < 0.7
