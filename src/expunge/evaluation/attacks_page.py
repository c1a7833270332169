"""A document of attacks (``expunge/attacks/1``) as a terminal table and as a section of a page with recovery curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from expunge.evaluation.report_svg import (
    CEILING,
    FLOOR,
    INK,
    METHOD,
    Drawing,
    Mark,
    Plot,
    draw_both,
    place_labels,
    plain_grid,
    short,
)

HEAD = ("model", "found", "recovery", "cost")
UNITS_WIDE = 10  # costs that reach so far are drawn on a logarithmic scale


def attack_lines(document: Mapping[str, Any]) -> list[tuple[str, list[list[str]]]]:
    """For the terminal, of each attack a title and the lines of a table under `HEAD`: the original first, then the
    retrained models as one, then every unlearned one."""
    found = []
    for attack in document["attacks"]:
        settings = ", ".join(f"{name} {value}" for name, value in attack["settings"].items())
        title = (
            f"{attack['name']}: {attack['summary']} ({attack['access'].replace('_', ' ')}; cost in {attack['unit']})"
        )
        found.append(
            (f"{title}\n  {settings}" if settings else title, [_line(row) for row in summarised(attack["rows"])])
        )
    return found


def _line(row: Mapping[str, Any]) -> list[str]:
    point = row["headline"]
    told = (
        ["–", _recovery(row), "–"] if point is None else [f"{point['found']:.2f}", _recovery(row), f"{point['cost']:g}"]
    )
    return ["original" if row["role"] == "original" else row["label"].replace("_", " "), *told]


def reasons(document: Mapping[str, Any]) -> list[str]:
    """Why what is missing in the table is missing: a line a reason, with the attacks and models it is about."""
    found: dict[str, list[str]] = {}
    for attack in document["attacks"]:
        rows = [r for r in attack["rows"] if r["role"] == "unlearned"] or attack["rows"]
        told = {r["label"]: missing(r) for r in rows}
        for reason in dict.fromkeys(r for r in told.values() if r):
            about = [label for label, r in told.items() if r == reason]
            where = "" if len(about) == len(rows) else f" on {', '.join(about)}"
            found.setdefault(reason, []).append(attack["name"] + where)
    return [f"{'; '.join(about)}: {reason}" for reason, about in found.items()]


def missing(row: Mapping[str, Any]) -> str:
    """Why a row has no recovery; empty where it has one."""
    if row["status"] != "ok":
        return str(row["reason"])
    recovery = row["headline"]["recovery"]
    return "" if recovery["status"] == "scored" else str(recovery["reason"])


def summarised(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows, the retrained ones as one: the mean found, and the range of their recoveries against each other."""
    found: list[dict[str, Any]] = [dict(r) for r in rows if r["role"] == "original"]
    retrained = [r for r in rows if r["role"] == "retrained"]
    if retrained:
        found.append(_together(retrained))
    return found + [dict(r) for r in rows if r["role"] == "unlearned"]


