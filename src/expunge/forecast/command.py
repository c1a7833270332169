"""What `expunge forecast` does: measure if there are data, forecast, draw, print."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expunge.errors import RequestError
from expunge.forecast.layout import Layout, Placing
from expunge.forecast.outlook import Forecast, forecast

if TYPE_CHECKING:
    from expunge.data.records import Records

Progress = Callable[[str, int, int], None]


def make_forecast(
    *,
    rows: int | None = None,
    shards: int,
    slices: int = 1,
    requests: int = 1,
    batch: bool = False,
    epochs: int | None = None,
    kept: int | None = None,
    placing: Placing = "hashed",
    batch_size: int | None = None,
    bytes_per_model: int | None = None,
    data: str | None = None,
    label: str | None = None,
    architecture: str | None = None,
    seeds: int = 3,
    least_speedup: float = 1.1,
    least_rows: int = 64,
    most_drop: float = 0.02,
    progress: Progress | None = None,
) -> Forecast:
    """The forecast of the options of `expunge forecast`; with `data`, accuracy is measured by training on them.

    Args:
        rows: N; with data by default as many as are trained on (70%). epochs: e'; by default 1, which counts in rows,
            and with data those of the default recipe. batch_size: with data by default the recipe's.
        data, label, architecture: what to measure on. The others: see `forecast`.

    Raises:
        RequestError: neither rows nor data, options that need data without them, or numbers out of range, before
            anything is trained. Whatever loading and training refuse with.
    """
    if data is None and (label is not None or architecture is not None):
        raise RequestError("--label and --architecture are about data, and there are none", "Give --data too")

    def tell(n: int, **more: Any) -> Forecast:
        return forecast(
            rows=n,
            shards=shards,
            slices=slices,
            requests=requests,
            batch=batch,
            kept=kept,
            placing=placing,
            bytes_per_model=bytes_per_model,
            least_speedup=least_speedup,
            least_rows=least_rows,
            most_drop=most_drop,
            **more,
        )

    if data is None:
        if rows is None:
            raise RequestError("the number of rows is not known", "Give --rows N, or --data")
        return tell(rows, epochs=1 if epochs is None else epochs, batch_size=batch_size)
    from expunge.forecast.accuracy import measure_accuracy, recipe_for, shards_to_measure

    train, test = load_parts(data, label)
    recipe = recipe_for(train, architecture, epochs)
    size = recipe.trainer.batch_size if batch_size is None and placing == "hashed" else batch_size
    n = len(train) if rows is None else rows
    passes = recipe.trainer.epochs
    tell(n, epochs=passes, batch_size=size)  # a request that cannot be forecast is refused before hours of training
    Layout(rows=len(train), shards=shards, slices=slices)
    found = measure_accuracy(
        train,
        test,
        recipe,
        shards=shards_to_measure(len(train), shards, slices),
        slices=slices,
        seeds=seeds,
        progress=progress,
    )
    return tell(n, epochs=passes, batch_size=size, accuracy=found)


def load_parts(data: str, label: str | None) -> tuple[Records, Records]:
    """Records to train on (70%) and to test on, by the hash of their ids.

    Raises:
        DataError, UnknownName.
    """
    from expunge.data import load_records
    from expunge.data.splits import split
    from expunge.forecast.accuracy import FRACTIONS, SALT

    parts = split(load_records(data, label=label), FRACTIONS, salt=SALT)
    return parts["train"], parts["test"]


def forecast_command(*, out: Path | None = None, as_json: bool = False, **options: Any) -> None:
    """Print the forecast of `make_forecast`'s options, as tables or as one JSON document; draw it into `out`.

    Raises:
        As `make_forecast`; RequestError: `out` is neither .png nor .svg, before anything is trained.
    """
    from expunge.figures import check_path
    from expunge.forecast.plot import save_plot

    if out is not None:
        check_path(out)
    told = make_forecast(**options)
    if out is not None:
        save_plot(told, out)
    if as_json:
        print(json.dumps(told.as_dict() | {"plot": None if out is None else str(out)}, allow_nan=False))
        return
    from rich.console import Console

    from expunge.forecast.terminal import print_forecast

    print_forecast(told, Console())
    if out is not None:
        print(f"\nplot: {out.resolve()}")
