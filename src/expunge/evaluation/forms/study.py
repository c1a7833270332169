"""The comparison carried out, and its report: one row a form, one recovery curve an attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from expunge.environment import environment, installed
from expunge.errors import RunError
from expunge.evaluation.attacks.language.contract import Attack, Trial
from expunge.evaluation.attacks.language.curves import recovery_curve, withheld
from expunge.evaluation.forms import tasks
from expunge.evaluation.forms.judgement import judge
from expunge.evaluation.forms.plan import FormsPlan
from expunge.evaluation.forms.table import Form
from expunge.evaluation.language import tasks as language_tasks
from expunge.evaluation.language.study import Study, combined
from expunge.evaluation.metrics.language.measured import counted
from expunge.result import Measurement
from expunge.training.chunks import Progress
from expunge.training.files import read_json, write_json
from expunge.training.workers import Workers

SCHEMA = "expunge/forms/1"


class FormsStudy:
    """One comparison in a folder; an interrupted one goes on there.

    Raises:
        RunError: the folder holds another comparison.
    """

    def __init__(self, plan: FormsPlan, folder: Path, workers: Workers, progress: Progress | None = None) -> None:
        self.plan, self.folder, self.workers, self.progress = plan, folder, workers, progress
        kept = folder / "comparison.json"  # forms.json is the report
        if kept.exists():
            if read_json(kept) != plan.as_dict():
                raise RunError(f"{folder} holds another comparison", "Choose another --out, or remove that folder")
        else:
            write_json(kept, plan.as_dict())

    def run(self) -> dict[str, Any]:
        """Carry out what is missing, and return the report."""
        self._work("train_base", "base model", [0], lambda _: (self.folder / "base" / "done.json").exists())
        Study(self.plan.study(self.folder), self.folder, self.workers, self.progress).carry_out()
        every = tasks.rows(self.plan)
        self._work("attack_row", "models attacked", list(range(len(every))), lambda n: self._done(*every[n]))
        return self.report()

    def _done(self, label: str, seed: int) -> bool:
        return (tasks.place_of(self.folder, label, seed) / "done.json").exists()

    def _work(self, task: str, what: str, numbers: Sequence[int], done: Any) -> None:
        missing = [n for n in numbers if not done(n)]
        finished = len(numbers) - len(missing)
        if self.progress:
            self.progress(what, finished, len(numbers))

        def on_done(_number: int) -> None:
            nonlocal finished
            finished += 1
            if self.progress:
                self.progress(what, finished, len(numbers))

        self.workers.run(f"expunge.evaluation.forms.tasks:{task}", self.folder, missing, on_done)

    # --- what came out -------------------------------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """The document that the page and the table are views of."""
        attacks = self.plan.made_attacks()
        names = [language_tasks.model_name(k) for k in range(self.plan.references + 1)]
        original, references = self._told(names[0], 0), [self._told(n, 0) for n in names[1:]]
        rows = [self._control("do_nothing", [original], attacks)]
        rows.append(self._held_out(references, attacks))
        for form in self.plan.forms:
            rows.append(self._row(form, attacks))
        floor = rows[1]["measurements"]
        for row in rows:
            if row["status"] == "ok":
                row["verdict"] = judge(row, floor)
        benchmark = self.plan.study(self.folder).benchmark()
        return {
            "schema": SCHEMA,
            "benchmark": benchmark.describe(),
            "plan": self.plan.as_dict(),
            "references": self.plan.references,
            "retrain_seconds": float(np.mean([r["seconds"] for r in references])) if references else None,
            "attacks": [
                {
                    "name": a.name,
                    "access": a.access,
                    "unit": a.unit,
                    "summary": a.summary,
                    "paper": a.paper,
                    "headline": a.headline,
                    "settings": a.settings(),
                }
                for a in attacks
            ],
            "rows": rows,
            "environment": {**environment(), **{n: installed(n) for n in ("transformers", "tokenizers", "peft")}},
        }

    def _told(self, label: str, seed: int) -> dict[str, Any]:
        found: dict[str, Any] = read_json(tasks.place_of(self.folder, label, seed) / "done.json")
        return found

    def _trial(self, label: str, seed: int, attack: Attack) -> Trial | str:
        """The trial, or the reason why there is none."""
        told = read_json(tasks.place_of(self.folder, label, seed) / f"{attack.name}.json")
        return tasks.trial_of(told) if told["status"] == "ok" else str(told["reason"])

    def _attacked(
        self, models: Sequence[tuple[str, int]], attacks: Sequence[Attack], without: int | None = None
    ) -> dict[str, Any]:
        """Every attack on one row. `without`: number of the reference that is itself the row."""
        names = [language_tasks.model_name(k) for k in range(1, self.plan.references + 1) if k != without]
        found = {}
        for attack in attacks:
            trials = [self._trial(label, seed, attack) for label, seed in models]
            original = self._trial(language_tasks.ORIGINAL, 0, attack)
            base = [self._trial(name, 0, attack) for name in names]
            reason = next((t for t in [*trials, original, *base] if isinstance(t, str)), None)
            if reason is not None:
                found[attack.name] = withheld(reason)
                if isinstance(original, str):  # nor on the original: it lacks something that no row could mend
                    found[attack.name] = {"status": "not_made", "reason": original}
                continue
            found[attack.name] = recovery_curve(
                attack,
                [t for t in trials if isinstance(t, Trial)],
                [t for t in base if isinstance(t, Trial)],
                original if isinstance(original, Trial) else None,
            )
        return found

    def _control(self, label: str, told: Sequence[Mapping[str, Any]], attacks: Sequence[Attack]) -> dict[str, Any]:
        return {
            "label": label,
            "form": "control",
            "kind": "control",
            "status": "ok",
            "guarantee": "none",
            "parameters": {},
            "seconds": 0.0,
            "stored_bytes": 0,
            "latency": 1.0,
            "measurements": measured(told),
            "attacks": self._attacked([(language_tasks.ORIGINAL, 0)], attacks),
        }

    def _held_out(self, references: Sequence[Mapping[str, Any]], attacks: Sequence[Attack]) -> dict[str, Any]:
        """Retraining: each retrained model is held against the others, never against itself."""
        count = self.plan.references
        each = [self._attacked([(language_tasks.model_name(k), 0)], attacks, without=k) for k in range(1, count + 1)]
        return {
            "label": "retrain",
            "form": "control",
            "kind": "control",
            "status": "ok",
            "guarantee": "exact(distribution)",
            "parameters": {},
            "seconds": float(np.mean([r["seconds"] for r in references])),
            "stored_bytes": 0,
            "latency": 1.0,
            "measurements": measured(references),
            "attacks": {a.name: pooled([one[a.name] for one in each]) for a in attacks},
        }

    def _row(self, form: Form, attacks: Sequence[Attack]) -> dict[str, Any]:
        seeds = tasks.seeds_of(self.plan, form)
        told = [self._told(form.label, s) for s in seeds]
        row: dict[str, Any] = {
            "label": form.label,
            "form": form.form,
            "kind": "tool" if form.form == "ordinary tool" else "method",
            "method": form.name,
        }
        failed = next((t for t in told if t["status"] != "ok"), None)
        if failed is not None:
            return {**row, "status": "failed", "reason": f"{failed['cause']}. {failed['remedy']}"}
        return {
            **row,
            "status": "ok",
            "guarantee": told[0]["guarantee"],
            "parameters": told[0]["parameters"],
            "seconds": float(np.mean([t["seconds"] for t in told])),
            "stored_bytes": int(np.mean([t["stored_bytes"] for t in told])),
            "latency": float(np.median([t["latency"] for t in told])),
            "measurements": measured(told),
            "attacks": self._attacked([(form.label, s) for s in seeds], attacks),
        }


def measured(told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Share of right answers on each set of questions: over seeds, or of one model with Wilson's interval."""
    each = []
    for one in told:
        scores: dict[str, Measurement] = {}
        for probe, asked in one["asked"].items():
            goes = probe in ("forget", "paraphrase")
            scores[probe] = counted(
                f"{probe}/accuracy",
                np.array(asked["right"]),
                asked["ids"],
                direction="match_floor" if goes else "higher",
                definition="Share of questions whose greedy answer holds the true one.",
                floor=None,
                ceiling=None,
            )
        each.append(scores)
    return combined(each)  # type: ignore[arg-type]  # a Scores of measurements alone


def pooled(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The curves of retrained models, each against the others, as one: means, and the widest of the intervals."""
    usable = [e for e in each if e["status"] == "ok"]
    if not usable:
        return dict(each[0]) if each else withheld("there is no retrained model")
    curve = []
    for place, point in enumerate(usable[0]["curve"]):
        points = [e["curve"][place] for e in usable]
        curve.append({**point, **_mean_point(points)})
    heads = [e["headline"] for e in usable]
    return {**usable[0], "curve": curve, "headline": {**heads[0], **_mean_point(heads)}}


def _mean_point(points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    scored = [p["recovery"] for p in points if p["recovery"]["status"] == "scored"]
    recovery = dict(points[0]["recovery"])
    if scored:
        recovery = {
            **scored[0],
            "value": float(np.mean([s["value"] for s in scored])),
            "low": min(s["low"] for s in scored),
            "high": max(s["high"] for s in scored),
            "detail": {"each": [s["value"] for s in scored]},
        }
    return {
        "found": float(np.mean([p["found"] for p in points])),
        "found_by_seed": [p["found"] for p in points],
        "recovery": recovery,
    }
