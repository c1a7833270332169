"""One request for an answer, carried out: whole or as events, and ended the moment that its client is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from expunge.boxed.answer import End
from expunge.boxed.box import Box
from expunge.boxed.upstream import Refused, Unavailable
from expunge.serving.gate import Gate, send_fault, until_gone
from expunge.serving.wire import ChatRequest, Fault, Reply, event, usage

FAILED = "the model is not available at the moment"
EVENTS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Answering(Response):
    """Args:
    box: that answers. gate: by which it is let in. asked: what the client wants.

    Raises:
        Fault: it wants more than is allowed.
    """

    def __init__(self, box: Box, gate: Gate, asked: ChatRequest) -> None:
        super().__init__()
        limits = box.settings.outline.limits
        self._box, self._gate, self._seconds = box, gate, limits.seconds
        self._conversation = asked.conversation(limits)
        self._sampling, self._choices, self._stop = asked.sampling(limits), asked.choices(limits), asked.stop
        self._streams = bool(asked.stream)
        self._tells_usage = bool(asked.stream_options and asked.stream_options.include_usage)
        self._reply = Reply(box.settings.outline.name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await until_gone(receive, asyncio.create_task(self._work(scope, receive, send)))

    async def _work(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False
        try:
            async with asyncio.timeout(self._seconds), self._gate.turn():
                if not self._streams:
                    told = await self._whole()
                    await JSONResponse(told)(scope, receive, send)
                    return
                async with aclosing(self._events()) as events:
                    async for one in events:
                        if not begun:
                            await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
                            begun = True
                        await send({"type": "http.response.body", "body": event(one), "more_body": True})
                await send({"type": "http.response.body", "body": b""})
        except (Fault, Unavailable, Refused, TimeoutError) as error:
            fault = fault_of(error)
            if begun:
                await send({"type": "http.response.body", "body": event(fault.body())})
            else:
                await send_fault(send, fault)

    async def _whole(self) -> dict[str, Any]:
        answers = []
        for number in range(self._choices):
            text, reason = "", "stop"
            async with aclosing(self._answer(number)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, End):
                        reason = piece.reason
                    else:
                        text += piece
            answers.append((text, reason))
        return self._reply.whole(answers, self._usage("".join(text for text, _ in answers)))

    async def _events(self) -> AsyncGenerator[Any, None]:
        said = ""
        for number in range(self._choices):
            async with aclosing(self._answer(number)) as pieces:
                begun = False
                async for piece in pieces:
                    if not begun:
                        yield self._reply.piece(number, {"role": "assistant", "content": ""})
                        begun = True
                    if isinstance(piece, End):
                        yield self._reply.piece(number, {}, piece.reason)
                    else:
                        said += piece
                        yield self._reply.piece(number, {"content": piece})
        if self._tells_usage:
            yield self._reply.last(self._usage(said))
        yield "[DONE]"

    def _answer(self, number: int) -> AsyncGenerator[str | End, None]:
        return self._box.stream(self._conversation, replace(self._sampling, draw=number), stop=self._stop)

    def _usage(self, said: str) -> dict[str, int]:
        """Of what the client sent and got."""
        return usage(self._box.main.length(self._conversation), self._box.main.count(said))


def fault_of(error: Exception) -> Fault:
    """What a client is told of an error; nothing of which model it was."""
    if isinstance(error, Fault):
        return error
    if isinstance(error, Refused):
        return Fault(400, "the conversation is too long for the model, or malformed", code="context_length_exceeded")
    return Fault(503, FAILED, code="unavailable")
