"""A request carried out: plan, unlearn, evaluate, report. A run is a folder that can be taken up again."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from expunge.data import load_records
from expunge.data.records import Records
from expunge.data.select import Select, class_number
from expunge.data.splits import split
from expunge.errors import EmptyRetainSet, RequestError, RunError, UnknownIds
from expunge.evaluation.assemble import THREAT_MODEL, build_report
from expunge.evaluation.attacks.classifier.contract import ClassifierScene
from expunge.evaluation.attacks.on_classifiers import MODELS, attack_classifiers
from expunge.evaluation.benchmarks.challenge import cores
from expunge.evaluation.report import read_report, write_report
from expunge.evaluation.study import FLOOR_SEED, HOLDER_SEED, PROTOCOLS, REFERENCE_SEED, Study
from expunge.guarantee import GUARANTEES
from expunge.methods import make_method
from expunge.methods.base import WeightMethod
from expunge.models.classifier import Classifier
from expunge.problem import Problem
from expunge.recipe import Recipe, Trainer
from expunge.request import Request, Substitute
from expunge.training.chunks import Progress
from expunge.training.estimate import Estimate, check_room, estimate_training
from expunge.training.files import read_json, write_atomically, write_json
from expunge.training.fit import fit
from expunge.training.population import STACK, keep_population, train, train_population
from expunge.training.workers import Workers


@dataclass(frozen=True)
class Plan:
    """What a run will do, resolved and priced before anything is written.

    Args:
        train, holdout, test: records. forget: ids. substitute: class number of the counterfactual, if it is one.
        steps: (what, models, estimated processor seconds).
    """

    request: Request
    folder: Path
    train: Records
    holdout: Records
    test: Records
    forget: tuple[str, ...]
    recipe: Recipe
    method: WeightMethod
    estimate: Estimate
    steps: tuple[tuple[str, int, float], ...]
    bytes_needed: int
    substitute: int | None = None

    def as_dict(self) -> dict[str, Any]:
        return {
            "request": self.request.as_dict(),
            "folder": str(self.folder),
            "records": {
                "forget": len(self.forget),
                "retain": len(self.train) - len(self.forget),
                "holdout": len(self.holdout),
                "test": len(self.test),
            },
            "method": {"name": self.method.name, **self.method.parameters()},
            "guarantee": self.method.guarantee.word,
            "recipe": self.recipe.as_dict(),
            "engine": {"name": self.estimate.engine, "why": self.estimate.why},
            "steps": [{"what": w, "models": m, "processor_seconds": round(s, 1)} for w, m, s in self.steps],
            "bytes": self.bytes_needed,
        }


def make_plan(request: Request, folder: Path) -> Plan:
    """Resolve a request against its data and its model; writes nothing.

    Raises:
        RequestError, UnknownName, UnknownIds, EmptyForgetSet, EmptyRetainSet, DataError, ModelError.
    """
    method = make_method(request.method.name, request.method.parameters)
    least = GUARANTEES[request.least_guarantee]
    if method.guarantee.strength < least.strength:
        raise RequestError(
            f"the request demands {least.word} and {method.name} may claim at most {method.guarantee.word}",
            "Choose a method with that guarantee (`expunge methods`), or ask for less",
        )
    train, holdout, test = records_of(request)
    try:
        forget = tuple(_forget_ids(request, train))
    except UnknownIds as error:
        elsewhere = {*_names(holdout), *_names(test)}
        if elsewhere.issuperset(error.missing):
            where = "the training records, but in those set aside for testing, which the model never saw"
            raise UnknownIds("ids or owners", error.missing, where) from error
        raise
    recipe = Recipe(
        factory=request.model.factory,
        kwargs=request.model.kwargs,
        trainer=Trainer(**request.model.trainer.model_dump()),
    )
    probe = Classifier(recipe.build())
    for part in (train, holdout, test):
        probe.check_fits(part)
    if len(forget) == len(train) and "retain" in method.needs:
        raise EmptyRetainSet(method.name)
    substitute = None
    if isinstance(request.counterfactual, Substitute):
        substitute = class_number(request.counterfactual.substitute, train)
    evaluation = request.evaluation
    estimate = estimate_training(recipe, train, min(STACK, 2 * evaluation.references))
    each = estimate.seconds_per_model
    steps = (
        *([] if request.model.weights else [("train the original", 1, each)]),
        ("retrain references", evaluation.references, each * evaluation.references),
        ("retrain the floor", evaluation.references, each * evaluation.references),
        (f"unlearn by {method.name}", evaluation.unlearned, each * evaluation.unlearned),
    )
    records = len(train) + len(holdout) + len(test)
    needed = (2 * evaluation.references + evaluation.unlearned + 1) * (
        estimate.bytes_per_model + 9 * records
    ) + 2 * train.x.nbytes
    return Plan(request, folder, train, holdout, test, forget, recipe, method, estimate, steps, needed, substitute)


def describe_plan(plan: Plan) -> str:
    """The plan in words, for a terminal."""
    document = plan.as_dict()
    lines = [f"request {plan.request.id}: forget {len(plan.forget)} of {len(plan.train)} records by {plan.method.name}"]
    lines += [f"guarantee at most: {plan.method.guarantee.word}; counterfactual: {_counterfactual(plan.request)}"]
    lines += [f"engine: {plan.estimate.engine} ({plan.estimate.why})"]
    lines += [f"  {w:<32} {m:>5} models  about {s:8.1f} processor seconds" for w, m, s in plan.steps]
    lines += [f"disk: about {document['bytes'] / 2**20:.1f} MiB in {plan.folder} while it runs"]
    return "\n".join(lines)


def execute(
    plan: Plan, *, processes: int = 0, max_minutes: float | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Carry the plan out and return the report; what an interrupted run has done is kept and not done again.

    Working files, the forgotten records and the original's weights among them, are removed at the end: what stays is
    the request, the plan, the unlearned model, recorded outputs by id, and the report.

    Raises:
        RunError: the folder holds another request. NotEnoughRoom. Whatever the method refuses with.
    """
    folder, request, work = plan.folder, plan.request, plan.folder / "work"
    processes = processes or cores()
    if (folder / "request.json").exists():
        if read_json(folder / "request.json") != _frozen(plan):
            raise RunError(f"{folder} holds the run of another request", "Choose another --out, or remove that folder")
        if (folder / "report.json").exists() and not work.exists():
            return read_report(folder)
    check_room(folder, plan.bytes_needed, sum(s for *_, s in plan.steps) / processes, max_minutes)
    write_json(folder / "request.json", _frozen(plan))
    write_json(folder / "plan.json", plan.as_dict())
    with Workers(processes) as workers:
        study = _study(plan, work, workers, progress)
        rows, outputs = [], {}
        controls = [m for m in (make_method("retrain"), make_method("do_nothing")) if m.name != plan.method.name]
        for method in (*controls, plan.method):
            row, recorded = study.row(method, carry_out=method is plan.method)
            if method is plan.method and row["status"] != "ok":
                raise RunError(
                    f"{method.name} did not run: {row['reason']}", "Correct the request; finished steps are kept"
                )
            rows.append(row)
            if recorded is not None:
                outputs[row["method"]] = recorded
        report = build_report(
            title=f"Request {request.id}",
            kind="run",
            problem=study.problem,
            baseline=study.baseline,
            rows=rows,
            outputs=outputs,
            protocol={
                "name": "one_original",
                "description": PROTOCOLS["one_original"],
                "models": request.evaluation.unlearned,
            },
            names={"dataset": request.data.source, "model": request.model.factory},
            seeds={
                "unlearning": request.seed,
                "references": REFERENCE_SEED + request.seed,
                "floor": FLOOR_SEED + request.seed,
            },
            engine=f"{plan.estimate.engine} ({plan.estimate.why})",
            request=request.as_dict(),
            claim={
                "method": plan.method.name,
                "form": plan.method.form,
                "guarantee": str(plan.method.reached()),
                "threat_model": THREAT_MODEL,
                "counterfactual": _counterfactual(request),
            },
            command=f"expunge run {request.id}.yaml",
        )
    _hand_over(plan, work, folder)
    write_report(report, folder)
    shutil.rmtree(work)
    return report


