"""Figures as files: one style, fixed bytes, whole or not there. Drawings within pages are `evaluation.report_svg`'s."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expunge.errors import RequestError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg")
INK, MUTED, GRID, PAGE, BLUE, ORANGE = "#1c2024", "#5c636b", "#dfddd6", "#fcfcfa", "#0a62a0", "#b04a02"
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
            f"{str(path)!r} does not end in {' or '.join(FORMATS)}", "Name the picture figure.svg, for example"
        )


def save_figure(draw: Callable[[], Figure], path: Path) -> Path:
    """Save the figure that `draw` makes in the house's style, whole or not at all; the same figure is the same bytes.

    Raises:
        RequestError: neither .png nor .svg. RunError: the folder cannot be written to.
    """
    import matplotlib as mpl

    from expunge.training.files import write_atomically

    check_path(path)
    kind = path.suffix.lower().removeprefix(".")
    # Dates and versions would make two drawings of one thing differ.
    none = dict.fromkeys(("Software",) if kind == "png" else ("Date", "Creator", "Format", "Type"))
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        figure = draw()
        write_atomically(
            path, lambda temporary: figure.savefig(temporary, format=kind, dpi=150, facecolor=PAGE, metadata=none)
        )
    return path
