"""Forgeability over the verifier's tolerance, as a figure: the share of steps and of rows whose forgery passes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from expunge.figures import BLUE, INK, MUTED, ORANGE, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from expunge.audit.forging.command import ForgeAudit

LOOKS = {
    "dropped": (MUTED, "-"),
    "batches": (MUTED, ":"),
    "closest": (BLUE, "-"),
    "greedy": (ORANGE, "-"),
    "nonnegative": (INK, "--"),
}
REPRODUCTION = {1e-8: "same machine", 1e-6: "another machine"}
"""Orders of magnitude of a step repeated honestly, in single precision (Suliman et al., 2411.05658)."""


def save_plot(told: ForgeAudit, path: Path) -> Path:
    """Draw `told` into `path` (.png or .svg), whole or not at all; the same audit gives the same bytes.

    Raises:
        RequestError: neither .png nor .svg. RunError: the folder cannot be written to.
    """
    return save_figure(lambda: draw(told), path)


def draw(told: ForgeAudit) -> Figure:
    """Two panels, steps and rows; what needs no tolerance at all stands at the left edge, marked 0."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    steps = {s: [x.distance.largest for f in told.of(s) for x in f.steps] for s in told.searches}
    rows = {s: [f.distance for f in told.of(s)] for s in told.searches}
    everything = [d for found in steps.values() for d in found]
    floor, top = _edges(everything)
    _panel(left, steps, floor, top, f"share of {len(steps[told.searches[0]])} forged steps that pass")
    _panel(right, rows, floor, top, f"share of {len(rows[told.searches[0]])} rows whose whole log passes")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=9, loc="outside lower right", ncols=len(labels))
    figure.suptitle(
        f"Forging {told.learner}: {len(told.ids)} rows of {told.rows:,} left out, {told.settings['candidates']} "
        "candidates a step",
        ha="left",
        x=0.01,
    )
    return figure


def curve(distances: list[float], floor: float, top: float) -> tuple[list[float], list[float]]:
    """Corners of the step curve tolerance -> share that passes, from `floor` (for 0) to `top`."""
    ordered = np.sort(np.maximum(distances, floor))
    share = np.arange(1, len(ordered) + 1) / len(ordered)
    return [floor, *ordered.tolist(), top], [float(np.mean(np.asarray(distances) <= 0.0)), *share.tolist(), 1.0]


def _edges(distances: list[float]) -> tuple[float, float]:
    """A decade below the smallest positive distance (standing for 0) and one above the largest, as powers of ten."""
    positive = [d for d in distances if d > 0] or [1e-8]
    low = min(math.floor(math.log10(min(positive))) - 1, -9)
    return 10.0**low, 10.0 ** (math.ceil(math.log10(max(positive))) + 1)


def _panel(axes: Axes, found: dict[str, list[float]], floor: float, top: float, title: str) -> None:
    for search, distances in found.items():
        colour, style = LOOKS[search]
        x, y = curve(distances, floor, top)
        axes.step(x, y, where="post", color=colour, linestyle=style, linewidth=1.6, label=search)
    axes.set_xscale("log")
    axes.set_xlim(floor, top)
    axes.set_ylim(-0.03, 1.05)
    for tolerance, label in REPRODUCTION.items():
        if floor < tolerance < top:
            axes.axvline(tolerance, color=MUTED, linewidth=0.8, linestyle=(0, (1, 3)))
            axes.annotate(label, (tolerance, 1.03), fontsize=8, color=MUTED, rotation=90, va="top", ha="right")
    axes.set_xlabel("tolerance of the verifier", loc="left")
    axes.set_title(title, loc="left", fontsize=10.5, color=MUTED)
    axes.grid(visible=True)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, which="both")
    _ticks(axes, floor, top)


def _ticks(axes: Axes, floor: float, top: float) -> None:
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    low, high = round(math.log10(floor)), round(math.log10(top))
    every = max(1, (high - low) // 6)
    powers = list(range(low + every, high + 1, every))
    ticks: list[Any] = [floor, *(10.0**p for p in powers)]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FixedFormatter(["0", *(f"1e{p}" for p in powers)]))
    axes.xaxis.set_minor_locator(NullLocator())
