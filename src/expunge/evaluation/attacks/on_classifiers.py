"""Attacks on classifiers: the models of a benchmark's folder, or those of a run that is opened again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge.data.records import Records
from expunge.data.store import read_records
from expunge.errors import RunError
from expunge.evaluation.attacks.campaign import Campaign, Suspect
from expunge.evaluation.attacks.classifier import CLASSIFIER_ATTACKS, make_classifier_attack
from expunge.evaluation.attacks.classifier.contract import ClassifierAttack, ClassifierScene, ClassifierTarget
from expunge.evaluation.attacks.on_language import TRIALS, chosen_attacks
from expunge.evaluation.populations import ROLES, open_population
from expunge.methods import METHODS
from expunge.models.classifier import Classifier

MODELS = 8  # retrained ones that are attacked, and as many of the attacker's own of each kind


def classifier_attacks(names: str, settings: Mapping[str, Any] | None = None) -> list[ClassifierAttack]:
    """See `chosen_attacks`."""
    return chosen_attacks(names, settings or {}, CLASSIFIER_ATTACKS, make_classifier_attack, "classifiers")


def attack_classifiers(
    attacks: Sequence[ClassifierAttack],
    scene: ClassifierScene,
    *,
    original: Classifier,
    references: Sequence[Classifier],
    unlearned: Mapping[str, Classifier],
    folder: Path,
    seed: int = 0,
    about: Mapping[str, Any] | None = None,
    progress: Any = None,
) -> dict[str, Any]:
    """Attack some models alike; returns the document (``expunge/attacks/1``).

    Args:
        references: retrained models, none of them among the scene's. unlearned: label -> model. folder: trials are
            kept in ``folder/attacks``.
    """
    campaign = Campaign(
        models="classifier",
        scene=scene,
        scene_digest=_digest(scene),
        original=_suspect("original", original),
        references=[_suspect(f"reference-{k}", model) for k, model in enumerate(references, 1)],
        unlearned={label: [_suspect(label, model)] for label, model in unlearned.items()},
        target=lambda model, before: ClassifierTarget(model=model, before=before),
        folder=folder / TRIALS,
        seed=seed,
        about={
            "records": {name: len(getattr(scene, name)) for name in ("forget", "retain", "holdout")},
            **(about or {}),
        },
    )
    return campaign.run(attacks, progress)


def attack_bench(
    folder: Path, attacks: Sequence[ClassifierAttack], *, models: int = MODELS, seed: int = 0, progress: Any = None
) -> dict[str, Any]:
    """Attack the first model of every method in a folder of ``expunge bench challenge`` or ``expunge demo``.

    The attacker's own records are the test records, which no method may look at; his own models are those of the floor
    (never saw the forget set) and the holders (hold it), none of which is attacked.

    Raises:
        RunError: the folder holds no finished study.
    """
    try:
        records = _records(folder / "methods" / "problem")
        populations = {name: open_population(folder / name) for name in ("originals", "references", "floor", "holders")}
        found = {name: p.models()[:models] for name, p in populations.items()}
    except RunError as error:
        raise RunError(f"{folder} holds no finished study of classifiers ({error.cause})", "Run it again") from error
    recipe = populations["originals"].recipe
    controls = {name for name, method in METHODS.items() if method.kind == "control"}
    kept = [p for p in sorted((folder / "methods").glob("*/model.safetensors")) if p.parent.name not in controls]
    if not kept:
        raise RunError(f"{folder} has no unlearned model", "Run it with methods")
    return attack_classifiers(
        attacks,
        ClassifierScene(
            forget=records["forget"],
            holdout=records["test"],
            retain=records["retain"],
            shadows=found["floor"],
            holders=found["holders"],
        ),
        original=found["originals"][0],
        references=found["references"],
        unlearned={path.parent.name: Classifier.load(path, recipe) for path in kept},
        folder=folder,
        seed=seed,
        about={"recipe": recipe.factory},
        progress=progress,
    )


def _records(folder: Path) -> dict[str, Records]:
    missing = [role for role in ROLES if not (folder / f"{role}.safetensors").exists()]
    if missing:
        raise RunError(f"there are no records of {', '.join(missing)} in {folder}", "Run it again")
    return {role: read_records(folder / f"{role}.safetensors") for role in ROLES}


def _suspect(label: str, model: Classifier) -> Suspect:
    return Suspect(label=label, load=lambda: model)


def _digest(scene: ClassifierScene) -> str:
    records = [getattr(scene, name).digest() for name in ("forget", "holdout", "retain")]
    models = [[m.digest() for m in models] for models in (scene.shadows, scene.holders)]
    return hashlib.sha256(json.dumps([records, models]).encode()).hexdigest()