def attack_run(
    folder: Path, attacks: Sequence[Any], *, models: int = MODELS, seed: int = 0, progress: Progress | None = None
) -> dict[str, Any]:
    """Attack the unlearned model of a finished run; returns the document (``expunge/attacks/1``).

    The run kept neither the records nor any other model: they are read and trained again, as its request says.

    Raises:
        RunError: the run is not finished, or its data or weights are no longer what they were. DataError.
    """
    plan = _reopened(folder)
    retain = plan.train.without(plan.forget)

    def trained(records: Records, first_seed: int, what: str) -> list[Classifier]:
        if progress:
            progress(what, 0, models)
        seeds = [first_seed + plan.request.seed + k for k in range(models)]
        stack = fit(plan.recipe, records, seeds).stack
        if progress:
            progress(what, models, models)
        return [Classifier(stack.module(k)) for k in range(models)]

    scene = ClassifierScene(
        forget=plan.train.select(plan.forget),
        holdout=plan.test,
        retain=retain,
        shadows=trained(retain, FLOOR_SEED, "the attacker's own"),
        holders=trained(plan.train, HOLDER_SEED, "that hold the records"),
    )
    weights = plan.request.model.weights
    return attack_classifiers(
        attacks,
        scene,
        original=Classifier.load(weights, plan.recipe)
        if weights
        else train(plan.recipe, plan.train, seed=plan.request.model.seed),
        references=trained(retain, REFERENCE_SEED, "retrained"),
        unlearned={plan.method.name: Classifier.load(folder / "model" / "model.safetensors", plan.recipe)},
        folder=folder,
        seed=seed,
        about={"request": plan.request.id, "recipe": plan.recipe.factory},
        progress=progress,
    )


