"""Relearn some of what was forgotten, and see whether the rest comes back."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import numpy as np
from scipy import special
from torch import Tensor

from expunge.data.records import Records
from expunge.errors import MissingEvidence, RequestError
from expunge.evaluation.attacks.classifier.contract import (
    ClassifierAttack,
    ClassifierScene,
    ClassifierTarget,
    halves,
    margins,
)
from expunge.evaluation.attacks.language.contract import Access, Trial
from expunge.evaluation.metrics.checks import Floats
from expunge.evaluation.metrics.roc import placements
from expunge.models.classifier import Classifier
from expunge.training.batches import Batch, Table
from expunge.training.engine import choose_engine
from expunge.training.fit import cross_entropy
from expunge.training.loop import Loop, Net, Stream
from expunge.training.optimiser import Optimiser
from expunge.training.seeds import derive
from expunge.training.stack import Stack

Measure = Literal["probability", "rank", "accuracy"]
MEASURES: tuple[Measure, ...] = ("probability", "rank", "accuracy")


@dataclass(frozen=True, kw_only=True)
class RelearnClassifier(ClassifierAttack):
    """Fine-tune on a part of the forget set, with its labels; ask about the other part after some numbers of steps.

    What comes back of records that the attacker does not have was in the weights: hidden, not removed. A retrained
    model relearns too, from what its records have in common, and is taken out. Paper: Chundawat et al. 2022
    (2201.05629), who compare how long relearning takes (anamnesis index); here records are asked that are not relearnt,
    as in Deeb & Roger 2024 (2410.08827).

    Args:
        steps: optimiser steps after which it asks. share: of the forget set that the attacker has, in (0, 1).
        learning_rate, momentum, batch_size: of SGD.
        measure: of each other record, ``probability`` of its label; ``rank``: share of unseen records with a lower
            margin under the same model; ``accuracy``: 1 where it is classified right.
    """

    name: ClassVar[str] = "relearn_classifier"
    summary: ClassVar[str] = "trains on some of the forgotten records and asks about the others"
    paper: ClassVar[str] = "arXiv:2201.05629"
    access: ClassVar[Access] = "weights"
    unit: ClassVar[str] = "optimiser steps"
    needs: ClassVar[tuple[str, ...]] = ("holdout",)
    headline: ClassVar[Literal["last", "best"]] = "best"

    steps: tuple[int, ...] = (1, 3, 10, 30, 100)
    share: float = 0.5
    learning_rate: float = 0.01
    momentum: float = 0.9
    batch_size: int = 32
    measure: Measure = "probability"

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        if not self.steps or self.steps[0] < 1 or any(b <= a for a, b in pairwise(self.steps)):
            raise RequestError(f"steps is {list(self.steps)}", "Give growing numbers, 1 or more")
        if not 0 < self.share < 1:
            raise RequestError(f"share is {self.share}", "Give a share of the forget set between 0 and 1")
        if not self.learning_rate > 0 or not 0 <= self.momentum < 1 or self.batch_size < 1:
            raise RequestError("learning_rate, momentum or batch_size is out of range", "Correct them")
        if self.measure not in MEASURES:
            raise RequestError(f"measure is {self.measure!r}", f"Choose one of {', '.join(MEASURES)}")

    def attempt(self, target: ClassifierTarget, scene: ClassifierScene, seed: int) -> Trial:
        if len(scene.forget) < 2:
            raise MissingEvidence(f"{self.name} relearns one part and asks about the other", "Forget two records")
        had, others = halves(scene.forget, self.share, derive(seed, self.name))
        stack, table = Stack.of([target.model.module]), Table.of([had])
        engine, _ = choose_engine(stack.template, table.columns["x"][:2])
        loop = Loop(stack, engine, [derive(seed, self.name, "order")])
        points: list[tuple[float, Floats]] = []

        def after(step: int) -> None:
            if step in self.steps:
                points.append((step, self._found(Classifier(stack.module(0)), others, scene)))

        loop.run(
            _loss,
            Stream(table=table, batch_size=self.batch_size, name="relearn"),
            epochs=self.steps[-1] / -(-len(had) // self.batch_size),
            optimiser=Optimiser(kind="sgd", learning_rate=self.learning_rate, momentum=self.momentum),
            after_step=after,
        )
        return self.trial(others, points, relearnt=len(had))

    def _found(self, model: Classifier, others: Records, scene: ClassifierScene) -> Floats:
        if self.measure == "accuracy":
            return np.asarray(model.logits(others).argmax(1) == others.y, dtype=np.float64)
        mine = margins(model, others)
        if self.measure == "rank":
            return placements(mine, margins(model, scene.holdout))[0]
        return np.asarray(special.expit(mine), dtype=np.float64)


def _loss(net: Net, batch: Batch) -> Tensor:
    """(models,) mean -log p(y|x)."""
    return batch.mean(cross_entropy(net(batch), batch.y))
