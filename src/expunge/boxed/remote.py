"""A model behind an OpenAI-compatible address, over httpx; what it says about an error is never passed on."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import httpx

from expunge.boxed.parts import Sampling
from expunge.boxed.upstream import LIMIT, Limit, Refused, RoughCount, Unavailable
from expunge.models.chat import Conversation, checked
from expunge.models.endpoint import Endpoint

LONGEST_LINE = 2**20  # bytes of one event


class RemoteUpstream(RoughCount):
    """Args:
    model: where to ask. transport: of the client, for tests.
    """

    def __init__(self, model: Endpoint, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.model = model
        self._url = model.url.rstrip("/")
        self._transport = transport
        self._client: httpx.AsyncClient | None = None

    @property
    def client(self) -> httpx.AsyncClient:
        """Made at the first use, in the loop that uses it."""
        if self._client is None:
            self._client = httpx.AsyncClient(
                timeout=httpx.Timeout(self.model.timeout_seconds),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
                transport=self._transport,
            )
        return self._client

    async def stream(
        self, conversation: Conversation, sampling: Sampling, *, beyond: int = 0
    ) -> AsyncGenerator[str | Limit, None]:
        """See `expunge.boxed.upstream.Upstream`; a chunk of the server counts as a token."""
        body = body_of(self.model.name, checked(conversation), sampling.longer_by(beyond)) | {"stream": True}
        count, told = 0, False
        try:
            async with self.client.stream(
                "POST", f"{self._url}/chat/completions", json=body, headers=self._key()
            ) as reply:
                check_status(self._url, reply.status_code)
                async for event in events(reply.aiter_bytes()):
                    text, reason = _piece(self._url, event)
                    if text:
                        if count == sampling.max_new_tokens:
                            yield LIMIT
                            told = True
                        count += 1
                        yield text
                    if reason == "length" and not told:
                        yield LIMIT
                        told = True
        except httpx.HTTPError as error:
            raise unreachable(self._url, error) from None

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """The vectors that the server gives."""
        body = {"model": self.model.name, "input": list(texts), "encoding_format": "float"}
        try:
            reply = await self.client.post(f"{self._url}/embeddings", json=body, headers=self._key())
        except httpx.HTTPError as error:
            raise unreachable(self._url, error) from None
        check_status(self._url, reply.status_code)
        try:
            rows = sorted(reply.json()["data"], key=lambda r: r["index"])
            found = [[float(v) for v in r["embedding"]] for r in rows]
        except (ValueError, LookupError, TypeError):
            found = []
        if len(found) != len(texts):
            raise Unavailable(f"{self._url} gave no vector for each text", "Check that it serves embeddings")
        return found

    def _key(self) -> dict[str, str]:
        """Read when asked, and kept nowhere."""
        variable = self.model.key_variable
        value = os.environ.get(variable, "").strip() if variable else ""
        if variable and (not value or not value.isascii() or not value.isprintable()):
            raise Unavailable(f"the environment variable {variable} holds no usable key", "Set it")
        return {"Authorization": f"Bearer {value}"} if value else {}

    def room(self, conversations: Sequence[Conversation], new: int) -> int | None:
        """None beyond the answer: whole replies do not tell where so many tokens end."""
        return 0

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None


def body_of(name: str, conversation: Conversation, sampling: Sampling) -> dict[str, Any]:
    """What is sent for one conversation."""
    body: dict[str, Any] = {
        "model": name,
        "messages": [{"role": m["role"], "content": m["content"]} for m in conversation],
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
    }
    if sampling.temperature > 0:
        body |= {"top_p": sampling.top_p, "seed": sampling.seed + sampling.draw}
    return body


async def events(pieces: AsyncIterator[bytes]) -> AsyncGenerator[Any, None]:
    """The JSON documents of a stream of server-sent events, until ``[DONE]``.

    Raises:
        Unavailable: an event is no JSON or has no end within a mebibyte.
    """
    held = b""
    async for piece in pieces:
        held += piece
        *lines, held = held.split(b"\n")
        if len(held) > LONGEST_LINE:
            raise Unavailable("a model sends an event without an end", "See what stands at its address")
        for line in lines:
            name, _, value = line.strip().partition(b":")
            if name != b"data":
                continue
            if value.strip() == b"[DONE]":
                return
            try:
                yield json.loads(value)
            except ValueError:
                raise Unavailable("a model sends an event that is no JSON", "See what stands at its address") from None


def _piece(url: str, event: Any) -> tuple[str, str | None]:
    if isinstance(event, dict) and "error" in event:
        raise Unavailable(f"{url} broke off with an error", "See its log")
    try:
        choices = event["choices"]
        if not choices:
            return "", None
        return choices[0]["delta"].get("content") or "", choices[0].get("finish_reason")
    except (LookupError, TypeError, AttributeError):
        raise Unavailable(
            f"{url} does not stream as an OpenAI-compatible endpoint", "Check that it ends in /v1"
        ) from None


def check_status(url: str, status: int) -> None:
    """Raises: Refused: 400, 413, 422. Unavailable: any other error."""
    if status in (400, 413, 422):
        raise Refused(f"{url} takes a conversation for malformed or too long ({status})", "See its log")
    if not 200 <= status < 300:
        raise Unavailable(f"{url} answered with status {status}", "Check address, name and key")


def unreachable(url: str, error: httpx.HTTPError) -> Unavailable:
    return Unavailable(f"cannot reach {url} ({type(error).__name__})", "Check the address, and that the server runs")
