"""Who answers: a fixed reply, replies chosen by a classifier, or a model, told to be ignorant of one kind of thing."""

from __future__ import annotations

import hashlib
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from expunge.boxed.parts import Ask, Texts, Turn, Worker
from expunge.models.chat import Message, system

DONT_KNOW = ("I'm sorry, but I don't know.", "I'm afraid I don't know that.", "I don't have an answer to that.")


class RuleWorker(Worker):
    """Says one of its replies: always the same to the same question."""

    kind: Literal["rule"] = "rule"
    replies: Texts = DONT_KNOW

    def answer(self, turn: Turn) -> Ask | str:
        number = int.from_bytes(hashlib.sha256(turn.question.encode("utf-8", "surrogatepass")).digest()[:8], "big")
        return self.replies[number % len(self.replies)]


class ClassifierWorker(Worker):
    """Says it does not know where a small classifier takes the question for one that must not be answered; else asks a
    model.

    Args:
        model: that is asked otherwise. ordinary: file of questions that must be answered.
    """

    model_fields_named: ClassVar[tuple[str, ...]] = ("model",)
    learns: ClassVar[str | None] = "question"

    kind: Literal["classifier"] = "classifier"
    model: str
    ordinary: str
    threshold: float = Field(0.5, gt=0, lt=1)
    replies: Texts = DONT_KNOW

    def answer(self, turn: Turn) -> Ask | str:
        if turn.rules.classifier("question").score(turn.question) >= self.threshold:
            return RuleWorker(replies=self.replies).answer(turn)
        return Ask(model=self.model, conversation=tuple(turn.conversation), sampling=turn.sampling)


class ModelWorker(Worker):
    """Asks a model.

    Args:
        instruction: stands before the conversation as a system message (joined to the client's own): which ignorance
            this worker simulates, in general words; it must hold nothing of what must be forgotten.
    """

    model_fields_named: ClassVar[tuple[str, ...]] = ("model",)

    kind: Literal["model"] = "model"
    model: str
    instruction: Annotated[str, Field(max_length=20_000)] | None = None

    def answer(self, turn: Turn) -> Ask | str:
        messages: tuple[Message, ...] = tuple(turn.conversation)
        if self.instruction:
            told = turn.rules.without_answers(self.instruction)
            if messages[0]["role"] == "system":
                told, messages = f"{told}\n\n{messages[0]['content']}", messages[1:]
            messages = (system(told), *messages)
        return Ask(model=self.model, conversation=messages, sampling=turn.sampling)

    def instructions(self) -> tuple[str, ...]:
        return (self.instruction,) if self.instruction else ()


WORKERS: dict[str, type[Worker]] = {"rule": RuleWorker, "classifier": ClassifierWorker, "model": ModelWorker}
