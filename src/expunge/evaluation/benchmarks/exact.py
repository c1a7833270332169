"""What exact forgetting costs: shards and requests, measured beside the formula and beside retraining, in one run."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from expunge.data import load_records
from expunge.data.records import Records
from expunge.data.splits import split, unit_hash
from expunge.environment import environment
from expunge.errors import DataError, RequestError, RunError, UnknownName
from expunge.evaluation.benchmarks.challenge import ARCHITECTURES, cores
from expunge.evaluation.exact_leaks import exact_leaks, leak_lines
from expunge.evaluation.exact_page import SCHEMA, write_exact
from expunge.evaluation.metrics.intervals import wilson
from expunge.forecast.formulas import expected_cost, speedup
from expunge.forecast.layout import Layout
from expunge.methods.exact.sisa import Sisa
from expunge.methods.learner import Job, State
from expunge.methods.shards import exact_engine
from expunge.recipe import Recipe, Trainer
from expunge.training.batches import Table
from expunge.training.chunks import Progress
from expunge.training.files import read_json, write_json
from expunge.training.fit import fit
from expunge.training.loop import outputs
from expunge.training.ray_workers import make_workers
from expunge.training.seeds import derive
from expunge.training.workers import Workers

# Small batches, so that a shard of 25 records still takes several steps: a step costs the same however full it is.
TRAINER = Trainer(epochs=8, batch_size=8, learning_rate=0.05)
FRACTIONS = {"train": 0.7, "test": 0.3}
# A single deletion hits one shard, large or small: few requests are repeated from the same state, up to so many.
DELETIONS = 8
# Retraining is timed this many times between the deletions of a row.
RETRAININGS = 3
# Columns of the terminal's table.
WIDTHS = (6, 6, 10, 18, 8, 8, 9, 8, 10)


@dataclass(frozen=True, kw_only=True)
class ExactBench:
    """What is measured.

    Args:
        dataset: name or path. shards, requests: every pair is a row. slices: of each shard.
        batch: all requests of a row at once instead of one after the other. architecture: of each shard's model.
        aggregate: ``mean`` or ``vote``. seed: of everything random.
        leaks: also run the attacks that exactness does not stop.
    """

    dataset: str = "digits"
    shards: tuple[int, ...] = (1, 5, 20, 50)
    requests: tuple[int, ...] = (1, 8, 64)
    slices: int = 1
    batch: bool = False
    architecture: str = "mlp"
    aggregate: str = "mean"
    seed: int = 0
    leaks: bool = False

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise UnknownName("architecture", self.architecture, ARCHITECTURES)
        for name in ("shards", "requests"):
            values = getattr(self, name)
            if not values or min(values) < 1:
                raise RequestError(f"--{name} must be whole numbers of at least 1, got {list(values)}", "Correct it")
        if self.slices < 1:
            raise RequestError(f"--slices must be at least 1, got {self.slices}", "Correct it")

    def command(self) -> str:
        """What to type to run this again."""
        lists = " ".join(f"--{n} {','.join(map(str, getattr(self, n)))}" for n in ("shards", "requests"))
        rest = " ".join(f"--{n} {getattr(self, n)}" for n in ("slices", "architecture", "aggregate", "seed"))
        flags = "".join(f" --{n}" for n in ("batch", "leaks") if getattr(self, n))
        return f"expunge bench exact --dataset {self.dataset} {lists} {rest}{flags}"

    def recipe(self, records: Records) -> Recipe:
        return Recipe(
            factory=f"expunge.models.architectures:{self.architecture}",
            kwargs={"features": list(records.x.shape[1:]), "classes": int(records.y.max()) + 1},
            trainer=TRAINER,
        )


def run_exact(
    setting: ExactBench,
    out: Path,
    *,
    engine: str = "process",
    processes: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure every pair of shards and requests; write ``exact.json`` and ``exact.html`` into `out`.

    Interrupted, it keeps the pairs that are done.

    Args:
        engine, processes: who carries out the first training of all shards (0: one process a core); deletions are
            always timed in this process.

    Raises:
        RunError: `out` holds another benchmark. DataError: more requests than records.
    """
    parts = split(load_records(setting.dataset), FRACTIONS, salt="exact")
    train, test = parts["train"], parts["test"]
    if max(setting.requests) >= len(train):
        raise DataError(f"{max(setting.requests)} requests and {len(train)} training records", "Lower --requests")
    if max(setting.shards) * setting.slices > len(train):
        raise DataError(
            f"{max(setting.shards)} shards of {setting.slices} slices and {len(train)} training records",
            "Lower --shards or --slices",
        )
    identity = {"setting": json.loads(json.dumps(asdict(setting))), "records": train.digest()}
    _same_benchmark(out, identity)
    recipe = setting.recipe(train)
    pairs = [(s, k) for s in setting.shards for k in setting.requests]
    rows = []
    workers = None if engine == "process" and processes == 1 else make_workers(engine, processes or cores())
    with workers or nullcontext():
        for done, (shards, requests) in enumerate(pairs):
            if progress:
                progress("shards and requests", done, len(pairs))
            path = out / "pairs" / f"{shards}-{requests}.json"
            if not path.exists():
                write_json(path, _measure(setting, recipe, train, test, shards, requests, workers))
            rows.append(read_json(path))
    if progress:
        progress("shards and requests", len(pairs), len(pairs))
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "command": setting.command(),
        "setting": identity["setting"],
        "environment": dict(environment()),
        "records": len(train),
        "test": len(test),
        "retrained_accuracy": _accuracy_of_one(recipe, train, test, setting.seed),
        "rows": rows,
    }
    if setting.leaks:
        report["leaks"] = exact_leaks(setting.dataset, seed=setting.seed)
    write_exact(report, out)
    return report


