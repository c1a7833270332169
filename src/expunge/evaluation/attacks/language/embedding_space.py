"""Optimise a prompt of vectors instead of words, on facts the attacker has, and ask for the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from expunge.data.records import Records
from expunge.data.texts import GOES_ON
from expunge.errors import MissingEvidence, RequestError
from expunge.evaluation.attacks.language.contract import Access, Attack, Scene, Target, Trial, answered
from expunge.evaluation.attacks.language.finetuning import asked_between, check_points
from expunge.evaluation.attacks.language.soft_prompt import SoftPrompt
from expunge.models.language_roles import embeddings
from expunge.training.seeds import derive
from expunge.training.text_fit import nll_objective
from expunge.training.text_loop import TextLoop, TextOptimiser


@dataclass(frozen=True, kw_only=True)
class EmbeddingSpace(Attack):
    """Train soft tokens in front of the question, the weights untouched, and ask for facts they were not trained on.

    Paper: Schwinn et al. 2024, 2402.09063 (the universal attack). Soft tokens trained on an answer can make any model
    say it (2502.15836), so that they are never trained on what is asked: on the half that the attacker has, or, without
    any fact, on a beginning of an answer that agrees to tell.

    Args:
        goal: ``half``, the answers of the attacker's half, or ``affirmative``, the words of `affirmative` after each
            question that is asked. tokens: soft ones. steps: gradient steps after which it asks; 0 is the random start.
        learning_rate: of Adam; None takes a tenth of the spread of the embeddings.

    Raises:
        MissingEvidence: the attacker's half has no questions, only texts.

    This differs from the authors' code in:
        1. Adam instead of signed gradient descent, and random tokens of the vocabulary as the start.
        2. The answer after each number of steps counts, greedily decoded; theirs gathers answers along the way and
           counts an item as soon as one of them leaks.
    """

    name: ClassVar[str] = "embedding_space"
    summary: ClassVar[str] = "trains vectors in front of the question on some facts and asks for others"
    paper: ClassVar[str] = "arXiv:2402.09063"
    access: ClassVar[Access] = "weights"
    unit: ClassVar[str] = "gradient steps"
    needs: ClassVar[tuple[str, ...]] = ("relearn", "unheard")
    headline: ClassVar[Literal["last", "best"]] = "best"

    goal: Literal["half", "affirmative"] = "half"
    affirmative: str = "Sure, the answer is"
    tokens: int = 8
    steps: tuple[int, ...] = (1, 3, 10, 30)
    learning_rate: float | None = None
    batch_size: int = 32

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        check_points("steps", self.steps, least=0)
        if self.goal not in ("half", "affirmative"):
            raise RequestError(f"goal is {self.goal!r}", "Choose half or affirmative")
        if not self.affirmative.strip():
            raise RequestError("affirmative has no words", "Say how an answer begins that agrees to tell")
        if self.tokens < 1 or self.batch_size < 1:
            raise RequestError("tokens and batch_size must be at least 1", "Correct them")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise RequestError(f"learning_rate is {self.learning_rate}", "Give a positive one, or none")
        if self.goal == "affirmative":
            object.__setattr__(self, "needs", ("unheard",))

    def attempt(self, target: Target, scene: Scene, seed: int) -> Trial:
        model = target.weights(self.name)
        model.module.float()
        spread = float(embeddings(model.module).weight.detach().std())
        rate = self.learning_rate or 0.1 * spread
        soft = SoftPrompt(model, self.tokens, derive(seed, self.name))
        loop = TextLoop(soft.model.module, derive(seed, self.name))
        soft.rows.requires_grad_(True)
        items = soft.before(scene.unheard)
        points = asked_between(
            loop,
            nll_objective,
            loop.table(soft.model.encode(soft.before(self._lessons(scene))), "attack"),
            steps=self.steps,
            batch_size=self.batch_size,
            optimiser=TextOptimiser(kind="adam", learning_rate=rate),
            ask=lambda: answered(soft.model, items),
        )
        return self.trial(scene.unheard, points, learning_rate=rate)

    def _lessons(self, scene: Scene) -> Records:
        """Questions with the answers that the soft tokens are trained on."""
        if self.goal == "affirmative":
            columns: dict[str, Any] = dict(scene.unheard.columns)
            columns["answer"] = np.array([self.affirmative] * len(scene.unheard), dtype=object)
            columns[GOES_ON] = np.ones(len(scene.unheard), dtype=bool)  # else they would learn to stop there
            return Records(ids=scene.unheard.ids, columns=columns, owners=scene.unheard.owners)
        asked = scene.relearn.take(np.array([bool(str(p)) for p in scene.relearn.column("prompt")]))
        if not len(asked):
            raise MissingEvidence(
                f"{self.name} needs questions in relearn, and there are texts only", "Give them, or goal='affirmative'"
            )
        return asked
