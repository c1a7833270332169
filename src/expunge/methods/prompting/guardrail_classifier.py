"""Refuse what a small classifier takes for a question about the forgotten."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from expunge.errors import RequestError
from expunge.methods.prompt_base import PromptMethod
from expunge.methods.prompt_gate import Embedded, Gate, Linear, check_rate, encoder_for
from expunge.methods.prompt_guard import ASKED, Guarded, asked, check_refusal, two_halves
from expunge.methods.prompt_parts import pairs_of
from expunge.models.chat import ChatModel
from expunge.problem import Problem


@dataclass(frozen=True, kw_only=True)
class GuardrailClassifier(PromptMethod):
    """A linear classifier on frozen embeddings says which questions are about the forgotten; these are refused.

        p(forget | x) = sigmoid(w · z(x) + b),    z: standardised embeddings,    refuse where p > t

    w and b minimise the cross-entropy of forgotten prompts against one half of the retained ones, both classes of equal
    weight, with ‖w‖² / (2 strength) added. t is calibrated on the other half, so that of further retained questions at
    most `false_block_rate` are refused.

    Args:
        false_block_rate: of retained questions, at most.
        strength: inverse of the penalty (scikit-learn's C).
        encoder: folder of a local sentence encoder; None takes the model's own hidden states.
        retain_texts: most retained texts that are embedded, drawn. refusal: the answer instead; None: one of many, by
            the question.

    This differs from the authors' code in
    1. logistic regression until it converges, where the paper trains a linear head by gradient descent; 2. the
    threshold.
    """

    name: ClassVar[str] = "guardrail_classifier"
    summary: ClassVar[str] = "refuses what a small frozen classifier takes for a question about the forgotten"
    paper: ClassVar[str] = "arXiv:2403.03329"
    needs: ClassVar[tuple[str, ...]] = ("retain",)

    false_block_rate: float = 0.05
    strength: float = 1.0
    encoder: str | None = None
    retain_texts: int = 400
    refusal: str | None = None

    def __post_init__(self) -> None:
        check_rate(self.false_block_rate)
        check_refusal(self.refusal)
        if not self.strength > 0:
            raise RequestError(f"strength is {self.strength}", "Give a number above 0")
        if self.retain_texts < 4:
            raise RequestError(f"retain_texts is {self.retain_texts}", "Embed at least 4 retained texts")

    def suppress(self, model: ChatModel, problem: Problem, seed: int) -> Guarded:
        """Raises DataError where the rate cannot be kept, or no forgotten question can be told apart at it."""
        encoder = encoder_for(model, self.encoder)
        embedded = Embedded(encoder)
        fitted, held = two_halves(pairs_of(problem.retain), self.retain_texts, seed, self.name)
        gone, one, two = (embedded.each([asked(p) for p in part]) for part in (pairs_of(problem.forget), fitted, held))
        measure = Linear.fit(np.concatenate(gone), np.concatenate(one), strength=self.strength)
        gates = {ASKED: Gate.of(measure, gone, two, self.false_block_rate)}
        return Guarded(model, gates, encoder, refusal=self.refusal, folder=self.encoder, seed=seed)

    @classmethod
    def load(cls, folder: str | Path, inside: ChatModel) -> Guarded:
        return Guarded.load(folder, inside)