def _reopened(folder: Path) -> Plan:
    """The plan of a finished run, resolved again."""
    if not (folder / "report.json").exists() or (folder / "work").exists():
        raise RunError(f"the run in {folder} is not finished", "Run the same request again: it goes on")
    frozen = read_json(folder / "request.json")
    plan = make_plan(
        Request.parse({k: v for k, v in frozen.items() if k != "resolved"}, str(folder / "request.json")), folder
    )
    if _frozen(plan) != frozen:
        raise RunError(
            f"the data or the weights that {folder} was made from have changed",
            "Put them back where the request names them: an attack on other records shows nothing",
        )
    return plan


def _study(plan: Plan, work: Path, workers: Workers, progress: Progress | None) -> Study:
    request = plan.request
    if request.model.weights:
        originals = keep_population(
            Classifier.load(request.model.weights, plan.recipe), plan.recipe, work / "originals"
        )
    else:
        originals = train_population(
            plan.recipe,
            plan.train,
            1,
            work / "originals",
            first_seed=request.model.seed,
            workers=workers,
            progress=progress,
            what="original",
        )
    problem = Problem.of(
        originals.model(0),
        plan.train,
        forget=Select(ids=plan.forget),
        test=plan.test,
        holdout=plan.holdout,
        recipe=plan.recipe,
        log=originals.logs()[0] if originals.checkpoint_epochs() else None,
    )
    return Study(
        problem,
        originals,
        work,
        request.evaluation.unlearned,
        workers,
        references=request.evaluation.references,
        seed=request.seed,
        abstain_below=request.evaluation.abstain_below,
        progress=progress,
        substitute=plan.substitute,
        shadows=request.evaluation.shadows,
    )


def _hand_over(plan: Plan, work: Path, folder: Path) -> None:
    """The unlearned model of the first seed, its recipe, and the outputs every number was computed from."""
    recorded = {
        "original": work / "methods" / "_original",
        "retrained": work / "methods" / "_references",
        "floor": work / "methods" / "_floor",
        "holders": work / "methods" / "_holders",
        "unlearned": work / "methods" / plan.method.name,
    }
    for name, source in recorded.items():
        chunks = [load_file(str(path)) for path in sorted(source.glob("chunk-*.safetensors"))]
        whole = {key: torch.cat([c[key] for c in chunks]) for key in chunks[0]}
        write_atomically(folder / "outputs" / f"{name}.safetensors", partial(_save, whole))
    source, target = recorded["unlearned"] / "model.safetensors", folder / "model" / "model.safetensors"
    write_atomically(target, lambda temporary: shutil.copyfile(source, temporary))
    load_file(str(target))  # read back before anything is removed
    write_json(folder / "model" / "recipe.json", plan.recipe.as_dict())


def _save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    save_file(tensors, str(path))


def records_of(request: Request) -> tuple[Records, Records, Records]:
    """The training, holdout and test records of a request, as its data part says.

    Raises:
        RequestError, DataError: they cannot be read.
    """
    part = request.data
    options: dict[str, Any] = {
        k: getattr(part, k) for k in ("id", "owner", "label", "features") if getattr(part, k) is not None
    }
    records = load_records(part.source, **options, **part.options)
    if isinstance(part.test, str):
        test = load_records(part.test, **options, **part.options)
        parts = split(test, {"holdout": 1 / 3, "test": 2 / 3}, salt="holdout", by=part.split_by)
        return records, parts["holdout"], parts["test"]
    share = part.test
    cut = split(records, {"train": 1 - share, "holdout": share / 3, "test": share * 2 / 3}, by=part.split_by)
    return cut["train"], cut["holdout"], cut["test"]


def _forget_ids(request: Request, train: Records) -> list[str]:
    part = request.forget
    if part.ids_file:
        try:
            text = Path(part.ids_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(
                f"cannot read {part.ids_file} ({error})", "Give a text file with an id a line"
            ) from error
        return Select(ids=[line.strip() for line in text.splitlines() if line.strip()]).resolve(train)
    return Select(ids=part.ids, owners=part.owners, labels=part.labels).resolve(train)


def _names(records: Records) -> set[str]:
    return {*records.ids.tolist(), *(records.owners.tolist() if records.owners is not None else [])}


def _frozen(plan: Plan) -> dict[str, Any]:
    """What makes two runs the same: the request, the records it resolves to, and the weights it starts from."""
    weights = plan.request.model.weights
    digest = Classifier.load(weights, plan.recipe).digest() if weights else None
    return {
        **plan.request.as_dict(),
        "resolved": {"train": plan.train.digest(), "test": plan.test.digest(), "weights": digest},
    }


def _counterfactual(request: Request) -> str:
    value = request.counterfactual
    return f"substitute: {value.substitute}" if isinstance(value, Substitute) else value
