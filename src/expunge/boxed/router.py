"""Who answers: by what the requests name and the form of the question, by a classifier, or by asking a model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from expunge.boxed.parts import Ask, Router, Steps, Turn, WorkerNames, no_steps
from expunge.models.chat import system, user

_ASKING = re.compile(
    r"\s*(who|whom|whose|what|which|when|where|why|how|is|are|was|were|do|does|did|can|could|will|would|has|have|had)\b",
    re.IGNORECASE,
)


Form = Literal["question", "completion", "task"]


def form_of(question: str) -> Form:
    """``question``, ``completion`` (a text that breaks off), or ``task`` (anything else)."""
    text = question.strip()
    if text.endswith("?") or _ASKING.match(text):
        return "question"
    return "task" if text.endswith((".", "!", ":", ";")) or not text else "completion"


def _named(turn: Turn, reads: str) -> bool:
    return (turn.called_last if reads == "last" else turn.called).asked


class RuleRouter(Router):
    """By the requests' rules, then by the form of the question.

    Args:
        marked: for a question that some request names. forms: form -> workers; forms are ``question``, ``completion``
            and ``task``. otherwise: for all else. reads: ``conversation`` or only the ``last`` message.
    """

    worker_fields_named: ClassVar[tuple[str, ...]] = ("marked", "forms", "otherwise")

    kind: Literal["rule"] = "rule"
    marked: WorkerNames
    forms: Mapping[Form, WorkerNames] = Field(default_factory=dict)
    otherwise: WorkerNames
    reads: Literal["conversation", "last"] = "conversation"

    def route(self, turn: Turn) -> Steps[tuple[str, ...]]:
        if _named(turn, self.reads):
            return no_steps(self.marked)
        return no_steps(self.forms.get(form_of(turn.question), self.otherwise))

    def most(self) -> int:
        return max(map(len, (self.marked, self.otherwise, *self.forms.values())))


class ClassifierRouter(Router):
    """By the requests' rules, then by a small classifier fitted on their examples.

    Args:
        ordinary: file of questions that must be answered: what the examples are told apart from.
        threshold: from this score on a question counts as marked.
    """

    worker_fields_named: ClassVar[tuple[str, ...]] = ("marked", "otherwise")
    learns: ClassVar[str | None] = "question"

    kind: Literal["classifier"] = "classifier"
    marked: WorkerNames
    otherwise: WorkerNames
    ordinary: str
    threshold: float = Field(0.5, gt=0, lt=1)
    reads: Literal["conversation", "last"] = "conversation"

    def route(self, turn: Turn) -> Steps[tuple[str, ...]]:
        named = _named(turn, self.reads)
        marked = named or turn.rules.classifier("question").score(turn.question) >= self.threshold
        return no_steps(self.marked if marked else self.otherwise)

    def most(self) -> int:
        return max(len(self.marked), len(self.otherwise))


def _lower(value: object) -> object:
    return {str(k).strip().lower(): v for k, v in value.items()} if isinstance(value, Mapping) else value


class ModelRouter(Router):
    """By the requests' rules, then by one word of a model.

    Args:
        model: that is asked. instruction: what it is told, ending in the words it may choose from; it must hold
            nothing of what must be forgotten. words: word -> workers. otherwise: where it says no such word.
    """

    model_fields_named: ClassVar[tuple[str, ...]] = ("model",)
    worker_fields_named: ClassVar[tuple[str, ...]] = ("marked", "words", "otherwise")

    kind: Literal["model"] = "model"
    model: str
    instruction: Annotated[str, Field(min_length=1, max_length=20_000)]
    words: Annotated[Mapping[str, WorkerNames], BeforeValidator(_lower), Field(min_length=1)]
    marked: WorkerNames
    otherwise: WorkerNames
    reads: Literal["conversation", "last"] = "conversation"
    max_new_tokens: int = Field(8, ge=1, le=256)

    def route(self, turn: Turn) -> Steps[tuple[str, ...]]:
        told = turn.rules.without_answers(self.instruction)
        said = yield Ask(  # of a marked question too: where this model is down, every question fails alike
            model=self.model,
            conversation=(system(told), user(turn.question)),
            sampling=turn.sampling.greedy(self.max_new_tokens),
        )
        if _named(turn, self.reads):
            return self.marked
        heard = re.findall(r"\w+", said.lower())
        return next((self.words[w] for w in heard if w in self.words), self.otherwise)

    def most(self) -> int:
        return max(map(len, (self.marked, self.otherwise, *self.words.values())))

    def instructions(self) -> tuple[str, ...]:
        return (self.instruction,)


ROUTERS: dict[str, type[Router]] = {"rule": RuleRouter, "classifier": ClassifierRouter, "model": ModelRouter}
