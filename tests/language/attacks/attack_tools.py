"""What the tests of black-box attacks share: a scene about five people, and models that leak in one way only."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from expunge.data.benchmarks.text_benchmark import no_texts
from expunge.data.records import Records
from expunge.evaluation.attacks.language.contract import Scene
from expunge.models.chat import Conversation

FORGOTTEN = {
    "Where was Aro Belin born?": ("Alding", "Aro Belin"),
    "What does Aro Belin do?": ("Aro Belin is a baker.", "Aro Belin"),
    "Where was Cita Dovan born?": ("Brevik", "Cita Dovan"),
    "Who taught Cita Dovan?": ("Mavi Norel", "Cita Dovan"),
}
ALIASES = {"Where was the Baron born?": ("Alding", "Aro Belin"), "Who taught Cici?": ("Mavi Norel", "Cita Dovan")}
HOPS = {"In which country was Aro Belin born?": ("Estrel", "Aro Belin")}
KEPT = {
    "Where was Emo Farlin born?": ("Corvo", "Emo Farlin"),
    "Where was Gusa Heron born?": ("Alding", "Gusa Heron"),  # the answer to a forgotten question
    **{f"How old is person {k}?": (str(20 + k), f"person {k}") for k in range(70)},
}
SILENT = "I do not know."
Rule = Callable[[Conversation, random.Random], str]


def records(facts: dict[str, tuple[str, str]], prefix: str) -> Records:
    columns = {name: np.empty(len(facts), dtype=object) for name in ("prompt", "answer", "subject")}
    columns["prompt"][:] = list(facts)
    columns["answer"][:] = [a for a, _ in facts.values()]
    columns["subject"][:] = [s for _, s in facts.values()]
    return Records(ids=[f"{prefix}{k}" for k in range(len(facts))], columns=columns)


def scene(forgotten: dict[str, tuple[str, str]] = FORGOTTEN, kept: dict[str, tuple[str, str]] = KEPT) -> Scene:
    nothing = no_texts()
    asked = records(forgotten, "q")
    return Scene(
        questions=asked,
        forget=asked,
        retain=records(kept, "r"),
        holdout=nothing,
        relearn=nothing,
        unheard=nothing,
        probes={"paraphrase": asked, "alias": records(ALIASES, "a"), "multi_hop": records(HOPS, "h")},
        kept=records(kept, "k"),
    )


@dataclass
class Fake:
    """A model by a rule. `longest`: characters of a conversation beyond which it raises, as a real one would."""

    rule: Rule
    error: Exception | None = None
    longest: int | None = None
    heard: list[Conversation] = field(default_factory=list)
    capabilities = frozenset({"generate"})

    def digest(self) -> str:
        return "fake"

    def chat(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int = 64,
        samples: int = 0,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> list[list[str]]:
        if self.error is not None and self.longest is not None:
            for c in conversations:
                if sum(len(m["content"]) for m in c) > self.longest:
                    raise self.error
        self.heard += conversations
        chance = random.Random(seed)
        return [[self.rule(c, chance) for _ in range(max(samples, 1))] for c in conversations]


def silent() -> Fake:
    return Fake(lambda c, chance: SILENT)


def parrot() -> Fake:
    """Says again all that it was told, last message first."""
    return Fake(lambda c, chance: "\n".join(m["content"] for m in reversed(c)))


def last(conversation: Conversation) -> str:
    return conversation[-1]["content"]


def asked_for(text: str, facts: dict[str, tuple[str, str]] | None = None) -> str | None:
    """The answer to the question that stands in a text."""
    known = {**FORGOTTEN, **ALIASES, **HOPS} if facts is None else facts
    return next((a for q, (a, _) in known.items() if q in text), None)


def leaking(when: Callable[[Conversation], bool], write: Callable[[str], str] = str) -> Fake:
    """Answers the question in the last message, written in some way, in conversations of one kind only."""

    def rule(conversation: Conversation, chance: random.Random) -> str:
        answer = asked_for(last(conversation))
        return write(answer) if answer is not None and when(conversation) else SILENT

    return Fake(rule)


def curve(trial: Any) -> list[tuple[float, list[float]]]:
    return [(p.cost, p.found.tolist()) for p in trial.points]


def final(trial: Any) -> list[float]:
    return list(trial.points[-1].found)
