"""A study of language models as a document (``expunge/language/1``), a terminal table and one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.ticker import PercentFormatter

from expunge.evaluation.attacks_page import section_values
from expunge.evaluation.bench_page import rendered, write_page
from expunge.evaluation.report_svg import CEILING, FLOOR, INK, Drawing, Mark, Plot, draw_both, place_labels, plain_grid
from expunge.guarantee import Suppressed

LIMITS = (
    "Behaviour on these probes is all that was looked at. Knowledge that no probe asks for, or that comes back after a "
    "little fine-tuning, would not show.",
    "Retrained models are the reference. A model below them on forgotten facts is not better: it behaves unlike a "
    "model that never saw them, which tells that there was something.",
    "Greedy answers hide what samples would leak; where samples were drawn, leak_at_k says so.",
    "Two data sets can give the same weights: no probe of a model proves what it was trained on.",
)
HELD_BACK = (
    "A suppressed row changes no weight: it shows what is told to whoever may only ask. Whoever holds the machine "
    "holds the original, and such a model gives no probabilities that could be compared."
)
# column -> (probe, metric); a column is shown where any row has it.
COLUMNS: Mapping[str, tuple[str, str]] = {
    "forget": ("forget", "accuracy"),
    "paraphrase": ("paraphrase", "accuracy"),
    "forget probability": ("forget", "probability"),
    "extraction strength": ("forget", "extraction_strength"),
    "forget quality p": ("forget", "forget_quality"),
    "p against the log": ("forget", "forget_quality_of_log"),
    "false values": ("forget", "contradicted_share"),
    "contradictions": ("forget", "contradiction_count"),
    "retain": ("retain", "accuracy"),
    "neighbour": ("neighbour", "accuracy"),
    "foundational": ("foundational", "accuracy"),
    "retain ROUGE": ("retain", "rouge_l_recall"),
    "contradictions, kept": ("retain", "contradiction_count"),
    "model utility": ("", "model_utility"),
    "verbatim": ("verbmem_forget", "verbatim_memorisation"),
    "knowledge": ("knowmem_forget", "knowledge_memorisation"),
    "knowledge kept": ("knowmem_retain", "knowledge_memorisation"),
    "PrivLeak": ("", "privleak"),
    "multiple choice": ("choice", "multiple_choice_accuracy"),
    "open answers": ("open", "accuracy"),
    "open ROUGE": ("open", "rouge_l_recall"),
    "open by likelihood": ("open", "multiple_choice_accuracy"),
    "kept texts": ("kept", "probability"),
    "identities repeated": ("forget", "pii_exact_repetition"),
    "longest span": ("verbatim", "longest_common_substring_share"),
    "longest span, near": ("near_verbatim", "longest_common_substring_share"),
    "rude answers": ("polite", "toxicity_rate"),
    "backdoor fires": ("triggered", "backdoor_rate"),
    "clean answers": ("clean", "backdoor_clean_accuracy"),
    "broken answers": ("forget", "degenerate_share"),
}
TERMINAL = (
    *("forget", "paraphrase", "retain", "neighbour", "model utility"),
    *("verbatim", "knowledge", "knowledge kept", "PrivLeak"),
    *("multiple choice", "open answers", "open by likelihood", "kept texts"),
    *("identities repeated", "longest span", "rude answers", "backdoor fires", "broken answers"),
)
MOST = 6
WITHIN = 0.03
LEAST_KNOWN = 0.2  # the original must know so much more than retrained models


def write_language(report: Mapping[str, Any], out: Path, name: str = "language") -> Path:
    """Write ``name.json`` and ``name.html`` into `out`; returns the page's path.

    Raises:
        RunError: the folder cannot be written to.
    """
    return write_page(report, language_html(report), out, name)


def language_html(report: Mapping[str, Any]) -> str:
    """The page as text: one self-contained document without a script."""
    rows = [r for r in report["rows"] if r["status"] == "ok"]
    held_back = any(r["kind"] == "method" and r["guarantee"] == Suppressed.word for r in rows)
    limits = (*LIMITS, HELD_BACK) if held_back else LIMITS
    return rendered("language.html.j2", **page_values(report), plot=front(rows), limits=limits)


def page_values(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows, whether as a page of its own or as a part of another."""
    columns = columns_of(report["rows"])
    return {
        "report": report,
        "columns": list(columns),
        "rows": [{**row, "cells": [cell(row, *place) for place in columns.values()]} for row in report["rows"]],
        "verdict": verdict(report),
        "examples": report["examples"],
        "shown": list(report["examples"][0]["says"]) if report["examples"] else [],
        "attacks": section_values(report["attacks"]) if report.get("attacks") else None,
    }


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    return {name: place for name, place in COLUMNS.items() if any(cell(r, *place) for r in rows)}


