"""Keep a benchmark's table for the docs.

    python tools/keep_results.py runs/challenge docs/results/challenge-digits.json
    python tools/keep_results.py runs/exact docs/results/exact-digits.json

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


def main() -> None:
    """Read a run folder, write the slim table."""
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
