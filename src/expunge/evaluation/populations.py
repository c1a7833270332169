"""Unlearned populations: one problem, one method, many seeds, recorded by outputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from expunge.data.records import Records
from expunge.data.store import read_records, save_records
from expunge.evaluation.outputs import Outputs, record_tensors
from expunge.methods import make_method
from expunge.methods.base import WeightMethod
from expunge.models.classifier import Classifier
from expunge.problem import Problem, TrainingLog
from expunge.recipe import Recipe
from expunge.training.batches import Table
from expunge.training.chunks import ChunkedJob, Progress, chunk_seeds, save_chunk
from expunge.training.engine import choose_engine
from expunge.training.files import read_json, write_atomically
from expunge.training.population import STACK, Population
from expunge.training.stack import Stack
from expunge.training.workers import Workers

ROLES = ("forget", "retain", "holdout", "test")


@dataclass(frozen=True)
class Unlearnings:
    """An unlearned population on disk: outputs and costs, and the weights of the first models."""

    job: ChunkedJob

    def outputs(self) -> Outputs:
        return Outputs.from_tensors(self.job.load())

    def cost(self) -> dict[str, Any]:
        """``seconds`` and ``examples`` of each model, ``stored_bytes`` of one."""
        loaded = self.job.load(["seconds", "examples", "stored_bytes"])
        return {
            "seconds": loaded["seconds"].numpy(),
            "examples": loaded["examples"].numpy(),
            "stored_bytes": int(loaded["stored_bytes"][0]),
        }


def save_problem_records(problem: Problem, folder: Path) -> None:
    for role in ROLES:
        path = folder / f"{role}.safetensors"
        if not path.exists():
            save_records(getattr(problem, role), path)


def unlearn_population(
    method: WeightMethod,
    problem: Problem,
    originals: Population,
    count: int,
    folder: Path,
    *,
    protocol: str = "one_original",
    first_seed: int = 0,
    stack: int = STACK,
    workers: Workers | None = None,
    progress: Progress | None = None,
) -> Unlearnings:
    """Unlearn `count` times with seeds `first_seed`, … and record the outputs.

    Args:
        originals: trained models on disk; ``one_original`` starts every run from model 0, ``n_originals`` run k from
            model k.

    Raises:
        RunError: `folder` holds another run. ExpungeError: whatever the method refuses with.
    """
    save_problem_records(problem, folder.parent / "problem")
    specification: dict[str, Any] = {
        "method": {"name": method.name, **method.parameters()},
        "originals": str(originals.job.folder.resolve()),
        "originals_digest": originals.job.digest(),
        "records": {role: getattr(problem, role).digest() for role in ROLES},
        "protocol": protocol,
        "first_seed": first_seed,
    }
    job = ChunkedJob(folder, "expunge.evaluation.populations:unlearn_chunk", specification, count, min(stack, count))
    job.run(workers or Workers(), progress, method.name)
    return Unlearnings(job)


def record_population(
    population: Population,
    problem: Problem,
    folder: Path,
    *,
    workers: Workers | None = None,
    progress: Progress | None = None,
) -> Outputs:
    """Outputs of a trained population on the problem's records, kept in `folder`.

    Raises:
        RunError: `folder` holds the outputs of another population.
    """
    save_problem_records(problem, folder.parent / "problem")
    specification = {
        "population": str(population.job.folder.resolve()),
        "population_digest": population.job.digest(),
        "records": {role: getattr(problem, role).digest() for role in ROLES},
    }
    chunk = population.job.chunk
    job = ChunkedJob(folder, "expunge.evaluation.populations:record_chunk", specification, len(population), chunk)
    job.run(workers or Workers(), progress, f"{folder.name} outputs")
    return Outputs.from_tensors(job.load())


def record_chunk(folder: Path, number: int) -> None:
    """The worker's part of `record_population`."""
    job = read_json(folder / "job.json")
    population = open_population(Path(job["population"]))
    records = _problem_records(folder.parent / "problem")
    tensors = load_file(str(population.job.path(number)))
    stack = Stack.from_tensors(population.recipe.build(), tensors)
    engine, _ = choose_engine(stack.template, Table.of([records["forget"]]).columns["x"][:2])
    save_chunk(folder, number, record_tensors(stack, engine, records))


def open_population(folder: Path) -> Population:
    """The trained population in a folder.

    Raises:
        RunError: there is none.
    """
    job = read_json(folder / "job.json")
    specification = {k: v for k, v in job.items() if k not in ("task", "total", "chunk")}
    return Population(
        ChunkedJob(folder, job["task"], specification, job["total"], job["chunk"]), Recipe.from_dict(job["recipe"])
    )


@lru_cache(maxsize=4)
def _problem_records(folder: Path) -> dict[str, Records]:
    return {role: read_records(folder / f"{role}.safetensors") for role in ROLES}


@lru_cache(maxsize=2)
def _originals(folder: Path) -> tuple[Population, list[Classifier], list[TrainingLog]]:
    population = open_population(folder)
    return population, population.models(), population.logs()


def unlearn_chunk(folder: Path, number: int) -> None:
    """The worker's part of `unlearn_population`."""
    job = read_json(folder / "job.json")
    population, models, logs = _originals(Path(job["originals"]))
    records = _problem_records(folder.parent / "problem")
    parameters = dict(job["method"])
    method = make_method(parameters.pop("name"), parameters)
    seeds = chunk_seeds(job, number)
    which = [0] * len(seeds) if job["protocol"] == "one_original" else [s - job["first_seed"] for s in seeds]
    problems = [Problem(model=models[k], recipe=population.recipe, log=logs[k], **records) for k in which]
    stack, cost, _ = method.unlearn_stack(problems, seeds)
    engine, _ = choose_engine(stack.template, Table.of([records["forget"]]).columns["x"][:2])
    tensors = record_tensors(stack, engine, records)
    if number == 0:  # the model that is handed over
        first = stack.module(0).state_dict()
        write_atomically(
            folder / "model.safetensors",
            lambda temporary: save_file({k: v.contiguous() for k, v in first.items()}, str(temporary)),
        )
    for name in ("seconds", "examples", "stored_bytes"):
        tensors[name] = torch.full((len(seeds),), float(getattr(cost, name)), dtype=torch.float64)
    save_chunk(folder, number, tensors)
