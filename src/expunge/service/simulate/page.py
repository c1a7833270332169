"""A simulation as one HTML page, beside its JSON and its picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expunge.evaluation.bench_page import rendered, write_page
from expunge.evaluation.report_svg import CEILING, FLOOR, INK, MUTED, Drawing, Plot, draw_both
from expunge.service.simulate import picture
from expunge.service.simulate.grid import Grid
from expunge.service.simulate.picture import Palette, paint_frontier, paint_heat, paint_open, words

ON_PAGE = Palette(INK, MUTED, FLOOR, CEILING)
LIMITS = (
    "A simulation shows what follows from the traffic and the run times that were put in. It predicts neither.",
    "Here no run fails, no worker dies and every request is carried out: no denial, extension, legal hold or retry, "
    "and no second round for what came back.",
    "Fulfilled means that the exact run and its evaluation have ended. That the run is exact is for its certificate.",
    "Days of exposure at different stages are not one risk: suppressed data is still in the weights, and approximated "
    "data was removed without proof.",
    "A run is charged to the requests in full. Where a periodic retraining would have taken place anyway, the cost of "
    "serving requests with it is lower than shown.",
)


def write_simulation(report: Mapping[str, Any], grid: Grid, out: Path) -> Path:
    """Write ``simulation.json``, ``simulation.html`` and ``simulation.png`` into `out`; returns the page's path.

    Raises:
        RunError: the folder cannot be written to.
    """
    picture.save_picture(grid, out / "simulation.png", currency_of(report))
    return write_page(report, simulation_html(report, grid), out, "simulation")


def currency_of(report: Mapping[str, Any]) -> str | None:
    """The currency, if there is a price."""
    serving = report["policy"]["serving"]
    return str(serving["currency"]) if serving["cost_per_hour"] else None


def verdict(report: Mapping[str, Any]) -> str:
    """The finding in two sentences."""
    target, rows = report["grid"]["target"], report["rows"]
    enough = [row for row in rows if row["in_time"] >= target]
    if not enough:
        best = max(rows, key=lambda row: row["in_time"])
        return (
            f"No rule keeps {target:.0%} of the deadlines. The best, {words(best['rule'])}, keeps "
            f"{picture.share(best['in_time'])} of them."
        )
    cheapest = min(enough, key=lambda row: row["compute_hours"])
    told = (
        f"Of the rules that keep {target:.0%} of the deadlines, {words(cheapest['rule'])} is the cheapest: "
        f"{cheapest['compute_hours']:,.0f} hours of workers, and data in force for "
        f"{cheapest['exposure']['total']['mean']:.1f} days on average."
    )
    short = [row for row in rows if row["in_time"] < target]
    if short:
        told += " Not kept: " + ", ".join(f"{words(r['rule'])} ({picture.share(r['in_time'])})" for r in short) + "."
    return told


def simulation_html(report: Mapping[str, Any], grid: Grid) -> str:
    """The page as text: one self-contained document without a script."""
    currency = currency_of(report)
    return rendered(
        "simulation.html.j2",
        report=report,
        rows=report["rows"],
        verdict=verdict(report),
        currency=currency,
        heats=[(words(rule), _heat(grid, rule, currency)) for rule in picture.heat_rules(grid)],
        frontier=_frontier(grid, currency),
        unit=f"cost in {currency}" if currency else "hours of workers",
        days=days,
        opens=[(words(rule), _open(rule, lines)) for rule, lines in report["timeline"].items()],
        words=words,
        share=picture.share,
        limits=LIMITS,
    )


def days(value: float) -> str:
    """Days with as many digits as they deserve."""
    if 0 < value < 0.01:
        return "< 0.01"
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def _heat(grid: Grid, rule: str, currency: str | None) -> Plot:
    def paint(drawing: Drawing, wide: bool) -> None:
        axes = drawing.figure.add_axes((0.09, 0.17, 0.89, 0.81) if wide else (0.16, 0.17, 0.82, 0.81))
        paint_heat(axes, grid, rule, ON_PAGE, currency, 11.5 if wide else 9.5)

    height = 70 + 46.0 * len(grid.deadlines)
    title = f"{words(rule)}: share in time and cost, deadline by period"
    return draw_both(f"heat-{rule}", title, (height, height), paint)


def _frontier(grid: Grid, currency: str | None) -> Plot:
    never: list[str] = []

    def paint(drawing: Drawing, wide: bool) -> None:
        axes = drawing.figure.add_axes((0.11, 0.16, 0.86, 0.8) if wide else (0.2, 0.16, 0.77, 0.8))
        never[:] = paint_frontier(axes, grid, ON_PAGE, currency, 10.5)

    plot = draw_both("frontier", "least cost of keeping each deadline, by rule", (300, 280), paint)
    note = f"At none of these deadlines: {', '.join(never)}." if never else ""
    return Plot(plot.wide, plot.narrow, note)


def _open(rule: str, lines: Mapping[str, Any]) -> Plot:
    def paint(drawing: Drawing, wide: bool) -> None:
        axes = drawing.figure.add_axes((0.11, 0.2, 0.86, 0.76) if wide else (0.2, 0.2, 0.77, 0.76))
        paint_open(axes, lines["open"], lines["every_days"], ON_PAGE, 9.5 if wide else 8)

    return draw_both(f"open-{rule}", f"open requests under {words(rule)}, by stage", (210, 210), paint)
