"""What a comparison of forms consists of, as JSON: every process rebuilds the same data and models from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from expunge.data.benchmarks.text_benchmark import TextBenchmark
from expunge.data.people import make_people
from expunge.data.people.base import base_records
from expunge.data.records import Records
from expunge.errors import RequestError, UnknownName
from expunge.evaluation.attacks.language import LANGUAGE_ATTACKS, make_attack
from expunge.evaluation.attacks.language.contract import Attack
from expunge.evaluation.benchmarks.language import presets
from expunge.evaluation.forms.table import FORMS, Form
from expunge.evaluation.language.plan import PEOPLE_SHAPE, PEOPLE_TEMPLATE, PEOPLE_TRAINER, ModelPlan, StudyPlan
from expunge.models.tiny import train_tokenizer
from expunge.recipe import Recipe
from expunge.training.files import read_json

VOCABULARY = 2000
CONTEXT = 256
BASE_LINES, BASE_REPEATS, BASE_EPOCHS = 12_000, 4, 4
TUNED_RATE, TUNED_EPOCHS = 2e-3, 10


@dataclass(frozen=True, kw_only=True)
class FormsPlan:
    """One comparison.

    Args:
        data: options of the benchmark ``people``. forms: rows. attacks: name -> settings. seeds: of every row.
        references: retrained models. base: size of the base model's training: ``lines``, ``repeats``, ``epochs``.
        fine_tuning: how the people are learned on the base: ``learning_rate``, ``epochs``.
    """

    data: Mapping[str, Any]
    forms: tuple[Form, ...] = FORMS
    attacks: Mapping[str, Mapping[str, Any]]
    seeds: int = 3
    references: int = 3
    base: Mapping[str, Any]
    fine_tuning: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]

    @classmethod
    def read(cls, folder: Path) -> FormsPlan:
        told = read_json(folder / "comparison.json")
        return cls(**{**told, "forms": tuple(Form(**f) for f in told["forms"])})

    def study(self, folder: Path) -> StudyPlan:
        """The models: an original and retrained references, all fine-tuned from the base in `folder`."""
        trainer = replace(
            PEOPLE_TRAINER, epochs=self.fine_tuning["epochs"], learning_rate=self.fine_tuning["learning_rate"]
        )
        recipe = Recipe(
            factory="expunge.models.tiny:pretrained", kwargs={"path": str(folder / "base")}, trainer=trainer
        )
        model = ModelPlan(recipe=recipe.as_dict(), template=PEOPLE_TEMPLATE.as_dict(), count=self.references)
        return StudyPlan(data={"name": "people", **self.data}, model=model, seeds=self.seeds)

    def made_attacks(self) -> list[Attack]:
        return [make_attack(name, settings) for name, settings in self.attacks.items()]

    def everybody(self) -> tuple[str, ...]:
        """Names of all private people, those included of whom nothing is told."""
        options = {k: v for k, v in self.data.items() if k not in ("forget", "facts", "dialogues")}
        count = int(options.pop("people")) + int(options.pop("unseen", 0))
        return make_people(count, **options).names

    def base_texts(self) -> Records:
        return base_records(self.everybody(), lines=self.base["lines"], repeats=self.base["repeats"])

    def base_recipe(self, vocabulary: int) -> Recipe:
        shape = {**PEOPLE_SHAPE, "context": CONTEXT}
        return Recipe(
            factory="expunge.models.tiny:tiny_llama",
            kwargs={"vocabulary": vocabulary, **shape},
            trainer=replace(PEOPLE_TRAINER, epochs=self.base["epochs"]),
        )


def tokenizer_of(texts: Records, benchmark: TextBenchmark) -> Any:
    """One that spells the base's texts and the benchmark's alike; it says nothing of who knows what."""
    found: list[str] = []
    for records in (texts, benchmark.train, benchmark.forget, benchmark.retain, *benchmark.probes.values()):
        found += [f"{p} {a}".strip() for p, a in zip(records.column("prompt"), records.column("answer"), strict=True)]
    return train_tokenizer(found, VOCABULARY)


def chosen_forms(wanted: Sequence[str] | str) -> tuple[Form, ...]:
    """Rows by label; ``all`` is every one.

    Raises:
        UnknownName. RequestError: none is named.
    """
    names = [n.strip() for n in (wanted.split(",") if isinstance(wanted, str) else wanted) if n.strip()]
    table = {form.label: form for form in FORMS}
    if names == ["all"]:
        names = list(table)
    if not names:
        raise RequestError("no form is named", f"Name some of {', '.join(table)}, or all")
    for name in names:
        if name not in table:
            raise UnknownName("form", name, table)
    return tuple(_tuned(table[name]) for name in names)


def _tuned(form: Form) -> Form:
    """A method on language models with its tuned preset, which the plan thereby keeps."""
    if form.maker != "language" or form.parameters:
        return form
    return replace(form, parameters=presets().get(form.name, {}))


def chosen_attacks(wanted: Sequence[str] | str) -> dict[str, dict[str, Any]]:
    """Attack -> settings; ``all`` is every attack on language models.

    Raises:
        UnknownName. RequestError: none is named.
    """
    names = [n.strip() for n in (wanted.split(",") if isinstance(wanted, str) else wanted) if n.strip()]
    if names == ["all"]:
        names = list(LANGUAGE_ATTACKS)
    if not names:
        raise RequestError("no attack is named", "Name some with commas between, or all")
    for name in names:
        if name not in LANGUAGE_ATTACKS:
            raise UnknownName("attack on language models", name, LANGUAGE_ATTACKS)
    return {name: {} for name in names}
