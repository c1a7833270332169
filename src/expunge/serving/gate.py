"""How much is let in: bodies of a bounded size, a bounded number of answers at once, and no words of an error out."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from expunge.serving.wire import Fault

log = logging.getLogger("expunge.box")
BODY_SECONDS = 30.0


class Gate:
    """Lets so many answers be under way, and so many wait for their turn.

    Args:
        concurrent: under way. waiting: beyond those.
    """

    def __init__(self, concurrent: int, waiting: int) -> None:
        self._free = asyncio.Semaphore(concurrent)
        self._most, self.inside = concurrent + waiting, 0

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None, None]:
        """Raises: Fault: too many wait already."""
        if self.inside >= self._most:
            raise Fault(429, "too many requests at once, try again in a moment", code="rate_limit_exceeded")
        self.inside += 1
        try:
            async with self._free:
                yield
        finally:
            self.inside -= 1


class Shell:
    """The outermost layer: reads the body up to its limit, and turns whatever fails inside into a plain error.

    A traceback never reaches a log: its last line may quote what was asked. The operator reads which error it was, and
    where in the program.

    Args:
        app: what is inside. body_bytes: largest body.
    """

    def __init__(self, app: ASGIApp, body_bytes: int) -> None:
        self._app, self._limit = app, body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            body = await asyncio.wait_for(self._body(scope, receive), BODY_SECONDS)
            if body is not None:
                await self._app(scope, _replay(body, receive), noted)
        except Fault as fault:
            await send_fault(send, fault)
        except TimeoutError:
            await send_fault(send, Fault(408, "the request did not arrive in time"))
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            log.error("%s at %s:%s", type(error).__name__, frame.filename, frame.lineno)
            if not begun:
                await send_fault(send, Fault(500, "the request failed"))

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None where the client is gone before."""
        told = dict(scope["headers"]).get(b"content-length", b"0")
        if not told.isdigit() or int(told) > self._limit:
            raise Fault(413, f"at most {self._limit} bytes", code="request_too_large")
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._limit:
                raise Fault(413, f"at most {self._limit} bytes", code="request_too_large")
            more = message.get("more_body", False)
        return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    told = False

    async def replayed() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


async def send_fault(send: Send, fault: Fault) -> None:
    """A fault as a reply of its own."""
    body = json.dumps(fault.body()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if fault.status == 429:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": fault.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def until_gone(receive: Receive, work: asyncio.Task[None]) -> None:
    """Wait for the work; where the client goes away first, end it, and wait until it has ended."""
    watch = asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (watch, work):
            if not task.done():
                task.cancel()
        await asyncio.gather(watch, work, return_exceptions=True)
    if not work.cancelled():
        work.result()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
