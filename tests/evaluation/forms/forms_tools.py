"""Rows of a comparison of forms, made by hand."""

from __future__ import annotations

from typing import Any

from expunge.evaluation.attacks.language import LANGUAGE_ATTACKS
from expunge.evaluation.forms.judgement import judge


def share(value: float, spread: float = 0.02) -> dict[str, Any]:
    """A measured share of right answers."""
    low, high = max(value - spread, 0.0), min(value + spread, 1.0)
    return {
        "status": "scored", "name": "accuracy", "value": value, "n": 40, "low": low, "high": high,
        "direction": "higher", "floor": None, "ceiling": None, "confidence": 0.95, "unit": "", "unit_of_n": "records",
        "definition": "", "detail": {},
    }  # fmt: skip


def recovered(value: float, spread: float = 0.05, cost: float = 1.0) -> dict[str, Any]:
    """An attack that recovers this much at the only cost it was tried at."""
    recovery = {**share(0.0), "value": value, "low": value - spread, "high": value + spread, "direction": "lower"}
    point = {
        "cost": cost, "found": 0.05 + 0.95 * max(value, 0.0), "found_by_seed": [0.5], "retrained": [0.05],
        "original": 1.0, "recovery": recovery,
    }  # fmt: skip
    return {"status": "ok", "unit": "prompts an item", "curve": [point], "headline": point}


def withheld(reason: str = "this model answers in words only") -> dict[str, Any]:
    return {"status": "withheld", "reason": reason, "curve": [], "headline": None}


def unscored(reason: str = "it tells nothing") -> dict[str, Any]:
    curve = recovered(0.0)
    point = {**curve["headline"], "recovery": {"status": "unscored", "name": "attack_recovery", "reason": reason}}
    return {**curve, "curve": [point], "headline": point}


FLOOR = {
    "forget": share(0.05), "paraphrase": share(0.05), "retain": share(0.98), "neighbour": share(0.98),
    "foundational": share(1.0),
}  # fmt: skip


def row(
    label: str,
    form: str = "by example",
    *,
    guarantee: str = "empirical",
    attacks: dict[str, Any] | None = None,
    seconds: float = 2.0,
    method: str | None = None,
    **measured: float,
) -> dict[str, Any]:
    """A row that ran; shares are those of a retrained model but for the ones named."""
    measurements = {**FLOOR, **{name: share(value) for name, value in measured.items()}}
    found = attacks if attacks is not None else {"paraphrase": recovered(0.0), "relearn_half": recovered(0.0)}
    made = {
        "label": label,
        "form": form,
        "kind": {"control": "control", "ordinary tool": "tool"}.get(form, "method"),
        "method": method or label,
        "status": "ok",
        "guarantee": guarantee,
        "parameters": {},
        "seconds": seconds,
        "stored_bytes": 2048,
        "latency": 1.0,
        "measurements": measurements,
        "attacks": found,
    }
    return {**made, "verdict": judge(made, FLOOR)}


def report(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A document with do-nothing and retraining before the rows."""
    names = list(rows[0]["attacks"]) if rows else ["paraphrase", "relearn_half"]
    nothing = row(
        "do_nothing", "control", guarantee="none", attacks={n: recovered(1.0) for n in names}, forget=1.0, seconds=0.0
    )
    retrain = row(
        "retrain", "control", guarantee="exact(distribution)", attacks={n: recovered(0.0) for n in names}, seconds=20.0
    )
    attacks = [
        {
            "name": n,
            "access": LANGUAGE_ATTACKS[n].access,
            "unit": LANGUAGE_ATTACKS[n].unit,
            "summary": LANGUAGE_ATTACKS[n].summary,
            "paper": LANGUAGE_ATTACKS[n].paper,
            "headline": "last",
            "settings": {"epochs": 3},
        }
        for n in names
    ]
    return {
        "schema": "expunge/forms/1",
        "title": "Which form holds?",
        "command": "expunge bench forms",
        "setting": {"seed": 0, "seeds": 1, "references": 2},
        "benchmark": {
            "name": "people/2of8", "kind": "generated", "source": "made", "licence": "Apache-2.0", "digest": "ab" * 32,
            "records": {"train": 10, "forget": 2, "retain": 8}, "probes": {"forget": 4}, "notes": [],
        },
        "plan": {},
        "references": 2,
        "retrain_seconds": 20.0,
        "attacks": attacks,
        "rows": [nothing, retrain, *rows],
        "environment": {"expunge": "0"},
    }  # fmt: skip
