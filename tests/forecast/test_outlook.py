"""Prices, limits, the JSON document, the terminal and the picture of a forecast."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from expunge.errors import DataError, RequestError, UnknownName
from expunge.forecast import Forecast, Layout, forecast
from expunge.forecast.command import forecast_command, make_forecast
from expunge.forecast.formulas import expected_cost, retrain_cost, speedup
from expunge.forecast.plot import save_plot, shard_grid, sharding_curves, slicing_curves
from expunge.forecast.price import (
    DEFAULT_BYTES,
    expected_empty_shards,
    largest_batch_that_pays,
    most_shards_by_rows,
    requests_worth_one_retraining,
    storage_bytes,
)
from expunge.forecast.simulate import place
from expunge.forecast.terminal import bars, print_forecast

KEYS = {
    "rows", "shards", "slices", "requests", "batch", "expected_cost", "retrain_cost", "speedup", "storage_bytes",
    "accuracy", "accuracy_reason", "stops_paying",
}  # fmt: skip


# --- prices -----------------------------------------------------------------------------------------------------------


def test_storage_is_a_model_a_checkpoint() -> None:
    assert storage_bytes(Layout(rows=1000, shards=5, slices=4), 100) == 5 * 4 * 100
    assert storage_bytes(Layout(rows=1000, shards=5, slices=4, kept=(2, 4)), 100) == 5 * 2 * 100
    with pytest.raises(RequestError, match="bytes_per_model"):
        storage_bytes(Layout(rows=10), 0)


def test_the_default_model_has_the_size_that_is_told() -> None:
    from expunge.models.architectures import small_cnn

    module = small_cnn([1, 8, 8], 10)
    assert sum(p.numel() * p.element_size() for p in module.parameters()) == DEFAULT_BYTES


@pytest.mark.parametrize("placing", ["hashed", "equal"])
@pytest.mark.parametrize(("shards", "slices", "bar"), [(20, 1, 1.1), (20, 5, 1.5), (2, 1, 1.01), (1, 8, 1.2)])
def test_the_largest_batch_is_the_last_that_pays(shards: int, slices: int, bar: float, placing: Any) -> None:
    layout = Layout(rows=800, shards=shards, slices=slices, placing=placing)
    last = largest_batch_that_pays(layout, bar)
    paying = [k for k in range(1, 800) if speedup(layout, k, batch=True) >= bar]
    assert paying == list(range(1, last + 1))
    assert paying


def test_limits_that_are_never_and_always_reached() -> None:
    assert largest_batch_that_pays(Layout(rows=100), 1.1) == 0
    told = forecast(rows=100, shards=1)
    assert told.as_dict()["stops_paying"]["batch_requests"] == 1
    told = forecast(rows=40, shards=40)
    assert told.largest_batch == 39
    assert told.as_dict()["stops_paying"]["batch_requests"] is None
    with pytest.raises(RequestError, match="above 1"):
        largest_batch_that_pays(Layout(rows=100), 1.0)


@pytest.mark.parametrize(("shards", "slices"), [(1, 1), (5, 1), (20, 1), (20, 6)])
def test_so_many_requests_cost_one_retraining(shards: int, slices: int) -> None:
    layout = Layout(rows=3000, shards=shards, slices=slices)
    count = requests_worth_one_retraining(layout)
    assert count is not None
    assert expected_cost(layout, count) >= retrain_cost(layout, count, batch=True)
    if count > 1:
        assert expected_cost(layout, count - 1) < retrain_cost(layout, count - 1, batch=True)
    assert shards <= count <= 1.5 * shards + 1


def test_one_retraining_may_never_be_worth_waiting_for() -> None:
    assert requests_worth_one_retraining(Layout(rows=9, shards=9, placing="equal")) is None


def test_rows_a_shard() -> None:
    layout = Layout(rows=1000, shards=5)
    assert most_shards_by_rows(layout, 64) == 15
    assert most_shards_by_rows(layout, 1001) == 0
    with pytest.raises(RequestError, match="least_rows"):
        most_shards_by_rows(layout, 0)


def test_empty_shards_as_simulated() -> None:
    layout = Layout(rows=30, shards=20)
    shard, _ = place(layout, 4000, np.random.default_rng(0))
    empty = np.mean([20 - len(np.unique(own)) for own in shard])
    assert expected_empty_shards(layout) == pytest.approx(empty, rel=0.02)
    assert expected_empty_shards(Layout(rows=30, shards=20, placing="equal")) == 0


# --- the forecast -----------------------------------------------------------------------------------------------------


def test_the_document_has_every_key_and_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    forecast_command(rows=10_000, shards=20, slices=5, requests=8, batch=True, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert set(told) >= KEYS
    assert (told["rows"], told["shards"], told["slices"], told["requests"], told["batch"]) == (10_000, 20, 5, 8, True)
    assert told["speedup"] == pytest.approx(told["retrain_cost"] / told["expected_cost"])
    assert told["retrain_cost"] == 9992
    assert told["storage_bytes"] == 100 * DEFAULT_BYTES
    assert "default" in told["bytes_per_model_from"]
    assert told["stops_paying"]["most_shards_by_accuracy"] is None
    assert told["whole_steps"] is None


def test_accuracy_is_null_with_a_reason_without_data() -> None:
    told = forecast(rows=100, shards=5).as_dict()
    assert told["accuracy"] is None
    assert "not measured" in told["accuracy_reason"]
    assert "not measured" in told["stops_paying"]["most_shards_by_accuracy_reason"]


def test_epochs_scale_costs_and_not_the_speedup() -> None:
    one, twelve = (forecast(rows=1000, shards=5, slices=3, requests=4, epochs=e) for e in (1, 12))
    assert twelve.expected_cost == pytest.approx(12 * one.expected_cost)
    assert twelve.published_cost == pytest.approx(12 * one.published_cost)
    assert twelve.speedup == pytest.approx(one.speedup)


def test_published_cost_is_of_the_way_asked_for() -> None:
    alone, batch = (forecast(rows=10_000, shards=5, requests=9, batch=b) for b in (False, True))
    assert alone.published_cost == pytest.approx(alone.expected_cost, rel=1e-3)
    assert batch.published_cost == pytest.approx(batch.expected_cost, rel=1e-3)
    assert alone.published_cost > 1.5 * batch.published_cost


def test_kept_checkpoints_trade_storage_for_cost() -> None:
    every, two = (forecast(rows=1000, shards=5, slices=6, kept=kept) for kept in (None, 2))
    assert two.layout.kept == (3, 6)
    assert two.storage_bytes * 3 == every.storage_bytes
    assert two.expected_cost > every.expected_cost


def test_an_infinite_speedup_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    forecast_command(rows=9, shards=9, placing="equal", as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["expected_cost"] == 0
    assert told["speedup"] is None


def test_whole_steps_cost_more_where_slices_are_small() -> None:
    told = forecast(rows=400, shards=10, slices=10, epochs=1, batch_size=32)
    assert told.whole_steps is not None
    assert told.whole_steps["expected_cost"] > 1.5 * told.expected_cost  # type: ignore[operator]
    assert told.whole_steps["speedup"] < told.speedup  # type: ignore[operator]
    plain = forecast(rows=400, shards=1, epochs=3, batch_size=32)
    assert plain.whole_steps is not None
    assert plain.whole_steps["expected_cost"] == plain.expected_cost


# --- refusals, before anything is done --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({}, "rows is not known"),
        ({"rows": 0}, "rows"),
        ({"rows": 10, "shards": 11}, "11 shards"),
        ({"rows": 10, "shards": 0}, "shards"),
        ({"rows": 10, "slices": 0}, "slices"),
        ({"rows": 10, "requests": 0}, "requests"),
        ({"rows": 10, "requests": 10}, "all 10 rows"),
        ({"rows": 10, "bytes_per_model": 0}, "bytes_per_model"),
        ({"rows": 10, "kept": 2}, "2 checkpoints"),
        ({"rows": 10, "label": "y"}, "about data"),
        ({"rows": 10, "architecture": "mlp"}, "about data"),
        ({"rows": 10, "least_speedup": 1.0}, "above 1"),
        ({"rows": 10, "most_drop": 1.0}, "loss of accuracy"),
        ({"rows": 10, "least_rows": 0}, "least_rows"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(RequestError, match=match):
        make_forecast(**{"shards": 5, **options})


def test_a_picture_of_an_unknown_kind_is_refused_first(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"\.png or \.svg"):
        forecast_command(shards=5, data="no such data", out=tmp_path / "plot.jpg")
    with pytest.raises(RequestError, match=r"\.png or \.svg"):
        save_plot(forecast(rows=10, shards=2), tmp_path / "plot")
    assert not list(tmp_path.iterdir())


def test_unknown_data_and_architectures_are_refused() -> None:
    with pytest.raises(UnknownName, match="data set"):
        make_forecast(shards=5, data="digitz")
    with pytest.raises(UnknownName, match="architecture"):
        make_forecast(shards=5, data="digits", architecture="transformer")
    with pytest.raises(DataError, match="no images"):
        make_forecast(shards=5, data="breast_cancer", architecture="small_cnn")


def test_a_forecast_that_cannot_be_made_trains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from expunge.forecast import accuracy

    monkeypatch.setattr(accuracy, "measure_accuracy", lambda *_, **__: pytest.fail("trained"))
    for options in ({"requests": 10**6}, {"shards": 2000}, {"rows": 10**6, "shards": 2000}, {"least_rows": 0}):
        with pytest.raises(RequestError):
            make_forecast(**{"shards": 5, "data": "digits", **options})


# --- views ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def told() -> Forecast:
    return forecast(rows=10_000, shards=20, slices=5, requests=8, batch=True)


def test_the_terminal_says_the_numbers(told: Forecast) -> None:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_forecast(told, console)
    console.file.close()
    text = console.export_text()
    for words in ("2,545.85", "3.925×", "759,200 bytes", "not measured", "from 80 requests on", "← asked"):
        assert words in text


def test_bars_are_the_formula(told: Forecast) -> None:
    name, values = bars(told)
    assert name == "K"
    assert [k for k, _, asked in values if asked] == [8]
    assert values[-1][1] < 1.1
    assert all(v == speedup(told.layout, k, batch=True) for k, v, _ in values)
    name, values = bars(forecast(rows=10_000, shards=20, slices=5, requests=8))
    assert name == "S"
    assert [s for s, _, asked in values if asked] == [20]
    assert all(v == speedup(Layout(rows=10_000, shards=s, slices=5), 8) for s, v, _ in values)


def test_curves_are_the_formula(told: Forecast) -> None:
    grid = shard_grid(told.layout)
    assert grid[0] == 1 and 20 in grid and grid[-1] == 100
    curves = sharding_curves(told, grid)
    assert {1, 8} <= set(curves)
    assert curves[8][grid.index(20)] == told.speedup
    shares = slicing_curves(told.layout, [1, 20])
    assert shares[1] == pytest.approx([1, 0.6833], abs=1e-4)
    assert shares[8][1] == pytest.approx(0.979, abs=1e-3)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"rows": 10_000, "shards": 20, "slices": 5, "requests": 8, "batch": True}, "png"),
        ({"rows": 1000, "shards": 2, "slices": 100, "kept": 4}, "svg"),
        ({"rows": 9, "shards": 9, "placing": "equal"}, "svg"),
    ],
)
def test_pictures_are_drawn_and_have_fixed_bytes(options: dict[str, Any], kind: str, tmp_path: Path) -> None:
    told = forecast(**options)
    first = save_plot(told, tmp_path / f"a.{kind}").read_bytes()
    assert first == save_plot(told, tmp_path / f"b.{kind}").read_bytes()
    if kind == "svg":
        text = first.decode()
        assert f"Forgetting from {told.layout.rows:,} rows" in text
        assert "<dc:date>" not in text


def test_the_smallest_forecast_is_drawn(tmp_path: Path) -> None:
    assert "1 shard: 1×" in save_plot(forecast(rows=2, shards=1), tmp_path / "a.svg").read_text()


def test_a_forecast_loads_neither_torch_nor_scipy() -> None:
    code = (
        "import sys; from expunge.forecast.command import forecast_command as f; f(rows=1000, shards=5, slices=2); "
        "assert not {'torch', 'scipy', 'sklearn', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
