"""The recommender's counts are those of a brute-force count, before and after any deletion, to the last byte."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency

from expunge.data.records import Array, Records
from expunge.errors import DataError, ModelError, RequestError
from expunge.methods.exact.cooccurrence import Cooccurrence, similarity
from expunge.methods.learner import State
from expunge.methods.rows import Rows


def table(pairs: list[tuple[str, int]]) -> Records:
    return Records(
        ids=np.array([f"r{k}" for k in range(len(pairs))]),
        columns={"item": np.array([item for _, item in pairs])},
        owners=np.array([user for user, _ in pairs]),
    )


def random_table(n: int = 200, users: int = 15, items: int = 20, seed: int = 0) -> Records:
    rng = np.random.default_rng(seed)
    return table([(f"u{u}", int(i)) for u, i in zip(rng.integers(0, users, n), rng.integers(0, items, n), strict=True)])


def counted(records: Records) -> tuple[Counter[tuple[int, int]], int]:
    """(i, j) -> users that have both, and the number of users."""
    histories: dict[str, set[int]] = defaultdict(set)
    for user, item in zip(np.asarray(records.owners).tolist(), records.column("item").tolist(), strict=True):
        histories[user].add(item)
    pairs = Counter((i, j) for own in histories.values() for i in own for j in own)
    return pairs, len(histories)


def kept(state: State) -> Counter[tuple[int, int]]:
    rows = {int(i): row for name, part in state.parts.items() if name != "totals" for i, row in part.items()}
    return Counter({(i, int(j)): int(c) for i, row in rows.items() for j, c in row.T})


def expected(records: Records, history: set[int], kind: Any, k: int, neighbours: int | None) -> list[int]:
    pairs, users = counted(records)
    score: dict[int, float] = defaultdict(float)
    for i in sorted(history):
        if pairs[i, i]:
            near = {
                j: float(similarity(kind, np.array([float(c)]), pairs[i, i], np.array([float(pairs[j, j])]), users)[0])
                for (a, j), c in pairs.items()
                if a == i and j != i
            }
            for j in sorted(near, key=lambda j: (-near[j], j))[:neighbours]:
                score[j] += near[j]
    found = sorted((j for j in score if j not in history and score[j] > 0), key=lambda j: (-score[j], j))[:k]
    return found + [-1] * (k - len(found))


def test_counts_are_those_of_counting_by_hand() -> None:
    records = random_table()
    state = Cooccurrence(buckets=7).fit(records)
    pairs, users = counted(records)
    assert kept(state) == pairs
    numbers, popular = state.parts["totals"]["items"]
    assert dict(zip(numbers.tolist(), popular.tolist(), strict=True)) == {i: c for (i, j), c in pairs.items() if i == j}
    assert state.parts["totals"]["users"].tolist() == [users]


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 10),
    st.integers(1, 30),
    st.lists(st.lists(st.integers(0, 79), min_size=1, max_size=30, unique=True), min_size=1, max_size=3),
)
def test_any_deletions_give_the_bytes_of_a_fresh_fit(seed: int, users: int, requests: list[list[int]]) -> None:
    records = random_table(80, users, 12, seed)
    learner = Cooccurrence(buckets=5)
    state, gone = learner.fit(records), set[int]()
    for request in requests:
        new = [k for k in request if k not in gone]
        if new and len(gone) + len(new) < 80:
            state, _ = learner.forget(state, records.ids[new].tolist())
            gone |= set(new)
            left = records.without(records.ids[sorted(gone)].tolist())
            assert state.digest() == learner.fit(left).digest()
            assert kept(state) == counted(left)[0]


def test_a_whole_user_and_the_items_that_only_he_had_vanish() -> None:
    records = table([("a", 0), ("a", 1), ("b", 1), ("b", 9), ("b", 73), ("c", 0)])
    learner = Cooccurrence()
    state, unlearned = learner.forget(learner.fit(records), ["r2", "r3", "r4"])
    assert set(state.parts) == {"items 0", "items 1", "totals"}
    assert state.parts["totals"]["items"].tolist() == [[0, 1], [2, 1]]
    assert state.parts["totals"]["users"].tolist() == [2]
    assert unlearned.cost.examples == 3
    assert state.digest() == learner.fit(records.without(["r2", "r3", "r4"])).digest()


def test_an_item_held_twice_stays_until_the_last_record_goes() -> None:
    records = table([("a", 0), ("a", 1), ("a", 1), ("b", 1)])
    learner = Cooccurrence()
    state = learner.fit(records)
    assert kept(state)[0, 1] == 1
    state, _ = learner.forget(state, ["r1"])
    assert kept(state)[0, 1] == 1 and kept(state)[1, 1] == 2
    state, _ = learner.forget(state, ["r2"])
    assert kept(state)[0, 1] == 0 and kept(state)[1, 1] == 1


def test_rows_of_other_items_are_not_touched() -> None:
    records = random_table(60, 12, 30)
    learner = Cooccurrence(buckets=4)
    state = learner.fit(records)
    user = str(np.asarray(records.owners)[0])
    own = set(records.column("item")[np.asarray(records.owners) == user].tolist())
    before = state.part_digests()
    after, _ = learner.forget(state, records.ids[np.asarray(records.owners) == user].tolist())
    assert state.part_digests() == before
    for name, part in after.parts.items():
        for item, row in part.items():
            if name != "totals":
                assert (row is state.parts[name][item]) == (int(item) not in own)


@pytest.mark.parametrize("kind", ["cosine", "jaccard", "llr"])
@pytest.mark.parametrize("neighbours", [None, 3])
def test_recommendations_are_those_of_the_formula(kind: Any, neighbours: int | None) -> None:
    records = random_table(150, 20, 18)
    learner = Cooccurrence(similarity=kind, neighbours=neighbours, recommendations=6)
    state, _ = learner.forget(learner.fit(records), records.ids[:30].tolist())
    left = records.without(records.ids[:30].tolist())
    histories = [[3, -1, -1], [5, 2, 11], [11, 5, 2], [5, 5, 2], [99, -1, 4], [-1, -1, -1], [99, 98, -7]]
    got = learner.predict(state, np.array(histories))
    for row, history in zip(got.tolist(), histories, strict=True):
        assert row == expected(left, {i for i in history if i >= 0}, kind, 6, neighbours)
    np.testing.assert_array_equal(got[1], got[2])
    assert (got[5:] == -1).all() and (got[0] != -1).any()


def test_log_likelihood_ratio_is_that_of_the_g_test() -> None:
    users, one = 50.0, 12.0
    for both, other in ((7.0, 15.0), (12.0, 12.0), (12.0, 49.0), (5.0, 5.0)):
        cells = np.array([[both, one - both], [other - both, users - one - other + both]])
        reference = chi2_contingency(cells, correction=False, lambda_="log-likelihood").statistic
        got = similarity("llr", np.array([both]), one, np.array([other]), users)[0]
        assert got == pytest.approx(reference, abs=1e-9)
    assert similarity("llr", np.array([1.0]), 12.0, np.array([30.0]), 50.0)[0] == 0
    assert similarity("llr", np.array([12.0]), 12.0, np.array([50.0]), 50.0)[0] == 0


def test_similarities_have_their_closed_forms() -> None:
    both, other = np.array([2.0, 3.0]), np.array([4.0, 9.0])
    np.testing.assert_allclose(similarity("cosine", both, 4.0, other, 20.0), [0.5, 0.5])
    np.testing.assert_allclose(similarity("jaccard", both, 4.0, other, 20.0), [2 / 6, 3 / 10])


def test_equal_scores_go_by_item_number() -> None:
    records = table([("a", 9), ("a", 3), ("a", 5), ("b", 1)])
    learner = Cooccurrence(recommendations=3)
    assert learner.predict(learner.fit(records), np.array([[9]])).tolist() == [[3, 5, -1]]
    learner = Cooccurrence(recommendations=3, neighbours=1)
    assert learner.predict(learner.fit(records), np.array([[9]])).tolist() == [[3, -1, -1]]


def test_rows_know_what_remains_of_an_owner() -> None:
    records = random_table(50, 5)
    rows = Rows(records)
    owners = np.asarray(records.owners)
    assert rows.of_owner("nobody").tolist() == []
    np.testing.assert_array_equal(rows.of_owner("u1"), np.flatnonzero(owners == "u1"))
    gone = np.concatenate([np.flatnonzero(owners == "u1")[:2], np.flatnonzero(owners == "u2")])
    rows.erase(records.ids[gone].tolist())
    np.testing.assert_array_equal(rows.of_owner("u1"), np.flatnonzero(owners == "u1")[2:])
    assert rows.of_owner("u2").tolist() == []
    late = Rows(records)
    late.erase(records.ids[gone].tolist())
    np.testing.assert_array_equal(late.of_owner("u1"), rows.of_owner("u1"))
    assert late.of_owner("").tolist() == []
    with pytest.raises(DataError, match="owner"):
        Rows(Records(ids=records.ids, columns=records.columns)).of_owner("u1")


def test_items_up_to_the_largest_number() -> None:
    records = table([("a", 2**31 - 1), ("a", 0)])
    learner = Cooccurrence(recommendations=1)
    assert learner.predict(learner.fit(records), np.array([[0]])).tolist() == [[2**31 - 1]]


@pytest.mark.parametrize("items", [[-1, 2], [0, 2**31]])
def test_item_numbers_out_of_range_are_refused(items: list[int]) -> None:
    with pytest.raises(DataError, match="item"):
        Cooccurrence().fit(table([("a", items[0]), ("b", items[1])]))


@pytest.mark.parametrize("x", [np.zeros((2, 2)), np.zeros(3, int)])
def test_histories_that_are_no_item_numbers_are_refused(x: Array) -> None:
    with pytest.raises(ModelError, match="histories"):
        Cooccurrence().predict(Cooccurrence().fit(random_table()), x)


@pytest.mark.parametrize("bad", [{"similarity": "pearson"}, {"neighbours": 0}, {"recommendations": 0}, {"buckets": 0}])
def test_nonsense_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="cooccurrence"):
        Cooccurrence(**bad)
