"""What attacks that train have in common: steps on some texts, and between them the question what is known again.

Training is that of `expunge.training.text_loop`, on a copy in single precision whose adapter, if it has one, is merged:
whoever holds the weights can train all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch

from expunge.data.records import Records
from expunge.errors import RequestError
from expunge.evaluation.attacks.language.contract import Access, Attack, Scene, Target, Trial, answered
from expunge.evaluation.metrics.checks import Floats
from expunge.models.language import LanguageModel
from expunge.models.language_roles import embeddings
from expunge.training.seeds import derive
from expunge.training.text_batches import TextBatch, TextTable
from expunge.training.text_loop import TextLoop, TextObjective, TextOptimiser
from expunge.training.text_net import Net

Kind = Literal["adamw", "adam", "sgd"]


def check_points(name: str, values: Sequence[float], *, least: float, most: float | None = None) -> None:
    """Raise `RequestError` where the points of a curve do not grow, or lie beyond `least` and `most`."""
    grow = all(b > a for a, b in pairwise(values))
    if not values or not grow or values[0] < least or (most is not None and values[-1] > most):
        limit = "" if most is None else f" and at most {most:g}"
        raise RequestError(f"{name} is {list(values)}", f"Give growing numbers, {least:g} or more{limit}")


def trainable(model: LanguageModel) -> LanguageModel:
    """The model ready to be trained: adapter merged, single precision, gradients on; in place unless one is merged."""
    model = model.merged()
    model.module.float().requires_grad_(True)
    return model


def asked_between(
    loop: TextLoop,
    objective: TextObjective,
    *tables: TextTable,
    steps: Sequence[int],
    batch_size: int,
    optimiser: TextOptimiser,
    ask: Callable[[], Floats],
) -> list[tuple[int, Floats]]:
    """(step, what `ask` gives after it) for each of `steps`, 0 included: one run of the loop over the last of them."""
    found = [(0, ask())] if steps[0] == 0 else []

    def after(net: Net) -> bool:
        if net.step + 1 in steps:
            found.append((net.step + 1, ask()))
        return False

    if steps[-1]:
        loop.run(
            objective,
            *tables,
            steps=steps[-1],
            batch_size=batch_size,
            optimiser=optimiser,
            what="an attack's training",
            after=after,
        )
    return found


@dataclass(frozen=True, kw_only=True)
class FineTuning(Attack):
    """An attack that trains on texts and asks after some numbers of steps; a subclass says on which, and asks what.

    Args:
        steps: optimiser steps after which it asks; 0 is the model as it was given. learning_rate: None takes
            width^-1.5 of the hidden states: 1e-3 at 96, 7e-5 at 576, 4e-6 at 4096, rates in common use.
        batch_size: texts a step. retain_weight: of the loss on as many retained texts, in every step.
    """

    access: ClassVar[Access] = "weights"
    unit: ClassVar[str] = "optimiser steps"
    headline: ClassVar[Literal["last", "best"]] = "best"  # training on and on overwrites what it first brought back

    steps: tuple[int, ...] = (1, 3, 10, 30)
    learning_rate: float | None = None
    batch_size: int = 32
    optimiser: Kind = "adamw"
    retain_weight: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        check_points("steps", self.steps, least=0)
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise RequestError(f"learning_rate is {self.learning_rate}", "Give a positive one, or none")
        if self.batch_size < 1 or self.retain_weight < 0:
            raise RequestError("batch_size must be at least 1 and retain_weight not negative", "Correct them")
        if self.optimiser not in ("adamw", "adam", "sgd"):
            raise RequestError(f"optimiser is {self.optimiser!r}", "Choose adamw, adam or sgd")

    def train(
        self, model: LanguageModel, scene: Scene, texts: Records, items: Records, seed: int, **shown: Any
    ) -> Trial:
        """The curve of a model of one's own, which is written to.

        Args:
            texts: to train on. items: questions. shown: more for `Trial.shown`.
        """
        model = trainable(model)
        rate = self.learning_rate or float(embeddings(model.module).weight.shape[1]) ** -1.5
        loop = TextLoop(model.module, derive(seed, self.name))
        tables = [loop.table(model.encode(model.pieces(texts)), "attack")]
        if self.retain_weight:
            scene.need(self.name, "retain")
            tables.append(loop.table(model.encode(model.pieces(scene.retain)), "retain"))

        def objective(net: Net, batch: TextBatch, kept: TextBatch | None = None) -> torch.Tensor:
            if kept is None:
                return batch.mean(net(batch).nll)
            told, held = net.both(batch, kept)
            return batch.mean(told.nll) + self.retain_weight * kept.mean(held.nll)

        points = asked_between(
            loop,
            objective,
            *tables,
            steps=self.steps,
            batch_size=self.batch_size,
            optimiser=TextOptimiser(kind=self.optimiser, learning_rate=rate),
            ask=lambda: answered(model, items),
        )
        about = {"learning_rate": rate, "texts": len(texts), "epochs": self.steps[-1] * self.batch_size / len(texts)}
        return self.trial(items, points, **about, **shown)

    def copied(self, target: Target) -> LanguageModel:
        """The weights, of one's own."""
        return target.weights(self.name)
