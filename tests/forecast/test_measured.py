"""What the forecast says of whole steps and accuracy is what training does."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from expunge.data.records import Records
from expunge.errors import RequestError
from expunge.evaluation.metrics.intervals import t_mean
from expunge.forecast import forecast
from expunge.forecast.accuracy import Accuracy, Level, measure_accuracy, recipe_for, shards_to_measure
from expunge.forecast.command import forecast_command, load_parts
from expunge.forecast.formulas import expected_cost
from expunge.forecast.layout import Layout, spread_evenly
from expunge.forecast.plot import save_plot
from expunge.forecast.steps import gradients
from expunge.forecast.terminal import limits
from expunge.methods.exact.sisa import Sisa, kept_checkpoints
from expunge.recipe import Recipe, Trainer
from expunge.training.batches import Table
from expunge.training.engine import ENGINES
from expunge.training.fit import train_loop
from expunge.training.loop import Loop
from expunge.training.stack import Stack

RECIPE = Recipe(
    factory="expunge.models.architectures:softmax_regression",
    kwargs={"features": [1, 8, 8], "classes": 10},
    trainer=Trainer(epochs=2, batch_size=8),
)


@pytest.mark.parametrize("epochs", [0.1, 0.25, 1.0, 2 / 3, 2.5, 24 / 21])
def test_steps_are_counted_as_training_counts_them(digits: dict[str, Records], epochs: float) -> None:
    for rows in (1, 7, 8, 9, 57, 64):
        part = digits["train"].take(np.arange(rows))
        loop = Loop(Stack.initialised(RECIPE, [0]), ENGINES["batched"], [0])
        train_loop(loop, Table.of([part]), RECIPE.trainer, epochs=epochs)
        assert gradients(np.array([rows]), epochs, 8)[0] == int(loop.examples[0])


def test_a_deletion_costs_its_slices_and_on_average_the_forecast(digits: dict[str, Records]) -> None:
    """Forgetting by the learner, one record at a time and each from the same state, for several placings."""
    records = digits["train"].take(np.arange(90))
    learner = Sisa(recipe=RECIPE, shards=3, slices=4)
    layout = Layout(rows=90, shards=3, slices=4, epochs=2, batch_size=8)
    costs = []
    for seed in range(4):
        state = learner.fit(records, seed=seed)
        where = learner.assign(records, seed)
        for row in range(seed, 90, 6):
            _, done = learner.forget(state.copy(), [records.ids[row]])
            shard, part = where[row]
            seen = [np.sum((where[:, 0] == shard) & (where[:, 1] <= r)) - 1 for r in range(part, 4)]
            assert done.cost.examples == gradients(np.array(seen), 2 * 2 / 5, 8).sum()
            costs.append(done.cost.examples)
    error = np.std(costs) / np.sqrt(len(costs))
    assert abs(np.mean(costs) - expected_cost(layout, 1)) < 4 * error
    assert error < 0.1 * np.mean(costs)


@pytest.mark.parametrize("slices", [1, 2, 5, 6, 20, 21])
def test_checkpoints_are_kept_where_the_learner_keeps_them(slices: int) -> None:
    for kept in range(1, slices + 1):
        assert spread_evenly(slices, kept) == (*kept_checkpoints(slices, 10, 10 * (kept - 1)), slices)


# --- accuracy ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured() -> Accuracy:
    train, test = load_parts("digits", None)
    recipe = dataclasses.replace(recipe_for(train, "softmax_regression"), trainer=Trainer(epochs=3))
    return measure_accuracy(train, test, recipe, shards=[20, 1, 5], slices=2, seeds=2)


def test_accuracy_is_that_of_the_learner(measured: Accuracy) -> None:
    assert [(one.shards, one.slices) for one in measured.levels] == [(1, 1), (1, 2), (5, 2), (20, 2)]
    train, test = load_parts("digits", None)
    assert (measured.rows, measured.test) == (len(train), len(test))
    assert not set(train.ids.tolist()) & set(test.ids.tolist())
    recipe = dataclasses.replace(recipe_for(train, "softmax_regression"), trainer=Trainer(epochs=3))
    by_hand = []
    for shards, slices in ((1, 1), (5, 2)):
        learner = Sisa(recipe=recipe, shards=shards, slices=slices)
        by_hand.append([np.mean(learner.predict(learner.fit(train, seed=k), test.x) == test.y) for k in range(2)])
    plain, five = measured.levels[0], measured.levels[2]
    assert plain.accuracy["value"] == pytest.approx(np.mean(by_hand[0]))
    assert five.accuracy["value"] == pytest.approx(np.mean(by_hand[1]))
    assert five.drop["value"] == pytest.approx(np.mean(by_hand[0]) - np.mean(by_hand[1]))
    assert (five.drop["low"], five.drop["high"]) == pytest.approx(t_mean(np.subtract(*by_hand)))
    assert (five.accuracy["low"], five.accuracy["high"]) == pytest.approx(t_mean(np.array(by_hand[1])))
    assert plain.drop == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert measured.bytes_per_model == 650 * 4


def test_twenty_shards_of_digits_lose_accuracy(measured: Accuracy) -> None:
    assert measured.levels[0].accuracy["value"] > 0.85
    assert measured.levels[-1].drop["value"] > 0.03
    told = forecast(rows=measured.rows, shards=5, slices=2, accuracy=measured)
    document = told.as_dict()
    assert document["accuracy"]["levels"][2]["shards"] == 5
    assert document["accuracy_reason"] is None
    assert document["bytes_per_model"] == 2600
    assert document["bytes_per_model_from"] == "measured"
    assert document["stops_paying"]["most_shards_by_accuracy"] < 20
    json.dumps(document, allow_nan=False)


def test_the_limit_by_accuracy_stops_at_the_first_loss() -> None:
    def level(shards: int, drop: float) -> Level:
        around = {"value": drop, "low": drop, "high": drop}
        return Level(shards=shards, slices=1, accuracy={"value": 0.9, "low": 0.9, "high": 0.9}, drop=around)

    levels = (level(1, 0.0), level(5, 0.01), level(10, 0.05), level(20, 0.01))
    base = Accuracy(
        rows=9, test=9, seeds=2, architecture="mlp", epochs=1, batch_size=8, bytes_per_model=4, levels=levels
    )
    assert base.most_shards(0.02) == 5
    assert base.most_shards(0.06) == 20
    assert dataclasses.replace(base, levels=(level(1, 0.0), level(1, 0.03))).most_shards(0.02) == 1
    told = forecast(rows=100, shards=5, accuracy=base)
    assert any("up to S = 5" in text for text in limits(told))


def test_what_is_measured() -> None:
    assert shards_to_measure(1000, 5, 1) == (1, 3, 5, 10, 20)
    assert shards_to_measure(100, 20, 4) == (1, 10, 20)
    assert shards_to_measure(100, 1, 1) == (1, 2, 4)


def test_one_seed_has_no_interval(digits: dict[str, Records]) -> None:
    with pytest.raises(RequestError, match="two seeds"):
        measure_accuracy(digits["train"], digits["test"], RECIPE, shards=[1], seeds=1)


def test_a_recipe_suits_the_records(digits: dict[str, Records]) -> None:
    assert recipe_for(digits["train"]).factory.endswith(":small_cnn")
    table, _ = load_parts("breast_cancer", None)
    recipe = recipe_for(table, None, 7)
    assert recipe.factory.endswith(":mlp")
    assert recipe.trainer.epochs == 7


def test_the_command_measures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reports: list[tuple[str, int, int]] = []
    options = {"shards": 2, "requests": 3, "data": "breast_cancer", "architecture": "softmax_regression", "epochs": 2}
    plot = tmp_path / "a" / "plot.svg"
    forecast_command(**options, seeds=2, out=plot, as_json=True, progress=lambda *a: reports.append(a))  # type: ignore[arg-type]
    told = json.loads(capsys.readouterr().out)
    assert told["rows"] == told["accuracy"]["rows"]
    assert told["epochs"] == told["accuracy"]["epochs"] == 2
    assert told["whole_steps"]["batch_size"] == told["accuracy"]["batch_size"]
    assert told["plot"] == str(plot)
    assert "test accuracy, measured" in plot.read_text()
    assert reports[-1][1] == reports[-1][2] == 2 * len(told["accuracy"]["levels"])
    forecast_command(**options, seeds=2, rows=50_000)  # type: ignore[arg-type]
    text = " ".join(capsys.readouterr().out.split())
    assert "50,000 rows in 2 shards" in text
    assert f"plain training: {told['accuracy']['levels'][0]['accuracy']['value']:.4f}" in text


def test_a_picture_with_accuracy(measured: Accuracy, tmp_path: Path) -> None:
    told = forecast(rows=measured.rows, shards=5, slices=2, accuracy=measured)
    assert save_plot(told, tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
