"""SISA: bit-exact after any sequence, retraining only what it must, the same however it is carried out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from expunge.data.digits import load_digits
from expunge.data.records import Records
from expunge.errors import DataError, EmptyRetainSet, ModelError, RequestError, UnknownName
from expunge.methods import shards
from expunge.methods.exact import sisa as sisa_module
from expunge.methods.exact.sisa import Sisa, kept_checkpoints
from expunge.methods.learner import Job, State
from expunge.models.classifier import Classifier
from expunge.recipe import Recipe, Trainer
from expunge.training.fit import fit
from expunge.training.stack import Stack
from expunge.training.workers import Workers

KEY = "a secret of some length"


def recipe(architecture: str = "mlp", epochs: int = 2) -> Recipe:
    features: Any = [1, 8, 8] if architecture == "small_cnn" else 64
    width = {"width": 16} if architecture == "mlp" else {}
    return Recipe(
        factory=f"expunge.models.architectures:{architecture}",
        kwargs={"features": features, "classes": 10, **width},
        trainer=Trainer(epochs=epochs, batch_size=16),
    )


def sisa(architecture: str = "mlp", epochs: int = 2, **settings: Any) -> Sisa:
    return Sisa(recipe=recipe(architecture, epochs), **settings)


@pytest.fixture(scope="module")
def records() -> Records:
    digits = load_digits().take(np.arange(240))
    owners = np.array([f"owner-{k % 60}" for k in range(240)])
    likelihood = np.linspace(0, 0.999, 240)
    return Records(ids=digits.ids, columns={"x": digits.x, "y": digits.y, "likelihood": likelihood}, owners=owners)


@pytest.mark.parametrize("architecture", ["mlp", "small_cnn"])
@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_bytes_after_any_sequence_are_those_of_a_fresh_run_at_every_stack_size(
    architecture: str, count: int, records: Records
) -> None:
    learner = sisa(architecture, shards=count, slices=2, epochs=1)
    state = learner.fit(records, seed=9)
    gone: list[str] = []
    for request in (records.ids[[0]], records.ids[[-1]], records.ids[50:60]):
        state, _ = learner.forget(state, request.tolist())
        gone += request.tolist()
    assert state.digest() == learner.fit(records.without(gone), seed=9).digest()


def test_a_shards_bytes_do_not_depend_on_how_many_are_trained_with_it(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = sisa(shards=7, slices=3)
    wanted = learner.fit(records).part_digests()
    for size in (1, 2, 3, 64):
        monkeypatch.setattr(shards, "STACK", size)
        assert learner.fit(records).part_digests() == wanted


def test_one_shard_and_one_slice_is_plain_training(records: Records) -> None:
    learner = sisa(shards=1, slices=1)
    state = learner.fit(records, seed=3)
    by_id = records.take(np.argsort(records.ids))
    plain = Classifier(fit(learner.recipe, by_id, [shards.shard_seed(3, 0)]).stack.module(0))
    _, logits = learner.shard_logits(state, records.x)
    np.testing.assert_array_equal(logits[0], plain.logits(records))


def test_the_order_in_which_records_come_does_not_matter(records: Records) -> None:
    learner = sisa(shards=3, slices=2)
    turned = records.take(np.arange(len(records))[::-1])
    assert learner.fit(turned).part_digests() == learner.fit(records).part_digests()


def test_only_the_shard_of_the_record_changes_and_only_from_its_slice(records: Records) -> None:
    learner = sisa(shards=4, slices=3)
    for record in records.ids[:25].tolist():
        state = learner.fit(records)
        shard, slice_ = learner.assign(records.select([record]), 0)[0].tolist()
        after, unlearned = learner.forget(state, [record])
        name = f"shard.{shard:04d}"
        changed = {n for n, digest in state.part_digests().items() if after.part_digests()[n] != digest}
        assert changed == {name}
        for stage in (1, 2):
            same = (
                state.parts[name][f"slice.{stage:03d}.flat"].tobytes()
                == after.parts[name][f"slice.{stage:03d}.flat"].tobytes()
            )
            assert same == (stage <= slice_)
        assert unlearned.trace[0]["from_slice"] == slice_


def test_each_deletion_costs_exactly_its_own_slices(records: Records) -> None:
    learner = sisa(shards=4, slices=3, epochs=4)  # 2 passes a slice
    for record in records.ids[::11].tolist():
        shard, slice_ = learner.assign(records.select([record]), 0)[0].tolist()
        state = learner.fit(records)
        planned = learner.cost_of(state, [record])
        _, unlearned = learner.forget(state, [record])
        assert unlearned.cost.examples == planned
        left = learner.assign(records.without([record]), 0)
        mine = left[left[:, 0] == shard, 1]
        assert unlearned.cost.examples == sum(2 * int((mine <= stage).sum()) for stage in range(slice_, 3))


def test_a_storage_budget_costs_retraining_and_changes_no_model(records: Records) -> None:
    free = sisa(shards=3, slices=6)
    plain = free.fit(records)
    each = free.extra_bytes(plain) // (3 * 5)
    tight = sisa(shards=3, slices=6, storage_budget_bytes=3 * 2 * each)
    state = tight.fit(records)
    assert tight.extra_bytes(state) == 3 * 2 * each
    assert kept_checkpoints(6, 3 * each, 3 * 2 * each) == (2, 4)
    np.testing.assert_array_equal(free.predict(plain, records.x), tight.predict(state, records.x))
    late = [str(r) for r, (_, s) in zip(records.ids, free.assign(records, 0), strict=True) if s == 5][:1]
    after_free, cheap = free.forget(plain, late)
    after_tight, dear = tight.forget(state, late)
    assert dear.cost.examples > cheap.cost.examples
    assert dear.trace[0]["from_slice"] == 4 and cheap.trace[0]["from_slice"] == 5
    assert after_tight.digest() == tight.fit(records.without(late)).digest()
    np.testing.assert_array_equal(free.predict(after_free, records.x), tight.predict(after_tight, records.x))


@pytest.mark.parametrize(
    ("slices", "budget", "kept"),
    [(1, None, ()), (4, None, (1, 2, 3)), (4, 0, ()), (4, 10, (2,)), (4, 25, (1, 3)), (4, 10**9, (1, 2, 3))],
)
def test_kept_checkpoints_fit_the_budget_and_are_spread_evenly(
    slices: int, budget: int | None, kept: tuple[int, ...]
) -> None:
    assert kept_checkpoints(slices, 10, budget) == kept


def test_a_whole_shard_can_go(records: Records) -> None:
    learner = sisa(shards=6, slices=2)
    where = learner.assign(records, 0)
    gone = records.ids[where[:, 0] == 2].tolist()
    state, _ = learner.forget(learner.fit(records), gone)
    assert int(state.parts["shard.0002"]["records"]) == 0
    assert state.digest() == learner.fit(records.without(gone)).digest()
    used, logits = learner.shard_logits(state, records.x[:3])
    assert used == [0, 1, 3, 4, 5] and len(logits) == 5
    with pytest.raises(EmptyRetainSet):
        learner.forget(state, state.rows.records().ids.tolist())


def test_an_owner_leaves_one_shard(records: Records) -> None:
    learner = sisa(shards=5, slices=3, sharding="owner")
    where = learner.assign(records, 0)
    for owner in np.unique(records.owners):
        assert len({tuple(row) for row in where[records.owners == owner].tolist()}) == 1
    gone = records.ids[records.owners == "owner-7"].tolist()
    state, unlearned = learner.forget(learner.fit(records), gone)
    assert len(unlearned.trace) == 1
    assert state.digest() == learner.fit(records.without(gone)).digest()
    with pytest.raises(DataError, match="owners"):
        learner.fit(Records(ids=records.ids, columns=records.columns))


def test_likely_requests_share_shards(records: Records) -> None:
    learner = sisa(shards=6, sharding="likelihood", likelihood_edges=(0.5, 0.9))
    where = learner.assign(records, 0)[:, 0]
    likelihood = records.column("likelihood")
    assert set(where[likelihood < 0.5].tolist()) == {0, 1}
    assert set(where[(likelihood >= 0.5) & (likelihood < 0.9)].tolist()) == {2, 3}
    assert set(where[likelihood >= 0.9].tolist()) == {4, 5}
    likely = records.ids[likelihood >= 0.9].tolist()
    state, unlearned = learner.forget(learner.fit(records), likely)
    assert {event["shard"] for event in unlearned.trace} == {4, 5}
    assert state.digest() == learner.fit(records.without(likely)).digest()


@pytest.mark.parametrize("sharding", ["random", "owner", "likelihood"])
def test_no_record_moves_when_another_one_leaves(sharding: str, records: Records) -> None:
    edges = (0.3,) if sharding == "likelihood" else ()
    learner = sisa(shards=4, slices=3, sharding=sharding, likelihood_edges=edges)
    whole = dict(zip(records.ids.tolist(), learner.assign(records, 1).tolist(), strict=True))
    left = records.without(records.ids[::3].tolist())
    assert all(whole[i] == row for i, row in zip(left.ids.tolist(), learner.assign(left, 1).tolist(), strict=True))


def test_shards_and_slices_are_about_equal() -> None:
    many = Records(ids=np.array([str(k) for k in range(20_000)]), columns={"x": np.zeros((20_000, 1), np.float32)})
    where = sisa(shards=10, slices=4).assign(many, 0)
    for column, parts in ((0, 10), (1, 4)):
        counts = np.bincount(where[:, column], minlength=parts)
        assert abs(counts - 20_000 / parts).max() < 5 * np.sqrt(20_000 / parts)
    together = np.bincount(where[:, 0] * 4 + where[:, 1], minlength=40)  # independent of each other
    assert abs(together - 500).max() < 5 * np.sqrt(500)


@pytest.mark.parametrize("aggregate", ["mean", "vote"])
def test_contributions_add_up_to_the_prediction(aggregate: str, records: Records) -> None:
    learner = sisa(shards=5, aggregate=aggregate)
    state = learner.fit(records)
    shown = learner.contributions(state, records.x[:30])
    assert shown.share.shape == (5, 30, 10) and sum(shown.records) == len(records)
    total = shown.share.sum(0)
    np.testing.assert_allclose(total.sum(-1), 1)
    if aggregate == "mean":
        np.testing.assert_allclose(np.log(total), learner.scores(state, records.x[:30]), rtol=1e-5)
    top = total.max(-1, keepdims=True) == total
    assert (top.sum(-1) >= 1).all()
    said = learner.predict(state, records.x[:30])
    assert all(top[k, said[k]] for k in range(30) if top[k].sum() == 1)
    rows = shown.rows(0)
    assert [r["shard"] for r in rows] == [0, 1, 2, 3, 4]
    assert sum(r["share_of_prediction"] for r in rows) == pytest.approx(total[0].max())


def test_noise_on_votes_is_the_same_for_the_same_question_and_changes_labels(records: Records) -> None:
    quiet, loud = sisa(shards=5, aggregate="vote"), sisa(shards=5, aggregate="vote", vote_noise=5.0, noise_key=KEY)
    state = quiet.fit(records)
    first = loud.predict(state, records.x)
    np.testing.assert_array_equal(first, loud.predict(state, records.x))
    assert (first != quiet.predict(state, records.x)).mean() > 0.2


@pytest.mark.parametrize("architecture", ["mlp", "small_cnn"])
def test_training_under_noise_is_as_exact(architecture: str, records: Records, tmp_path: Path) -> None:
    learner = sisa(architecture, shards=3, slices=2, epochs=1, training_noise=0.5, noise_key=KEY)
    state = learner.fit(records)
    assert state.digest() == learner.fit(records, job=Job(scratch=tmp_path)).digest()
    gone = records.ids[[0, 5, 99]].tolist()
    state, _ = learner.forget(state, gone)
    assert state.digest() == learner.fit(records.without(gone)).digest()
    other = sisa(architecture, shards=3, slices=2, epochs=1, training_noise=0.5, noise_key=KEY + "!")
    assert not set(other.fit(records).part_digests().values()) & set(learner.fit(records).part_digests().values())


def test_other_records_have_other_noise(records: Records) -> None:
    # Noise that stayed would vanish from the difference of the models before and after: with a rate of next to nothing
    # and clipped gradients of next to nothing, the weights move by noise alone.
    quiet = Recipe(
        factory="expunge.models.architectures:softmax_regression",
        kwargs={"features": [1, 8, 8], "classes": 10},
        trainer=Trainer(epochs=1, batch_size=1000, learning_rate=1.0, momentum=0.0, weight_decay=0.0),
    )
    learner = Sisa(recipe=quiet, shards=1, training_noise=1e3, max_grad_norm=1e-3, noise_key=KEY)
    state = learner.fit(records)
    after, unlearned = learner.forget(state, [records.ids[0]])
    start = Stack.initialised(quiet, [shards.shard_seed(0, 0)]).flat.numpy()
    moves = [s.parts["shard.0000"]["model.flat"] - start for s in (state, after)]
    assert abs(np.corrcoef(moves[0].ravel(), moves[1].ravel())[0, 1]) < 0.2
    assert unlearned.parameters["noise_key"] == "(secret)" and KEY not in str(unlearned.parameters)


def test_no_noise_and_no_clipping_is_plain_training(records: Records) -> None:
    from expunge.training.batches import Table
    from expunge.training.engine import ENGINES
    from expunge.training.fit import train_loop
    from expunge.training.loop import Loop
    from expunge.training.private import PrivateLoop

    made = recipe()
    plain, private = (Stack.initialised(made, [3, 4]) for _ in range(2))
    table = Table.of([records, records.take(np.arange(64))])  # batches of 16 are full: 240 and 64 records
    train_loop(Loop(plain, ENGINES["batched"], [3, 4]), table, made.trainer)
    loop = PrivateLoop(private, ENGINES["batched"], [3, 4], noise_multiplier=0.0, max_grad_norm=1e9)
    train_loop(loop, table, made.trainer)
    np.testing.assert_allclose(plain.flat.numpy(), private.flat.numpy(), atol=1e-5)
    clipped = PrivateLoop(
        Stack.initialised(made, [3]), ENGINES["batched"], [3], noise_multiplier=0.0, max_grad_norm=0.01
    )
    batch = next(iter(Table.of([records]).everything(16)))
    _, gradient = clipped.gradient(None, [batch])
    assert float(gradient.norm()) <= 0.01 + 1e-6
    noisy = PrivateLoop(clipped.stack, ENGINES["batched"], [3], noise_multiplier=2.0, max_grad_norm=0.01, key=b"k")
    _, loud = noisy.gradient(None, [batch])
    spread = float((loud - gradient).std()) * 16
    assert spread == pytest.approx(2.0 * 0.01, rel=0.1)


def test_over_processes_and_in_pieces_the_bytes_are_the_same(records: Records, tmp_path: Path) -> None:
    learner = sisa(shards=4, slices=2)
    plain = learner.fit(records)
    gone = records.ids[:8].tolist()
    with Workers(2) as workers:
        job = Job(workers=workers, scratch=tmp_path)
        state = learner.fit(records, job=job)
        assert state.digest() == plain.digest()
        told: list[tuple[str, int, int]] = []
        state, _ = learner.forget(state, gone, job=Job(workers=workers, progress=lambda *a: told.append(a)))
    assert state.digest() == learner.fit(records.without(gone)).digest()
    assert told[0][1] == 0 and told[-1][1] == told[-1][2] > 0


def test_an_auditor_trains_one_shard_only(records: Records) -> None:
    learner = sisa(shards=4)
    state = learner.fit(records)
    seen: list[int] = []
    again = learner.relearn(state, ["shard.0002"], job=Job(progress=lambda _what, _done, total: seen.append(total)))
    assert set(again) == {"shard.0002"} and set(seen) == {1}
    assert (
        State(rows=state.rows, seed=0, parts=again).part_digests()["shard.0002"] == state.part_digests()["shard.0002"]
    )
    with pytest.raises(UnknownName):
        learner.relearn(state, ["shard.9999"])


def test_shards_of_two_environments_are_never_mixed(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = sisa(shards=3)
    state = learner.fit(records)
    monkeypatch.setattr(sisa_module, "environment", lambda: {"torch": "another"})
    state, unlearned = learner.forget(state, [records.ids[0]])
    assert unlearned.trace[0]["retrained"] == "all shards"
    fresh = learner.fit(records.without([records.ids[0]]))
    assert state.digest() == fresh.digest() and unlearned.cost.examples == 2 * (len(records) - 1)
    _, unlearned = learner.forget(state, [records.ids[1]])
    assert unlearned.trace[0]["shard"] >= 0


def test_other_seeds_give_other_shards_and_models(records: Records) -> None:
    learner = sisa(shards=3)
    first, second = learner.fit(records, seed=0), learner.fit(records, seed=1)
    assert (learner.assign(records, 0) != learner.assign(records, 1)).any()
    assert not set(first.part_digests().values()) & set(second.part_digests().values())


@pytest.mark.parametrize(
    "settings",
    [
        {"shards": 0},
        {"slices": 0},
        {"aggregate": "median"},
        {"sharding": "alphabet"},
        {"vote_noise": 1.0, "noise_key": KEY},
        {"vote_noise": 1.0, "aggregate": "vote"},
        {"vote_noise": 1.0, "aggregate": "vote", "noise_key": "short"},
        {"vote_noise": -1.0, "aggregate": "vote", "noise_key": KEY},
        {"vote_noise": float("nan"), "aggregate": "vote", "noise_key": KEY},
        {"training_noise": 1.0},
        {"training_noise": -1.0, "noise_key": KEY},
        {"training_noise": 1.0, "noise_key": KEY, "max_grad_norm": 0.0},
        {"sharding": "likelihood"},
        {"likelihood_edges": (0.5,)},
        {"sharding": "likelihood", "likelihood_edges": (0.9, 0.5)},
        {"sharding": "likelihood", "likelihood_edges": (0.0, 0.5)},
        {"sharding": "likelihood", "likelihood_edges": (0.1, 0.2, 0.3), "shards": 3},
        {"storage_budget_bytes": -1},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        sisa(**settings)


def test_records_that_do_not_fit_are_refused(records: Records) -> None:
    learner = sisa(shards=2)
    state = learner.fit(records)
    with pytest.raises(ModelError, match="shape"):
        learner.predict(state, np.zeros((2, 3), np.float32))
    with pytest.raises(ModelError):
        sisa(shards=2).fit(Records(ids=records.ids, columns={"x": records.x[:, :, :4], "y": records.y}))
    wild = Records(ids=records.ids, columns={**records.columns, "likelihood": records.column("likelihood") * 2})
    with pytest.raises(DataError, match="likelihood"):
        sisa(shards=4, sharding="likelihood", likelihood_edges=(0.5,)).fit(wild)


@pytest.mark.parametrize(("epochs", "slices"), [(3, 3), (2, 4), (5, 7)])
def test_the_cost_of_any_request_is_known_before(epochs: int, slices: int, records: Records) -> None:
    learner = sisa(shards=3, slices=slices, epochs=epochs)
    state = learner.fit(records)
    for request in (records.ids[3:4], records.ids[40:70], records.ids[[100, 120]]):
        planned = learner.cost_of(state, request.tolist())
        state, unlearned = learner.forget(state, request.tolist())
        assert planned == unlearned.cost.examples
