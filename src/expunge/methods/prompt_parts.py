"""What prompting methods share: a model with something around it, who is asked what, and what a prompt gives away."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from expunge.data.records import Records
from expunge.evaluation.metrics.language.matching import contains
from expunge.models.chat import ChatModel, Conversation, checked, system

WINDOW = 96  # words of a long text that are looked at together
_SENTENCE = re.compile(r"(?<=[.?!])\s+|\n+")


class Around(ABC):
    """A model with something around it: it answers messages, and gives neither probabilities nor embeddings.

    Attributes:
        inside: the model it was made from, whose weights are what they were.
        savable: whether what stands around it can be written by ``save`` without a text of the forget set.
    """

    capabilities = frozenset({"generate"})
    savable: bool = False

    def __init__(self, inside: ChatModel) -> None:
        self.inside = inside

    @abstractmethod
    def state_digest(self) -> str:
        """SHA-256 over what stands around the model, hexadecimal."""

    def digest(self) -> str:
        """SHA-256 over the model inside and what stands around it, hexadecimal."""
        told = f"{type(self).__name__}\x00{self.inside.digest()}\x00{self.state_digest()}"
        return hashlib.sha256(told.encode()).hexdigest()

    @abstractmethod
    def chat(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int = 64,
        samples: int = 0,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> list[list[str]]:
        """See `expunge.models.chat.ChatModel`."""


@dataclass(frozen=True)
class Pair:
    """A record: its id, prompt and answer. subject: who or what it is about, where the records say it."""

    id: str
    prompt: str
    answer: str
    subject: str = ""

    @property
    def text(self) -> str:
        return f"{self.prompt} {self.answer}".strip()


def pairs_of(records: Records) -> list[Pair]:
    """The records of a column ``prompt`` and ``answer``, and ``subject`` where there is one."""
    subjects = records.columns.get("subject")
    return [
        Pair(str(i), str(p), str(a), "" if subjects is None else str(subjects[k]))
        for k, (i, p, a) in enumerate(zip(records.ids, records.column("prompt"), records.column("answer"), strict=True))
    ]


def split_apart(
    conversations: Sequence[Conversation],
    other: Sequence[bool],
    plain: Callable[[list[Conversation]], list[list[str]]],
    instead: Callable[[list[int]], list[list[str]]],
) -> list[list[str]]:
    """Answers in order: of `plain` where `other` is false; where true, of `instead`, which is told their numbers."""
    rest = [k for k, yes in enumerate(other) if not yes]
    told = [k for k, yes in enumerate(other) if yes]
    found: dict[int, list[str]] = {}
    if rest:
        found |= dict(zip(rest, plain([conversations[k] for k in rest]), strict=True))
    if told:
        found |= dict(zip(told, instead(told), strict=True))
    return [found[k] for k in range(len(conversations))]


def said_by_user(conversation: Conversation) -> list[str]:
    """What the user, or a system message of theirs, says: each message, and all of them as one text."""
    own = [m["content"] for m in checked(conversation) if m["role"] != "assistant"]
    return own if len(own) == 1 else [*own, "\n".join(own)]


def pieces(text: str) -> list[str]:
    """What is looked at of a text: windows of at most 96 words that overlap by half, and each sentence or line.

    A question that hides among other sentences is seen by itself.
    """
    words = text.split()
    if not words:
        return []
    steps = range(0, max(len(words) - WINDOW // 2, 1), WINDOW // 2)
    windows = [" ".join(words[k : k + WINDOW]) for k in steps]
    lines = [" ".join(line.split()[:WINDOW]) for line in _SENTENCE.split(text) if line.strip()]
    return list(dict.fromkeys([*windows, *lines]))


def with_system(conversation: Conversation, text: str) -> list[Any]:
    """The conversation with a system message; one that stands there comes after it, in the same message."""
    messages = list(conversation)
    if messages and messages[0]["role"] == "system":
        return [system(f"{text}\n\n{messages[0]['content']}"), *messages[1:]]
    return [system(text), *messages]


@dataclass(frozen=True, kw_only=True)
class Revealed:
    """What somebody learns who reads a prompt: the provider of a model, or whoever gets the model to repeat it.

    Args:
        messages: what was added to the conversation. questions, subjects, answers: ids of the forgotten records whose
            question, subject or answer stands in it and not in what the user had said.
    """

    messages: tuple[str, ...]
    questions: tuple[str, ...]
    subjects: tuple[str, ...]
    answers: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Numbers and ids, none of the texts."""
        return {
            "messages": len(self.messages),
            "questions": list(self.questions),
            "subjects": list(self.subjects),
            "answers": list(self.answers),
        }


def revealed(sent: Conversation, asked: Conversation, forgotten: Sequence[Pair]) -> Revealed:
    """What the conversation that is sent tells of forgotten records beyond the one that was asked."""
    own = [m["content"] for m in asked]
    added = [m["content"] for m in sent if m["content"] not in own]
    text, known = "\n".join(added), "\n".join(own)

    def ids(of: Callable[[Pair], str]) -> tuple[str, ...]:
        return tuple(p.id for p in forgotten if contains(text, of(p)) and not contains(known, of(p)))

    return Revealed(
        messages=tuple(added),
        questions=ids(lambda p: p.prompt),
        subjects=ids(lambda p: p.subject),
        answers=ids(lambda p: p.answer),
    )