def _same_benchmark(out: Path, identity: dict[str, Any]) -> None:
    path = out / "benchmark.json"
    if path.exists() and read_json(path) != identity:
        raise RunError(f"{out} holds another benchmark", "Choose another --out, or remove that folder")
    write_json(path, identity)


def _measure(
    setting: ExactBench,
    recipe: Recipe,
    train: Records,
    test: Records,
    shards: int,
    requests: int,
    workers: Workers | None,
) -> dict[str, Any]:
    learner = Sisa(recipe=recipe, shards=shards, slices=setting.slices, aggregate=setting.aggregate)  # type: ignore[arg-type]
    started = time.process_time()
    first = learner.fit(train, seed=setting.seed, job=Job(workers=workers))
    training_seconds = time.process_time() - started
    trials = max(1, DELETIONS // requests)
    order = np.argsort(unit_hash(train.ids, f"requests/{setting.seed}"), kind="stable")
    asked = [train.ids[order[t * requests : (t + 1) * requests]].tolist() for t in range(trials)]
    asked = [request for request in asked if len(request) == requests]
    seconds = examples = 0.0
    retraining: list[float] = []
    accuracies = []
    equal = True
    timed_at = set(
        np.linspace(0, len(asked) * (1 if setting.batch else requests) - 1, RETRAININGS).astype(int).tolist()
    )
    step = 0
    spent: list[float] = []
    for request in asked:
        state, before = first.copy(), seconds
        for group in [request] if setting.batch else [[i] for i in request]:
            began = time.process_time()
            state, unlearned = learner.forget(state, group)
            seconds += time.process_time() - began
            examples += unlearned.cost.examples
            if step in timed_at:
                retraining.append(_retrain_seconds(recipe, state, setting.seed))
            step += 1
        accuracies.append(float((learner.predict(state, test.x) == test.y).mean()))
        spent.append(seconds - before)
        if request is asked[0]:
            equal = state.digest() == learner.fit(train.without(request), seed=setting.seed).digest()
    count = len(asked)
    retrainings = 1 if setting.batch else requests
    each = sum(retraining) / len(retraining)
    layout = Layout(rows=len(train), shards=shards, slices=setting.slices, epochs=recipe.trainer.epochs)
    worked = examples / count
    accuracy = float(np.mean(accuracies))
    low, high = wilson(round(accuracy * len(test)), len(test))
    alternative = recipe.trainer.epochs * sum(
        len(train) - k for k in ([requests] if setting.batch else range(1, requests + 1))
    )
    return {
        "shards": shards,
        "slices": setting.slices,
        "requests": requests,
        "batch": setting.batch,
        "accuracy": accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
        "accuracy_before": float((learner.predict(first, test.x) == test.y).mean()),
        "measured_speedup": each * retrainings / (seconds / count),
        "measured_speedup_slowest": each * retrainings / max(spent),
        "measured_speedup_fastest": each * retrainings / min(spent),
        "examples_speedup": alternative / worked if worked else math.inf,
        "expected_speedup": speedup(layout, requests, batch=setting.batch),
        "seconds": seconds / count,
        "retrain_seconds": each * retrainings,
        "training_seconds": training_seconds,
        "examples": worked,
        "expected_examples": expected_cost(layout, requests, batch=setting.batch),
        "stored_bytes": learner.extra_bytes(first),
        "trials": count,
        "equals_fresh_fit": bool(equal),
        "engine": exact_engine(recipe).name,
    }


def _retrain_seconds(recipe: Recipe, state: State, seed: int) -> float:
    """Processor seconds of the plain alternative: one model on everything that remains."""
    records = state.rows.records()
    began = time.process_time()
    fit(recipe, records, [seed], engine=exact_engine(recipe))
    return time.process_time() - began


def _accuracy_of_one(recipe: Recipe, train: Records, test: Records, seed: int) -> float:
    fitted = fit(recipe, train, [derive(seed, "plain")], engine=exact_engine(recipe))
    logits = outputs(fitted.stack, exact_engine(recipe), Table.of([test]))[0]
    return float((logits.argmax(-1).numpy() == test.y).mean())


def mean_single_deletion(learner: Sisa, state: State) -> float:
    """Mean example gradients of forgetting one record, over every record, counted without training."""
    return float(np.mean([learner.cost_of(state, [i]) for i in state.rows.records().ids.tolist()]))


def print_exact(report: dict[str, Any], write: Callable[[str], None]) -> None:
    """The rows as lines of text."""
    write(
        f"{report['records']} records to learn from, {report['test']} to test on; one model on all of them: "
        f"accuracy {report['retrained_accuracy']:.3f}"
    )
    head = ("shards", "slices", "requests", "accuracy", "measured", "expected", "gradients", "seconds", "retraining")
    write("  ".join(f"{h:>{width}}" for h, width in zip(head, WIDTHS, strict=True)))
    for row in report["rows"]:
        cells: Sequence[str] = (
            f"{row['shards']}",
            f"{row['slices']}",
            f"{row['requests']}{' at once' if row['batch'] else ''}",
            f"{row['accuracy']:.3f} [{row['accuracy_low']:.2f}, {row['accuracy_high']:.2f}]",
            f"{row['measured_speedup']:.2f}x",
            f"{row['expected_speedup']:.2f}x",
            f"{row['examples_speedup']:.2f}x",
            f"{row['seconds']:.3f}",
            f"{row['retrain_seconds']:.2f}",
        )
        write("  ".join(f"{c:>{width}}" for c, width in zip(cells, WIDTHS, strict=True)))
    wrong = [row for row in report["rows"] if not row["equals_fresh_fit"]]
    write(
        "every row: the bytes after forgetting are those of a fresh run on what remains"
        if not wrong
        else f"NOT EXACT in {len(wrong)} rows: the bytes differ from those of a fresh run"
    )
    if "leaks" in report:
        write("\nwhat exactness does not stop")
        for line in leak_lines(report["leaks"]):
            write(line)
