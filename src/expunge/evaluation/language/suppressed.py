"""A model that was only suppressed, in a folder: what stands around it, and where the model inside is.

What a method puts around a model is written where it tells nothing of the forget set: digests, vectors, words that
anybody may read (`Around.savable`). Otherwise it is made again from the texts of the request when it is loaded, so that
the forget set is readable in one place only, the operator's own.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from expunge.errors import DataError, ModelError, RunError
from expunge.evaluation.language.plan import StudyPlan, load_model, problem_of
from expunge.methods import make_prompting_method
from expunge.models.chat import ChatModel
from expunge.models.language import LanguageModel
from expunge.training.files import read_json, write_json

FILE = "suppressed.json"
SCHEMA = "expunge/suppressed/1"


def is_suppressed(folder: str | Path) -> bool:
    """Whether `save_suppressed` wrote this folder."""
    return (Path(folder) / FILE).is_file()


def save_suppressed(
    model: ChatModel, folder: Path, *, plan: StudyPlan, label: str, seed: int, original: LanguageModel, source: str
) -> None:
    """Write the outcome of the prompting method that `plan` names by `label`.

    Args:
        original, source: the model inside, and the folder or hub name that it is loaded from again; no weight is
            copied.
    """
    savable = bool(getattr(model, "savable", False))
    if savable:
        model.save(folder)  # type: ignore[attr-defined]  # every model that is savable has it
    write_json(
        folder / FILE,
        {
            "schema": SCHEMA,
            "made": "read" if savable else "again",
            "label": label,
            "seed": seed,
            "inside": {"source": source, "digest": original.digest()},
            "digest": model.digest(),
            # the texts are named only where they have to be read again
            "plan": (replace(plan, data={}) if savable else plan).as_dict(),
        },
    )


def load_suppressed(folder: str | Path) -> ChatModel:
    """The same model: what stood around the original, around it again. It answers messages; ``inside`` is the original.

    Raises:
        RunError: nothing readable is there. ModelError: the original has changed, or cannot be loaded.
        DataError: the texts that it has to be made again from have changed, or are gone.
    """
    place = Path(folder)
    told = _read(place)
    plan = StudyPlan.from_dict(told["plan"])
    original = load_model(plan, told["inside"]["source"])
    if original.digest() != told["inside"]["digest"]:
        raise ModelError(
            f"{told['inside']['source']} is not the model that {place} was made around", "Give it back, or run again"
        )
    name, parameters = next((n, p) for label, n, p in plan.methods if label == told["label"])
    method = make_prompting_method(name, parameters)
    read = told["made"] == "read"
    model = method.load(place, original) if read else _again(plan, original, method, told["seed"])
    if model.digest() != told["digest"]:
        raise DataError(f"what stands around the model of {place} is not what was made", "Run the request again")
    return model


def load_either(plan: StudyPlan, source: str | Path) -> ChatModel:
    """A model of a study from a folder or the hub, be it weights of its own or suppressed."""
    return load_suppressed(source) if is_suppressed(source) else load_model(plan, source)


def _again(plan: StudyPlan, original: LanguageModel, method: Any, seed: int) -> ChatModel:
    made = method.unlearn(problem_of(plan, plan.benchmark(), original), seed=seed).model
    assert isinstance(made, ChatModel)
    return made


def _read(folder: Path) -> dict[str, Any]:
    told = read_json(folder / FILE)
    wanted = {"made", "label", "seed", "inside", "digest", "plan"}
    if not isinstance(told, dict) or told.get("schema") != SCHEMA or not wanted <= told.keys():
        raise RunError(f"{folder} holds no suppressed model", "Give the model folder of a run")
    return told
