"""The benchmark of exact forgetting: rows as promised, cost by the formula, resumed, drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from expunge.data.digits import load_digits
from expunge.data.splits import split
from expunge.errors import DataError, RequestError, RunError, UnknownName
from expunge.evaluation.benchmarks import exact
from expunge.evaluation.benchmarks.exact import FRACTIONS, ExactBench, run_exact
from expunge.evaluation.exact_page import exact_html
from expunge.forecast.formulas import expected_cost
from expunge.forecast.layout import Layout
from expunge.methods.exact.sisa import Sisa
from expunge.methods.learner import State
from expunge.methods.rows import Rows
from expunge.recipe import Recipe, Trainer


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict:  # type: ignore[type-arg]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "TRAINER", Trainer(epochs=2, batch_size=16))
        patch.setattr(exact, "DELETIONS", 4)
        setting = ExactBench(shards=(1, 5), requests=(1, 4), slices=2)
        return run_exact(setting, tmp_path_factory.mktemp("exact"))


def test_a_row_for_every_pair_with_measured_beside_expected(report: dict) -> None:  # type: ignore[type-arg]
    assert [(r["shards"], r["requests"]) for r in report["rows"]] == [(1, 1), (1, 4), (5, 1), (5, 4)]
    for row in report["rows"]:
        assert row["equals_fresh_fit"] is True
        assert row["slices"] == 2 and 0 < row["accuracy"] <= 1
        assert row["measured_speedup"] == pytest.approx(row["retrain_seconds"] / row["seconds"])
        assert row["measured_speedup"] > 0 and row["expected_speedup"] > 0
    five = [r["examples_speedup"] for r in report["rows"] if r["shards"] == 5]
    one = [r["examples_speedup"] for r in report["rows"] if r["shards"] == 1]
    assert min(five) > 3 * max(one)


def test_the_page_says_the_same_as_the_json(report: dict) -> None:  # type: ignore[type-arg]
    page = exact_html(report)
    assert "In every row the bytes after forgetting are those of a fresh run" in page
    for row in report["rows"]:
        assert f"{row['measured_speedup']:.2f}×" in page
    assert "<script" not in page and "http://" not in page.replace("http://www.w3.org", "")
    broken = json.loads(json.dumps(report))
    broken["rows"][2]["equals_fresh_fit"] = False
    assert "NOT EXACT in 1 of 4 rows" in exact_html(broken)


def untrained(shards: int, slices: int = 1) -> tuple[Sisa, State]:
    """Costs are counted from the map alone: no model has to be trained."""
    train = split(load_digits(), FRACTIONS, salt="exact")["train"]
    recipe = Recipe(
        factory="expunge.models.architectures:mlp",
        kwargs={"features": 64, "classes": 10},
        trainer=Trainer(epochs=slices + 1, batch_size=1),
    )
    return Sisa(recipe=recipe, shards=shards, slices=slices), State(rows=Rows(train), seed=0, parts={})


def mean_cost(shards: int, slices: int = 1) -> tuple[float, float]:
    """Mean over all single deletions, and the formula for the shard sizes at hand."""
    learner, state = untrained(shards, slices)
    records = state.rows.records()
    where, epochs, n = learner.assign(records, 0), 2.0 if slices > 1 else float(slices + 1), len(records)
    formula = 0.0
    for shard in range(shards):
        sizes = np.bincount(where[where[:, 0] == shard, 1], minlength=slices)
        below = np.cumsum(sizes)
        for slice_ in range(slices):
            formula += sizes[slice_] / n * epochs * float((below[slice_:] - 1).sum())
    return exact.mean_single_deletion(learner, state), formula


def test_cost_falls_as_one_over_the_number_of_shards() -> None:
    shards = np.array([1, 2, 5, 10, 20, 50])
    costs = np.array([mean_cost(int(s))[0] for s in shards])
    slope = np.polyfit(np.log(shards), np.log(costs), 1)[0]
    assert slope == pytest.approx(-1, rel=0.05)


@pytest.mark.parametrize(("shards", "slices"), [(1, 1), (5, 1), (50, 1), (5, 4), (10, 8)])
def test_the_mean_over_all_single_deletions_is_the_formulas(shards: int, slices: int) -> None:
    counted, at_hand = mean_cost(shards, slices)
    assert counted == pytest.approx(at_hand, rel=0.05)
    train = split(load_digits(), FRACTIONS, salt="exact")["train"]
    layout = Layout(rows=len(train), shards=shards, slices=slices, epochs=slices + 1)
    assert counted == pytest.approx(expected_cost(layout, 1), rel=0.05)


def test_slices_make_it_cheaper_still() -> None:
    assert mean_cost(5, 8)[0] / 9 < 0.8 * mean_cost(5, 1)[0] / 2  # by passes of plain training: 9 and 2


def test_an_interrupted_benchmark_keeps_the_pairs_that_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "TRAINER", Trainer(epochs=1, batch_size=32))
    monkeypatch.setattr(exact, "DELETIONS", 1)
    setting = ExactBench(shards=(2, 3), requests=(1,), batch=True)
    first = run_exact(setting, tmp_path)
    (tmp_path / "pairs" / "3-1.json").unlink()
    again = run_exact(setting, tmp_path)
    assert again["rows"][0] == first["rows"][0]  # seconds included: it was not measured again
    assert again["rows"][1]["examples"] == first["rows"][1]["examples"]
    with pytest.raises(RunError, match="another benchmark"):
        run_exact(ExactBench(shards=(2, 3), requests=(2,), batch=True), tmp_path)


def test_settings_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    for settings in ({"shards": ()}, {"requests": (0,)}, {"slices": 0}):
        with pytest.raises(RequestError):
            ExactBench(**settings)  # type: ignore[arg-type]
    with pytest.raises(UnknownName):
        ExactBench(architecture="transformer")
    with pytest.raises(DataError, match="requests"):
        run_exact(ExactBench(requests=(5000,)), tmp_path)
    with pytest.raises(DataError, match="shards"):
        run_exact(ExactBench(shards=(2000,)), tmp_path)
    assert not (tmp_path / "exact.json").exists()
