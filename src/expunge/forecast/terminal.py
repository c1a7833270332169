"""The forecast on a terminal: what it costs in words, and bars of the speed-up over S or over K."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from expunge.forecast.formulas import speedup
from expunge.forecast.outlook import NOT_MEASURED, Forecast, counted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

ROUND = (1, 2, 5)
WIDTH = 32


def print_forecast(told: Forecast, console: Console) -> None:
    """Tables to `console`; nothing in them that `Forecast.as_dict` does not hold, but the bars' other values of S."""
    from rich.table import Table

    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    for name, value in lines(told):
        facts.add_row(name, value)
    console.print(facts)
    console.print()
    console.print(_bars(told))


def lines(told: Forecast) -> list[tuple[str, str]]:
    """(what, value in words) of each line."""
    layout, K = told.layout, told.requests
    manner = "in one batch" if told.batch else "one after the other"
    out = [
        (
            "learner",
            f"{counted(layout.rows, 'row')} in {counted(layout.shards, 'shard')} of {counted(layout.slices, 'slice')}",
        ),
        ("requests", f"{counted(K, 'row')}, drawn uniformly, {manner}"),
        ("expected cost", f"{told.expected_cost:,.6g} example gradients (rows × {counted(layout.epochs, 'epoch')})"),
        ("retraining", f"{told.retrain_cost:,.6g}, {'once' if told.batch or K == 1 else f'{K:,} times'}"),
        ("speedup", _times(told.speedup)),
    ]
    if told.whole_steps:
        whole = told.whole_steps
        fast = whole["speedup"]
        out.append(
            (
                "in whole steps",
                f"{whole['expected_cost']:,.6g} with {whole['batch_size']} rows a step: "
                + _times(math.inf if fast is None else fast),
            )
        )
    size = f"{counted(layout.checkpoints, 'model')} of {told.bytes_per_model:,} bytes: {told.storage_bytes:,} bytes"
    out += [("storage", f"{size} ({told.bytes_per_model_from})")]
    if told.accuracy is None:
        out.append(("accuracy", NOT_MEASURED))
    else:
        found = told.accuracy
        out.append(
            (
                "accuracy",
                f"measured on {found.rows:,} rows, {found.test:,} for testing, {found.architecture}, "
                f"{found.epochs} epochs, {found.seeds} seeds",
            )
        )
        for level in found.levels:
            a, d = level.accuracy, level.drop
            who = "plain training" if level is found.levels[0] else f"S = {level.shards}, R = {level.slices}"
            text = f"{who}: {a['value']:.4f} [{a['low']:.4f}, {a['high']:.4f}]"
            if level is not found.levels[0]:
                text += f", drop {d['value']:+.4f} [{d['low']:+.4f}, {d['high']:+.4f}]"
            out.append(("", text))
    out += [("stops paying", text) for text in limits(told)]
    return out


def limits(told: Forecast) -> list[str]:
    """Where sharding stops paying, a sentence each."""
    layout, bar = told.layout, told.least_speedup
    if told.batch_limit is None:
        out = [f"batches: never below {bar:g}×"]
    elif told.largest_batch == 0:
        out = [f"batches: below {bar:g}× even for one request"]
    else:
        out = [f"batches: below {bar:g}× from {counted(told.batch_limit, 'request')} on"]
    if told.one_retraining is None:
        out.append("one after the other: all requests together cost less than one plain retraining")
    else:
        after = counted(told.one_retraining, "request")
        out.append(f"one after the other: {after} cost as much as one plain retraining after all of them")
    each = layout.rows / layout.shards
    few = counted(told.most_shards_by_rows + 1, "shard")
    out.append(f"rows: {each:,.4g} a shard here; below {told.least_rows:,} from {few} on")
    if told.expected_empty_shards > 0.01:
        out.append(f"rows: {told.expected_empty_shards:.2g} shards are expected to be empty")
    if told.accuracy is None:
        out.append(f"accuracy: {NOT_MEASURED}")
    else:
        most = told.most_shards_by_accuracy
        out.append(
            f"accuracy: within {told.most_drop:g} of plain training up to S = {most:,}, of those measured"
            if most
            else f"accuracy: every S measured loses more than {told.most_drop:g}"
        )
    return out


def bars(told: Forecast) -> tuple[str, list[tuple[int, float, bool]]]:
    """("S" or "K", [(number, speed-up, whether it is the asked one)]): over S, or over K for a batch."""
    layout = told.layout
    if told.batch:
        top = min(layout.rows - 1, 2 * max(told.requests, told.batch_limit or layout.rows))
        numbers = _round_numbers(top, told.requests)
        return "K", [(k, speedup(layout, k, batch=True), k == told.requests) for k in numbers]
    top = min(layout.rows // layout.slices, max(4 * layout.shards, 20))
    numbers = _round_numbers(top, layout.shards)
    return "S", [(s, speedup(replace(layout, shards=s), told.requests), s == layout.shards) for s in numbers]


def _round_numbers(top: int, asked: int) -> list[int]:
    found = {asked}
    for power in range(len(str(top))):
        found |= {n * 10**power for n in ROUND if n * 10**power <= top}
    return sorted(found)


def _bars(told: Forecast) -> Table:
    from rich.table import Table

    name, values = bars(told)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(name, justify="right")
    table.add_column("speedup", justify="right")
    table.add_column("log scale", no_wrap=True)
    top = max((math.log(v) for _, v, _ in values if math.isfinite(v)), default=0.0)
    for number, value, asked in values:
        long = WIDTH if not math.isfinite(value) else round(WIDTH * max(math.log(value), 0) / top) if top > 0 else 0
        table.add_row(
            f"{number:,}",
            _times(value).partition(" ")[0],
            "█" * long + (" ← asked" if asked else ""),
            style="bold" if asked else None,
        )
    return table


def _times(value: float) -> str:
    return f"{value:.4g}×" if math.isfinite(value) else "∞ (nothing is left to be trained again)"
