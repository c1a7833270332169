"""The work of a study, cut into tasks that a worker process carries out: each is done when its files are there.

``models``: task 0 trains the original, the others retrained references. ``outcomes``: one method under one seed.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from expunge.data.benchmarks.text_benchmark import TextBenchmark
from expunge.errors import ExpungeError
from expunge.evaluation.language.plan import (
    NOT_ASKED,
    StudyPlan,
    asked,
    blank_model,
    load_model,
    problem_of,
)
from expunge.evaluation.language.record import record_answers, record_probes
from expunge.evaluation.language.suppressed import load_either, save_suppressed
from expunge.methods import make_text_method
from expunge.methods.prompt_base import PromptMethod
from expunge.models.chat import ChatModel
from expunge.models.language import LanguageModel
from expunge.models.pieces import told
from expunge.recipe import Recipe
from expunge.training.chunks import Progress
from expunge.training.files import read_json, write_json
from expunge.training.text_fit import fit_text
from expunge.training.text_loop import OnStep, TextJob
from expunge.training.text_stages import Stages
from expunge.training.workers import describe_error

ORIGINAL = "original"
_TOLD: list[Progress | None] = [None]
FIRST_SEED = 1000


@contextmanager
def telling(progress: Progress | None) -> Iterator[None]:
    """Report the steps of what is carried out in this very process."""
    _TOLD[0] = progress
    try:
        yield
    finally:
        _TOLD[0] = None


def _on_step(what: str) -> OnStep | None:
    progress = _TOLD[0]
    if progress is None:
        return None
    return lambda step, steps, loss: progress(f"{what}, loss {loss:.3g}", step, steps)


def _first_process() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def read_plan(folder: Path) -> StudyPlan:
    return StudyPlan.from_dict(read_json(folder / "plan.json"))


def model_name(number: int) -> str:
    """Name of the model of a task: 0 is the original, 1 and on are references."""
    return ORIGINAL if number == 0 else f"reference-{number}"


def source_of(plan: StudyPlan, folder: Path, number: int) -> str:
    """Where the model of a task stands: what was given, or what is trained here."""
    if number == 0 and plan.model.original is not None:
        return plan.model.original
    if number and plan.model.references:
        return plan.model.references[number - 1]
    return str(folder / "models" / model_name(number))


def prepare(folder: Path, number: int) -> None:
    """Train one model where it was not given, and record what it says."""
    plan = read_plan(folder)
    name, benchmark = model_name(number), plan.benchmark()
    source = source_of(plan, folder, number)
    target = folder / "models" / name
    if source == str(target) and not (target / "done.json").exists():
        like = blank_model(plan, benchmark)
        started = time.process_time()
        stages = folder / "stages" / name
        stages.mkdir(parents=True, exist_ok=True)
        model, loop = fit_text(
            Recipe.from_dict(plan.model.recipe or {}),
            like.pieces(benchmark.train if number == 0 else benchmark.retain),
            0 if number == 0 else FIRST_SEED + number,
            like,
            TextJob(stages=Stages(stages), autocast=plan.how.autocast, tokens_at_once=plan.how.tokens_at_once),
        )
        model.save(target)
        cost = {"seconds": time.process_time() - started, "texts": loop.texts, "tokens": loop.tokens}
        write_json(target / "done.json", cost)
        shutil.rmtree(stages)
    _ask(plan, folder, name, load_model(plan, source))


def unlearn(folder: Path, number: int) -> None:
    """One method under one seed: the outcome's measurements' raw material, and its cost."""
    plan = read_plan(folder)
    label, name, parameters = plan.methods[number // plan.seeds]
    seed = plan.first_seed + number % plan.seeds
    place = f"{label}-{seed}"
    told = folder / "outcomes" / f"{place}.json"
    if told.exists():
        return
    benchmark = plan.benchmark()
    original = load_model(plan, source_of(plan, folder, 0))
    stages = folder / "stages" / place
    stages.mkdir(parents=True, exist_ok=True)
    try:
        method = make_text_method(name, parameters)
        problem = problem_of(plan, benchmark, original)
        if isinstance(method, PromptMethod):
            if not _first_process():  # nothing is trained that several could share
                return
            outcome = method.unlearn(problem, seed=seed)
        else:
            how = plan.how.build(stages, _on_step(label), cache=folder / "cache")
            if not method.adapters:  # an edit of weights is compared as what it is
                how = replace(how, lora=None)
            outcome = method.unlearn(problem, seed=seed, how=how)
    except ExpungeError as error:
        write_json(told, {"status": "failed", "method": name, "seed": seed, **describe_error(error)})
        return
    if not _first_process():
        return
    model = outcome.model
    assert isinstance(model, ChatModel)
    _ask(plan, folder, place, model)
    if seed == plan.first_seed and plan.keep_models:
        if isinstance(model, LanguageModel):
            model.save(folder / "unlearned" / label)
        else:
            kept, source = folder / "unlearned" / label, source_of(plan, folder, 0)
            save_suppressed(model, kept, plan=plan, label=label, seed=seed, original=original, source=source)
    write_json(
        told,
        {
            "status": "ok",
            "method": name,
            "seed": seed,
            "guarantee": outcome.guarantee.as_dict(),
            "words": str(outcome.guarantee),
            "seconds": outcome.cost.seconds,
            "texts": outcome.cost.examples,
            "stored_bytes": outcome.cost.stored_bytes,
            "digest": model.digest(),
            "parameters": json.loads(json.dumps(outcome.parameters, default=str)),
            "trace": json.loads(json.dumps(list(outcome.trace), default=str)),
        },
    )
    shutil.rmtree(stages)


def ask_given(folder: Path, number: int) -> None:
    """Record what a model says that was unlearned elsewhere."""
    plan = read_plan(folder)
    label, source = plan.given[number]
    _ask(plan, folder, label, load_either(plan, source))


def _ask(plan: StudyPlan, folder: Path, name: str, model: ChatModel) -> None:
    place = folder / "outputs" / name
    if (place / "done.json").exists():
        return
    benchmark = plan.benchmark()
    cut = []
    if isinstance(model, LanguageModel):
        recorded = record_probes(model, asked(plan, benchmark), samples=plan.samples)
        cut = cut_texts(benchmark, model)
    else:
        recorded = record_answers(model, asked(plan, benchmark), samples=plan.samples)
    for probe, said in recorded.items():
        said.save(place, probe)
    write_json(place / "done.json", {"probes": sorted(recorded), "digest": model.digest(), "cut": cut})


def cut_texts(benchmark: TextBenchmark, model: LanguageModel) -> list[str]:
    """A line on every set with texts longer than the model reads."""
    sets = {"train": benchmark.train, "forget": benchmark.forget, "retain": benchmark.retain}
    sets |= {f"probe {name}": records for name, records in benchmark.probes.items() if name not in NOT_ASKED}
    lines = {name: told(records, model.pieces(records)) for name, records in sets.items()}
    return [f"{name}: {line}" for name, line in lines.items() if line is not None]
