"""What a box asks: a model on this machine or behind an OpenAI-compatible address, whole or in pieces."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from typing import Final, Protocol

from expunge.boxed.parts import Sampling
from expunge.errors import RunError
from expunge.models.chat import ChatModel, Conversation


class Limit:
    """Stands in a stream where the answer has as many tokens as were asked for; the rest is for the filter alone."""


LIMIT: Final = Limit()


class Unavailable(RunError):
    """A model that a box asks does not answer."""


class Refused(RunError):
    """A model that a box asks takes the conversation for malformed or too long."""


class Upstream(Protocol):
    """A model and what serving needs beside `chat`.

    Attributes:
        exact: whether tokens are counted as the model counts them.
    """

    exact: bool

    @property
    def model(self) -> ChatModel: ...

    def stream(
        self, conversation: Conversation, sampling: Sampling, *, beyond: int = 0
    ) -> AsyncGenerator[str | Limit, None]:
        """Pieces of an answer; with at most `beyond` more tokens than asked for after a `LIMIT`.

        Closing it ends the work on it.

        Raises:
            Unavailable, Refused.
        """
        ...

    async def embed(self, texts: Sequence[str]) -> list[list[float]]: ...

    def count(self, text: str) -> int:
        """Tokens of a text."""
        ...

    def length(self, conversation: Conversation) -> int:
        """Tokens of a conversation."""
        ...

    def first(self, text: str, tokens: int) -> str:
        """The beginning of a text with at most so many tokens."""
        ...

    def room(self, conversations: Sequence[Conversation], new: int) -> int | None:
        """Tokens that fit into the context behind the longest conversation and `new` tokens; None: not known."""
        ...

    async def close(self) -> None: ...


_TOKEN = re.compile(r"\s*(?:\w{1,4}|[^\w\s])")


class RoughCount:
    """Tokens where no tokenizer is at hand: up to four letters each, punctuation alone."""

    exact = False

    def count(self, text: str) -> int:
        return sum(1 for _ in _TOKEN.finditer(text))

    def length(self, conversation: Conversation) -> int:
        return sum(4 + self.count(m["content"]) for m in conversation)

    def first(self, text: str, tokens: int) -> str:
        end = 0
        for number, match in enumerate(_TOKEN.finditer(text), 1):
            if number > tokens:
                return text[:end]
            end = match.end()
        return text
