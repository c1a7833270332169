"""The growth of ε with the number of requests as a figure: both axes logarithmic, one line an account."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from expunge.accounting.growth import Growth
from expunge.errors import RequestError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg")
INK, MUTED, GRID, PAGE, BLUE, ORANGE = "#1c2024", "#5c636b", "#dfddd6", "#fcfcfa", "#0a62a0", "#b04a02"
LINES: tuple[tuple[str, str, str, Any], ...] = (
    ("composition", "composition", BLUE, "-"),
    ("composition_rdp", "composition, RDP", BLUE, (0, (4, 2))),
    ("naive", "naive composition", MUTED, (0, (4, 2))),
    ("group", "group of k", ORANGE, "-"),
)
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "expunge",
    "text.parse_math": False,
    "font.size": 10.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
}


def check_path(path: Path) -> None:
    """Refuse a name whose format cannot be drawn, before any work is done for it.

    Raises:
        RequestError.
    """
    if path.suffix.lower() not in FORMATS:
        raise RequestError(
            f"{str(path)!r} does not end in {' or '.join(FORMATS)}", "Name the picture growth.svg, for example"
        )


def save_growth(told: Growth, path: Path) -> Path:
    """Draw `told` into `path`, whole or not at all; the same table gives the same bytes.

    Raises:
        RequestError: neither .png nor .svg. RunError: the folder cannot be written to.
    """
    import matplotlib as mpl

    from expunge.training.files import write_atomically

    check_path(path)
    kind = path.suffix.lower().removeprefix(".")
    # Dates and versions would make two drawings of one table differ.
    none = dict.fromkeys(("Software",) if kind == "png" else ("Date", "Creator", "Format", "Type"))
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        figure = draw(told)
        write_atomically(
            path, lambda temporary: figure.savefig(temporary, format=kind, dpi=150, facecolor=PAGE, metadata=none)
        )
    return path


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
