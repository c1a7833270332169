"""The work of a comparison, cut into tasks for worker processes: each is done when its files are there."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from expunge.data.benchmarks.text_benchmark import TextBenchmark
from expunge.data.records import Records
from expunge.errors import ExpungeError
from expunge.evaluation.attacks.language.contract import Scene, Target, Trial, answer_room
from expunge.evaluation.forms.made import Made, latency, make
from expunge.evaluation.forms.plan import FormsPlan, tokenizer_of
from expunge.evaluation.forms.table import Form
from expunge.evaluation.language import tasks as language_tasks
from expunge.evaluation.language.plan import PEOPLE_TEMPLATE, StudyPlan, load_model, problem_of
from expunge.evaluation.metrics.language.matching import contains
from expunge.models.chat import ChatModel, ask
from expunge.models.language import LanguageModel
from expunge.training.files import read_json, write_json
from expunge.training.text_fit import fit_text
from expunge.training.text_loop import TextJob
from expunge.training.text_stages import Stages
from expunge.training.workers import describe_error

# What is asked of every form, however it answers.
ASKED = ("forget", "paraphrase", "retain", "neighbour", "foundational")
ATTACK_SEED = 0


def train_base(folder: Path, _number: int) -> None:
    """The base model, which knows nobody private."""
    target = folder / "base"
    if (target / "done.json").exists():
        return
    plan = FormsPlan.read(folder)
    texts = plan.base_texts()
    tokenizer = tokenizer_of(texts, plan.study(folder).benchmark())
    recipe = plan.base_recipe(len(tokenizer))
    stages = folder / "stages" / "base"
    stages.mkdir(parents=True, exist_ok=True)
    started = time.process_time()
    like = LanguageModel(recipe.build(), tokenizer, PEOPLE_TEMPLATE)
    model, loop = fit_text(recipe, texts, 0, like, TextJob(stages=Stages(stages)))
    model.save(target)
    write_json(target / "done.json", {"seconds": time.process_time() - started, "texts": loop.texts})
    shutil.rmtree(stages)


def rows(plan: FormsPlan) -> list[tuple[str, int]]:
    """(label, seed) of every model that is attacked: original, retrained ones, each form under each seed."""
    controls = [(language_tasks.model_name(k), 0) for k in range(plan.references + 1)]
    return controls + [(form.label, seed) for form in plan.forms for seed in seeds_of(plan, form)]


def seeds_of(plan: FormsPlan, form: Form) -> range:
    """Seeds under which a form is run: one where nothing is drawn."""
    return range(plan.seeds if form.drawn else 1)


def place_of(folder: Path, label: str, seed: int) -> Path:
    return folder / "attacked" / f"{label}-{seed}"


def attack_row(folder: Path, number: int) -> None:
    """Make one model, ask it, and attack it in every way; what is done stays done."""
    plan = FormsPlan.read(folder)
    label, seed = rows(plan)[number]
    place = place_of(folder, label, seed)
    if (place / "done.json").exists():
        return
    study = plan.study(folder)
    benchmark = study.benchmark()
    original = load_model(study, language_tasks.source_of(study, folder, 0))
    try:
        made = _made(plan, study, benchmark, folder, number, original)
    except ExpungeError as error:
        write_json(place / "done.json", {"status": "failed", "label": label, "seed": seed, **describe_error(error)})
        return
    target = Target(model=made.model, before=original)
    scene = Scene.of(benchmark)
    for attack in plan.made_attacks():
        path = place / f"{attack.name}.json"
        if path.exists():
            continue
        try:
            started = time.process_time()
            trial = attack.run(target, scene, seed=ATTACK_SEED)
            write_json(path, {**trial_document(trial), "seconds": time.process_time() - started})
        except ExpungeError as error:
            write_json(path, {"status": "withheld", "reason": error.cause})
    asked = {name: _answers(made.model, benchmark.probes[name]) for name in ASKED if name in benchmark.probes}
    kept = benchmark.probes["retain"]
    room = answer_room(target, kept)
    write_json(
        place / "done.json",
        {
            "status": "ok",
            "label": label,
            "seed": seed,
            "guarantee": made.guarantee,
            "seconds": made.seconds,
            "stored_bytes": made.stored,
            "parameters": json.loads(json.dumps(dict(made.parameters), default=str)),
            "latency": latency(made.model, original, [str(p) for p in kept.column("prompt")], room),
            "digest": made.model.digest(),
            "asked": asked,
        },
    )


def _made(
    plan: FormsPlan, study: StudyPlan, benchmark: TextBenchmark, folder: Path, number: int, original: LanguageModel
) -> Made:
    if number <= plan.references:
        source = language_tasks.source_of(study, folder, number)
        seconds = 0.0 if number == 0 else float(read_json(Path(source) / "done.json")["seconds"])
        word = "suppressed" if number == 0 else "exact(distribution)"
        return Made(model=load_model(study, source), guarantee=word, seconds=seconds, stored=0, parameters={})
    label, seed = rows(plan)[number]
    form = next(f for f in plan.forms if f.label == label)
    problem = replace(problem_of(study, benchmark, original), model=original.copy())
    return make(form, problem, benchmark, folder / "base", seed)


def _answers(model: ChatModel, records: Records) -> dict[str, Any]:
    """What it answers to questions with known answers, and which of them are right."""
    prompts, answers = [str(p) for p in records.column("prompt")], [str(a) for a in records.column("answer")]
    said = ask(model, prompts, max_new_tokens=answer_room(Target(model=model), records))
    right = [bool(contains(s, a)) for s, a in zip(said, answers, strict=True)]
    return {"ids": records.ids.tolist(), "right": right, "said": said}


def trial_document(trial: Trial) -> dict[str, Any]:
    """A trial as JSON."""
    return {
        "status": "ok",
        "items": list(trial.items),
        "unit": trial.unit,
        "points": [{"cost": p.cost, "found": p.found.tolist()} for p in trial.points],
        "shown": json.loads(json.dumps(dict(trial.shown), default=str)),
    }


def trial_of(document: Mapping[str, Any]) -> Trial:
    """The inverse of `trial_document`."""
    from expunge.evaluation.attacks.language.contract import Point

    return Trial(
        items=tuple(document["items"]),
        points=tuple(Point(cost=p["cost"], found=np.array(p["found"])) for p in document["points"]),
        unit=document["unit"],
        shown=document["shown"],
    )
