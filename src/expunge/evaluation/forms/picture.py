"""The comparison as one picture: a field a form and attack, the darker the more comes back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.patches import Rectangle

from expunge.evaluation.attacks.access import ACCESSES
from expunge.evaluation.report_svg import CEILING, INK, MUTED, Drawing, Plot, draw_both

GAP = 0.6  # between the accesses
SHOWN = ("black_box", "logits", "weights")
# What the table shows of answers: probe -> words.
UTILITY: Mapping[str, str] = {
    "forget": "forgotten",
    "paraphrase": "in other words",
    "neighbour": "kept, near",
    "retain": "kept, far",
    "foundational": "foundational",
}


def picture(report: Mapping[str, Any]) -> Plot | None:
    """Recovery of every form under every attack that tells anything; None where no attack does."""
    rows = [r for r in report["rows"] if r["status"] == "ok"]
    attacks = [a for a in ordered(report["attacks"]) if any(_value(r, a["name"]) is not None for r in rows)]
    if not attacks or not rows:
        return None
    places = columns(attacks)

    def paint(drawing: Drawing, wide: bool) -> None:
        axes = drawing.figure.add_axes((0.17, 0.01, 0.765, 0.74) if wide else (0.3, 0.01, 0.6, 0.74))
        size = 9.5 if wide else 6.5
        axes.set_xlim(-0.1, places[-1] + 1.1)
        axes.set_ylim(len(rows), 0)
        axes.set_axis_off()
        for y, row in enumerate(rows):
            axes.text(-0.25, y + 0.5, row["label"].replace("_", " "), ha="right", va="center", fontsize=size)
            for x, attack in zip(places, attacks, strict=True):
                _field(axes, x, y, row, attack["name"], size if wide else 0.0)
        for x, attack in zip(places, attacks, strict=True):
            name = attack["name"].replace("_", " ")
            axes.text(x + 0.3, -0.15, name, rotation=55, ha="left", va="bottom", fontsize=size)

    height = 120 + 19.0 * len(rows)
    return draw_both("forms-heat", "how much comes back, a form a row and an attack a column", (height, height), paint)


def ordered(attacks: Any) -> list[Mapping[str, Any]]:
    """From the weakest access to the strongest; in the table's order within."""
    return sorted(attacks, key=lambda a: ACCESSES.index(a["access"]))


def columns(attacks: list[Mapping[str, Any]]) -> list[float]:
    """Left edge of every column, with a gap before another access."""
    found, x = [], 0.0
    for place, attack in enumerate(attacks):
        if place and attack["access"] != attacks[place - 1]["access"]:
            x += GAP
        found.append(x)
        x += 1.0
    return found


def _field(axes: Any, x: float, y: int, row: Mapping[str, Any], name: str, size: float) -> None:
    value = _value(row, name)
    if value is None:
        axes.text(x + 0.5, y + 0.5, "·", ha="center", va="center", color=MUTED, fontsize=max(size, 6.0))
        return
    share = min(max(value, 0.0), 1.0)
    axes.add_patch(Rectangle((x + 0.03, y + 0.04), 0.94, 0.92, facecolor=CEILING, alpha=0.06 + 0.74 * share, lw=0))
    if size:
        axes.text(x + 0.5, y + 0.5, f"{round(100 * value)}", ha="center", va="center", color=INK, fontsize=size - 1.0)


def _value(row: Mapping[str, Any], name: str) -> float | None:
    curve = row["attacks"][name]
    if curve["status"] != "ok":
        return None
    recovery = curve["headline"]["recovery"]
    return float(recovery["value"]) if recovery["status"] == "scored" else None
