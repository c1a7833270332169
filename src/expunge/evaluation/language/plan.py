"""What a study of language models consists of, as JSON: every process rebuilds the same data and models from it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from expunge.data.benchmarks import TEXT_BENCHMARKS
from expunge.data.benchmarks.text_benchmark import TextBenchmark
from expunge.data.records import Records
from expunge.errors import RequestError, UnknownName
from expunge.evaluation.language.record import IN_A_ROW
from expunge.methods.text_workspace import How, Lora
from expunge.models.language import LanguageModel
from expunge.models.template import Template
from expunge.models.tiny import train_tokenizer
from expunge.problem import Problem
from expunge.recipe import Recipe, Trainer
from expunge.training.text_batches import TOKENS_AT_ONCE
from expunge.training.text_loop import OnStep, TextJob
from expunge.training.text_stages import Stages

# A model of half a million parameters that learns 60 people by heart in a quarter of a minute; see docs/people.md.
PEOPLE_TRAINER = Trainer(
    epochs=15, batch_size=32, optimizer="adamw", learning_rate=3e-3, weight_decay=0.0, schedule="cosine"
)
PEOPLE_SHAPE: Mapping[str, Any] = {"layers": 3, "width": 96, "heads": 4, "hidden": 288, "context": 64}
PEOPLE_TEMPLATE = Template(prompt="{prompt} :", answer=" {answer}")
VOCABULARY = 2000
LEAST_STEPS = 580
# Probes that are texts to train on, not questions: MUSE's later requests among them.
NOT_ASKED = ("relearn", "holdout", "sust_1", "sust_2", "sust_3", "sust_4")
EXAMPLES = "_examples"  # ending of the name of questions that stand, answered, before those of another probe


@dataclass(frozen=True, kw_only=True)
class ModelPlan:
    """Where models come from.

    Args:
        original: folder or hub name of the trained model; None trains it by `recipe`.
        references: folders of retrained models; where there are none and there is a recipe, `count` are trained.
        recipe: how the original was made, as `Recipe.as_dict`; None when unknown. tokenizer: folder or hub name of
            the tokenizer where nothing else gives it; None trains one on the benchmark's texts.
        template: as `Template.as_dict`; None leaves it to the model. device, dtype: of all models.
    """

    original: str | None = None
    references: tuple[str, ...] = ()
    recipe: Mapping[str, Any] | None = None
    tokenizer: str | None = None
    template: Mapping[str, Any] | None = None
    count: int = 3
    device: str = "cpu"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.original is None and self.recipe is None:
            raise RequestError("there is neither a model nor a recipe to train one by", "Give one of the two")


@dataclass(frozen=True, kw_only=True)
class HowPlan:
    """`How`, as JSON."""

    lora: Mapping[str, Any] | None = None
    autocast: bool = False
    tokens_at_once: int = TOKENS_AT_ONCE
    checkpointing: bool = False

    def build(self, folder: Path | None = None, on_step: OnStep | None = None, cache: Path | None = None) -> How:
        """The same as values; `folder` keeps what an interrupted run has done."""
        job = TextJob(
            autocast=self.autocast,
            tokens_at_once=self.tokens_at_once,
            checkpointing=self.checkpointing,
            stages=Stages(folder) if folder is not None else Stages(),
            on_step=on_step,
        )
        lora = None if self.lora is None else Lora(**self.lora)
        return How(lora=lora, job=job, in_place=True, cache=cache)


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """One study: data, models, and the methods with their hyper-parameters.

    Args:
        data: ``{"name": a text benchmark, **its options}``, or ``{"name": "files", …}`` (`expunge.language_request`).
        methods: (label, method, hyper-parameters) each; seeds: so many of each, from `first_seed` on.
        given: (label, folder or hub name) of models unlearned elsewhere.
        probes: names of those that are asked; none: all. retain_log: TOFU's or OpenUnlearning's log of a retained model
            that is not at hand. keep_models: keep the unlearned model of the first seed.
    """

    data: Mapping[str, Any]
    model: ModelPlan
    methods: tuple[tuple[str, str, Mapping[str, Any]], ...] = ()
    seeds: int = 3
    first_seed: int = 0
    samples: int = 0
    given: tuple[tuple[str, str], ...] = ()
    probes: tuple[str, ...] = ()
    retain_log: str | None = None
    keep_models: bool = True
    how: HowPlan = field(default_factory=HowPlan)

    def as_dict(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> StudyPlan:
        model = {**value["model"], "references": tuple(value["model"]["references"])}
        return cls(
            data=value["data"],
            model=ModelPlan(**model),
            methods=tuple((label, name, parameters) for label, name, parameters in value["methods"]),
            seeds=value["seeds"],
            first_seed=value["first_seed"],
            samples=value["samples"],
            given=tuple((label, source) for label, source in value["given"]),
            probes=tuple(value["probes"]),
            retain_log=value["retain_log"],
            keep_models=value["keep_models"],
            how=HowPlan(**value["how"]),
        )

    def benchmark(self) -> TextBenchmark:
        """The data, made or read again.

        Raises:
            UnknownName: no such benchmark. RequestError: an option it does not have.
        """
        options = dict(self.data)
        name = options.pop("name")
        if name == "files":
            from expunge.evaluation.language.files import load_files

            return load_files(**options)
        if name not in TEXT_BENCHMARKS:
            raise UnknownName("text benchmark", name, TEXT_BENCHMARKS)
        try:
            return TEXT_BENCHMARKS[name](**options)
        except TypeError as error:
            raise RequestError(f"{name} does not take these options ({error})", "Correct them") from error

    def key(self) -> str:
        """SHA-256, hexadecimal, of what the trained models depend on: data, recipe, tokenizer, template."""
        told = {
            "data": self.benchmark().digest,
            "recipe": self.model.recipe,
            "tokenizer": self.model.tokenizer,
            "template": self.model.template,
            "original": self.model.original,
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def people_model(benchmark: TextBenchmark, vocabulary: int = VOCABULARY, count: int = 3) -> ModelPlan:
    """The small model that learns fictitious people."""
    tokenizer = tokenizer_for(benchmark, vocabulary)
    shape = {**PEOPLE_SHAPE, "context": _context(benchmark, tokenizer)}
    recipe = Recipe(
        factory="expunge.models.tiny:tiny_llama",
        kwargs={"vocabulary": len(tokenizer), **shape},
        trainer=replace(PEOPLE_TRAINER, epochs=_epochs(len(benchmark.train))),
    )
    return ModelPlan(recipe=recipe.as_dict(), template=PEOPLE_TEMPLATE.as_dict(), count=count)


def _epochs(texts: int) -> int:
    """As many passes as people need, or more where an epoch has fewer steps."""
    return max(PEOPLE_TRAINER.epochs, math.ceil(LEAST_STEPS / math.ceil(texts / PEOPLE_TRAINER.batch_size)))


def _context(benchmark: TextBenchmark, tokenizer: Any) -> int:
    """Room for the longest text and an answer half as long again, at least that of people."""
    longest = 0
    for records in (benchmark.train, *benchmark.probes.values()):
        texts = [f"{p} {a}" for p, a in zip(records.column("prompt"), records.column("answer"), strict=True)]
        if texts:
            longest = max(longest, *map(len, tokenizer(texts, add_special_tokens=False)["input_ids"]))
    return max(int(PEOPLE_SHAPE["context"]), 2 * longest + 16)


def tokenizer_for(benchmark: TextBenchmark, vocabulary: int = VOCABULARY) -> Any:
    """A tokenizer that can spell every text of a benchmark, its probes included; it says nothing of who knows what."""
    texts = []
    for records in (benchmark.train, benchmark.forget, benchmark.retain, *benchmark.probes.values()):
        texts += [f"{p} {a}".strip() for p, a in zip(records.column("prompt"), records.column("answer"), strict=True)]
    return train_tokenizer(texts, vocabulary)


def load_model(plan: StudyPlan, source: str | Path) -> LanguageModel:
    """A model of the study from a folder or the hub."""
    template = None if plan.model.template is None else Template(**plan.model.template)
    return LanguageModel.load(source, template=template, device=plan.model.device, dtype=plan.model.dtype)


def blank_model(plan: StudyPlan, benchmark: TextBenchmark) -> LanguageModel:
    """Tokenizer and template for training by the recipe; its weights are never used."""
    recipe = Recipe.from_dict(plan.model.recipe or {})
    template = None if plan.model.template is None else Template(**plan.model.template)
    if plan.model.tokenizer is not None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(plan.model.tokenizer)
    elif recipe.factory == "expunge.models.tiny:pretrained":
        return LanguageModel.load(
            recipe.kwargs["path"], template=template, device=plan.model.device, dtype=plan.model.dtype
        )
    else:
        tokenizer = tokenizer_for(benchmark)
    return LanguageModel(recipe.build().to(plan.model.device), tokenizer, template)


def problem_of(plan: StudyPlan, benchmark: TextBenchmark, model: LanguageModel) -> Problem:
    """The benchmark's request as a problem; of its probes only ``holdout``, texts that nobody trained on, is in it.

    Plain texts longer than the model reads stand in it in pieces.
    """
    nothing = benchmark.retain.take([])
    holdout = benchmark.probes.get("holdout", nothing)
    return Problem(
        model=model,
        forget=model.pieces(benchmark.forget),
        retain=model.pieces(benchmark.retain),
        holdout=model.pieces(holdout),
        test=nothing,
        recipe=None if plan.model.recipe is None else Recipe.from_dict(plan.model.recipe),
    )


def asked(plan: StudyPlan, benchmark: TextBenchmark) -> dict[str, Records]:
    """The probes that are questions, or those of them that the plan names; examples go into the prompts after them."""
    return {
        name: after_examples(records, benchmark.probes.get(name + EXAMPLES))
        for name, records in benchmark.probes.items()
        if len(records)
        and name not in NOT_ASKED
        and not name.endswith(EXAMPLES)
        and (not plan.probes or name in plan.probes)
    }


def after_examples(records: Records, examples: Records | None) -> Records:
    """Questions with answered ones before them in the prompt, which is then whole as it stands (MUSE's layout)."""
    if examples is None or not len(examples):
        return records
    shown = "".join(
        f"Question: {prompt}\nAnswer: {answer}\n\n"
        for prompt, answer in zip(examples.column("prompt"), examples.column("answer"), strict=True)
    )
    prompts = [f"{shown}Question: {prompt}\nAnswer:" for prompt in records.column("prompt")]
    return Records(
        ids=records.ids,
        columns={
            **records.columns,
            "prompt": np.array(prompts, dtype=object),
            IN_A_ROW: np.full(len(records), len(examples)),
        },
        owners=records.owners,
    )
