"""``expunge bench people`` and the other text benchmarks: methods beside retraining on one language model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from expunge.errors import RequestError, UnknownName
from expunge.evaluation.attacks.on_language import attack_study, language_attacks
from expunge.evaluation.benchmarks.challenge import cores
from expunge.evaluation.language.plan import HowPlan, ModelPlan, StudyPlan, people_model
from expunge.evaluation.language.study import BASE, Study
from expunge.evaluation.language.tuning import LEARNING_RATE_MEANS_ELSE
from expunge.evaluation.language_page import write_language
from expunge.methods import LANGUAGE_METHODS
from expunge.recipe import Recipe, Trainer
from expunge.training.chunks import Progress
from expunge.training.files import read_json
from expunge.training.workers import Workers

PRESETS = Path(__file__).with_name("presets.json")


@dataclass(frozen=True, kw_only=True)
class LanguageBench:
    """What is measured.

    Args:
        benchmark: name of a text benchmark. options: its own (folder, split, number of people, …).
        methods: names, ``all`` among them; with a variant after an @, see `chosen_methods`.
        model: the original, a folder or hub name; None trains the small one of ``people``. references: retrained ones.
        seeds: of every method. samples: answers drawn at temperature 1 a question.
        base: a pretrained model that never saw the benchmark: TOFU's other reference, shown as a row of its own.
        retain_log: TOFU's or OpenUnlearning's log of a retained model, for a forget quality beside.
    """

    benchmark: str = "people"
    options: Mapping[str, Any] = field(default_factory=dict)
    methods: Sequence[str] | str = "all"
    model: str | None = None
    references: tuple[str, ...] = ()
    recipe: Mapping[str, Any] | None = None
    count: int = 3
    seeds: int = 3
    samples: int = 0
    how: HowPlan = field(default_factory=HowPlan)
    device: str = "cpu"
    dtype: str = "float32"
    base: str | None = None
    retain_log: str | None = None

    def plan(self) -> StudyPlan:
        """The study.

        Raises:
            UnknownName: benchmark or method. RequestError: there is neither a model nor a way to train one.
        """
        data = {"name": self.benchmark, **self.options}
        if self.model is None and self.recipe is None:
            made = StudyPlan(data=data, model=ModelPlan(original="none")).benchmark()
            if made.kind != "generated":
                raise RequestError(
                    f"{self.benchmark} needs a model that knows it",
                    "Give --model (and --reference for retrained ones), or --base to fine-tune both from",
                )
            model = people_model(made, count=self.count)
        else:
            model = ModelPlan(
                original=self.model,
                references=self.references,
                recipe=self.recipe,
                count=self.count,
                device=self.device,
                dtype=self.dtype,
            )
        rate = None if model.recipe is None else Recipe.from_dict(model.recipe).trainer.learning_rate
        return StudyPlan(
            data=data,
            model=model,
            methods=chosen_methods(self.methods, presets() if self.model is None else {}, rate),
            seeds=self.seeds,
            samples=self.samples,
            given=() if self.base is None else ((BASE, self.base),),
            retain_log=self.retain_log,
            how=self.how,
        )


def presets() -> dict[str, dict[str, Any]]:
    """Method -> hyper-parameters tuned for the small model, an equal number of trials each; see docs/people.md."""
    found: dict[str, dict[str, Any]] = read_json(PRESETS)["methods"] if PRESETS.exists() else {}
    return found


def chosen_methods(
    wanted: Sequence[str] | str, tuned: Mapping[str, Mapping[str, Any]], trained_rate: float | None = None
) -> tuple[tuple[str, str, dict[str, Any]], ...]:
    """(label, method, hyper-parameters) of each; `wanted` is names with commas between or a list, ``all`` among them.

    ``NAME`` runs at its tuned preset where there is one, ``NAME@paper`` at the defaults of its paper, ``NAME@trained``
    at those with the learning rate that the original was trained at: papers unlearn at the rate that they fine-tuned
    at, and so much moves a model of any size.

    Args:
        tuned: method -> hyper-parameters. trained_rate: of the original's training; None when unknown.

    Raises:
        UnknownName: no such method or variant. RequestError: no name; ``@trained`` where that rate is unknown, or of a
            method whose learning rate is not that of the model's weights.
    """
    names = wanted.split(",") if isinstance(wanted, str) else list(wanted)
    every = [n for n, m in LANGUAGE_METHODS.items() if m.kind == "method"]
    named = [n for name in names if name.strip() for n in (every if name.strip() == "all" else [name.strip()])]
    found = []
    for name in dict.fromkeys(named):
        bare, _, variant = name.partition("@")
        if bare not in LANGUAGE_METHODS:
            raise UnknownName("method on language models", bare, LANGUAGE_METHODS)
        if LANGUAGE_METHODS[bare].kind == "control":
            continue  # retraining and doing nothing stand in every table
        found.append((name.replace("@", "-"), bare, _parameters(bare, variant, tuned, trained_rate)))
    if not found:
        raise RequestError("no method is named", "Name some with commas between, or all")
    return tuple(json.loads(json.dumps(found)))


def _parameters(
    method: str, variant: str, tuned: Mapping[str, Mapping[str, Any]], trained_rate: float | None
) -> dict[str, Any]:
    if variant == "paper":
        return {}
    if variant == "trained":
        fields = {f.name for f in dataclasses.fields(LANGUAGE_METHODS[method])}  # type: ignore[arg-type]
        if "learning_rate" not in fields or method in LEARNING_RATE_MEANS_ELSE:
            raise RequestError(f"{method} has no learning rate of the model's weights", f"Take {method}@paper")
        if trained_rate is None:
            raise RequestError(
                f"{method}@trained: nobody knows at which rate the original was trained",
                "Train it here (leave --model out), or set the learning rate in a request",
            )
        return {"learning_rate": trained_rate}
    if variant:
        raise UnknownName("variant", variant, ["paper", "trained"])
    return dict(tuned.get(method, {}))


def run_language(
    setting: LanguageBench,
    out: Path,
    *,
    processes: int = 0,
    progress: Progress | None = None,
    title: str = "",
    command: str = "",
    attacks: str = "",
) -> dict[str, Any]:
    """Carry the benchmark out into `out`, ``language.json`` and ``language.html``; an interrupted one goes on.

    Args:
        attacks: names with commas between, or ``all``: run on every kept model, and shown in the report.

    Raises:
        RunError: `out` holds another study. UnknownName: no such attack.
    """
    plan, chosen = setting.plan(), language_attacks(attacks) if attacks else []
    with Workers(processes or cores()) as workers:
        report = Study(plan, out, workers, progress).run()
    report = {
        "title": title or f"{report['benchmark']['name']}: what methods make a language model forget",
        "command": command,
        "setting": {"seed": 0, "seeds": setting.seeds, "samples": setting.samples},
        **report,
        **({"attacks": attack_study(out, chosen, progress=progress)} if chosen else {}),
    }
    write_language(report, out)
    return report


def finetuned(base: str, epochs: int, learning_rate: float = 1e-5, batch_size: int = 32) -> dict[str, Any]:
    """The recipe of a model fine-tuned from a pretrained one, as TOFU does."""
    trainer = Trainer(
        epochs=epochs, batch_size=batch_size, optimizer="adamw", learning_rate=learning_rate, weight_decay=0.01,
        schedule="linear",
    )  # fmt: skip
    return Recipe(factory="expunge.models.tiny:pretrained", kwargs={"path": base}, trainer=trainer).as_dict()


def evaluate_model(
    model: str,
    benchmark: str,
    options: Mapping[str, Any],
    out: Path,
    *,
    references: tuple[str, ...] = (),
    original: str | None = None,
    samples: int = 0,
    device: str = "cpu",
    attacks: str = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """One model on one benchmark, beside retrained models and the original where they are given.

    Args:
        attacks: names with commas between, or ``all``: run on the model, and shown in the report.

    Raises:
        RunError: `out` holds another study. UnknownName: no such attack.
    """
    chosen = language_attacks(attacks) if attacks else []
    plan = StudyPlan(
        data={"name": benchmark, **options},
        model=ModelPlan(original=original or model, references=references, device=device),
        seeds=1,
        samples=samples,
        given=(("evaluated", model),),
    )
    with Workers(1) as workers:
        report = Study(plan, out, workers, progress).run()
    report = {
        "title": f"{report['benchmark']['name']}: {Path(model).name}",
        "command": f"expunge evaluate {model} --benchmark {benchmark}",
        "setting": {"seed": 0, "samples": samples},
        **report,
        **({"attacks": attack_study(out, chosen, progress=progress)} if chosen else {}),
    }
    write_language(report, out)
    return report
