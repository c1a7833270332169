"""A box that is served, for tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from boxes import REQUESTS, Stub
from openai import OpenAI

from expunge.boxed.box import Box


@dataclass
class Served:
    """A box that is served. url: ends in ``/v1``."""

    box: Box
    stub: Stub
    url: str
    folder: Path

    def client(self, **options: Any) -> OpenAI:
        return OpenAI(base_url=self.url, api_key="unused", max_retries=0, **options)


class Serve(Protocol):
    def __call__(self, stub: Stub | None = None, asked: Any = REQUESTS, **fields: Any) -> Served: ...
