"""A model behind an OpenAI-compatible address, over httpx; what it says about an error is never passed on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from expunge.boxed.parts import Sampling
from expunge.boxed.upstream import LIMIT, Limit, Refused, RoughCount, Unavailable
from expunge.errors import RequestError
from expunge.models.chat import Conversation, checked

LONGEST_LINE = 2**20  # bytes of one event


class RemoteModel:
    """A `ChatModel` behind an address.

    Args:
        url: ends in ``/v1``. name: of the model there. key_variable: environment variable that holds the key.
        timeout_seconds: between two pieces. parallel: questions at once.

    Raises:
        RequestError: the variable holds no usable key.
    """

    capabilities = frozenset({"generate"})

    def __init__(
        self,
        url: str,
        name: str,
        *,
        key_variable: str | None = None,
        timeout_seconds: float = 60.0,
        parallel: int = 8,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url, self.name, self.timeout_seconds, self.parallel = url.rstrip("/"), name, timeout_seconds, parallel
        self.headers = _key(key_variable)
        self._transport = transport

    def digest(self) -> str:
        """Of address and name: nobody here sees its weights."""
        return hashlib.sha256(f"{self.url}\n{self.name}".encode()).hexdigest()

    def chat(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int = 64,
        samples: int = 0,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> list[list[str]]:
        """See `expunge.models.chat.ChatModel`.

        Raises:
            Unavailable: not reached, or no answer in the known form. Refused: it takes a conversation for malformed.
        """
        jobs = [
            body_of(self.name, checked(c), Sampling(
                max_new_tokens=max_new_tokens, temperature=temperature if samples else 0.0, seed=seed, draw=draw
            ))
            for c in conversations
            for draw in range(max(samples, 1))
        ]  # fmt: skip
        with (
            httpx.Client(headers=self.headers, timeout=self.timeout_seconds, transport=self._transport) as client,
            ThreadPoolExecutor(max_workers=self.parallel) as pool,
        ):
            said = list(pool.map(lambda body: self._post(client, body), jobs))
        each = max(samples, 1)
        return [said[k : k + each] for k in range(0, len(said), each)]

    def _post(self, client: httpx.Client, body: dict[str, Any]) -> str:
        try:
            reply = client.post(f"{self.url}/chat/completions", json=body)
        except httpx.HTTPError as error:
            raise unreachable(self.url, error) from None
        check_status(self.url, reply.status_code)
        try:
            text = reply.json()["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            text = None
        if not isinstance(text, str):
            raise Unavailable(f"{self.url} did not answer as an OpenAI-compatible endpoint", "Check that it ends in /v1")
        return text.strip()


class RemoteUpstream(RoughCount):
    """Args:
    model: where to ask. transport: for tests.
    """

    def __init__(self, model: RemoteModel, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.model = model
        self._transport = transport
        self._client: httpx.AsyncClient | None = None

    @property
    def client(self) -> httpx.AsyncClient:
        """Made at the first use, in the loop that uses it."""
        if self._client is None:
            self._client = httpx.AsyncClient(
                headers=self.model.headers,
                timeout=httpx.Timeout(self.model.timeout_seconds),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
                transport=self._transport,
            )
        return self._client

    async def stream(
        self, conversation: Conversation, sampling: Sampling, *, beyond: int = 0
    ) -> AsyncIterator[str | Limit]:
        """See `expunge.boxed.upstream.Upstream`; a chunk of the server counts as a token."""
        body = body_of(self.model.name, checked(conversation), sampling.longer_by(beyond)) | {"stream": True}
        count, told = 0, False
        try:
            async with self.client.stream("POST", f"{self.model.url}/chat/completions", json=body) as reply:
                check_status(self.model.url, reply.status_code)
                async for event in events(reply.aiter_bytes()):
                    text, reason = _piece(self.model.url, event)
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
            raise unreachable(self.model.url, error) from None

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """The vectors that the server gives."""
        body = {"model": self.model.name, "input": list(texts), "encoding_format": "float"}
        try:
            reply = await self.client.post(f"{self.model.url}/embeddings", json=body)
        except httpx.HTTPError as error:
            raise unreachable(self.model.url, error) from None
        check_status(self.model.url, reply.status_code)
        try:
            rows = sorted(reply.json()["data"], key=lambda r: r["index"])
            found = [[float(v) for v in r["embedding"]] for r in rows]
        except (ValueError, LookupError, TypeError):
            found = []
        if len(found) != len(texts):
            raise Unavailable(f"{self.model.url} gave no vector for each text", "Check that it serves embeddings")
        return found

    def room(self, conversations: Sequence[Conversation], new: int) -> int | None:
        return None

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


async def events(pieces: AsyncIterator[bytes]) -> AsyncIterator[Any]:
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
        raise Unavailable(f"{url} does not stream as an OpenAI-compatible endpoint", "Check that it ends in /v1") from None


def check_status(url: str, status: int) -> None:
    """Raises: Refused: 400, 413, 422. Unavailable: any other error."""
    if status in (400, 413, 422):
        raise Refused(f"{url} takes a conversation for malformed or too long ({status})", "See its log")
    if not 200 <= status < 300:
        raise Unavailable(f"{url} answered with status {status}", "Check address, name and key")


def unreachable(url: str, error: httpx.HTTPError) -> Unavailable:
    return Unavailable(f"cannot reach {url} ({type(error).__name__})", "Check the address, and that the server runs")


def _key(variable: str | None) -> dict[str, str]:
    if variable is None:
        return {}
    value = os.environ.get(variable, "").strip()
    if not value or not value.isascii() or not value.isprintable():
        raise RequestError(
            f"the environment variable {variable} holds no usable key", "Set it, or leave key_variable out"
        )
    return {"Authorization": f"Bearer {value}"}
