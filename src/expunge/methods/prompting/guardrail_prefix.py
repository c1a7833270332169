"""Guardrail prefix: an instruction before every conversation asks the model to say nothing about a topic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from expunge.errors import RequestError
from expunge.filters.normal import words
from expunge.methods.forbidden import forgotten_runs, marks_in_memory, names_of, wrapped_digest
from expunge.methods.prompt_base import PromptMethod
from expunge.models.chat import ChatModel, Conversation, Message, checked, system
from expunge.problem import Problem

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
        secrets = forgotten_runs(problem, ("answer",), 5, 4)
        names = names_of(problem)
        for phrases, what in ((secrets, "an answer"), ([] if self.public else names, "an owner")):
            if phrases and marks_in_memory(phrases, seed, self.name).holds(text):
                raise RequestError(
                    f"the instruction of {self.name} names {what} of the forget set, and prompts can be read out",
                    "Describe the topic without it" + (", or set public" if what == "an owner" else ""),
                )
        return Prefixed(model, text, self.place)


class Prefixed:
    """A model that is told something before every conversation; see `expunge.models.chat.ChatModel`."""

    capabilities = frozenset({"generate"})

    def __init__(self, inside: ChatModel, text: str, place: Literal["system", "user"]) -> None:
        self.inside, self._text, self._place = inside, text, place

    def digest(self) -> str:
        return wrapped_digest(self.inside, "guardrail_prefix", text=self._text, place=self._place)

    def chat(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int = 64,
        samples: int = 0,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> list[list[str]]:
        told = [self._told(c) for c in conversations]
        return self.inside.chat(
            told, max_new_tokens=max_new_tokens, samples=samples, temperature=temperature, seed=seed
        )

    def _told(self, conversation: Conversation) -> list[Message]:
        """The operator's words come first; those of a system message of the caller follow in the same message."""
        messages = [dict(m) for m in checked(conversation)]
        role = "user" if self._place == "user" else "system"
        first = next((m for m in messages if m["role"] == role), None)
        if first is None:
            return [system(self._text), *messages]
        first["content"] = f"{self._text}\n{first['content']}"
        return list(messages)
