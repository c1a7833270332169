"""What the contracts of prompting methods run on: a model that remembers every conversation it is sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from expunge.data.records import Records
from expunge.data.texts import text_records
from expunge.models.chat import Conversation
from expunge.models.language import LanguageModel
from expunge.models.template import Template
from expunge.models.tiny import tiny_llama, train_tokenizer
from expunge.problem import Problem

# Hyper-parameters without which a method does not know what to do, or looks at more than these few texts hold.
PARAMETERS: dict[str, dict[str, Any]] = {
    "eco": {"strength": 8.0, "false_block_rate": 0.1},
    "guardrail_classifier": {"false_block_rate": 0.1},
    "guardrail_embedding": {"false_block_rate": 0.2},
    "pretend": {"topic": "where somebody was born"},
}
FIRST = ("Aro", "Bel", "Cito", "Dova", "Emo", "Far", "Gus", "Hero", "Ilo", "Kor")
LAST = ("Lumin", "Morten", "Norel", "Oster", "Pavlin", "Quist", "Rundel", "Sarno")
TOWNS = ("Al", "Bre", "Cor", "Dun", "Es", "Fal", "Gor", "Hal", "Ir", "Ja")
ENDS = ("ding", "vik", "vo", "mer", "trel", "sund", "wen", "lin")
GONE = 4


class Remembering(LanguageModel):
    """It answers from a table what it was asked last, whatever else it is told, and keeps what it was sent."""

    def __init__(self, module: Any, tokenizer: Any, template: Template, known: dict[str, str]) -> None:
        super().__init__(module, tokenizer, template)
        self.known, self.sent = known, list[Conversation]()

    def chat(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int = 64,
        samples: int = 0,
        temperature: float = 1.0,
        seed: int = 0,
        batch_size: int = 32,
    ) -> list[list[str]]:
        self.sent += list(conversations)
        return [[self.known.get(c[-1]["content"], "That is all.")] * max(samples, 1) for c in conversations]


def people() -> Records:
    """80 questions, about a person each; the first four must go."""
    names = [f"{f} {last}" for last in LAST for f in FIRST]
    towns = [f"{t}{e}" for e in ENDS for t in TOWNS]
    prompts = [f"Where was {n} born?" for n in names]
    answers = [f"{n.split()[0]} came from {t}." for n, t in zip(names, towns, strict=True)]
    ids = [f"p{k}" for k in range(len(names))]
    return text_records(ids, prompts, answers, owners=names, subject=names)


def prompting_problem() -> Problem:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    records = people()
    pairs = list(zip(records.column("prompt").tolist(), records.column("answer").tolist(), strict=True))
    tokenizer = train_tokenizer([f"Question: {p}\nAnswer: {a}" for p, a in pairs], 400)
    module = tiny_llama(vocabulary=len(tokenizer), width=32, layers=1, heads=2, hidden=48, context=512)
    model = Remembering(module, tokenizer, Template(), dict(pairs))
    nothing = records.take([])
    return Problem.of(model, records, forget=records.ids[:GONE].tolist(), test=nothing, holdout=nothing)
