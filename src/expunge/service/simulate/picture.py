"""The grid as a picture: a heat map of deadline × period, and for each rule what it costs to keep a deadline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expunge import figures
from expunge.service.simulate.grid import Grid
from expunge.service.simulate.measure import Outcome

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STAGE_WORDS = {
    "approximated": "approximated: removed, without proof",
    "suppressed": "suppressed: hidden, in the model",
    "unsuppressed": "in the model, and shown",
}


@dataclass(frozen=True)
class Palette:
    """Colours of a page or of a file."""

    ink: str
    muted: str
    cold: str
    hot: str


ON_PAPER = Palette(figures.INK, figures.MUTED, figures.BLUE, figures.ORANGE)
DASHES: Mapping[str, Any] = {
    "now": (0, (1, 1.5)),
    "batched": "-",
    "periodic": (0, (5, 2)),
    "periodic_guarded": (0, (6, 2, 1, 2)),
}


def words(rule: str) -> str:
    """The rule as a reader meets it."""
    name, _, guarded = rule.partition("_")
    return f"{guarded} {name}" if guarded else name


def amount(outcome: Outcome, currency: str | None) -> str:
    """Money where there is a price, else hours of workers."""
    return f"{outcome.cost:,.0f} {currency}" if currency else f"{outcome.compute_hours:,.0f} h"


def paint_heat(axes: Any, grid: Grid, rule: str, palette: Palette, currency: str | None, size: float) -> None:
    """A field a pair: the share in time, the darker the more are late, and under it what it costs."""
    from matplotlib.patches import Rectangle

    axes.set_xlim(0, len(grid.periods))
    axes.set_ylim(0, len(grid.deadlines))
    for y, deadline in enumerate(grid.deadlines):
        for x, period in enumerate(grid.periods):
            found = grid.find(rule, deadline, period)
            late = 1 - found.in_time
            field = Rectangle((x + 0.02, y + 0.03), 0.96, 0.94, facecolor=palette.hot, alpha=0.05 + 0.75 * late, lw=0)
            axes.add_patch(field)
            bold = "bold" if found.in_time >= grid.target else "normal"
            kept = share(found.in_time)
            axes.text(
                x + 0.5, y + 0.62, kept, ha="center", va="center", fontsize=size, fontweight=bold, color=palette.ink
            )
            told = amount(found, currency)
            axes.text(x + 0.5, y + 0.3, told, ha="center", va="center", fontsize=0.82 * size, color=palette.ink)
    axes.set_xticks([x + 0.5 for x in range(len(grid.periods))], [f"{p:g}" for p in grid.periods])
    axes.set_yticks([y + 0.5 for y in range(len(grid.deadlines))], [str(d) for d in grid.deadlines])
    axes.set_xlabel("days between windows")
    axes.set_ylabel("deadline, days")
    axes.tick_params(length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


def share(value: float) -> str:
    """A share in percent that is 100% only if nothing is missing, and 0% only if nothing is there."""
    if value in (0.0, 1.0):
        return f"{value:.0%}"
    return f"{min(max(100 * value, 0.1), 99.9):.1f}%"


def paint_frontier(axes: Any, grid: Grid, palette: Palette, currency: str | None, size: float) -> list[str]:
    """Lines of the least cost at which each rule keeps each deadline; returns the rules that keep none of them.

    Rules that escalate are left out where ``periodic`` is there: their exact runs are the same.
    """
    colours = {"now": palette.muted, "batched": palette.cold}
    never = []
    for rule in ("now", "batched", *heat_rules(grid)):
        if rule not in grid.rules:
            continue
        kept = [(d, o) for d, o in zip(grid.deadlines, grid.frontier(rule), strict=True) if o is not None]
        if not kept:
            never.append(words(rule))
            continue
        # What costs nothing has no place on a logarithmic axis; it is drawn at its foot.
        values = [max(o.cost if currency else o.compute_hours, 1e-3) for _, o in kept]
        colour = colours.get(rule, palette.hot)
        days = [d for d, _ in kept]
        axes.plot(
            days,
            values,
            color=colour,
            linestyle=DASHES[rule.replace("escalation", "periodic")],
            marker="o",
            ms=4,
            lw=1.6,
            label=words(rule),
        )
    if axes.get_lines():
        axes.set_yscale("log")
        axes.legend(frameon=False, fontsize=size, loc="upper right", labelcolor=palette.ink, handlelength=3)
    axes.set_xlabel("deadline, days")
    axes.grid(visible=True)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    _ticks(axes, grid)
    return never


def _ticks(axes: Any, grid: Grid) -> None:
    """Ticks at the deadlines and at round amounts, and room around the lines."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    axes.xaxis.set_major_locator(FixedLocator(grid.deadlines))
    span = grid.deadlines[-1] - grid.deadlines[0] or 1
    axes.set_xlim(grid.deadlines[0] - 0.06 * span, grid.deadlines[-1] + 0.06 * span)
    if not axes.get_lines():
        axes.set_yticks([])
        return
    low, high = axes.get_ylim()
    axes.set_ylim(low / 1.4, high * 1.6)
    axes.yaxis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0) if high / low < 500 else (1.0,), numticks=9))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.10g}"))


