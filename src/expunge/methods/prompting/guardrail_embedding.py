"""Refuse what is close in meaning to the forgotten."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from expunge.errors import RequestError
from expunge.methods.prompt_base import PromptMethod
from expunge.methods.prompt_gate import Embedded, Gate, Nearest, check_rate, encoder_for
from expunge.methods.prompt_guard import (
    ANSWERED,
    ASKED,
    Guarded,
    asked,
    check_refusal,
    exchange,
    two_halves,
)  # fmt: skip
from expunge.methods.prompt_parts import pairs_of
from expunge.models.chat import ChatModel
from expunge.models.encoder import Vectors
from expunge.problem import Problem


@dataclass(frozen=True, kw_only=True)
class GuardrailEmbedding(PromptMethod):
    """A question or an answer is refused where it is closer in meaning to a forgotten text than a threshold.

        s(x) = max over forgotten f and pieces p of x of cos(e(p) - m, e(f) - m),    refuse where s(x) > t

    e are embeddings, m is their mean where e are hidden states of a causal model, and t is calibrated so that of
    further retained texts, drawn like those it was calibrated on, at most `false_block_rate` are refused. What is kept
    are vectors of the forgotten texts: no text, but personal data all the same, as vectors can be turned back into
    words in part.

    Args:
        false_block_rate: of retained questions with their answers, at most; both gates share it.
        answers: look at answers too, each together with its question.
        encoder: folder of a local sentence encoder; None takes the model's own hidden states.
        retain_texts: most retained texts that are embedded, drawn; half of them calibrate.
        refusal: the answer instead; None: one of many, by the question.

    This differs from the authors' code in
    1. embeddings, where the paper looks for words or asks a further model; 2. the calibrated threshold.
    """

    name: ClassVar[str] = "guardrail_embedding"
    summary: ClassVar[str] = "refuses what is close in meaning to the forgotten"
    paper: ClassVar[str] = "arXiv:2403.03329"
    needs: ClassVar[tuple[str, ...]] = ("retain",)

    false_block_rate: float = 0.05
    answers: bool = True
    encoder: str | None = None
    retain_texts: int = 400
    refusal: str | None = None

    def __post_init__(self) -> None:
        check_rate(self.false_block_rate)
        check_refusal(self.refusal)
        if self.retain_texts < 4:
            raise RequestError(f"retain_texts is {self.retain_texts}", "Embed at least 4 retained texts")

    def suppress(self, model: ChatModel, problem: Problem, seed: int) -> Guarded:
        """Raises DataError where the rate cannot be kept, or no forgotten text can be told apart at it."""
        encoder = encoder_for(model, self.encoder)
        embedded = Embedded(encoder)
        gone = pairs_of(problem.forget)
        fitted, held = two_halves(pairs_of(problem.retain), self.retain_texts, seed, self.name)
        rate = self.false_block_rate / (2 if self.answers else 1)
        looks = {ASKED: asked} | ({ANSWERED: lambda p: exchange(p.prompt, p.answer)} if self.answers else {})
        gates = {}
        for name, look in looks.items():
            forgotten, calibrating = embedded.each([look(p) for p in gone]), embedded.each([look(p) for p in held])
            centre = np.zeros(forgotten[0].shape[1], np.float32)
            if encoder.centred:
                centre = np.concatenate([*forgotten, *embedded.each([look(p) for p in fitted])]).mean(axis=0)
            gates[name] = Gate.of(Nearest.of(_kept(forgotten), centre), forgotten, calibrating, rate)
        return Guarded(model, gates, encoder, refusal=self.refusal, folder=self.encoder, seed=seed)

    @classmethod
    def load(cls, folder: str | Path, inside: ChatModel) -> Guarded:
        return Guarded.load(folder, inside)


def _kept(texts: list[Vectors]) -> Vectors:
    return np.unique(np.concatenate(texts), axis=0)
