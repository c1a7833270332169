"""The growth of ε with the number of requests as a figure: both axes logarithmic, one line an account."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from expunge.accounting.growth import Growth
from expunge.figures import BLUE, MUTED, ORANGE, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINES: tuple[tuple[str, str, str, Any], ...] = (
    ("composition", "composition", BLUE, "-"),
    ("composition_rdp", "composition, RDP", BLUE, (0, (4, 2))),
    ("naive", "naive composition", MUTED, (0, (4, 2))),
    ("group", "group of k", ORANGE, "-"),
)


def save_growth(told: Growth, path: Path) -> Path:
    """Draw `told` into `path`, whole or not at all; the same table gives the same bytes.

    Raises:
        RequestError: neither .png nor .svg. RunError: the folder cannot be written to.
    """
    return save_figure(lambda: draw(told), path)


def draw(told: Growth) -> Figure:
    """The figure; the slope of each line stands in the legend."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for column, words, colour, dashes in LINES:
        values = [(row.requests, getattr(row, column)) for row in told.rows]
        shown = [(k, v) for k, v in values if v]
        if not shown:
            continue
        slope = f", slope {told.slopes[column]:.2f}" if column in told.slopes else ""
        x, y = zip(*shown, strict=True)
        axes.plot(x, y, color=colour, linestyle=dashes, marker="o", markersize=3, label=words + slope)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(visible=True)
    axes.set_axisbelow(True)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.set_xlabel("requests k", loc="left")
    axes.set_title(f"ε in nats at δ = {told.delta:g}", loc="left", fontsize=10.5, color=MUTED)
    if axes.get_lines():
        axes.legend(frameon=False, fontsize=9)
    return figure
