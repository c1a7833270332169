"""A study of language models carried out: models trained or given, methods run under seeds, everything compared."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from expunge.data.benchmarks.text_benchmark import TextBenchmark
from expunge.environment import environment, installed
from expunge.errors import RequestError, RunError
from expunge.evaluation.language import tasks
from expunge.evaluation.language.logs import quality_of_log, write_logs
from expunge.evaluation.language.measure import Scores, measure
from expunge.evaluation.language.plan import StudyPlan, asked, load_model
from expunge.evaluation.language.record import Recorded, token_probabilities
from expunge.evaluation.metrics.seeds import over_seeds
from expunge.methods import LANGUAGE_METHODS, text_method
from expunge.result import Measurement, Unscored
from expunge.training.chunks import Progress
from expunge.training.files import read_json, write_json
from expunge.training.workers import Workers

SCHEMA = "expunge/language/1"
EXAMPLES = 6
SHOWN = ("forget", "paraphrase", "trivia", "retain", "verbmem_forget", "knowmem_forget", "knowmem_retain")
BASE = "base_that_never_saw_it"  # TOFU's other reference: not retrained on what is kept


class Study:
    """One study in a folder; an interrupted one goes on there.

    Raises:
        RunError: the folder holds another study. RequestError: methods, and nothing to forget; training, and nothing to
            train on.
    """

    def __init__(self, plan: StudyPlan, folder: Path, workers: Workers, progress: Progress | None = None) -> None:
        self.plan, self.folder, self.workers, self.progress = plan, folder, workers, progress
        self.benchmark = plan.benchmark()
        check_enough(plan, self.benchmark)
        self._known: dict[int, Scores] = {}
        document = {**plan.as_dict(), "benchmark": self.benchmark.digest}
        kept = folder / "plan.json"
        if kept.exists():
            if read_json(kept) != document:
                raise RunError(f"{folder} holds another study", "Choose another --out, or remove that folder")
        elif int(os.environ.get("RANK", "0")) == 0:
            write_json(kept, document)
        while not kept.exists():  # written by the first of several processes
            time.sleep(0.2)

    @property
    def references(self) -> int:
        """How many retrained models there are."""
        if self.plan.model.references:
            return len(self.plan.model.references)
        return self.plan.model.count if self.plan.model.recipe is not None else 0

    @property
    def seeds(self) -> list[int]:
        return list(range(self.plan.first_seed, self.plan.first_seed + self.plan.seeds))

    def only_train(self) -> dict[str, Any]:
        """The part of `run` that several processes share: nothing is asked or reported by this one."""
        for number in range(len(self.plan.methods) * self.plan.seeds):
            if not self._unlearned(number):
                tasks.unlearn(self.folder, number)
        return {}

    def run(self) -> dict[str, Any]:
        """Carry out what is missing, and return the report."""
        self.carry_out()
        return self.report()

    def carry_out(self) -> None:
        """Train, unlearn and ask whatever is not there yet."""
        self._work("prepare", "models", list(range(self.references + 1)), self._prepared)
        self._work(
            "ask_given",
            "given models",
            list(range(len(self.plan.given))),
            lambda n: (self.folder / "outputs" / self.plan.given[n][0] / "done.json").exists(),
        )
        outcomes = len(self.plan.methods) * self.plan.seeds
        self._work("unlearn", "outcomes", list(range(outcomes)), self._unlearned)

    def _work(self, task: str, what: str, numbers: Sequence[int], done: Any) -> None:
        missing = [n for n in numbers if not done(n)]
        finished = len(numbers) - len(missing)
        if self.progress and numbers:
            self.progress(what, finished, len(numbers))

        def on_done(_number: int) -> None:
            nonlocal finished
            finished += 1
            if self.progress:
                self.progress(what, finished, len(numbers))

        self.workers.run(f"expunge.evaluation.language.tasks:{task}", self.folder, missing, on_done)

    def _prepared(self, number: int) -> bool:
        return (self.folder / "outputs" / tasks.model_name(number) / "done.json").exists()

    def _unlearned(self, number: int) -> bool:
        label = self.plan.methods[number // self.plan.seeds][0]
        return (self.folder / "outcomes" / f"{label}-{self.plan.first_seed + number % self.plan.seeds}.json").exists()

    # --- what came out -------------------------------------------------------------------------------------------

    def recorded(self, name: str) -> dict[str, Recorded]:
        """What one model said, by probe."""
        place = self.folder / "outputs" / name
        return {probe: Recorded.load(place, probe) for probe in read_json(place / "done.json")["probes"]}

    def report(self) -> dict[str, Any]:
        """The document that the page and the table are views of."""
        self._known.clear()  # keyed by the very objects that are read here
        original = self.recorded(tasks.ORIGINAL)
        references = [self.recorded(tasks.model_name(k)) for k in range(1, self.references + 1)]
        name = self.benchmark.name
        probes = self.benchmark.probes
        nothing = measure(original, original=original, references=references, benchmark=name, questions=probes)
        self._write_logs(tasks.ORIGINAL, nothing)
        rows = [self._control("do_nothing", [nothing], None)]
        if references:
            # Each reference is held against the others: against itself it would be perfect.
            each = [
                measure(
                    r,
                    original=original,
                    references=[*references[:k], *references[k + 1 :]],
                    benchmark=name,
                    questions=probes,
                )
                for k, r in enumerate(references)
            ]
            rows.append(self._control("retrain", each, self._retrain_cost()))
        for label, source in self.plan.given:
            scores = self._measure(label, original, references, 0)
            rows.append(_given(label, source, scores))
        for label, name, parameters in self.plan.methods:
            rows.append(self._row(label, name, parameters, original, references))
        return {
            "schema": SCHEMA,
            "benchmark": self._described(),
            "plan": self.plan.as_dict(),
            "references": self.references,
            "retrain_seconds": self._retrain_cost(),
            "rows": rows,
            "examples": self._examples(rows),
            "environment": {**environment(), **{n: installed(n) for n in ("transformers", "tokenizers", "peft")}},
        }

    def _described(self) -> dict[str, Any]:
        """The benchmark, and what became of texts longer than the original reads."""
        told = self.benchmark.describe()
        cut = read_json(self.folder / "outputs" / tasks.ORIGINAL / "done.json").get("cut", [])
        return {**told, "notes": [*self.benchmark.notes, *cut]}

    def _retrain_cost(self) -> float | None:
        """Mean processor seconds of retraining, where it was done here."""
        found = [
            read_json(path)["seconds"]
            for k in range(1, self.references + 1)
            if (path := self.folder / "models" / tasks.model_name(k) / "done.json").exists()
        ]
        return float(np.mean(found)) if found else None

    def _control(self, name: str, scores: list[Scores], seconds: float | None) -> dict[str, Any]:
        method = LANGUAGE_METHODS[name]
        return {
            "label": name,
            "method": name,
            "kind": "control",
            "guarantee": "exact(distribution)" if name == "retrain" else "suppressed",
            "status": "ok",
            "summary": method.summary,
            "parameters": {},
            "seconds": 0.0 if name == "do_nothing" else seconds,
            "seconds_ratio": None if seconds is None else 1.0,
            "runs": [],
            "measurements": combined(scores),
        }

    def _row(
        self,
        label: str,
        name: str,
        parameters: Mapping[str, Any],
        original: Mapping[str, Recorded],
        references: Sequence[Mapping[str, Recorded]],
    ) -> dict[str, Any]:
        runs = [read_json(self.folder / "outcomes" / f"{label}-{s}.json") for s in self.seeds]
        method = text_method(name)
        row: dict[str, Any] = {
            "label": label,
            "method": name,
            "kind": method.kind,
            "form": method.form,
            "summary": method.summary,
            "paper": method.paper,
            "parameters": dict(parameters),
            "runs": runs,
        }
        failed = next((r for r in runs if r["status"] != "ok"), None)
        if failed is not None:
            return {**row, "status": "failed", "reason": f"{failed['cause']}. {failed['remedy']}"}
        scores = [self._measure(f"{label}-{s}", original, references, s) for s in self.seeds]
        seconds = float(np.mean([r["seconds"] for r in runs]))
        retrain = self._retrain_cost()
        return {
            **row,
            "status": "ok",
            "guarantee": runs[0]["words"],
            "seconds": seconds,
            "seconds_ratio": None if not retrain else seconds / retrain,
            "measurements": combined(scores),
        }

    def _measure(
        self,
        name: str,
        original: Mapping[str, Recorded],
        references: Sequence[Mapping[str, Recorded]],
        seed: int,
    ) -> Scores:
        """One outcome's measurements, which are also kept as OpenUnlearning's logs where the benchmark has them."""
        asked_of = self.recorded(name)
        scores = measure(
            asked_of,
            original=original,
            references=references,
            benchmark=self.benchmark.name,
            seed=seed,
            known=self._known,
            questions=self.benchmark.probes,
        )
        if self.plan.retain_log is not None and "forget" in asked_of:
            scores["forget/forget_quality_of_log"] = quality_of_log(asked_of["forget"], self.plan.retain_log, seed)
        self._write_logs(name, scores)
        return scores

    def _write_logs(self, name: str, scores: Scores) -> None:
        if self.benchmark.name.startswith("tofu/"):
            write_logs(scores, self.folder / "openunlearning" / name)

    def _examples(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """What the models say before and after, side by side, with the probability of each token of the truth."""
        shown = {"original": tasks.ORIGINAL}
        if self.references:
            shown["retrained"] = tasks.model_name(1)
        shown |= {label: label for label, _ in self.plan.given}
        shown |= {r["label"]: f"{r['label']}-{self.plan.first_seed}" for r in rows if r["runs"] and r["status"] == "ok"}
        found = []
        probes = asked(self.plan, self.benchmark)
        for probe in SHOWN:
            if probe not in probes:
                continue
            records = probes[probe].take(np.arange(min(len(probes[probe]), EXAMPLES if probe == "forget" else 3)))
            said = {who: self.recorded(name)[probe].main.select(records.ids) for who, name in shown.items()}
            scored = [who for who in shown if said[who].log_probs is not None]
            tokens = {who: self._tokens(who, records) for who in scored} if probe == "forget" else {}
            for k, item in enumerate(records.ids.tolist()):
                found.append(
                    {
                        "probe": probe,
                        "id": item,
                        "prompt": str(self.benchmark.probes[probe].column("prompt")[k]),
                        "answer": str(records.column("answer")[k]),
                        "says": {who: (s.generated or [""] * len(records))[k] for who, s in said.items()},
                        "probability": {
                            who: float(np.exp(-s.nll[k])) if who in scored else None for who, s in said.items()
                        },
                        "tokens": {who: t[k] for who, t in tokens.items()},
                    }
                )
        return found

    def _tokens(self, who: str, records: Any) -> list[list[tuple[str, float]]]:
        if who in ("original", "retrained"):
            source = tasks.source_of(self.plan, self.folder, 0 if who == "original" else 1)
        else:
            source = dict(self.plan.given).get(who) or str(self.folder / "unlearned" / who)
        return token_probabilities(load_model(self.plan, source), records)


def check_enough(plan: StudyPlan, benchmark: TextBenchmark) -> None:
    """Refuse what a benchmark that is questions alone (WMDP without its corpora) cannot do, before anything is trained.

    Raises:
        RequestError.
    """
    if plan.methods and not len(benchmark.forget):
        raise RequestError(
            f"{benchmark.name} holds no texts to forget, which {plan.methods[0][0]} needs",
            "Give corpora (of WMDP: --set forget=FILE --set retain=FILE), or look at models only: expunge evaluate",
        )
    if plan.model.recipe is not None and not len(benchmark.train):
        raise RequestError(
            f"{benchmark.name} holds no training texts, so that nothing can be trained on it",
            "Give the model itself (--model), and retrained ones where there are any (--reference)",
        )


def _given(label: str, source: str, scores: Scores) -> dict[str, Any]:
    """The row of a model that came from elsewhere: of its making, nothing is known here."""
    return {
        "label": label,
        "method": "unknown",
        "kind": "reference" if label == BASE else "method",
        "guarantee": "unknown",
        "status": "ok",
        "summary": source,
        "parameters": {"model": source},
        "seconds": None,
        "seconds_ratio": None,
        "runs": [],
        "measurements": combined([scores]),
    }


def combined(scores: Sequence[Scores]) -> dict[str, dict[str, Any]]:
    """One measurement a name over seeds: the mean with Student's interval; a single seed's own where there is one."""
    found: dict[str, dict[str, Any]] = {}
    for name in scores[0]:
        values = [s[name] for s in scores]
        measured = [v for v in values if isinstance(v, Measurement)]
        if len(measured) < len(values):
            reason = next(v.reason for v in values if isinstance(v, Unscored))
            found[name] = Unscored(name=name, reason=reason).as_dict()
        else:
            one = measured[0] if len(measured) == 1 else within(over_seeds(measured), measured)
            document = one.as_dict()
            worst = [m.detail["worst"] for m in measured if "worst" in m.detail]
            document["detail"] = {"per_seed": [m.value for m in measured]} | ({"worst": worst[0]} if worst else {})
            found[name] = json.loads(json.dumps(document))
    return found


def within(mean: Measurement, measured: Sequence[Measurement]) -> Measurement:
    """Student's interval knows no bounds: where every seed's value and interval lie in [0, 1], cut it there."""
    if all(m.low >= 0 and m.high <= 1 for m in measured):
        return replace(mean, low=max(mean.low, 0.0), high=min(mean.high, 1.0))
    return mean
