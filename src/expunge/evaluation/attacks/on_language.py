"""Attacks on what a study of language models left in its folder: unlearned models, retrained ones, the original."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from expunge.errors import RequestError, RunError, UnknownName
from expunge.evaluation.attacks.campaign import Campaign, Suspect
from expunge.evaluation.attacks.language import LANGUAGE_ATTACKS, make_attack
from expunge.evaluation.attacks.language.contract import Attack, Scene, Target
from expunge.evaluation.language import tasks
from expunge.evaluation.language.plan import ModelPlan, StudyPlan
from expunge.evaluation.language.study import BASE
from expunge.evaluation.language.suppressed import load_either
from expunge.models.chat import ChatModel
from expunge.training.files import read_json

TRIALS = "attacks"
SPARE = 2  # a retrained model is given up as calibration where so many are left


def chosen_attacks(
    names: str, settings: Mapping[str, Any], table: Mapping[str, Any], make: Any, kind: str = "language models"
) -> list[Any]:
    """Attacks by name, with commas between, or ``all``.

    Args:
        settings: ``name: value`` goes to every attack that has such a setting, ``attack.name: value`` to that one.
        table, make: of the attacks, e.g. `LANGUAGE_ATTACKS` and `make_attack`. kind: what they attack, for messages.

    Raises:
        UnknownName: no such attack. RequestError: none is named, one twice, or a setting that none of them has.
    """
    wanted = [n.strip() for n in names.split(",") if n.strip()]
    wanted = list(table) if wanted == ["all"] else wanted
    if not wanted:
        raise RequestError("no attack is named", "Name some with commas between, or all")
    unknown = next((n for n in wanted if n not in table), None)
    if unknown is not None:
        raise UnknownName(f"attack on {kind}", unknown, table)
    if len(set(wanted)) < len(wanted):
        raise RequestError(f"an attack is named twice in {names!r}", "Name each once")
    given: dict[str, dict[str, Any]] = {n: {} for n in wanted}
    for key, value in settings.items():
        of, dot, name = key.rpartition(".")
        takers = [n for n in wanted if name in _settings_of(table[n]) and (not dot or n == of)]
        if not takers:
            known = ", ".join(f"{n}: {' '.join(sorted(_settings_of(table[n]))) or 'none'}" for n in wanted)
            raise RequestError(f"none of these attacks has a setting {key!r}", f"They have {known}")
        for n in takers:
            given[n][name] = value
    return [make(n, given[n]) for n in wanted]


def _settings_of(attack: Any) -> set[str]:
    return {f.name for f in fields(attack)} if is_dataclass(attack) else set()


def language_attacks(names: str, settings: Mapping[str, Any] | None = None) -> list[Attack]:
    """See `chosen_attacks`."""
    return chosen_attacks(names, settings or {}, LANGUAGE_ATTACKS, make_attack)


def attack_study(
    folder: Path,
    attacks: Sequence[Attack],
    *,
    plan: StudyPlan | None = None,
    models: Mapping[str, str] | None = None,
    seed: int = 0,
    progress: Any = None,
) -> dict[str, Any]:
    """Attack the models of a study; what an interrupted run has done is kept in ``folder/attacks``.

    Args:
        folder: of the study, with ``plan.json``, ``models`` and ``unlearned``. plan: read from there by default.
        models: label -> folder or hub name of the unlearned models, where they are not in ``unlearned``.

    Raises:
        RunError: the study is unfinished or no study. DataError: there is nothing to ask about what was forgotten.
    """
    plan = plan or tasks.read_plan(folder)
    benchmark = plan.benchmark()
    original, references = _controls(folder, plan)
    found, absent = _unlearned(folder, plan) if models is None else (dict(models), {})
    campaign = Campaign(
        models="language",
        scene=Scene.of(benchmark),
        scene_digest=benchmark.digest,
        original=original,
        references=references,
        unlearned={label: [_suspect(plan, label, source)] for label, source in found.items()},
        absent=absent,
        target=lambda model, before: Target(model=model, before=before),
        folder=folder / TRIALS,
        seed=seed,
        about=benchmark.describe(),
    )
    return campaign.run([calibrated(a, plan, references) for a in attacks], progress)


def model_study(
    model: str,
    benchmark: str,
    options: Mapping[str, Any],
    *,
    original: str | None = None,
    references: Sequence[str] = (),
    device: str = "cpu",
) -> StudyPlan:
    """The plan of a study of one model that came from elsewhere; without its original, recovery is unscored."""
    return StudyPlan(
        data={"name": benchmark, **options},
        model=ModelPlan(original=original or model, references=tuple(references), device=device),
        seeds=1,
        given=(("evaluated", model),),
    )


def calibrated(attack: Attack, plan: StudyPlan, references: Sequence[Suspect]) -> Attack:
    """An attack that compares with a model that never saw the texts gets one, if it names none and there is one.

    The public base comes first; then the last retrained model, if `SPARE` others are left to be references.
    """
    if getattr(attack, "reference", None) != "":
        return attack
    base = dict(plan.given).get(BASE)
    spare = references[-1].source if len(references) > SPARE else None
    chosen = base or spare
    return attack if chosen is None else replace(attack, reference=chosen)  # type: ignore[type-var]


def reference_count(plan: StudyPlan) -> int:
    if plan.model.references:
        return len(plan.model.references)
    return plan.model.count if plan.model.recipe is not None else 0


def _suspect(plan: StudyPlan, label: str, source: str) -> Suspect:
    return Suspect(label=label, load=partial(_load, plan, source), source=source)


def _load(plan: StudyPlan, source: str) -> ChatModel:
    return load_either(plan, source)


def _controls(folder: Path, plan: StudyPlan) -> tuple[Suspect | None, list[Suspect]]:
    """The original, None where the only model there is is the unlearned one, and the retrained models."""
    found = []
    for number in range(reference_count(plan) + 1):
        source = tasks.source_of(plan, folder, number)
        trained_here = source == str(folder / "models" / tasks.model_name(number))
        if trained_here and not (Path(source) / "done.json").exists():
            raise RunError(f"the study in {folder} is not finished: {source} is not there", "Run it again: it goes on")
        found.append(_suspect(plan, tasks.model_name(number), source))
    alone = plan.model.original in [source for _, source in plan.given]
    return (None if alone else found[0]), found[1:]


def _unlearned(folder: Path, plan: StudyPlan) -> tuple[dict[str, str], dict[str, str]]:
    """label -> folder of every kept model, and label -> why there is none."""
    found = {label: source for label, source in plan.given if label != BASE}
    absent = {}
    for label, _, _ in plan.methods:
        told = folder / "outcomes" / f"{label}-{plan.first_seed}.json"
        if not told.exists():
            raise RunError(
                f"the study in {folder} is not finished: {label} did not run yet", "Run it again: it goes on"
            )
        kept, outcome = folder / "unlearned" / label, read_json(told)
        if outcome["status"] != "ok":
            absent[label] = f"it did not run: {outcome['cause']}. {outcome['remedy']}"
        elif not kept.exists():
            absent[label] = "its model was not kept"
        else:
            found[label] = str(kept)
    if not found and not absent:
        raise RunError(f"the study in {folder} has no unlearned model", "Run one with methods, or name a model")
    return found, absent
