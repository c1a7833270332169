"""Which kind of run a folder holds, and the attacks on its models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from expunge.errors import RunError
from expunge.evaluation.attacks.on_language import attack_study, language_attacks, model_study
from expunge.evaluation.language.plan import StudyPlan
from expunge.evaluation.language.study import SCHEMA
from expunge.training.chunks import Progress
from expunge.training.files import read_json

Kind = Literal["study", "language_run", "classifier_bench", "classifier_run"]
FILE = "attacks.json"


def kind_of(folder: Path) -> Kind:
    """What made a folder: a benchmark or a run, of a language model or of classifiers.

    Raises:
        RunError: none of these.
    """
    if not folder.is_dir():
        raise RunError(
            f"there is no folder {folder}", "Name a run's folder, or a language model together with --benchmark"
        )
    plan = read_json(folder / "plan.json") if (folder / "plan.json").exists() else {}
    if {"data", "methods", "given"} <= set(plan):
        return "study"
    if (folder / "originals" / "job.json").exists():
        return "classifier_bench"
    if (folder / "request.json").exists():
        if not (folder / "report.json").exists() or (folder / "work").exists():
            raise RunError(f"the run in {folder} is not finished", "Run the same request again: it goes on")
        if read_json(folder / "report.json").get("schema") == SCHEMA:
            return "language_run"
        return "classifier_run"
    if (folder / "config.json").exists() or (folder / "adapter_config.json").exists():
        raise RunError(f"{folder} holds a model and no run", "Say what it was to forget: --benchmark NAME")
    raise RunError(
        f"{folder} holds no run",
        "Name the folder of `expunge run`, `expunge bench people`, `bench challenge` or `demo`; "
        "of several seeds, one of its seed-N",
    )


def attack_language(
    folder: Path,
    kind: Kind,
    names: str,
    settings: Mapping[str, Any],
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Attack the models of a language study or run.

    Raises:
        UnknownName, RequestError: the attacks. RunError: the folder.
    """
    attacks = language_attacks(names, settings)
    if kind == "study":
        return attack_study(folder, attacks, seed=seed, progress=progress)
    report = read_json(folder / "report.json")
    plan = StudyPlan.from_dict(report["plan"])
    models = {plan.methods[0][0]: str(folder / "model")}
    return attack_study(folder, attacks, plan=plan, models=models, seed=seed, progress=progress)


def attack_model(
    model: str,
    folder: Path,
    names: str,
    settings: Mapping[str, Any],
    *,
    benchmark: str,
    options: Mapping[str, Any],
    original: str | None = None,
    references: tuple[str, ...] = (),
    device: str = "cpu",
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Attack a language model that came from elsewhere; trials are kept in ``folder/attacks``.

    Raises:
        UnknownName, RequestError: benchmark, options or attacks. ModelError: a model cannot be loaded.
    """
    attacks = language_attacks(names, settings)
    plan = model_study(model, benchmark, options, original=original, references=references, device=device)
    return attack_study(folder, attacks, plan=plan, seed=seed, progress=progress)
