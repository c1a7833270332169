"""How black-box attacks ask: what fits into the model is sent, what the attacker wrote himself is never a find."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from expunge.data.records import Records
from expunge.errors import ContextTooLong, MissingEvidence
from expunge.evaluation.attacks.language.contract import Attack, Target, Trial, answer_room
from expunge.evaluation.metrics.checks import Floats
from expunge.evaluation.metrics.language.matching import contains
from expunge.models.chat import Conversation, Message, user, weights_of

Reader = Callable[[str, str], bool]  # (what the model said, the true answer) -> whether it is in there
TALK = 32  # tokens that a model may chat around an answer


class Interview:
    """Asks one target, greedily, and counts what was longer than it reads.

    A local model's own limit is known and kept to. What stands around it (a prompt, examples, a box) takes room that
    nobody outside can count: there the model says that a conversation is too long, and the attacker sends less.

    Args:
        least: new tokens without which a question is not worth asking. wanted: where there is room.
    """

    def __init__(self, target: Target, *, least: int, wanted: int) -> None:
        self.target, self.least, self.wanted = target, least, max(least, wanted)
        self.inside = weights_of(target.model)
        self.read, self.unread = 0, 0
        self._known: dict[tuple[tuple[str, str], ...], str] = {}

    @classmethod
    def about(cls, target: Target, items: Records, *, talk: int = 0) -> Interview:
        """With room for the answers of `items`, and for `talk` tokens around them."""
        room = answer_room(target, items)
        return cls(target, least=room, wanted=room + talk)

    def ask(self, conversations: Sequence[Conversation]) -> list[str]:
        """One answer each; empty where the conversation is longer than the model reads."""
        return self.ask_longest([[c] for c in conversations])[0]

    def ask_longest(self, ladders: Sequence[Sequence[Conversation]]) -> tuple[list[str], list[int | None]]:
        """The first conversation of each ladder, from long to short, that the model reads.

        Returns:
            The answers, and which rung was read; an empty answer and None where none was.
        """
        said, taken = [""] * len(ladders), list[int | None]([None] * len(ladders))
        options = [[(rung, c, new) for rung, c in enumerate(ladder) for new in self._rooms(c)] for ladder in ladders]
        waiting = [k for k, choices in enumerate(options) if choices]
        step = 0
        while waiting:
            told = self._send([options[k][step][1:] for k in waiting])
            for k, text in zip(waiting, told, strict=True):
                if text is not None:
                    said[k], taken[k] = text, options[k][step][0]
            step += 1
            waiting = [k for k in waiting if taken[k] is None and step < len(options[k])]
        self.read += sum(t is not None for t in taken)
        self.unread += sum(t is None for t in taken)
        return said, taken

    def closed(self, attack: str) -> dict[str, Any]:
        """How many prompts were too long, for `Trial.shown`.

        Raises:
            MissingEvidence: all were, so that nothing was tried.
        """
        if self.unread and not self.read:
            raise MissingEvidence(
                f"every prompt of {attack} is longer than this model reads at once", "Attack a model that reads more"
            )
        return {"prompts": self.read + self.unread, "prompts_too_long": self.unread}

    def _rooms(self, conversation: Conversation) -> list[int]:
        """Numbers of new tokens to ask for, the larger first, as far as is known here."""
        rooms = list(dict.fromkeys((self.wanted, self.least)))
        if self.inside is None or self.inside.context is None:
            return rooms
        free = self.inside.context - self.inside.length(conversation)
        return [new for new in rooms if new <= free]

    def _send(self, asked: Sequence[tuple[Conversation, int]]) -> list[str | None]:
        """Answers; None where the model says that it cannot read so much. Nothing is asked twice."""
        keys = [tuple((m["role"], m["content"]) for m in c) for c, _ in asked]
        refused: set[tuple[tuple[str, str], ...]] = set()
        for new in sorted({n for _, n in asked}, reverse=True):
            fresh = {
                key: c for key, (c, n) in zip(keys, asked, strict=True) if n == new and key not in self._known
            }  # fmt: skip
            told = self._chat(list(fresh.values()), new)
            for key, text in zip(fresh, told, strict=True):
                if text is None:
                    refused.add(key)
                else:
                    self._known[key] = text
        return [None if key in refused else self._known[key] for key in keys]

    def _chat(self, conversations: list[Conversation], new: int) -> list[str | None]:
        if not conversations:
            return []
        try:
            return [said[0] for said in self.target.model.chat(conversations, max_new_tokens=new)]
        except ContextTooLong:
            if len(conversations) == 1:
                return [None]
        half = len(conversations) // 2
        return self._chat(conversations[:half], new) + self._chat(conversations[half:], new)


def found_in(said: Sequence[str], items: Records, own: Sequence[str], read: Reader = contains) -> Floats:
    """``(items,)`` 1 where what was said holds the answer and what the attacker wrote does not.

    Args:
        own: all that the attacker wrote about each item, beside the question.
    """
    rows = zip(said, items.column("prompt"), items.column("answer"), own, strict=True)
    return np.array([float(read(s, str(a)) and not contains(f"{q} {o}", str(a))) for s, q, a, o in rows])


def written(conversation: Sequence[Message]) -> str:
    """All messages of a conversation that the attacker wrote from end to end."""
    return " ".join(m["content"] for m in conversation)


def questions(items: Records) -> list[str]:
    return [str(p) for p in items.column("prompt")]


def worded(items: Records, template: str) -> list[Conversation]:
    """Every question in the words of a template with ``{question}``."""
    return [[user(template.replace("{question}", q))] for q in questions(items)]


def hunt(
    attack: Attack,
    target: Target,
    items: Records,
    waves: Mapping[str, Sequence[Conversation]],
    *,
    talk: int = 0,
    read: Reader = contains,
) -> Trial:
    """Ask one conversation an item in each wave; an item is found from the first wave on that shows its answer.

    Args:
        waves: name -> ``(items,)`` conversations, all of whose messages the attacker wrote. talk: tokens around the
            answer. read: how the attacker reads answers.

    Returns:
        A trial with a cost of one prompt a wave; `shown` has the share that each wave finds by itself.

    Raises:
        MissingEvidence: no conversation fits into the model.
    """
    interview = Interview.about(target, items, talk=talk)
    found = np.zeros(len(items))
    points: list[tuple[float, Floats]] = []
    alone: dict[str, float] = {}
    for name, wave in waves.items():
        here = found_in(interview.ask(wave), items, [written(c) for c in wave], read)
        found = np.maximum(found, here)
        alone[name] = float(here.mean())
        points.append((len(points) + 1, found))
    return attack.trial(items, points, found_by=alone, **interview.closed(attack.name))
