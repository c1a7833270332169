"""Keep a benchmark's table for the docs.

    python tools/keep_results.py runs/challenge docs/results/challenge-digits.json
    python tools/keep_results.py runs/exact docs/results/exact-digits.json
    python tools/keep_results.py runs/certified docs/results/certified.json
    python tools/keep_results.py runs/people docs/results/people.json
    python tools/keep_results.py runs/forms docs/results/forms.json

The docs show numbers from this file and from nowhere else; the whole report is made again by the command in it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from expunge.evaluation.report import read_report


def slim(row: dict[str, Any]) -> dict[str, Any]:
    """Value, low and high of each scored measurement, and what the row says of itself."""
    out = {k: row[k] for k in ("method", "status", "reason", "kind", "models") if k in row}
    for name, value in row.items():
        if isinstance(value, dict) and value.get("status") == "scored":
            out[name] = [round(value[k], 6) for k in ("value", "low", "high")]
    return out


EXACT = (
    "shards",
    "slices",
    "requests",
    "batch",
    "accuracy",
    "measured_speedup",
    "expected_speedup",
    "examples_speedup",
    "equals_fresh_fit",
)


def keep_exact(report: dict[str, Any], target: Path) -> None:
    """The rows of `expunge bench exact`."""
    kept = {
        "command": report["command"],
        "versions": report["environment"],
        **{k: report[k] for k in ("records", "test", "retrained_accuracy")},
        "rows": [{k: round(r[k], 6) if isinstance(r[k], float) else r[k] for k in EXACT} for r in report["rows"]],
    }
    target.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


CERTIFIED = (
    "name",
    "epsilon",
    "role",
    "status",
    "reason",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "until",
    "removals",
    "endless",
    "seconds",
    "ratio",
    "worst_group",
    "worst",
    "gap",
)


def keep_certified(report: dict[str, Any], target: Path) -> None:
    """The rows of `expunge bench certified`, with the guarantee's words, the audit and the cost in short."""

    def kept(row: dict[str, Any]) -> dict[str, Any]:
        out = {k: float(f"{row[k]:.4g}") if isinstance(row.get(k), float) else row[k] for k in CERTIFIED if k in row}
        if row["status"] == "scored":
            audit, cost = row["audit"], row["against_tuned"]
            out["reached"] = row["guarantee"]["words"]
            out["audit"] = {
                k: audit[k] for k in ("status", "reason", "game", "observed", "promised", "outcome") if k in audit
            }
            out["cost"] = None if cost is None else round(cost["cost"], 4)
        return out

    tables = [
        {**{k: t[k] for k in ("table", "words", "records", "test", "by")}, "rows": [kept(row) for row in t["rows"]]}
        for t in report["tables"]
    ]
    document = {"command": report["command"], "versions": report["environment"], "tables": tables}
    target.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def keep_language(report: dict[str, Any], target: Path) -> None:
    """The rows of `expunge bench people`: the columns of its table, value and interval of each."""
    from expunge.evaluation.language_page import cell, columns_of

    columns = columns_of(report["rows"])
    rows = []
    for row in report["rows"]:
        kept = {
            k: row.get(k) for k in ("label", "status", "reason", "guarantee", "seconds", "seconds_ratio", "parameters")
        }
        cells = [cell(row, *place) for place in columns.values()]
        kept["cells"] = [None if c is None else [round(c[k], 5) for k in ("value", "low", "high")] for c in cells]
        rows.append(kept)
    document = {
        "command": report["command"],
        "versions": report["environment"],
        "benchmark": report["benchmark"],
        "columns": list(columns),
        "rows": rows,
    }
    target.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


FORMS = ("label", "form", "kind", "method", "status", "reason", "guarantee", "seconds", "stored_bytes", "latency")


def keep_forms(report: dict[str, Any], target: Path) -> None:
    """The document of `expunge bench forms`, every curve and verdict in it, without what can be computed again."""

    def number(value: Any) -> Any:
        return round(value, 5) if isinstance(value, float) else value

    def measured(m: dict[str, Any]) -> dict[str, Any]:
        names = ("status", "value", "low", "high", "n", "unit_of_n", "reason")
        return {k: number(m[k]) for k in names if k in m}

    def point(p: dict[str, Any]) -> dict[str, Any]:
        found = {k: number(p[k]) for k in ("cost", "found", "original")}
        return {**found, "retrained": [number(r) for r in p["retrained"]], "recovery": measured(p["recovery"])}

    def attacked(curve: dict[str, Any]) -> dict[str, Any]:
        if curve["status"] != "ok":
            return curve
        points = [point(p) for p in curve["curve"]]
        return {"status": "ok", "unit": curve["unit"], "curve": points, "headline": point(curve["headline"])}

    rows = []
    for row in report["rows"]:
        kept = {k: number(row[k]) for k in FORMS if k in row}
        if row["status"] == "ok":
            kept["measurements"] = {name: measured(m) for name, m in row["measurements"].items()}
            kept["attacks"] = {name: attacked(curve) for name, curve in row["attacks"].items()}
            kept["verdict"] = row["verdict"]
        rows.append(kept)
    document = {
        **{k: report[k] for k in ("schema", "command", "benchmark", "references", "retrain_seconds", "attacks")},
        "versions": report["environment"],
        "rows": rows,
    }
    target.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    """Read a run folder, write the slim table."""
    forms = Path(sys.argv[1]) / "forms.json"
    if forms.exists():
        keep_forms(json.loads(forms.read_text(encoding="utf-8")), Path(sys.argv[2]))
        return
    language = Path(sys.argv[1]) / "language.json"
    if language.exists():
        keep_language(json.loads(language.read_text(encoding="utf-8")), Path(sys.argv[2]))
        return
    certified = Path(sys.argv[1]) / "certified.json"
    if certified.exists():
        keep_certified(json.loads(certified.read_text(encoding="utf-8")), Path(sys.argv[2]))
        return
    exact = Path(sys.argv[1]) / "exact.json"
    if exact.exists():
        keep_exact(json.loads(exact.read_text(encoding="utf-8")), Path(sys.argv[2]))
        return
    report = read_report(Path(sys.argv[1]))
    setting = report["protocol"]["setting"]
    kept = {
        "command": report["command"],
        "versions": {k: report["provenance"][k] for k in ("expunge", "torch", "numpy", "python", "platform")},
        **{k: setting[k] for k in ("dataset", "models", "protocol", "architecture", "forget", "seed")},
        "rows": [slim(row) for row in report["rows"]],
    }
    Path(sys.argv[2]).write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
