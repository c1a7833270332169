"""``Idempotency-Key``: the same POST twice has one effect and one answer, for a day.

What is kept is keyed hashes of the key and of what was sent, and the answer, sealed: an answer may hold a new secret.
Only success is kept; what was refused had no effect, and may be sent again under the same key.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from expunge.service import tables
from expunge.service.api.problems import Problem
from expunge.service.clock import Clock, stamp
from expunge.service.database import Database
from expunge.service.entities import Actor
from expunge.service.identity import Identities

SEAL = "idempotency"
FORM = re.compile(r"[\x21-\x7e]{1,255}")
KEPT = timedelta(hours=24)
# A process that was killed in between leaves its line; then nobody knows whether it had its effect.
STALE = timedelta(minutes=5)
KEPT_HEADERS = ("content-type", "link", "location")
i = tables.idempotency.c


class Idempotency:
    """The answers of a service that may be asked for again."""

    def __init__(self, database: Database, identities: Identities, clock: Clock) -> None:
        self.database, self.identities, self.clock = database, identities, clock

    async def once(
        self, actor: Actor, key: str, request: Request, handle: Callable[[], Awaitable[Response]]
    ) -> Response:
        """The answer of `handle`, or the one that was given before.

        Raises:
            Problem: 400 no key that can be kept, 409 the first is still under way, 422 it was used for something else.
        """
        if not FORM.fullmatch(key):
            raise Problem(400, "bad-idempotency-key", "Idempotency-Key has 1 to 255 visible ASCII characters.")
        known = self._hashed(f"key\x00{key}")
        digest = self._digest(request, await request.body())
        before = await run_in_threadpool(self._begin, actor, known, digest)
        if before is not None:
            return before
        try:
            response = await handle()
        except BaseException:
            await run_in_threadpool(self._forget, actor, known)
            raise
        content = getattr(response, "body", None)
        if not 200 <= response.status_code < 300 or not isinstance(content, bytes):
            await run_in_threadpool(self._forget, actor, known)
        else:
            await run_in_threadpool(self._keep, actor, known, response, content)
        return response

    def _hashed(self, text: str) -> str:
        # under the oldest key: a rotation changes nothing
        return self.identities.tokens(hashlib.sha256(text.encode()).hexdigest())[-1]

    def _digest(self, request: Request, body: bytes) -> str:
        head = json.dumps([request.method, request.url.path, request.url.query, request.headers.get("content-type")])
        return self._hashed(f"{head}\x00{hashlib.sha256(body).hexdigest()}")

    def _begin(self, actor: Actor, key: str, digest: str) -> Response | None:
        now = self.clock()
        mine = (i.key == key, i.actor == actor.id)
        try:
            with self.database.write() as connection:
                connection.execute(delete(tables.idempotency).where(i.at < stamp(now - KEPT)))
                stale = (i.status.is_(None), i.at < stamp(now - STALE))
                connection.execute(delete(tables.idempotency).where(*mine, *stale))
                row = connection.execute(select(tables.idempotency).where(*mine)).mappings().first()
                if row is None:
                    values = {"key": key, "actor": actor.id, "digest": digest, "at": stamp(now)}
                    connection.execute(insert(tables.idempotency).values(**values))
                    return None
        except IntegrityError:  # another process began in the same moment
            raise _under_way() from None
        if row["digest"] != digest:
            detail = "This Idempotency-Key was used for another request. Use a new one."
            raise Problem(422, "idempotency-key-reused", detail)
        if row["status"] is None:
            raise _under_way()
        told: dict[str, Any] = json.loads(self.identities.unseal(SEAL, row["body"]))
        headers = {**told["headers"], "Idempotency-Replayed": "true"}
        return Response(base64.b64decode(told["body"]), row["status"], headers=headers)

    def _keep(self, actor: Actor, key: str, response: Response, content: bytes) -> None:
        headers = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
        told = self.identities.seal(SEAL, json.dumps({"body": base64.b64encode(content).decode(), "headers": headers}))
        with self.database.write() as connection:
            connection.execute(
                update(tables.idempotency)
                .where(i.key == key, i.actor == actor.id)
                .values(status=response.status_code, body=told)
            )

    def _forget(self, actor: Actor, key: str) -> None:
        with self.database.write() as connection:
            connection.execute(delete(tables.idempotency).where(i.key == key, i.actor == actor.id))


def _under_way() -> Problem:
    detail = "The first request with this Idempotency-Key is still under way. Ask again in a moment."
    return Problem(409, "idempotency-under-way", detail, headers={"Retry-After": "1"})
