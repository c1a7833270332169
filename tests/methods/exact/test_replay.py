"""Replay: what is replayed has the bytes of a fit that never saw the rows, at every spacing, budget and optimiser."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from expunge.data.records import Records
from expunge.errors import DataError, ModelError, RequestError
from expunge.methods.exact import replay
from expunge.methods.exact.replay import Replay, checkpoints
from expunge.methods.hashed_course import row_keys
from expunge.methods.learner import Job, State
from expunge.methods.stack_parts import checkpoint_bytes
from expunge.recipe import Recipe, Trainer
from expunge.training.seeds import derive
from expunge.training.stack import build


def records(n: int = 48, periods: int = 3) -> Records:
    rng = np.random.default_rng(2)
    y = rng.integers(0, 3, n)
    return Records(
        ids=np.array([f"r{k}" for k in range(n)]),
        columns={
            "x": (rng.normal(size=(n, 5)) + 2 * np.eye(5)[y]).astype(np.float32),
            "y": y,
            "came": np.arange(n) * periods // n,
        },
    )


def recipe(factory: str = "expunge.models.architectures:mlp", **trainer: Any) -> Recipe:
    kwargs = {"features": 5, "classes": 3} | ({"width": 8} if factory.endswith("mlp") else {})
    return Recipe(factory=factory, kwargs=kwargs, trainer=Trainer(**{"epochs": 2, **trainer}))


def with_statistics(features: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(features, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, classes))


def learner(**settings: Any) -> Replay:
    return Replay(**{"recipe": recipe(), "steps_per_epoch": 8, "checkpoint_every": 2, **settings})


def ids_by_first_step(model: Replay, state: State) -> list[str]:
    """Record ids, the one seen first at the front."""
    table = state.rows.records()
    periods = table.column("came") if model.arrival else np.zeros(len(table), np.int64)
    first = model.course(state.seed).first_steps(row_keys(table.ids.tolist(), state.seed), periods)
    return table.ids[np.argsort(first, kind="stable")].tolist()


SETTINGS: dict[str, dict[str, Any]] = {
    "every step": {"checkpoint_every": 1},
    "every third": {"checkpoint_every": 3},
    "none": {"checkpoint_every": 100},
    "no room": {"storage_budget_bytes": 0},
    "little room": {"storage_budget_bytes": 700, "checkpoint_every": 1},
    "adam": {"recipe": recipe(optimizer="adam", learning_rate=0.01, schedule="linear")},
    "adamw": {"recipe": recipe(optimizer="adamw", learning_rate=0.01, label_smoothing=0.1)},
    "plain sgd": {"recipe": recipe(momentum=0.0, schedule="constant")},
    "loop": {"engine": "loop"},
    "periods": {"arrival": "came", "periods": 3},
    "periods and little room": {"arrival": "came", "periods": 4, "storage_budget_bytes": 2000},
    "batch statistics and dropout": {"recipe": recipe(f"{__name__}:with_statistics"), "smallest_batch": 2},
    "a convex model": {"recipe": recipe("expunge.models.architectures:softmax_regression", epochs=1)},
    "more steps than rows": {"steps_per_epoch": 70, "checkpoint_every": 5},
    "one step a pass": {"steps_per_epoch": 1},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_forgetting_is_never_having_known(name: str) -> None:
    model = learner(**SETTINGS[name])
    state = model.fit(records(), seed=3)
    order = ids_by_first_step(model, state)
    gone: list[str] = []
    for wanted in ([order[-1]], [order[0]], ["r0", "r20", "r47"]):
        request = [i for i in wanted if i not in gone]
        gone += request
        state, _ = model.forget(state, request)
        assert state.digest() == model.fit(records().without(gone), seed=3).digest()


@settings(deadline=None, max_examples=15)
@given(data=st.data(), seed=st.integers(0, 3), every=st.integers(1, 9), periods=st.sampled_from([1, 3]))
def test_any_sequence(data: st.DataObject, seed: int, every: int, periods: int) -> None:
    model = learner(checkpoint_every=every, periods=periods, arrival="came" if periods > 1 else None)
    state, gone = model.fit(records(24), seed=seed), []
    for _ in range(data.draw(st.integers(1, 3))):
        left = state.rows.records().ids.tolist()
        request = data.draw(st.lists(st.sampled_from(left), min_size=1, max_size=5, unique=True))
        state, _ = model.forget(state, request)
        gone += request
    assert state.digest() == model.fit(records(24).without(gone), seed=seed).digest()


class Told:
    def __init__(self) -> None:
        self.events: list[tuple[str, int, int]] = []

    def __call__(self, what: str, done: int, total: int) -> None:
        self.events.append((what, done, total))


def test_steps_before_the_row_are_not_repeated() -> None:
    model = learner(checkpoint_every=1)
    state = model.fit(records(), seed=0)
    course, keys = model.course(0), row_keys(records().ids.tolist(), 0)
    first = course.first_steps(keys, np.zeros(len(keys), np.int64))
    for k in (int(first.argmin()), int(first.argmax())):
        told = Told()
        _, unlearned = model.forget(state.copy(), [f"r{k}"], job=Job(progress=told))
        assert unlearned.trace == ({"first_seen": first[k], "from_step": first[k], "steps": 16},)
        # All later rows of the first pass and the whole second pass, without the row itself.
        assert unlearned.cost.examples == int((first >= first[k]).sum()) - 1 + len(keys) - 1
        assert told.events == [("replay", done + 1, 16 - first[k]) for done in range(16 - first[k])]


def test_a_batch_that_becomes_empty_is_skipped_and_its_place_stays() -> None:
    model = learner()
    state = model.fit(records(), seed=3)
    batches = model.course(3).block(0, row_keys(records().ids.tolist(), 3), np.zeros(48, np.int64))
    step = int(np.argmin([len(b) for b in batches]))
    gone = records().ids[batches[step]].tolist()
    after, _ = model.forget(state, gone)
    log, was = after.parts["log"], state.parts["log"]
    assert was["rows"][step] == len(gone) and log["rows"][step] == 0
    np.testing.assert_array_equal(log["learning_rates"], was["learning_rates"])
    assert log["updates"][step] == (log["updates"][step - 1] if step else 0) and was["updates"][-1] == 16
    assert log["updates"][-1] == 16 - int((log["rows"] == 0).sum())


def test_the_log_says_what_each_step_did() -> None:
    model = learner(recipe=recipe(schedule="linear", learning_rate=0.2))
    log = model.fit(records(), seed=3).parts["log"]
    assert log["rows"].sum() == 2 * 48 and log["updates"].tolist() == list(range(1, 17))
    np.testing.assert_allclose(log["learning_rates"], [0.2 * (1 - t / 16) for t in range(16)], rtol=1e-6)
    assert log["seeds"].tolist() == [derive(3, "step", t) for t in range(16)]
    assert len(set(log["ids"].tolist())) == 16 and len(log["keys"]) == 48
    np.testing.assert_array_equal(log["keys"], row_keys(records().ids.tolist(), 3))


def test_weights_and_optimiser_come_from_the_checkpoint() -> None:
    """A state whose checkpoint was tampered with gives another model."""
    model = learner(checkpoint_every=1, recipe=recipe(optimizer="adam", learning_rate=0.01))
    state = model.fit(records(), seed=1)
    last = ids_by_first_step(model, state)[-1]
    right = model.forget(state.copy(), [last])[0].parts["model"]["flat"]
    used = max(checkpoints(state.parts))
    for name in ("flat", "optimiser.first", "optimiser.second", "optimiser.steps"):
        parts = {k: dict(p) for k, p in state.parts.items()}
        part = parts[f"checkpoint.{used:06d}"]
        part[name] = part[name] + 1
        wrong = State(rows=state.rows.copy(), seed=1, parts=parts, facts=state.facts)
        assert not np.array_equal(model.forget(wrong, [last])[0].parts["model"]["flat"], right)


def test_another_environment_trains_everything_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = learner(checkpoint_every=1)
    state = model.fit(records(), seed=0)
    last = ids_by_first_step(model, state)[-1]
    monkeypatch.setattr(replay, "environment", lambda: {"torch": "another"})
    after, unlearned = model.forget(state, [last])
    assert unlearned.trace[0]["from_step"] == 0
    assert after.digest() == model.fit(records().without([last]), seed=0).digest()


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_checkpoints_stay_within_the_budget(kind: str) -> None:
    made = recipe(optimizer=kind, learning_rate=0.01)
    each = checkpoint_bytes(made)
    for room in (0, each - 1, each, 3 * each, 100 * each):
        state = learner(recipe=made, checkpoint_every=1, storage_budget_bytes=room).fit(records())
        kept = checkpoints(state.parts)
        assert len(kept) == {0: 0, each - 1: 0, each: 1, 3 * each: 3, 100 * each: 7}[room]
        used = sum(a.nbytes for name in kept.values() for a in state.parts[name].values())
        assert used == len(kept) * each <= room
        assert learner(recipe=made).extra_bytes(state) == used + sum(a.nbytes for a in state.parts["log"].values())


def test_recent_rows_are_cheap_where_they_are_trained_last() -> None:
    model = learner(arrival="came", periods=3, checkpoint_every=1)
    state = model.fit(records(), seed=0)
    old, recent = (model.forget(state.copy(), [i])[1] for i in ("r0", "r47"))
    assert old.trace[0]["from_step"] < 8 and recent.trace[0]["from_step"] >= 32
    assert recent.cost.examples < old.cost.examples / 2.5


def test_it_learns() -> None:
    model = learner(recipe=recipe(epochs=10))
    state = model.fit(records(300))
    assert (model.predict(state, records(300).x) == records(300).y).mean() > 0.85
    assert model.scores(state, records(300).x).shape == (300, 3)


@pytest.mark.parametrize(
    ("made", "plain"),
    [
        (recipe(label_smoothing=0.2, weight_decay=0.01), lambda p: torch.optim.SGD(p, 0.1, 0.9, weight_decay=0.01)),
        (recipe(optimizer="adam", learning_rate=0.01, weight_decay=0.0), lambda p: torch.optim.Adam(p, 0.01)),
    ],
)
@pytest.mark.parametrize("steps_per_epoch", [8, 60])
def test_training_is_what_a_plain_loop_does(made: Recipe, plain: Any, steps_per_epoch: int) -> None:
    """Every batch with its rows, the rate of its own step, an empty batch left out: written with torch alone."""
    model = learner(recipe=made, steps_per_epoch=steps_per_epoch)
    table, course = records(), model.course(5)
    module = build(made, 5)
    optimiser = plain(module.parameters())
    x, y = torch.from_numpy(table.x), torch.from_numpy(table.y)
    batches = [b for number in range(2) for b in course.block(number, row_keys(table.ids.tolist(), 5), np.zeros(48))]
    for step, rows in enumerate(batches):
        if not len(rows):
            continue
        optimiser.param_groups[0]["lr"] = made.trainer.learning_rate * 0.5 * (1 + np.cos(np.pi * step / len(batches)))
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(x[rows]), y[rows], label_smoothing=made.trainer.label_smoothing).backward()
        optimiser.step()
    weights = torch.cat([p.detach().flatten() for p in module.parameters()]).numpy()
    learned = model.learn(table, seed=5, job=Job())
    np.testing.assert_allclose(learned.parts["model"]["flat"][0], weights, atol=2e-5)
    assert learned.examples == 2 * 48


def test_training_runs_on_the_threads_it_is_told() -> None:
    seen: list[int] = []
    model = learner(engine="loop", threads=2)
    model.fit(records(), job=Job(progress=lambda *_: seen.append(torch.get_num_threads())))
    assert set(seen) == {2}


def test_threads_and_torchs_generator_are_left_as_they_were() -> None:
    threads, generator = torch.get_num_threads(), torch.random.get_rng_state()
    model = learner(threads=2)
    state = model.fit(records())
    model.predict(state, records().x)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), generator)


def test_read_only_and_double_precision_features_are_taken() -> None:
    table = records()
    double = Records(ids=table.ids, columns={**table.columns, "x": table.x.astype(np.float64)})
    double.columns["x"].flags.writeable = False
    table.columns["x"].flags.writeable = False
    model = learner()
    a, b = (model.forget(model.fit(t), ["r5"])[0].part_digests() for t in (table, double))
    assert a == b


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps_per_epoch": 0},
        {"checkpoint_every": 0},
        {"periods": 0},
        {"smallest_batch": 0},
        {"threads": 0},
        {"threads": 1.5},
        {"storage_budget_bytes": -1},
        {"engine": "vmap"},
        {"periods": 2},
    ],
)
def test_hyper_parameters_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        learner(**wrong)


def test_what_does_not_fit_is_refused_before_training() -> None:
    statistics = recipe(f"{__name__}:with_statistics")
    with pytest.raises(RequestError, match="smallest_batch=2"):
        learner(recipe=statistics).fit(records())
    with pytest.raises(ModelError, match="plain perceptrons"):
        learner(recipe=statistics, engine="batched", smallest_batch=2).fit(records())
    with pytest.raises(ModelError, match="features of shape"):
        learner(recipe=Recipe(factory="expunge.models.architectures:mlp", kwargs={"features": 4, "classes": 3})).fit(
            records()
        )
    for column, periods in (("came", 2), ("x", 3), ("nowhere", 3)):
        with pytest.raises(DataError):
            learner(arrival=column, periods=periods).fit(records())
