"""A comparison of forms as a document (``expunge/forms/1``), a terminal table and one HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expunge.evaluation.attacks_page import curves
from expunge.evaluation.bench_page import rendered, write_page
from expunge.evaluation.forms.picture import SHOWN, UTILITY, picture
from expunge.evaluation.report_svg import Plot

LIMITS = (
    "One small model, one world of fictitious people and presets tuned with few trials: the order of rows is a "
    "statement about these, not about forms in general.",
    "Attacks that were not made may recover more. A recovery of 0 says that this attack found no more than in models "
    "that never saw the people.",
    "A model that tells everything after a secret word that nobody here knows looks clean to whoever only asks.",
    "Exact and certified rows answer from adapters on a base that never saw the people; what they hold before the "
    "request is another model than the other rows' original, which recovery is normalised by.",
    "Prompted, guarded and boxed rows change no weight. Whoever holds the machine holds the original.",
    "Two data sets can give the same weights: no attack on a model proves what it was trained on.",
)


def write_forms(report: Mapping[str, Any], out: Path, name: str = "forms") -> Path:
    """Write ``name.json`` and ``name.html`` into `out`; returns the page's path.

    Raises:
        RunError: the folder cannot be written to.
    """
    return write_page(report, forms_html(report), out, name)


def forms_html(report: Mapping[str, Any]) -> str:
    """The page as text: one self-contained document without a script."""
    return rendered("forms.html.j2", **page_values(report), limits=LIMITS)


def page_values(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows, whether as a page of its own or as a part of another."""
    attacks = report["attacks"]
    return {
        "report": report,
        "utility": UTILITY,
        "rows": report["rows"],
        "attacks": attacks,
        "accesses": SHOWN,
        "verdict": verdict(report),
        "reasons": reasons(report),
        "heat": picture(report),
        "plots": [(a, plot) for a in attacks if (plot := attack_curves(report, a)) is not None],
    }


def attack_curves(report: Mapping[str, Any], attack: Mapping[str, Any]) -> Plot | None:
    """What one attack found over its cost, a line a form."""
    roles = {"do_nothing": "original", "retrain": "retrained"}
    rows = [
        {**row["attacks"][attack["name"]], "label": row["label"], "role": roles.get(row["label"], "unlearned")}
        for row in report["rows"]
        if row["status"] == "ok"
    ]
    return curves({**attack, "rows": rows})


def reasons(report: Mapping[str, Any]) -> list[str]:
    """Why a recovery is missing: a line a reason, with the attacks and the rows it is about."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in report["rows"]:
        for name, curve in row.get("attacks", {}).items():
            if curve["status"] != "ok":
                found.setdefault((name, curve["reason"]), []).append(row["label"])
    lines: dict[tuple[str, str], list[str]] = {}
    every = sum(row["status"] == "ok" for row in report["rows"])
    for (name, reason), labels in found.items():
        about = "every row" if len(labels) == every else ", ".join(labels)
        lines.setdefault((about.replace("_", " "), reason), []).append(name.replace("_", " "))
    told = [f"{', '.join(names)} ({about}): {reason}" for (about, reason), names in lines.items()]
    silent = [
        a["name"].replace("_", " ")
        for a in report["attacks"]
        if all(_unscored(row, a["name"]) for row in report["rows"] if row["status"] == "ok")
    ]
    if silent:
        told.append(
            f"{', '.join(silent)}: finds no more in the original than in retrained models, so that there is nothing to "
            "recover by it"
        )
    return told


def _unscored(row: Mapping[str, Any], name: str) -> bool:
    curve = row["attacks"][name]
    return bool(curve["status"] == "ok" and curve["headline"]["recovery"]["status"] != "scored")


def verdict(report: Mapping[str, Any]) -> str:
    """What the table says, in sentences drawn from its numbers."""
    rows = [r for r in report["rows"] if r["status"] == "ok" and r["kind"] != "control"]
    holds = {a: [r["label"].replace("_", " ") for r in rows if r["verdict"][a]["word"] == "holds"] for a in SHOWN}
    lines = []
    for access, words in (("black_box", "who may only ask"), ("weights", "who holds the weights")):
        named = ", ".join(holds[access]) if holds[access] else "none of the forms here"
        lines.append(f"Against an attacker {words}: {named}.")
    floor = next((r for r in report["rows"] if r["label"] == "retrain"), None)
    if floor is not None:
        word = floor["verdict"]["weights"]["word"]
        lines.append(f"Retraining itself, each model held against the others: {word}.")
    return " ".join(lines)


def table_lines(report: Mapping[str, Any]) -> list[list[str]]:
    """The terminal's table: a head and a line a row; the page has every attack, with intervals."""
    lines = [["form", "guarantee", "forgotten", "near", "far", *SHOWN, "seconds"]]
    for row in report["rows"]:
        label = row["label"].replace("_", " ")
        if row["status"] != "ok":
            lines.append([label, "did not run", *["–"] * 7])
            continue
        found = [row["measurements"].get(p) for p in ("forget", "neighbour", "retain")]
        lines.append(
            [
                label,
                row["guarantee"],
                *[f"{m['value']:.2f}" if m and m["status"] == "scored" else "–" for m in found],
                *[_word(row, access) for access in SHOWN],
                f"{row['seconds']:.1f}",
            ]
        )
    return lines


def _word(row: Mapping[str, Any], access: str) -> str:
    told = row["verdict"][access]
    if told["word"] != "fails":
        return str(told["word"])
    return f"fails: {told['because'][0].split(':')[0].replace('_', ' ')}"
