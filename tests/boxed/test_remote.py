"""A model behind an address, with a server that is played."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.boxed.parts import Sampling
from expunge.boxed.remote import RemoteUpstream, events
from expunge.boxed.upstream import Limit, Refused, Unavailable
from expunge.models.chat import user
from expunge.models.endpoint import Endpoint


def stream_of(*contents: str, reason: str = "stop") -> bytes:
    pieces: list[dict[str, Any]] = [{"delta": {"role": "assistant"}, "finish_reason": None}]
    pieces += [{"delta": {"content": c}, "finish_reason": None} for c in contents]
    pieces.append({"delta": {}, "finish_reason": reason})
    lines = [f"data: {json.dumps({'choices': [p]}, ensure_ascii=False)}\r\n\r\n" for p in pieces]
    return "".join([": hello\n\n", *lines, 'data: {"choices": []}\n\n', "data: [DONE]\n\n"]).encode()


class Server(httpx.AsyncBaseTransport):
    def __init__(self, body: bytes = b"", status: int = 200, size: int = 7) -> None:
        self.body, self.status, self.size = body, status, size
        self.asked: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if self.status == 0:
            raise httpx.ConnectError("refused: the secret address")

        async def pieces() -> AsyncIterator[bytes]:
            for k in range(0, len(self.body), self.size):
                yield self.body[k : k + self.size]

        return httpx.Response(self.status, content=pieces())


def upstream(server: Server, **options: Any) -> RemoteUpstream:
    return RemoteUpstream(Endpoint(url="https://models.example/v1", name="there", **options), server)


def collect(server: Server, tokens: int = 10, **options: Any) -> list[str]:
    async def all_of_it() -> list[str]:
        made = upstream(server, **options)
        sampling = Sampling(max_new_tokens=tokens, temperature=0.5, seed=3)
        found = [p async for p in made.stream([user("hello")], sampling, beyond=4)]
        await made.close()
        return ["LIMIT" if isinstance(p, Limit) else p for p in found]

    return asyncio.run(all_of_it())


def test_pieces_and_what_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THERE_KEY", "k-123")
    server = Server(stream_of("Grüße", " from", " afar"))
    assert collect(server, key_variable="THERE_KEY") == ["Grüße", " from", " afar"]
    (request,) = server.asked
    assert str(request.url) == "https://models.example/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer k-123"
    assert json.loads(request.content) == {
        "model": "there", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 14, "temperature": 0.5,
        "top_p": 1.0, "seed": 3, "stream": True,
    }  # fmt: skip


def test_the_limit_is_marked_by_count_or_by_what_the_server_says() -> None:
    assert collect(Server(stream_of("a", "b", "c")), tokens=2) == ["a", "b", "LIMIT", "c"]
    assert collect(Server(stream_of("a", "b")), tokens=2) == ["a", "b"]
    assert collect(Server(stream_of("a b c", reason="length")), tokens=2) == ["a b c", "LIMIT"]


@pytest.mark.parametrize(
    ("server", "error"),
    [
        (Server(status=0), Unavailable),
        (Server(b"the secret", status=500), Unavailable),
        (Server(b"the secret", status=401), Unavailable),
        (Server(status=302), Unavailable),
        (Server(b"the secret", status=400), Refused),
        (Server(b"data: the secret\n\n"), Unavailable),
        (Server(b'data: {"secret": 1}\n\n'), Unavailable),
        (Server(b'data: {"error": {"message": "the secret"}}\n\n'), Unavailable),
        (Server(b"data: " + b"x" * (2**20 + 10), size=2**16), Unavailable),
    ],
)
def test_what_a_server_says_in_error_is_not_passed_on(server: Server, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        collect(server)
    assert "secret" not in str(caught.value) and "xxx" not in str(caught.value)


def test_a_key_that_is_not_there() -> None:
    with pytest.raises(Unavailable, match="EXPUNGE_NO_KEY"):
        collect(Server(stream_of("a")), key_variable="EXPUNGE_NO_KEY")


def test_embeddings_come_in_the_order_of_the_texts() -> None:
    rows = [{"index": 1, "embedding": [2, 3]}, {"index": 0, "embedding": [0, 1]}]

    async def embed(server: Server) -> list[list[float]]:
        return await upstream(server).embed(["a", "b"])

    assert asyncio.run(embed(Server(json.dumps({"data": rows}).encode()))) == [[0.0, 1.0], [2.0, 3.0]]
    for body in (json.dumps({"data": rows[:1]}).encode(), b"{}", b"["):
        with pytest.raises(Unavailable):
            asyncio.run(embed(Server(body)))


@settings(deadline=None, max_examples=30)
@given(size=st.integers(1, 60), contents=st.lists(st.text(min_size=1, max_size=5), max_size=5))
def test_events_however_they_are_cut(size: int, contents: list[str]) -> None:
    contents = [c.encode("utf-8", "replace").decode() for c in contents]
    body = stream_of(*contents)

    async def cut() -> AsyncIterator[bytes]:
        for k in range(0, len(body), size):
            yield body[k : k + size]

    async def all_of_it() -> list[Any]:
        return [e async for e in events(cut())]

    found = [c["delta"]["content"] for e in asyncio.run(all_of_it()) for c in e["choices"] if "content" in c["delta"]]
    assert found == contents