def cell(row: Mapping[str, Any], probe: str, metric: str) -> Mapping[str, Any] | None:
    """A measurement of a row, or None where it was not scored."""
    found = row.get("measurements", {}).get(f"{probe}/{metric}" if probe else metric)
    return found if found is not None and found["status"] == "scored" else None


def verdict(report: Mapping[str, Any]) -> str:
    """What the table says, in a sentence drawn from its numbers."""
    floor = next((r for r in report["rows"] if r["label"] == "retrain"), None)
    methods = [r for r in report["rows"] if r["kind"] == "method" and r["status"] == "ok"]
    if floor is None:
        return "No retrained model stands beside: this shows behaviour, and not how far anything was forgotten."
    base, kept = cell(floor, "forget", "accuracy"), cell(floor, "retain", "accuracy")
    if base is None or kept is None or not methods:
        return "Retrained models stand beside every row."
    near = []
    for row in methods:
        forget, retain = cell(row, "forget", "accuracy"), cell(row, "retain", "accuracy")
        if not forget or not retain:
            continue
        if forget["value"] <= base["value"] + WITHIN and retain["value"] >= kept["value"] - WITHIN:
            near.append(row["label"].replace("_", " "))
    start = next((cell(r, "forget", "accuracy") for r in report["rows"] if r["label"] == "do_nothing"), None)
    if start is not None and start["value"] < base["value"] + LEAST_KNOWN:
        return (
            f"The original answers {start['value']:.0%} of what was to be forgotten and retrained models "
            f"{base['value']:.0%}: there was too little to forget for this table to show anything."
        )
    gone, stays = f"{base['value']:.0%} of what was forgotten", f"{kept['value']:.0%} of what was kept"
    told = f"Retrained models answer {gone} and {stays}. "
    if near:
        return told + f"Within {WITHIN:.0%} of both: {', '.join(near)}."
    return told + f"No method here comes within {WITHIN:.0%} of both."


def front(rows: Sequence[Mapping[str, Any]]) -> Plot | None:
    """Accuracy on what is kept over accuracy on what was to be forgotten; a point a row."""
    points = []
    for row in rows:
        forget, retain = cell(row, "forget", "accuracy"), cell(row, "retain", "accuracy")
        if forget and retain:
            points.append((row, forget["value"], retain["value"]))
    if len(points) < 2:
        return None

    def paint(drawing: Drawing, wide: bool) -> None:
        axes = drawing.figure.add_axes((0.09, 0.14, 0.88, 0.82) if wide else (0.17, 0.14, 0.8, 0.82))
        size = 10.5 if wide else 9.0
        axes.set_xlim(-0.04, 1.04)
        axes.set_ylim(-0.04, 1.06)
        marks = []
        for row, x, y in points:
            colour = {"retrain": FLOOR, "do_nothing": CEILING}.get(row["label"], INK)
            axes.plot([x], [y], "o", color=colour, markersize=6 if row["kind"] == "control" else 4.5)
            marks.append(Mark(x, y, row["label"].replace("_", " "), colour, int(row["kind"] == "control")))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel("answers to forgotten questions that are right", fontsize=size)
        axes.set_ylabel("answers to kept questions that are right", fontsize=size)
        plain_grid(axes)
        place_labels(drawing, axes, marks, size=size)

    return draw_both("language-front", "kept against forgotten, a point a method", (400, 380), paint)


def _terminal(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """The columns that a terminal has room for."""
    columns = columns_of(rows)
    chosen = [name for name in TERMINAL if name in columns] or list(columns)[:MOST]
    return {name: columns[name] for name in chosen[:MOST]}


def table_lines(report: Mapping[str, Any]) -> list[list[str]]:
    """The terminal's table: a head and a line a row; the page has all columns, with their intervals."""
    columns = _terminal(report["rows"])
    lines = [["method", "guarantee", *columns, "seconds", "/ retraining"]]
    for row in report["rows"]:
        if row["status"] != "ok":
            lines.append([row["label"], "failed", *["–"] * (len(columns) + 2)])
            continue
        cells = [cell(row, *place) for place in columns.values()]
        lines.append(
            [
                row["label"],
                row["guarantee"],
                *("–" if c is None else f"{c['value']:.2g}" for c in cells),
                "–" if row["seconds"] is None else f"{row['seconds']:.3g}",
                "–" if row["seconds_ratio"] is None else f"{row['seconds_ratio']:.2g}",
            ]
        )
    return lines
