"""The demo: digits are forgotten by example, exactly and within a bound; a language model in several forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from expunge.demo_certified import narrate_certified, run_certified_demo
from expunge.demo_exact import narrate_exact, run_exact_demo
from expunge.demo_forms import narrate_forms, run_forms_demo
from expunge.demo_language import narrate_language, run_language_demo
from expunge.evaluation.benchmarks.challenge import Challenge, run_challenge
from expunge.evaluation.report import write_report
from expunge.training.chunks import Progress

# One method a kind, at published defaults: go on training, walk up the loss, relabel, replace the head, a teacher,
# damp weights, and a winner of the challenge.
METHODS = ("finetune", "gradient_ascent", "random_labels", "eu_k", "scrub", "ssd", "kookmin")
MODELS = 32


def run_demo(out: Path, *, processes: int = 0, progress: Progress | None = None) -> dict[str, Any]:
    """Run the demo into `out` and return its report, the evidence of the exact and the certified form included."""
    report = run_challenge(
        Challenge(dataset="digits", models=MODELS, shadows=0),
        list(METHODS),
        out,
        processes=processes,
        progress=progress,
        title="Demo: a small convolutional network forgets 100 handwritten digits",
    )
    report["exact"] = run_exact_demo(out / "exact", progress=progress)["evidence"]
    report["certified"] = run_certified_demo(out / "certified", progress=progress)
    report["language"] = run_language_demo(out / "language", processes=processes, progress=progress)
    report["forms"] = run_forms_demo(out / "forms", processes=processes, progress=progress)
    write_report(report, out)
    return report


def narrate(report: dict[str, Any], *, full: bool = False) -> str:
    """What to look at, in words drawn from the numbers; `full` adds every measurement of every method."""
    rows = {row["method"]: row for row in report["rows"] if row["status"] == "ok"}
    lines = [""]
    case = looks_forgotten(report)
    if case is None:
        lines.append("No method here matches the retrained models' accuracy on the forgotten digits.")
    else:
        mine, floor = rows[case], rows["retrain"]
        lines += [
            f"Looks forgotten, is not: {case} classifies {mine['forget_accuracy']['value']:.1%} of the forgotten",
            f"digits, retrained models {floor['forget_accuracy']['value']:.1%}.",
            "But an attacker who looks at one forgotten digit's score tells the two apart with a mean per-example ε of "
            f"{mine['epsilon_mean']['value']:.1f},",
            f"where retraining against retraining gives {floor['epsilon_mean']['value']:.1f}.",
        ]
    if report.get("exact"):
        lines += ["", narrate_exact(report["exact"])]
    if report.get("certified"):
        lines += ["", narrate_certified(report["certified"])]
    if report.get("language"):
        lines += ["", narrate_language(report["language"])]
    if report.get("forms"):
        lines += ["", narrate_forms(report["forms"])]
    if full:
        for row in rows.values():
            lines.append(f"\n{row['method']}")
            lines += [
                _line(name, value) for name, value in row.items() if isinstance(value, dict) and "status" in value
            ]
    return "\n".join(lines)


def _line(name: str, value: dict[str, Any]) -> str:
    if value["status"] == "unscored":
        return f"  {name:<36}   unscored: {value['reason']}"
    interval = f"[{value['low']:.4g}, {value['high']:.4g}]"
    references = f"floor {_number(value['floor'])}  ceiling {_number(value['ceiling'])}"
    return f"  {name:<36} {value['value']:10.4g}  {interval}  n={value['n']} {value['unit_of_n']}  {references}"


def looks_forgotten(report: dict[str, Any]) -> str | None:
    """The useful method nearest to retraining in forget accuracy, within a point, whose ε is over twice the floor."""
    best: tuple[float, str] | None = None
    rows = [row for row in report["rows"] if row["status"] == "ok" and row["kind"] == "method"]
    floor = next(row for row in report["rows"] if row["method"] == "retrain")
    for row in rows:
        gap = abs(row["forget_accuracy"]["value"] - floor["forget_accuracy"]["value"])
        useful = row["test_accuracy"]["value"] > floor["test_accuracy"]["value"] - 0.03
        if useful and gap <= 0.01 and row["epsilon_mean"]["value"] > 2 * floor["epsilon_mean"]["value"]:
            best = min(best, (gap, row["method"])) if best else (gap, row["method"])
    return best[1] if best else None


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
