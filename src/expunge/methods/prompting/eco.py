"""Embedding-corrupted prompts: what is asked about the forgotten reaches the model as noise."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from expunge.errors import DataError, ModelError, RequestError
from expunge.methods.prompt_base import PromptMethod
from expunge.methods.prompt_gate import Embedded, Gate, Linear, check_rate, encoder_for, load_gates, save_gates
from expunge.methods.prompt_guard import ASKED, Guarded, asked, two_halves
from expunge.methods.prompt_parts import Around, Pair, pairs_of, split_apart
from expunge.models.chat import ChatModel, Conversation, ask, checked
from expunge.models.corruption import Noise, answer_loss, corrupted_answers
from expunge.models.language import LanguageModel
from expunge.problem import Problem
from expunge.training.seeds import derive, permutation

DOUBLINGS, HALVINGS = 14, 5
ANSWER_TOKENS = 24  # of an answer that the search compares
DRAWS = 3  # of noise for each prompt
LEAST_KNOWN = 0.1  # nats a token


@dataclass(frozen=True, kw_only=True)
class Eco(PromptMethod):
    """A classifier finds prompts about the forgotten; the embeddings of their words are corrupted (ECO).

        e(x) + sigma * rms(E) * n,   n ~ N(0, 1) on d coordinates of the user's tokens,   where p(forget | x) > t

    E is the model's table of embeddings. The noise of a conversation depends on its words and the seed alone. Without a
    given `strength`, sigma is the smallest one (found by function values alone, as the paper's zeroth-order search) at
    which the model's old answers are about as likely after retained prompts, corrupted alike, as after their own.

    Args:
        strength: sigma, in units of the embeddings' root mean square; None searches. dimensions: d; None: all.
        tolerance: share of what the answers owe to their prompts (nats a token, on the mean) that may be left.
        searched: most forgotten prompts the search looks at, drawn.
        false_block_rate, regularisation, encoder, retain_texts: of the classifier, see ``guardrail_classifier``
            (`regularisation` is its `strength`).

    This differs from the authors' code in
    1. a linear classifier on embeddings for a fine-tuned RoBERTa, with a conformal threshold; 2. all tokens that the
    user writes are corrupted, where a named-entity tagger chooses some; 3. the search: doubling, then halving, towards
    an answer that is as likely elsewhere, for a gradient estimated from two values towards a guessed metric.
    """

    name: ClassVar[str] = "eco"
    summary: ClassVar[str] = "corrupts the embeddings of prompts about the forgotten"
    paper: ClassVar[str] = "arXiv:2406.07933"
    needs: ClassVar[tuple[str, ...]] = ("retain", "weights")

    strength: float | None = None
    dimensions: int | None = None
    tolerance: float = 0.1
    searched: int = 32
    false_block_rate: float = 0.05
    regularisation: float = 1.0
    encoder: str | None = None
    retain_texts: int = 400

    def __post_init__(self) -> None:
        check_rate(self.false_block_rate)
        if self.strength is not None and not self.strength > 0:
            raise RequestError(f"strength is {self.strength}", "Give a number above 0, or leave it to the search")
        if self.dimensions is not None and self.dimensions < 1:
            raise RequestError(f"dimensions is {self.dimensions}", "Corrupt at least one")
        if self.searched < 1 or not 0 < self.tolerance < 1 or not self.regularisation > 0 or self.retain_texts < 4:
            raise RequestError(
                "a hyper-parameter of eco is out of range",
                "searched from 1, tolerance between 0 and 1, regularisation above 0, retain_texts from 4",
            )

    def suppress(self, model: ChatModel, problem: Problem, seed: int) -> Corrupting:
        """Raises DataError where no prompt can be told apart, ModelError where no strength hides the answers."""
        if not isinstance(model, LanguageModel):
            raise ModelError("eco corrupts embeddings, and needs a local language model", "Choose a guardrail")
        gone, kept = pairs_of(problem.forget), pairs_of(problem.retain)
        if not all(p.prompt for p in gone):
            raise DataError("a forgotten record has no prompt that could be corrupted", "Choose a guardrail")
        encoder = encoder_for(model, self.encoder)
        embedded = Embedded(encoder)
        fitted, held = two_halves(kept, self.retain_texts, seed, self.name)
        bad, one, two = (embedded.each([asked(p) for p in part]) for part in (gone, fitted, held))
        measure = Linear.fit(np.concatenate(bad), np.concatenate(one), strength=self.regularisation)
        gate = Gate.of(measure, bad, two, self.false_block_rate)
        strength = self.strength or self._search(model, gone, kept, seed)
        guard = Guarded(model, {ASKED: gate}, encoder, folder=self.encoder)
        return Corrupting(model, guard, strength, self.dimensions, seed)

    @classmethod
    def load(cls, folder: str | Path, inside: ChatModel) -> Corrupting:
        return Corrupting.load(folder, inside)

    def _search(self, model: LanguageModel, gone: Sequence[Pair], kept: Sequence[Pair], seed: int) -> float:
        """The smallest strength at which old answers are no likelier than elsewhere, within a 32nd of a doubling."""
        chosen = [gone[k].prompt for k in permutation(len(gone), seed, self.name, "searched")[: self.searched]]
        asked_also = [p.prompt for p in kept if p.prompt]
        if not asked_also:
            raise DataError("no retained record has a prompt to compare with", "Give a strength instead of the search")
        others = [asked_also[derive(seed, self.name, "other", p) % len(asked_also)] for p in chosen]
        told = ask(model, chosen, max_new_tokens=ANSWER_TOKENS)
        rows = [row for row in zip(chosen, others, told, strict=True) if row[2]]

        def known(strength: float) -> float:
            """How much likelier the old answers are after their own prompts, nats a token on the mean."""
            gaps = []
            for prompt, other, answer in rows:
                for draw in range(DRAWS):  # both prompts get the same noise, which takes most of its chance out
                    noise = Noise(strength, self.dimensions, derive(seed, self.name, "noise", draw))
                    gaps.append(answer_loss(model, other, answer, noise) - answer_loss(model, prompt, answer, noise))
            return float(np.mean(gaps))

        at_first = known(0.0) if rows else 0.0
        if at_first < LEAST_KNOWN:
            raise DataError(
                "the model's answers to forgotten prompts are as likely after others: nothing shows when hidden",
                "Give a strength instead of the search",
            )
        goal = self.tolerance * at_first
        low, high = 0.0, 2.0**-6
        for _ in range(DOUBLINGS):
            if known(high) <= goal:
                break
            low, high = high, 2 * high
        else:
            raise ModelError(
                f"at a strength of {low:g} more than {self.tolerance:.0%} of what the answers owe to their prompts "
                "is left",
                "Corrupt more dimensions, or allow more",
            )
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if known(middle) <= goal else (middle, high)
        return high


class Corrupting(Around):
    """A language model that reads some prompts with corrupted embeddings; see `Eco`."""

    inside: LanguageModel
    savable = True

    def __init__(
        self, inside: LanguageModel, guard: Guarded, strength: float, dimensions: int | None, seed: int
    ) -> None:
        super().__init__(inside)
        self._guard, self._strength, self._dimensions, self._seed = guard, strength, dimensions, seed

    @property
    def strength(self) -> float:
        return self._strength

    @property
    def stored(self) -> int:
        return self._guard.stored

    def about(self) -> dict[str, Any]:
        return {**self._guard.about(), "strength": self._strength, "dimensions": self._dimensions}

    def state_digest(self) -> str:
        told = json.dumps([self._guard.state_digest(), self._strength, self._dimensions, self._seed])
        return hashlib.sha256(told.encode()).hexdigest()

    def blocks(self, conversations: Sequence[Conversation]) -> list[bool]:
        """Whether what the user says is about the forgotten."""
        return self._guard.blocks(conversations)

    def chat(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int = 64,
        samples: int = 0,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> list[list[str]]:
        def ask(plain: list[Conversation]) -> list[list[str]]:
            return self.inside.chat(
                plain, max_new_tokens=max_new_tokens, samples=samples, temperature=temperature, seed=seed
            )

        def instead(row: int) -> list[str]:
            own = checked(conversations[row])
            noise = Noise(self._strength, self._dimensions, _seed_of(own, self._seed))
            return corrupted_answers(
                self.inside, own, noise, max_new_tokens=max_new_tokens, samples=samples, temperature=temperature,
                seed=derive(seed, "eco", row) % 2**31,
            )  # fmt: skip

        return split_apart(conversations, self.blocks(conversations), ask, lambda rows: [instead(k) for k in rows])

    def save(self, folder: str | Path) -> None:
        """Classifier, strength and seed as safetensors and JSON: no texts."""
        own = {"strength": self._strength, "dimensions": self._dimensions, "seed": self._seed}
        save_gates(Path(folder), self._guard._gates, self._guard._encoder, {"encoder": self._guard._folder, **own})

    @classmethod
    def load(cls, folder: str | Path, inside: ChatModel) -> Self:
        """Raises RunError where nothing readable is there, ModelError where the model or encoder is another one."""
        if not isinstance(inside, LanguageModel):
            raise ModelError("eco corrupts embeddings, and needs a local language model", "Give one")
        gates, settings, _ = load_gates(Path(folder))
        encoder = encoder_for(inside, settings["encoder"])
        load_gates(Path(folder), encoder)
        guard = Guarded(inside, gates, encoder, folder=settings["encoder"])
        return cls(inside, guard, float(settings["strength"]), settings["dimensions"], int(settings["seed"]))


def _seed_of(conversation: Conversation, seed: int) -> int:
    """Of the noise of a conversation: a function of its words and the seed."""
    return derive(seed, "eco", *(m["content"] for m in conversation))
