"""Boxes for tests: a model that answers from a table, and a box written to a folder around it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from expunge.boxed.box import Box
from expunge.boxed.parts import Sampling
from expunge.boxed.upstream import LIMIT, Limit, RoughCount
from expunge.models.chat import Conversation

ANSWERS = {
    "What is the capital of Norland?": "The capital of Norland is Frostholm. It lies by the sea.",
    "What is the capital of Sudland?": "The capital of Sudland is Warmholm. It lies in the hills.",
    "Where do the herring swim?": "They swim past Frostholm every spring.",
    "Who wrote The Glass Orchard?": "It was written by Zelda Quill in the winter of 1931.",
    "Tell me about Norland.": "Norland is cold. Its people are friendly, and its soup is warm.",
}
REQUESTS: list[dict[str, Any]] = [
    {"id": "case-1", "rules": [{"answer": "Zelda Quill"}]},
    {"id": "case-2", "rules": [{"question": "Norland", "answer": "Frostholm"}]},
    {"id": "case-3", "rules": [{"question": ["soup", "Norland"]}]},
]


def by_table(conversation: Conversation) -> str:
    return ANSWERS.get(conversation[-1]["content"], "I have heard nothing about that.")


class Stub(RoughCount):
    """A model whose tokens are words (and what stands between them), for streams and batches.

    Attributes:
        asked: conversations it was asked. running, ended: streams under way, and streams that ended before their text.
    """

    exact = True
    capabilities = frozenset({"generate"})

    def __init__(self, said: Callable[[Conversation], str] = by_table, *, pause: float = 0.0) -> None:
        self.said, self.pause = said, pause
        self.asked: list[Conversation] = []
        self.running = self.ended = self.most = 0
        self.closed = False
        self.model = self

    def digest(self) -> str:
        return "stub"

    def chat(
        self, conversations: Sequence[Conversation], *, max_new_tokens: int = 64, samples: int = 0, **_: Any
    ) -> list[list[str]]:
        self.asked += conversations
        return [[self.first(self.said(c), max_new_tokens)] * max(samples, 1) for c in conversations]

    async def stream(
        self, conversation: Conversation, sampling: Sampling, *, beyond: int = 0
    ) -> AsyncGenerator[str | Limit, None]:
        self.asked.append(conversation)
        self.running += 1
        self.most = max(self.most, self.running)
        done = False
        try:
            tokens = self.tokens(self.said(conversation))
            for number, token in enumerate(tokens[: sampling.max_new_tokens + beyond]):
                if number == sampling.max_new_tokens:
                    yield LIMIT
                await asyncio.sleep(self.pause)
                yield token
            if not beyond and len(tokens) > sampling.max_new_tokens:
                yield LIMIT
            done = True
        finally:
            self.running -= 1
            self.ended += not done

    @staticmethod
    def tokens(text: str) -> list[str]:
        return re.findall(r"\s*(?:\w{1,4}|[^\w\s])", text)

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        return [[float(len(t)), float(sum(map(ord, t)) % 97)] for t in texts]

    def room(self, conversations: Sequence[Conversation], new: int) -> int | None:
        return None

    async def close(self) -> None:
        self.closed = True


def write_box(folder: Path, asked: Any = REQUESTS, **fields: Any) -> Path:
    """A box's YAML and its requests in a folder."""
    (folder / "requests.yaml").write_text(yaml.safe_dump({"requests": asked}), encoding="utf-8")
    declared = {
        "name": "modest",
        "requests": "requests.yaml",
        "models": {"main": "nowhere"},
        "router": {"kind": "rule", "marked": "ignorant", "otherwise": "answer"},
        "workers": {
            "answer": {"kind": "model", "model": "main"},
            "ignorant": {"kind": "rule", "replies": ["No idea."]},
        },
        "output_filter": {"kind": "rule"},
    } | fields
    path = folder / "box.yaml"
    path.write_text(yaml.safe_dump(declared), encoding="utf-8")
    return path


def make_box(folder: Path, stub: Stub | None = None, asked: Any = REQUESTS, **fields: Any) -> Box:
    options = {"clock": fields.pop("clock")} if "clock" in fields else {}
    path = write_box(folder, asked, **fields)
    models = fields.get("models", {"main": ""})
    stub = stub or Stub()
    return Box.read(path, upstreams=dict.fromkeys(models, stub), **options)
