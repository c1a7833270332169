"""The forecast as a figure: speed-up over shards, share of a shard over slices, and accuracy if it was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from expunge.figures import BLUE, INK, MUTED, ORANGE, PAGE, save_figure
from expunge.forecast.formulas import speedup
from expunge.forecast.layout import Layout
from expunge.forecast.outlook import Forecast, counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REQUESTS = (1, 4, 16, 64, 256)
SHARD_REQUESTS = (1, 2, 4, 8)


def save_plot(told: Forecast, path: Path) -> Path:
    """Draw `told` into `path`, whole or not at all; the same forecast gives the same bytes.

    Raises:
        RequestError: neither .png nor .svg. RunError: the folder cannot be written to.
    """
    return save_figure(lambda: draw(told), path)


def draw(told: Forecast) -> Figure:
    """The figure; what was asked for is orange."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = 3 if told.accuracy else 2
    figure = Figure(figsize=(4.4 * panels, 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels)
    layout = told.layout
    _sharding(axes[0], told)
    _slicing(axes[1], layout)
    if told.accuracy:
        _accuracy(axes[2], told)
    figure.suptitle(f"Forgetting from {layout.rows:,} rows, forecast", ha="left", x=0.01)
    return figure


def shard_grid(layout: Layout) -> list[int]:
    """Numbers of shards from 1 to five times the asked one (at least 100), as far as the rows fill their slices."""
    import numpy as np

    top = min(max(5 * layout.shards, 100), layout.rows // layout.slices)
    return sorted({layout.shards, *np.unique(np.geomspace(1, top, 60).round().astype(int)).tolist()})


def sharding_curves(told: Forecast, grid: Sequence[int]) -> dict[int, list[float]]:
    """K -> the speed-up of a batch of K at each number of shards of `grid`; K = 1 is every request by itself."""
    layout = told.layout
    batches = {k for k in REQUESTS if k < layout.rows} | ({told.requests} if told.batch else set())
    return {k: [speedup(replace(layout, shards=s), k, batch=True) for s in grid] for k in sorted(batches)}


def slicing_curves(layout: Layout, grid: Sequence[int]) -> dict[int, list[float]]:
    """K -> the share of a shard's training that a batch of K in it costs, at each number of slices of `grid`."""
    one = Layout(rows=max(2, round(layout.rows / layout.shards)), epochs=layout.epochs, placing=layout.placing)
    return {
        k: [1 / speedup(replace(one, slices=r), k, batch=True) for r in grid] for k in SHARD_REQUESTS if k < one.rows
    }


def _sharding(axes: Axes, told: Forecast) -> None:
    layout = told.layout
    grid = shard_grid(layout)
    mine = told.requests if told.batch else 1
    for k, values in sharding_curves(told, grid).items():
        if values[-1] < 1.05 and k not in (1, mine):
            continue  # these would all lie on the axis
        _curve(axes, grid, values, f"K = {k:,}" if k > 1 else "one by one", k == mine)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.9)
    if math.isfinite(told.speedup):
        _point(axes, layout.shards, told.speedup, f"{counted(layout.shards, 'shard')}: {told.speedup:.3g}×")
    axes.set_xlabel("shards S", loc="left")
    _title(axes, f"times faster than retraining; one batch of K, {counted(layout.slices, 'slice')}")
    _plain(axes)


def _slicing(axes: Axes, layout: Layout) -> None:
    rows = max(2, round(layout.rows / layout.shards))
    top = min(rows, max(20, layout.slices))
    grid = sorted({*range(1, min(top, 20) + 1), *range(20, top + 1, max(1, top // 20)), layout.slices})
    for k, values in slicing_curves(layout, grid).items():
        _curve(axes, grid, values, f"K = {k}", k == 1)
    kept = replace(layout, rows=max(rows, layout.slices), shards=1)
    share = 1 / speedup(kept, 1)
    axes.plot([layout.slices], [share], "o", color=ORANGE, markersize=7, zorder=5)
    axes.annotate(
        f"{counted(layout.slices, 'slice')}: {share:.3g}",
        (layout.slices, share),
        xytext=(layout.slices, 0.4),
        ha="right" if layout.slices > 0.6 * grid[-1] else "left",
        color=ORANGE,
        fontweight="bold",
        arrowprops={"arrowstyle": "-", "color": ORANGE, "linewidth": 0.8, "shrinkB": 4},
    )
    axes.set_ylim(0, 1.08)
    axes.set_xlabel("slices R", loc="left")
    _title(axes, "share of a shard's training that K requests in it cost")
    _plain(axes)


def _curve(axes: Axes, x: Sequence[int], y: Sequence[float], label: str, strong: bool) -> None:
    shown = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(b)]  # shards of one row leave nothing to do
    axes.plot(*zip(*shown, strict=True), color=ORANGE if strong else BLUE, linewidth=2.2 if strong else 1.3)
    axes.annotate(
        label,
        shown[-1],
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        color=ORANGE if strong else MUTED,
        annotation_clip=False,
    )


def _point(axes: Axes, x: float, y: float, label: str) -> None:
    axes.plot([x], [y], "o", color=ORANGE, markersize=7, zorder=5)
    low, high = axes.get_xlim()
    right = x > (low * high) ** 0.5 if axes.get_xscale() == "log" else x > (low + high) / 2
    axes.annotate(
        label,
        (x, y),
        xytext=(-9 if right else 9, 9 if right else -9),
        textcoords="offset points",
        ha="right" if right else "left",
        va="bottom" if right else "top",
        color=ORANGE,
        fontweight="bold",
        bbox={"facecolor": PAGE, "edgecolor": "none", "alpha": 0.85, "pad": 1.5},
        zorder=6,
    )


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=10.5, color=MUTED)


def _accuracy(axes: Axes, told: Forecast) -> None:
    assert told.accuracy is not None
    levels = told.accuracy.levels
    x = [level.shards for level in levels[1:]]
    y = [level.accuracy["value"] for level in levels[1:]]
    spread = [
        [level.accuracy["value"] - level.accuracy["low"] for level in levels[1:]],
        [level.accuracy["high"] - level.accuracy["value"] for level in levels[1:]],
    ]
    axes.axhline(levels[0].accuracy["value"], color=BLUE, linewidth=1.3, linestyle=(0, (4, 2)))
    axes.errorbar(x, y, yerr=spread, color=INK, marker="o", markersize=4, linewidth=1.3, capsize=2)
    mine = [level for level in levels[1:] if level.shards == told.layout.shards]
    axes.plot([m.shards for m in mine], [m.accuracy["value"] for m in mine], "o", color=ORANGE, markersize=7, zorder=5)
    axes.set_xscale("log")
    axes.set_xlabel("shards S", loc="left")
    _title(axes, "test accuracy, measured; dashes: plain training")
    _plain(axes)


def _plain(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.grid(visible=True)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, which="both")
    for axis, scale in ((axes.xaxis, axes.get_xscale()), (axes.yaxis, axes.get_yscale())):
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        if scale == "log":
            axis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
            axis.set_minor_formatter(NullFormatter())
