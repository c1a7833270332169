"""The OpenAI-compatible endpoint of a box: its models, answers, embeddings, and that it is alive. Nothing else."""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
import os
import struct
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

from expunge.boxed.box import Box
from expunge.boxed.upstream import Refused, Unavailable
from expunge.errors import RequestError
from expunge.serving.answering import Answering, fault_of
from expunge.serving.gate import Gate, Shell
from expunge.serving.wire import ChatRequest, EmbeddingsRequest, Fault, check_texts, usage

log = logging.getLogger("expunge.box")
LEAST_CLIENT_KEY = 8


def create_app(box: Box) -> FastAPI:
    """The endpoint of a box, as an ASGI application.

    Raises:
        RequestError: the box wants a key of its clients, and its variable is empty.
    """
    outline = box.settings.outline
    check_key = _key_check(outline.client_key_variable)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        watch = asyncio.create_task(_watch(box))
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            await box.close()

    app = FastAPI(title=outline.name, version="1", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_middleware(Shell, body_bytes=outline.limits.body_bytes)
    gate, started = Gate(outline.limits.concurrent, outline.limits.waiting), int(time.time())
    card = {"id": outline.name, "object": "model", "created": started, "owned_by": "operator"}

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def models(request: Request) -> dict[str, Any]:
        check_key(request)
        return {"object": "list", "data": [card]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str, request: Request) -> dict[str, Any]:
        check_key(request)
        _known(name, box)
        return card

    @app.post("/v1/chat/completions", response_class=Response)
    async def chat(body: ChatRequest, request: Request) -> Response:
        check_key(request)
        _known(body.model, box)
        return Answering(box, gate, body)

    @app.post("/v1/embeddings")
    async def embeddings(body: EmbeddingsRequest, request: Request) -> dict[str, Any]:
        check_key(request)
        _known(body.model, box)
        return await _embeddings(box, gate, body)

    _tell_faults_alike(app)
    return app


async def _watch(box: Box) -> None:
    """Look at the requests again and again; reading happens beside the loop that serves."""
    while True:
        await asyncio.sleep(box.settings.outline.check_seconds)
        try:
            await asyncio.to_thread(box.refresh)
        except Exception as error:  # the rules before stay in force, and the watch goes on
            log.error("the requests could not be looked at (%s); the rules before stay in force", type(error).__name__)


def _known(name: str, box: Box) -> None:
    if name != box.settings.outline.name:
        raise Fault(404, "there is no such model", code="model_not_found", parameter="model")


async def _embeddings(box: Box, gate: Gate, body: EmbeddingsRequest) -> dict[str, Any]:
    """Vectors of texts, out of which everything was taken that must not be told."""
    outline, rules = box.settings.outline, box.book.current()
    if outline.embeddings is None:
        raise Fault(404, "this model gives no embeddings", code="model_not_found", parameter="model")
    if len(body.input) > outline.limits.texts:
        raise Fault(400, f"at most {outline.limits.texts} texts", parameter="input")
    check_texts(body.input, outline.limits, "input")
    if any(not text.strip() for text in body.input):
        raise Fault(400, "an empty text has no embedding", parameter="input")
    try:
        async with asyncio.timeout(outline.limits.seconds), gate.turn():
            vectors = await box.upstreams[outline.embeddings].embed([rules.without_answers(t) for t in body.input])
    except (Unavailable, Refused, TimeoutError) as error:
        raise fault_of(error) from None
    rows = [
        {"object": "embedding", "index": k, "embedding": _packed(v) if body.encoding_format == "base64" else v}
        for k, v in enumerate(vectors)
    ]
    told = usage(sum(map(box.main.count, body.input)))
    return {"object": "list", "data": rows, "model": outline.name, "usage": told}


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _key_check(variable: str | None) -> Any:
    wanted = os.environ.get(variable, "").encode() if variable else b""
    if variable and len(wanted) < LEAST_CLIENT_KEY:
        raise RequestError(
            f"the environment variable {variable} holds {len(wanted)} bytes, and a client's key needs "
            f"{LEAST_CLIENT_KEY}",
            "Set it, or leave client_key_variable out",
        )

    def check(request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
        if wanted and not hmac.compare_digest(given, wanted):
            raise Fault(401, "the key is not known here", code="invalid_api_key")

    return check


def _tell_faults_alike(app: FastAPI) -> None:
    """Every error in the form of OpenAI's, and none repeats what was sent."""

    @app.exception_handler(Fault)
    async def refused(_: Request, fault: Fault) -> JSONResponse:
        headers = {"Retry-After": "1"} if fault.status == 429 else None
        return JSONResponse(fault.body(), fault.status, headers=headers)

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        steps = [str(p) for p in first["loc"][1:] if isinstance(p, int) or p in _FIELDS]
        own = first["msg"].removeprefix("Value error, ") if first["type"] == "value_error" else _said(first["type"])
        return JSONResponse(Fault(400, own, parameter=".".join(steps) or None).body(), 400)

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> JSONResponse:
        told = {404: "there is no such address", 405: "this address does not take that method"}
        return JSONResponse(
            Fault(error.status_code, told.get(error.status_code, "the request cannot be read")).body(),
            error.status_code,
            headers=error.headers,
        )


_FIELDS = {*ChatRequest.model_fields, *EmbeddingsRequest.model_fields, "role", "content", "text", "type"}


def _said(kind: str) -> str:
    known = {"json_invalid": "the body is no JSON", "missing": "a field is missing", "extra_forbidden": "unknown field"}
    return known.get(kind, "a field has a value that is not supported here")
