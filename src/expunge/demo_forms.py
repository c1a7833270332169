"""The demo's last page: one request in several forms, under the same attacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from expunge.evaluation.benchmarks.forms import FormsBench, run_forms
from expunge.evaluation.forms.page import verdict
from expunge.training.chunks import Progress

PEOPLE, FORGET, REFERENCES = 20, 3, 2
# One a form, and an ordinary tool; those that read instructions need a base that learned to, which takes longer.
FORMS = ("exact_adapters", "npo", "idk_tuning", "boxed", "content_filter")
ATTACKS = ("paraphrase", "alias", "filter_evasion", "sampling", "min_k", "relearn_half", "quantise")


def run_forms_demo(out: Path, *, processes: int = 0, progress: Progress | None = None) -> dict[str, Any]:
    """Train, forget, attack, and return what the report shows.

    The whole document and its page are ``forms.json`` and ``forms.html`` in `out`.
    """
    setting = FormsBench(
        people=PEOPLE,
        forget=FORGET,
        forms=FORMS,
        attacks=ATTACKS,
        references=REFERENCES,
        seeds=1,
        lines=0,
        dialogues=0,
    )
    report = run_forms(setting, out, processes=processes, progress=progress, command="expunge demo")
    dropped = ("parameters", "settings")
    return {
        "request": f"{FORGET} of {PEOPLE} fictitious people are forgotten in {len(FORMS)} ways.",
        "verdict": verdict(report),
        "page": str(out / "forms.html"),
        "attacks": [{k: v for k, v in a.items() if k not in dropped} for a in report["attacks"]],
        "rows": [{k: v for k, v in row.items() if k not in dropped} for row in report["rows"]],
    }


def narrate_forms(e: dict[str, Any]) -> str:
    """What happened, in words drawn from the evidence."""
    lines = [f"Which form holds? {e['request']} {e['verdict']}"]
    for row in e["rows"]:
        if row["status"] != "ok":
            continue
        told = row["verdict"]["weights"]
        why = told["because"][0] if told["word"] != "holds" else ""
        label = row["label"].replace("_", " ")
        lines.append(
            f"  {label:<16} {row['guarantee']:<20} against who holds the weights: {told['word']}. {why}".rstrip()
        )
    lines.append(f"recovery under every attack: {e['page']}")
    return "\n".join(lines)
