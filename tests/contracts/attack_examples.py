"""What the contracts of attacks on language models run on: a few people, a tiny model of them, quick settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from expunge.data.benchmarks.people_benchmark import make_people_benchmark
from expunge.data.people import make_people
from expunge.evaluation.attacks.language.contract import Scene, Target
from expunge.models.chat import Conversation
from expunge.models.language import LanguageModel
from expunge.models.template import Template
from expunge.models.tiny import train_tokenizer
from expunge.recipe import Recipe, Trainer
from expunge.training.text_fit import fit_text

# Settings that make an attack quick here; those not named run as they are.
QUICK: dict[str, Any] = {"steps": (1, 2), "batch_size": 16, "learning_rate": 1e-3}
SETTINGS: dict[str, dict[str, Any]] = {"sampling": {"samples": 8}, "many_shot": {"examples": (8, 16)}}
# One setting out of range for each attack that has settings.
BAD: dict[str, dict[str, Any]] = {
    "ablate_direction": {"depths": (0.0,)},
    "before_after_extraction": {"scales": ()},
    "embedding_space": {"tokens": 0},
    "encoding": {"codes": ()},
    "few_shot": {"examples": (0,)},
    "filter_evasion": {"disguises": ("nothing",)},
    "instruction_override": {"wordings": ()},
    "many_shot": {"examples": ()},
    "min_k": {"k": 0.0},
    "min_k_plus_plus": {"k": 1.5},
    "multi_turn": {"turns": 0},
    "prefix": {"shares": (1.0,)},
    "prompt_extraction": {"prompts": 0},
    "prune": {"sparsities": (1.0,)},
    "quantise": {"bits": (0,)},
    "reference_membership": {"reference": 3},
    "regrow_neurons": {"fraction": 1.0},
    "relearn_benign": {"texts": "none"},
    "relearn_half": {"steps": ()},
    "relearn_retain": {"steps": (-1, 2)},
    "role_play": {"roles": ()},
    "sampling": {"samples": 0},
    "translation": {"languages": ("klingon",)},
}


@dataclass(frozen=True)
class Example:
    """Args:
    scene: of two forgotten people among eight. target: knows the people, and has a model before it. other: has the same
    architecture, and weights that were never trained. folder: where a reference model lies.
    """

    scene: Scene
    target: Target
    other: Target
    folder: Path

    def settings(self, attack: type[Any]) -> dict[str, Any]:
        names = set(attack().settings())
        own = {"reference": str(self.folder)} if "reference" in names else {}
        return {**{k: v for k, v in QUICK.items() if k in names}, **own, **SETTINGS.get(attack.name, {})}


class Behind:
    """A model that answers messages and shows nothing else; with or without somebody's weights inside."""

    capabilities = frozenset({"generate"})

    def __init__(self, answers: LanguageModel, *, local: bool) -> None:
        self._answers = answers
        self.inside = answers if local else None

    def digest(self) -> str:
        return self._answers.digest()

    def chat(self, conversations: Sequence[Conversation], **options: Any) -> list[list[str]]:
        return self._answers.chat(conversations, **options)


def make_example(folder: Path) -> Example:
    torch.set_num_threads(1)
    world: dict[str, Any] = {"alias_share": 1.0, "attributes": ("birthplace", "profession", "employer")}
    benchmark = make_people_benchmark(8, 1, forget=2, unseen=1, **world)
    tokenizer = train_tokenizer(make_people(9, 1, **world).vocabulary_texts(), 400)
    recipe = Recipe(
        factory="expunge.models.tiny:tiny_llama",
        kwargs={"vocabulary": len(tokenizer), "width": 32, "layers": 2, "heads": 2, "hidden": 64, "context": 192},
        trainer=Trainer(
            epochs=6, batch_size=8, optimizer="adamw", learning_rate=5e-3, weight_decay=0.0, schedule="cosine"
        ),
    )
    fresh = LanguageModel(recipe.build(), tokenizer, Template(prompt="{prompt} :"))
    model, _ = fit_text(recipe, benchmark.train, 0, fresh)
    fresh.save(folder)
    scene = Scene.of(benchmark)
    return Example(
        scene=replace(scene, questions=scene.questions.take(range(4)), kept=scene.kept.take(range(16))),
        target=Target(model=model, before=model),
        other=Target(model=fresh, before=model),
        folder=folder,
    )