def _together(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    done = [r for r in rows if r["status"] == "ok"]
    label = f"retrained ({len(rows)})"
    if not done:
        return {**rows[0], "label": label}
    points = [r["headline"] for r in done]
    recoveries = [p["recovery"] for p in points]
    scored = [m for m in recoveries if m["status"] == "scored"]
    values = [m["value"] for m in scored]
    recovery = (
        {**recoveries[0], "low": min(values), "high": max(values), "value": float(np.mean(values)), "range": True}
        if values and len(scored) == len(recoveries)
        else next((m for m in recoveries if m["status"] != "scored"), recoveries[0])
    )
    headline = {**points[0], "found": float(np.mean([p["found"] for p in points])), "recovery": recovery}
    return {**done[0], "label": label, "headline": headline}


def _recovery(row: Mapping[str, Any]) -> str:
    if row["status"] != "ok":
        return "withheld"
    m = row["headline"]["recovery"]
    if m["status"] != "scored":
        return "unscored"
    bounds = f"{m['low']:.2f} to {m['high']:.2f}"
    return bounds if m.get("range") else f"{m['value']:.2f} [{m['low']:.2f}, {m['high']:.2f}]"


# --- page -------------------------------------------------------------------------------------------------------------


def section_values(document: Mapping[str, Any]) -> dict[str, Any]:
    """What ``attack_parts.html.j2`` shows: a table of models and attacks, and a figure for each attack with a curve."""
    attacks = document["attacks"]
    by_label: dict[str, dict[str, Any]] = {}
    for attack in attacks:
        for row in summarised(attack["rows"]):
            label = "retrained" if row["role"] == "retrained" else row["label"]
            kept = by_label.setdefault(label, {"label": label, "role": row["role"], "cells": {}})
            kept["cells"][attack["name"]] = {
                "text": _recovery(row),
                "found": None if row["headline"] is None else row["headline"]["found"],
                "reason": missing(row),
            }
    order = {"original": 0, "retrained": 1, "unlearned": 2}
    rows = sorted(by_label.values(), key=lambda r: order[r["role"]])
    return {
        "attacks": attacks,
        "rows": [{**r, "cells": [r["cells"].get(a["name"]) for a in attacks]} for r in rows],
        "plots": [(a, plot) for a in attacks if (plot := curves(a)) is not None],
        "reasons": reasons(document),
    }


def curves(attack: Mapping[str, Any]) -> Plot | None:
    """What was found over what it cost, a line a model; None where there is no curve."""
    rows = [r for r in attack["rows"] if r["status"] == "ok" and len(r["curve"]) > 1]
    if not any(r["role"] == "unlearned" for r in rows):
        return None
    costs = [p["cost"] for p in rows[0]["curve"]]
    name = attack["name"].replace("_", " ")

    def paint(drawing: Drawing, wide: bool) -> None:
        axes = drawing.figure.add_axes((0.08, 0.16, 0.89, 0.8) if wide else (0.15, 0.16, 0.8, 0.8))
        size = 10.5 if wide else 9.0
        marks = _lines(axes, rows)
        if costs[-1] >= UNITS_WIDE:
            axes.set_xscale("symlog", linthresh=1)
        axes.set_xticks(costs, [f"{c:g}" for c in costs])
        axes.minorticks_off()
        room = _right_room(axes, costs, wide)
        axes.set_xlim(room)
        axes.set_ylim(-0.04, 1.06)
        axes.set_xlabel(attack["unit"], fontsize=size)
        axes.set_ylabel("found", fontsize=size)
        plain_grid(axes)
        place_labels(drawing, axes, marks, size=size)

    return draw_both(f"attack-{attack['name']}", f"{name}: found over cost", (260, 280), paint)


def _lines(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> list[Mark]:
    colours = {"original": CEILING, "retrained": FLOOR, "unlearned": METHOD}
    marks, named = [], set()
    for row in sorted(rows, key=lambda r: r["role"] == "unlearned"):
        xs, ys = [p["cost"] for p in row["curve"]], [p["found"] for p in row["curve"]]
        control = row["role"] != "unlearned"
        axes.plot(xs, ys, "-o", color=colours[row["role"]], linewidth=1.6 if control else 1.1, markersize=3)
        label = row["role"] if control else row["label"].replace("_", " ")
        if label not in named:  # the retrained models are labelled once
            named.add(label)
            text = {"original": CEILING, "retrained": FLOOR}.get(row["role"], INK)
            marks.append(Mark(xs[-1], ys[-1], short(label, 22), text, int(control)))
    return marks


def _right_room(axes: Axes, costs: Sequence[float], wide: bool) -> tuple[float, float]:
    """Limits of the axis with room for labels after the last point."""
    scale = axes.get_xaxis().get_transform()
    low, high = (float(v) for v in scale.transform(np.array([costs[0], costs[-1]], dtype=float)))
    span = high - low
    ends = scale.inverted().transform(np.array([low - 0.03 * span, high + (0.2 if wide else 0.34) * span]))
    return float(ends[0]), float(ends[1])