def paint_open(axes: Any, lines: Mapping[str, Sequence[int]], every: float, palette: Palette, size: float) -> None:
    """Open requests over days, by the stage at which their data is in force: the weakest on top.

    Args:
        every: days from one number of `lines` to the next.
    """
    below = [0] * len(next(iter(lines.values())))
    looks = {
        "approximated": (palette.cold, 0.25),
        "suppressed": (palette.cold, 0.65),
        "unsuppressed": (palette.hot, 0.65),
    }
    days = [every * (k + 1) for k in range(len(below))]
    for stage in [s for s in STAGE_WORDS if s in lines]:
        above = [a + b for a, b in zip(below, lines[stage], strict=True)]
        colour, alpha = looks[stage]
        axes.fill_between(days, below, above, color=colour, alpha=alpha, linewidth=0, label=STAGE_WORDS[stage])
        below = above
    axes.set_xlim(0, days[-1])
    axes.set_ylim(0, max(1, max(below)) * 1.08)
    axes.set_xlabel("days")
    axes.grid(visible=True, axis="y")
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.legend(frameon=False, fontsize=size, loc="upper right", labelcolor=palette.ink)
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))


def heat_rules(grid: Grid) -> list[str]:
    """The rules with a heat map of their own: those with windows; that escalate, only where no others are."""
    plain = [r for r in grid.rules if r.startswith("periodic")]
    return plain or [r for r in grid.rules if r.startswith("escalation")]


def save_picture(grid: Grid, path: Path, currency: str | None) -> Path:
    """Heat maps and frontier side by side in one file; the same grid gives the same bytes.

    Raises:
        RequestError: neither .png nor .svg. RunError: the folder cannot be written to.
    """
    return figures.save_figure(lambda: draw(grid, currency), path)


def draw(grid: Grid, currency: str | None) -> Figure:
    """The figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heats = heat_rules(grid)
    figure = Figure(figsize=(4.1 * (len(heats) + 1), 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    places = figure.subplots(1, len(heats) + 1, squeeze=False)[0]
    for axes, rule in zip(places, heats, strict=False):
        paint_heat(axes, grid, rule, ON_PAPER, currency, 10)
        axes.set_title(f"{words(rule)}: in time, and cost", loc="left", fontsize=10.5, color=figures.MUTED)
    never = paint_frontier(places[-1], grid, ON_PAPER, currency, 9)
    unit = currency or "hours of workers"
    title = f"{unit} to keep {grid.target:.0%} of deadlines"
    if never:
        title += f"\n(not kept at any: {', '.join(never)})"
    places[-1].set_title(title, loc="left", fontsize=10.5, color=figures.MUTED)
    return figure
