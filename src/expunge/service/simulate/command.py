"""``expunge simulate``: parse, simulate, print."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from expunge.errors import RequestError
from expunge.progress import progress_bars

# Of the tables, in characters, however narrow the terminal is said to be.
WIDTH = 104

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def simulate(
    policy: Annotated[Path | None, typer.Argument(help="The policy's YAML; without one, the default policy.")] = None,
    requests: Annotated[int, typer.Option(min=0, help="How many, drawn over the days.")] = 1_000_000,
    days: Annotated[int, typer.Option(min=1, help="Of traffic.")] = 365,
    start: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="First day of it.")] = datetime(2026, 1, 5),
    regimes: Annotated[str, typer.Option(help="Shares of regimes: gdpr=0.6,ccpa=0.4.")] = "",
    burst: Annotated[
        list[str] | None, typer.Option(help="More at once: day:requests:half_life_days[:reason]; may be repeated.")
    ] = None,
    traffic: Annotated[
        Path | None, typer.Option(help="CSV of requests as they came (received_at, regime, reason), instead.")
    ] = None,
    rule: Annotated[str, typer.Option(help="all, or names separated by commas.")] = "all",
    deadlines: Annotated[str, typer.Option(help="Of the grid, in days.")] = "15,30,45,90",
    periods: Annotated[str, typer.Option(help="Of the grid: days between windows of retraining.")] = "7,30,90",
    target: Annotated[float, typer.Option(help="Share in time that counts as compliance.")] = 0.99,
    workers: Annotated[int, typer.Option(min=1, help="That run at the same time.")] = 4,
    run_minutes: Annotated[float, typer.Option(help="Median of an exact run for one request.")] = 9.0,
    run_p95_minutes: Annotated[float | None, typer.Option(help="Its 95th percentile; by default 1.5 medians.")] = None,
    evaluation_minutes: Annotated[float, typer.Option(help="Median of the evaluation after it.")] = 1.0,
    approximate_minutes: Annotated[float, typer.Option(help="Median of an approximate run.")] = 1.0,
    per_request_seconds: Annotated[float, typer.Option(help="What each request adds to a run.")] = 0.0,
    shards: Annotated[int, typer.Option(min=1, help="Of a sharded learner; needs --rows.")] = 1,
    slices: Annotated[int, typer.Option(min=1, help="Of each shard.")] = 1,
    rows: Annotated[int | None, typer.Option(min=2, help="Records of a sharded learner.")] = None,
    measured: Annotated[
        Path | None, typer.Option(help="JSON of measured seconds by stage: run, evaluation, approximate.")
    ] = None,
    approval_days: Annotated[float, typer.Option(help="From the receipt until a request may run.")] = 0.0,
    largest_batch: Annotated[int | None, typer.Option(min=1, help="Instead of the policy's.")] = None,
    cost_per_hour: Annotated[float | None, typer.Option(min=0, help="Of a worker, instead of the policy's.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    out: Annotated[Path, typer.Option("--out", help="Folder of the page, the picture and the JSON.")] = Path(
        "runs/simulate"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
) -> None:
    """Replay a year of requests against a policy: deadlines kept, compute spent, and how long data stays in force."""
    from expunge.service.simulate.rules import SIMULATED
    from expunge.service.simulate.study import Study, run_study

    study = Study(
        policy_path=policy,
        requests=requests,
        days=days,
        start=start.date(),
        regimes=parse_shares(regimes),
        burst=tuple(burst or ()),
        traffic=traffic,
        rules=SIMULATED if rule == "all" else tuple(dict.fromkeys(filter(None, rule.split(",")))),
        deadlines=tuple(int(d) for d in parse_numbers("--deadlines", deadlines, whole=True)),
        periods=tuple(parse_numbers("--periods", periods)),
        target=target,
        workers=workers,
        run_minutes=run_minutes,
        run_p95_minutes=run_p95_minutes,
        evaluation_minutes=evaluation_minutes,
        approximate_minutes=approximate_minutes,
        per_request_seconds=per_request_seconds,
        shards=shards,
        slices=slices,
        rows=rows,
        measured=measured,
        approval_days=approval_days,
        largest_batch=largest_batch,
        cost_per_hour=cost_per_hour,
        seed=seed,
    )
    began = time.perf_counter()
    with progress_bars() as progress:
        report = run_study(study, out, progress=progress)
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=False, allow_nan=False))
        return
    from rich.console import Console

    print_simulation(report, Console(width=max(Console().width, WIDTH)))
    typer.echo(f"\n{report['traffic']['requests']:,} requests, simulated in {time.perf_counter() - began:.1f} s")
    typer.echo(f"page: {(out / 'simulation.html').resolve()}")


def parse_numbers(option: str, text: str, *, whole: bool = False) -> list[float]:
    """Numbers separated by commas.

    Raises:
        RequestError: none, or something else.
    """
    try:
        found = [int(part) if whole else float(part) for part in text.split(",")]
    except ValueError:
        raise RequestError(f"{option} is {text!r}", "Write numbers of days separated by commas: 15,30") from None
    return found


def parse_shares(text: str) -> dict[str, float]:
    """``name=share`` pairs separated by commas.

    Raises:
        RequestError: something else.
    """
    found = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        try:
            found[name] = float(value if equals else "nan")
        except ValueError:
            raise RequestError(f"{part!r} is no share", "Write gdpr=0.6,ccpa=0.4") from None
        if found[name] != found[name]:
            raise RequestError(f"{part!r} is no share", "Write gdpr=0.6,ccpa=0.4")
    return found


def print_simulation(report: dict[str, Any], console: Console) -> None:
    """The rules under the policy, then the grid."""
    from expunge.service.simulate.page import verdict

    console.print(verdict(report), highlight=False)
    console.print()
    console.print(_rules(report))
    console.print()
    console.print(_grid(report["grid"]))


def _rules(report: dict[str, Any]) -> Table:
    from rich.table import Table

    from expunge.service.simulate.picture import share, words

    priced = bool(report["policy"]["serving"]["cost_per_hour"])
    heads = ["in time", "days p50", "p95", "max", "hours", *(["cost"] if priced else []), "shown", "in force", "open"]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    table.add_column("rule", no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for row in report["rows"]:
        days = [_short(row[name]) for name in ("days_median", "days_p95", "days_max")]
        spent = [_short(row["compute_hours"]), *([_short(row["cost"])] if priced else [])]
        exposed = [_short(row["exposure"][stage]["mean"]) for stage in ("unsuppressed", "total")]
        backlog = f"{row['peak_backlog']:,}"
        table.add_row(words(row["rule"]), share(row["in_time"]), *days, *spent, *exposed, backlog)
    return table


def _grid(grid: dict[str, Any]) -> Table:
    from rich.table import Table

    from expunge.service.simulate.picture import share, words

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    table.add_column("days between windows × deadline", no_wrap=True)
    for deadline in grid["deadlines"]:
        table.add_column(str(deadline), justify="right", no_wrap=True)
    lines: dict[str, list[str]] = {}
    for row in grid["rows"]:
        period = "" if row["period_days"] is None else f" {row['period_days']:g}"
        told = f"{share(row['in_time'])} {_short(row['compute_hours'])} h"
        lines.setdefault(words(row["rule"]) + period, []).append(told)
    for name, cells in lines.items():
        table.add_row(name, *cells)
    return table


def _short(value: float) -> str:
    if 0 < value < 0.01:
        return "<0.01"
    if value >= 10_000:
        return f"{value / 1000:,.0f}k"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
