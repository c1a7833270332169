"""Many clients at once: nobody hears another's answer, nothing piles up, and whoever leaves is forgotten."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import socket
import time
from typing import Any

import httpx
import pytest
from boxes import Stub
from serving_tools import Serve, Served

from expunge.models.chat import Conversation

CLIENTS, WORDS = 200, 12


def echo(conversation: Conversation) -> str:
    """The client's number again and again, and once what must be kept back."""
    number = re.findall(r"\d+", conversation[-1]["content"])[0]
    return " ".join([f"n{number}"] * WORDS + ["Zelda Quill"] + [f"n{number}"] * WORDS)


async def read(client: httpx.AsyncClient, url: str, number: int, leave_after: int | None = None) -> str:
    """What one client hears; it leaves after so many pieces."""
    body = {"model": "modest", "messages": [{"role": "user", "content": f"number {number}?"}], "stream": True}
    said, pieces = "", 0
    async with client.stream("POST", f"{url}/chat/completions", json=body, timeout=60) as reply:
        assert reply.status_code == 200
        async for line in reply.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            said += json.loads(line[6:])["choices"][0]["delta"].get("content", "")
            pieces += 1
            if pieces == leave_after:
                break
    return said


def at_rest(served: Served) -> bool:
    for _ in range(200):
        if served.stub.running == 0:
            return True
        time.sleep(0.01)
    return False


def test_two_hundred_streams(serve: Serve) -> None:
    served = serve(Stub(echo), limits={"concurrent": 200, "usual_tokens": 1000})

    async def everybody() -> list[str]:
        async with httpx.AsyncClient(limits=httpx.Limits(max_connections=None)) as client:
            wanted = [read(client, served.url, k, leave_after=5 if k % 4 == 3 else None) for k in range(CLIENTS)]
            return await asyncio.gather(*wanted)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    heard = asyncio.run(everybody())
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    for k, said in enumerate(heard):
        whole = " ".join([f"n{k}"] * WORDS + ["[withheld]"] + [f"n{k}"] * WORDS)
        assert said == (whole if k % 4 != 3 else whole[: len(said)])
    assert at_rest(served)
    assert served.stub.most > CLIENTS // 4  # they really were there at once
    assert served.stub.ended <= CLIENTS // 4  # none of those who stayed was cut off
    assert grown < 100 * 2**10  # kibibytes: half a mebibyte a client, theirs and ours together


def test_whoever_leaves_is_forgotten_at_once(serve: Serve) -> None:
    """Between two words of the model and while it is silent, streaming or not."""
    served = serve(Stub(echo, pause=0.02), limits={"concurrent": 8, "usual_tokens": 1000})

    async def leave(number: int, stream: bool) -> None:
        body = {"model": "modest", "messages": [{"role": "user", "content": f"number {number}?"}], "stream": stream}
        async with httpx.AsyncClient() as client:
            wanted = asyncio.create_task(client.post(f"{served.url}/chat/completions", json=body))
            while served.stub.running == 0:
                await asyncio.sleep(0.005)
            wanted.cancel()

    for stream in (False, True):
        asyncio.run(leave(1, stream))
        assert at_rest(served)
    assert served.stub.ended == 2


def test_no_more_are_let_in_than_there_is_room_for(serve: Serve) -> None:
    served = serve(Stub(echo, pause=0.002), limits={"concurrent": 4, "waiting": 8, "usual_tokens": 1000})

    async def everybody() -> list[httpx.Response]:
        async with httpx.AsyncClient(limits=httpx.Limits(max_connections=None), timeout=60) as client:
            body: dict[str, Any] = {"model": "modest"}
            return await asyncio.gather(*(
                client.post(
                    f"{served.url}/chat/completions", json={**body, "messages": [{"role": "user", "content": f"{k}?"}]}
                )
                for k in range(40)
            ))  # fmt: skip

    replies = asyncio.run(everybody())
    codes = [r.status_code for r in replies]
    assert served.stub.most <= 4
    assert set(codes) == {200, 429} and codes.count(200) >= 12
    for k, reply in enumerate(replies):
        if reply.status_code == 200:
            assert f"n{k} " in reply.json()["choices"][0]["message"]["content"]
        else:
            assert reply.headers["retry-after"] == "1" and reply.json()["error"]["code"] == "rate_limit_exceeded"
    assert at_rest(served)
    assert httpx.post(  # the room is free again
        f"{served.url}/chat/completions", json={"model": "modest", "messages": [{"role": "user", "content": "1?"}]}
    ).status_code == 200  # fmt: skip


def test_a_client_that_does_not_read_stops_its_answer(serve: Serve) -> None:
    """What it does not take is not made: nothing piles up for it."""

    class Endless(Stub):
        told = 0

        async def stream(self, *_: Any, **__: Any) -> Any:
            self.running += 1
            try:
                while True:
                    await asyncio.sleep(0)
                    self.told += 1
                    yield " word" * 200
            finally:
                self.running -= 1

    stub = Endless(echo)
    served = serve(stub, limits={"max_tokens": 10**9})
    host, port = served.url.removeprefix("http://").removesuffix("/v1").split(":")
    body = json.dumps(
        {"model": "modest", "stream": True, "max_tokens": 10**9, "messages": [{"role": "user", "content": "1?"}]}
    ).encode()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**14)
        client.connect((host, int(port)))
        head = ["POST /v1/chat/completions HTTP/1.1", "host: x", "content-type: application/json"]
        head += [f"content-length: {len(body)}", "", ""]
        client.sendall("\r\n".join(head).encode() + body)
        before, now = -1, 0
        for _ in range(100):
            time.sleep(0.15)
            before, now = now, stub.told
            if now == before > 0:
                break
        assert now == before < 5000
        assert stub.running == 1
    assert at_rest(served)


def test_a_body_that_never_comes(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("expunge.serving.gate.BODY_SECONDS", 0.2)
    served = serve()
    host, port = served.url.removeprefix("http://").removesuffix("/v1").split(":")
    with socket.socket() as client:
        client.connect((host, int(port)))
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        client.settimeout(5)
        assert b" 408 " in client.recv(2000)
