"""The outermost layer: bounded bodies, plain errors, headers that keep browsers careful, and one line of log a request.

The line has the name of the endpoint and never its path or query: these may hold an id that somebody made of a name. A
traceback never reaches the log: its last line may quote what was sent.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from expunge.service.api.meter import Meter
from expunge.service.api.problems import Problem

log = logging.getLogger("expunge.api")
BODY_SECONDS = 30.0
OPERATION = "expunge.operation"
HEADERS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)


class Gone(Exception):
    """The client went away before its request was there."""


class Shell:
    """
    Args:
        app: what is inside. body_bytes: largest body. meter: counts.
    """

    def __init__(self, app: ASGIApp, body_bytes: int, meter: Meter) -> None:
        self._app, self._limit, self._meter = app, body_bytes, meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": _with_headers(message.get("headers", []))}
            await send(message)

        try:
            body = await asyncio.wait_for(self._body(scope, receive), BODY_SECONDS)
            await self._app(scope, _replay(body, receive), noted)
        except Gone:
            return
        except Problem as problem:
            await _send(noted, problem)
        except TimeoutError:
            await _send(noted, Problem(408, "too-slow", "The request did not arrive in time."))
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            log.error("%s at %s:%s", type(error).__name__, frame.filename, frame.lineno)
            if not status:
                await _send(noted, Problem(500, "failed", "The request failed."))
        finally:
            seconds, name = time.perf_counter() - started, str(scope.get(OPERATION, "none"))
            self._meter.count(name, status, seconds)
            log.info("%s %d %.1f ms", name, status, 1000 * seconds)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body."""
        told = dict(scope["headers"]).get(b"content-length", b"0")
        if not told.isdigit() or len(told) > 18 or int(told) > self._limit:
            raise _too_large(self._limit)
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Gone
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._limit:
                raise _too_large(self._limit)
            more = message.get("more_body", False)
        return b"".join(parts)


def _too_large(limit: int) -> Problem:
    return Problem(413, "too-large", f"A request has at most {limit} bytes. Send it in parts.")


def _with_headers(headers: Any) -> list[tuple[bytes, bytes]]:
    """Ours, where the answer does not say otherwise."""
    present = {name.lower() for name, _ in headers}
    return [*headers, *(pair for pair in HEADERS if pair[0] not in present)]


def _replay(body: bytes, receive: Receive) -> Receive:
    told = False

    async def replayed() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


async def _send(send: Send, problem: Problem) -> None:
    body = problem.body()
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
