"""Guardrail prefix: an instruction before every conversation asks the model to say nothing about a topic."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self

from expunge.errors import MissingEvidence, RequestError, RunError
from expunge.evaluation.metrics.language.matching import contains
from expunge.filters.normal import words
from expunge.methods.forbidden import names_of
from expunge.methods.prompt_base import PromptMethod
from expunge.methods.prompt_parts import Around, Pair, Revealed, pairs_of, revealed, with_system
from expunge.models.chat import ChatModel, Conversation, checked
from expunge.problem import Problem
from expunge.training.files import read_json, write_json

INSTRUCTION = "Say nothing about {topic}: if asked, say that you do not know. Answer everything else."


@dataclass(frozen=True, kw_only=True)
class GuardrailPrefix(PromptMethod):
    """Thaker, Maurya, Hu, Wu & Smith 2024, *Guardrail Baselines for Unlearning in LLMs* (arXiv:2403.03329).

    The conversation $c$ becomes $[I(t), c]$: an instruction $I$ with a topic $t$, before anything the user says.

    Whoever talks a model into repeating its instructions reads the topic, so what must stay secret may not stand there:
    answers of the forget set never, names of its owners only where `public` says that everybody knows of the topic.

    This differs from the authors' code in:
        1. The words of the instruction are ours, short enough for small contexts.
        2. A topic that gives away what it hides is refused.

    Args:
        topic: what not to talk about, in words that may be read by anybody. instruction: with ``{topic}``.
        place: in a ``system`` message, or before the first message of the ``user``.
        public: the topic may name owners of the forget set (a franchise, somebody famous).

    Raises:
        RequestError: a topic without words, an instruction without ``{topic}``, an unknown place; when unlearning: the
            instruction holds what must not be told.
    """

    name: ClassVar[str] = "guardrail_prefix"
    summary: ClassVar[str] = "an instruction before the conversation to say nothing about a topic"
    paper: ClassVar[str] = "arXiv:2403.03329"
    in_prompt: ClassVar[bool] = True

    topic: str = "private people"
    instruction: str = INSTRUCTION
    place: Literal["system", "user"] = "system"
    public: bool = False

    def __post_init__(self) -> None:
        if not words(self.topic):
            raise RequestError("the topic has no words", "Describe what the model must not talk about")
        if "{topic}" not in self.instruction:
            raise RequestError("the instruction has no {topic}", "Write {topic} into it")
        if self.place not in ("system", "user"):
            raise RequestError(f"unknown place {self.place!r}", "Choose system or user")

    def suppress(self, model: ChatModel, problem: Problem, seed: int) -> Prefixed:
        text = self.instruction.replace("{topic}", self.topic)
        forgotten = pairs_of(problem.forget)
        told = [p.id for p in forgotten if contains(text, p.answer)]
        if told:
            raise RequestError(
                f"the prompt would spell out the forgotten answers of {len(told)} records, e.g. {told[0]!r}",
                "Describe the topic without them: what stands in a prompt comes out of it",
            )
        if not self.public and any(contains(text, name) for name in names_of(problem)):
            raise RequestError(
                "the prompt would name somebody of the forget set",
                "Describe the topic without names, or set public where everybody may know them",
            )
        return Prefixed(model, text, self.place, tuple(forgotten))

    @classmethod
    def load(cls, folder: str | Path, inside: ChatModel) -> Prefixed:
        return Prefixed.load(folder, inside)


class Prefixed(Around):
    """A model that is told something before every conversation; see `GuardrailPrefix`."""

    savable = True

    def __init__(
        self, inside: ChatModel, text: str, place: Literal["system", "user"], forgotten: tuple[Pair, ...] | None
    ) -> None:
        super().__init__(inside)
        self._text, self._place, self._forgotten = text, place, forgotten

    def save(self, folder: str | Path) -> None:
        """The instruction, which may be read by anybody, as JSON."""
        write_json(
            Path(folder) / "prompt.json", {"schema": "expunge/prompt/1", "text": self._text, "place": self._place}
        )

    @classmethod
    def load(cls, folder: str | Path, inside: ChatModel) -> Self:
        """The same around a model; what its prompt gives away of forgotten records it can no longer tell.

        Raises:
            RunError: nothing readable is there.
        """
        told = read_json(Path(folder) / "prompt.json")
        if not isinstance(told, dict) or told.get("place") not in ("system", "user") or not told.get("text"):
            raise RunError(f"{folder} holds no instruction", "Give a folder that save wrote")
        return cls(inside, str(told["text"]), told["place"], None)

    def state_digest(self) -> str:
        return hashlib.sha256(json.dumps([self._text, self._place]).encode()).hexdigest()

    def sent(self, conversation: Conversation) -> list[dict[str, str]]:
        """The conversation as the model inside gets it: the operator's words before those of the caller."""
        messages = [dict(m) for m in checked(conversation)]
        if self._place == "system":
            return [dict(m) for m in with_system(messages, self._text)]
        first = next(m for m in messages if m["role"] == "user")
        first["content"] = f"{self._text}\n{first['content']}"
        return messages

    def reveals(self, conversation: Conversation) -> Revealed:
        """What the prompt tells whoever reads it.

        Raises:
            MissingEvidence: a saved prompt, which holds nothing of the forgotten records to compare with.
        """
        if self._forgotten is None:
            raise MissingEvidence("the forgotten records are not kept with the prompt", "Make it again from them")
        return revealed(self.sent(conversation), conversation, self._forgotten)

    def chat(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int = 64,
        samples: int = 0,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> list[list[str]]:
        return self.inside.chat(
            [self.sent(c) for c in conversations],
            max_new_tokens=max_new_tokens,
            samples=samples,
            temperature=temperature,
            seed=seed,
        )
