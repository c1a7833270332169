"""A model with gates before and behind it: what is asked is looked at, and what is answered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from expunge.errors import RequestError
from expunge.methods.prompt_gate import Embedded, Gate, encoder_for, load_gates, save_gates
from expunge.methods.prompt_parts import Around, Pair, pieces, said_by_user, split_apart
from expunge.methods.text_refusals import REFUSALS
from expunge.models.chat import ChatModel, Conversation
from expunge.models.encoder import Encoder
from expunge.training.seeds import derive, permutation

ASKED, ANSWERED = "asked", "answered"


class Guarded(Around):
    """A model that refuses where a gate is above its threshold.

    Args:
        gates: ``asked`` looks at each thing the user says, ``answered`` at the last question with its answer.
        encoder: of the gates. refusal: the answer instead; None: one of many, by the question and the `seed`, so that
            one set answer does not say that a gate spoke. folder: of the encoder, None where it is the model inside.
    """

    savable = True

    def __init__(
        self,
        inside: ChatModel,
        gates: Mapping[str, Gate],
        encoder: Encoder,
        *,
        refusal: str | None = None,
        folder: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(inside)
        self._gates, self._encoder, self._refusal, self._folder = dict(gates), encoder, refusal, folder
        self._seed = seed
        self._embedded = Embedded(encoder)

    def about(self) -> dict[str, Any]:
        """Each gate's threshold, rate, the retained texts it rests on, and the share of forgotten ones it catches."""
        return {name: gate.as_dict() for name, gate in self._gates.items()}

    @property
    def stored(self) -> int:
        """Bytes of what the gates consist of."""
        return sum(a.nbytes for g in self._gates.values() for a in g.measure.arrays().values())

    def state_digest(self) -> str:
        h = hashlib.sha256(json.dumps([self.about(), self._refusal, self._seed]).encode())
        for gate in self._gates.values():
            for name, array in sorted(gate.measure.arrays().items()):
                h.update(name.encode() + np.ascontiguousarray(array, dtype="<f4").tobytes())
        return h.hexdigest()

    def blocks(self, conversations: Sequence[Conversation]) -> list[bool]:
        """Whether what the user says is about the forgotten."""
        texts = [[p for said in said_by_user(c) for p in pieces(said)] for c in conversations]
        return self._above(ASKED, texts)

    def blocks_answers(self, conversations: Sequence[Conversation], answers: Sequence[str]) -> list[bool]:
        """Whether an answer to the last message tells of the forgotten; all false without that gate."""
        if ANSWERED not in self._gates:
            return [False] * len(answers)
        texts = [exchange(c[-1]["content"], a) for c, a in zip(conversations, answers, strict=True)]
        return self._above(ANSWERED, texts)

    def chat(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int = 64,
        samples: int = 0,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> list[list[str]]:
        def ask(asked: list[Conversation]) -> list[list[str]]:
            found = self.inside.chat(
                asked, max_new_tokens=max_new_tokens, samples=samples, temperature=temperature, seed=seed
            )
            about = [c for c, own in zip(asked, found, strict=True) for _ in own]
            bad = iter(self.blocks_answers(about, [a for own in found for a in own]))
            return [[self._refuse(c) if next(bad) else a for a in own] for c, own in zip(asked, found, strict=True)]

        def instead(rows: list[int]) -> list[list[str]]:
            return [[self._refuse(conversations[k])] * max(samples, 1) for k in rows]

        return split_apart(conversations, self.blocks(conversations), ask, instead)

    def save(self, folder: str | Path) -> None:
        """Gates as safetensors and JSON: vectors and thresholds, none of the texts they were made from."""
        save_gates(Path(folder), self._gates, self._encoder, self._settings())

    @classmethod
    def load(cls, folder: str | Path, inside: ChatModel) -> Self:
        """The same guard around a model.

        Raises:
            RunError: nothing readable is there. ModelError: the encoder has changed, or `inside` is another model than
                the one whose hidden states the guard was made with.
        """
        gates, settings, _ = load_gates(Path(folder))
        encoder = encoder_for(inside, settings["encoder"])
        load_gates(Path(folder), encoder)
        return cls(
            inside, gates, encoder, refusal=settings["refusal"], folder=settings["encoder"], seed=settings["seed"]
        )

    def _settings(self) -> dict[str, Any]:
        return {"refusal": self._refusal, "encoder": self._folder, "seed": self._seed}

    def _refuse(self, conversation: Conversation) -> str:
        if self._refusal is not None:
            return self._refusal
        return REFUSALS[derive(self._seed, "refusal", conversation[-1]["content"]) % len(REFUSALS)]

    def _above(self, name: str, texts: Sequence[Sequence[str]]) -> list[bool]:
        return [self._gates[name].above(v) for v in self._embedded.each(texts)] if texts else []


def asked(pair: Pair) -> list[str]:
    """Pieces of what would be asked about a record: its prompt; of a plain text, the text."""
    return pieces(pair.prompt or pair.answer)


def exchange(prompt: str, answer: str) -> list[str]:
    """Pieces of a question with its answer, and of the answer alone."""
    return list(dict.fromkeys([*pieces(f"{prompt} {answer}"), *pieces(answer)]))


def two_halves(pairs: Sequence[Pair], most: int, seed: int, purpose: str) -> tuple[list[Pair], list[Pair]]:
    """At most so many of the pairs, drawn, in two parts: to fit and to calibrate on; equal texts are in one only."""
    texts: dict[str, list[Pair]] = {}
    for pair in pairs:
        texts.setdefault(pair.prompt or pair.answer, []).append(pair)
    drawn = [list(texts.values())[k][0] for k in permutation(len(texts), seed, purpose, "retain")[:most]]
    return drawn[1::2], drawn[0::2]


def check_refusal(refusal: str | None) -> None:
    if refusal is not None and not refusal.strip():
        raise RequestError("the refusal is empty", "Say something, such as I don't know.")
