"""What the parts of a box are: a router, workers, a composer, output filters; and how they ask a model.

A part never calls a model itself. It is a generator that yields what it wants to ask and is sent the answers, so that
the same part serves one streaming client and a batch of ten thousand questions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, TypeVar

from pydantic import BeforeValidator, Field

from expunge.models.chat import Conversation, Message
from expunge.request import Strict

if TYPE_CHECKING:
    from expunge.boxed.rules import Called, Rules

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How an answer is drawn.

    Args:
        max_new_tokens: of the answer. temperature: 0 is greedy. top_p: share of probability that is drawn from.
        seed: of the draw. draw: number of the draw, where several are wanted.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    draw: int = 0

    def greedy(self, max_new_tokens: int) -> Sampling:
        """For the questions that parts ask on their own."""
        return Sampling(max_new_tokens=max_new_tokens)

    def longer_by(self, tokens: int) -> Sampling:
        return replace(self, max_new_tokens=self.max_new_tokens + tokens)


@dataclass(frozen=True, kw_only=True, repr=False)
class Ask:
    """A question to one of the models.

    Args:
        model: its name in the box. conversation: ends with a message of the user.
    """

    model: str
    conversation: tuple[Message, ...]
    sampling: Sampling


Steps = Generator[Ask, str, T]


@dataclass(frozen=True, kw_only=True, repr=False)
class Turn:
    """What a part may see: the conversation, the rules in force, how the answer is to be drawn."""

    conversation: Conversation
    rules: Rules
    sampling: Sampling

    @property
    def question(self) -> str:
        """The last message of the user."""
        return self.conversation[-1]["content"]

    @property
    def everything(self) -> str:
        """All messages, a line each."""
        return "\n".join(m["content"] for m in self.conversation)

    @cached_property
    def called(self) -> Called:
        """What the conversation calls up."""
        return self.rules.called(self.everything)

    @cached_property
    def called_last(self) -> Called:
        """What the last message alone calls up."""
        return self.rules.called(self.question) if len(self.conversation) > 1 else self.called


class Sieve(Protocol):
    """Lets through what may be told of an answer that arrives in pieces."""

    @property
    def blocked(self) -> bool: ...

    def push(self, text: str) -> str: ...

    def finish(self) -> str: ...


class Part(Strict):
    """A part is its entry in the box's YAML, read and checked; frozen.

    Class attributes:
        model_fields_named, worker_fields_named: fields that hold names of models and of workers; the names are looked
            up when the box is read. learns: what of the requests' examples its classifier learns from, ``question`` or
            ``answer``; `ordinary_texts` is then the file of what must not be kept back.
    """

    kind: str
    model_fields_named: ClassVar[tuple[str, ...]] = ()
    worker_fields_named: ClassVar[tuple[str, ...]] = ()
    learns: ClassVar[str | None] = None

    def ordinary_texts(self) -> str | None:
        """File of ordinary texts, of a part that learns."""
        return getattr(self, "ordinary", None)

    def instructions(self) -> tuple[str, ...]:
        """What this part writes into prompts: checked to hold nothing that must be forgotten."""
        return ()


class Router(Part, ABC):
    """Chooses who answers."""

    @abstractmethod
    def route(self, turn: Turn) -> Steps[tuple[str, ...]]:
        """Names of one or more workers."""

    @abstractmethod
    def most(self) -> int:
        """The largest number of workers it may choose at once."""


class Worker(Part, ABC):
    """Answers, or pretends not to know."""

    @abstractmethod
    def answer(self, turn: Turn) -> Ask | str:
        """A fixed text, or what to ask a model."""


class Composer(Part, ABC):
    """Makes one answer of those of several workers."""

    @abstractmethod
    def compose(self, turn: Turn, answers: Sequence[str]) -> Steps[str]: ...

    def passes_on(self, workers: int) -> bool:
        """Whether the answer of a single worker goes through as it is, so that it can be streamed."""
        return workers == 1


class OutputFilter(Part, ABC):
    """The last to see an answer."""

    @abstractmethod
    def whole(self, turn: Turn, answer: str) -> Steps[str]:
        """What may be told of a complete answer."""

    def sieve(self, turn: Turn) -> Sieve | None:
        """The same, in pieces; None where it must see the whole answer first."""
        return None


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


WorkerNames = Annotated[tuple[str, ...], BeforeValidator(_listed), Field(min_length=1)]
Texts = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_listed), Field(min_length=1)]


def no_steps(value: T) -> Steps[T]:
    """Steps that ask nothing."""
    yield from ()
    return value
