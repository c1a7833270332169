"""A service with its API for the tests: a clock that stands still, and a key for each role."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.testclient import TestClient

from expunge.service.access.gate import Access, AccessPart
from expunge.service.access.limits import LimitsPart
from expunge.service.api.app import create_api
from expunge.service.api.context import Context
from expunge.service.api.settings import ApiPart
from expunge.service.clock import FixedClock
from expunge.service.entities import SYSTEM, Actor, Filing, Request
from expunge.service.policy import Policy
from expunge.service.service import open_service

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
SUBJECT = "erin.subject@example.org"
OTHER = "otto.other@example.org"
MANY = LimitsPart(
    key_per_second=1e6, key_burst=10**6, address_per_second=1e6, address_burst=10**6, failures_per_minute=1e6
)


ROLES = {
    "subject": ("subject", SUBJECT),
    "other": ("subject", OTHER),
    "operator": ("operator", None),
    "approver": ("approver", None),
    "second": ("approver", None),
    "auditor": ("auditor", None),
}


@cache
def template() -> tuple[Path, dict[str, str]]:
    """A service's folder with keys in it, made once: each house begins with a copy."""
    home = Path(tempfile.mkdtemp(prefix="expunge-house-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    service = open_service(home, clock=FixedClock(NOW))
    keys = Access(service.database, service.identities, service.clock).keys
    texts = {name: keys.make(SYSTEM, role, name, identity=who)[1] for name, (role, who) in ROLES.items()}  # type: ignore[arg-type]
    service.close()
    return home, texts


@cache
def one_app() -> FastAPI:
    """The application, which is the same for each house but for its context."""
    home, _ = template()
    service = open_service(home)
    app = create_api(service)
    service.close()
    return app


class House:
    """
    Args:
        part: settings of the API; by default without limits that a test would meet by accident. own: an application of
            its own, for what is settled when it is made.
    """

    def __init__(
        self,
        home: Path,
        *,
        part: ApiPart | None = None,
        policy: Policy | None = None,
        own: bool = False,
        database: str | None = None,
    ) -> None:
        source, texts = template()
        self.texts = dict(texts)
        shutil.copytree(source, home)
        self.clock = FixedClock(NOW)
        self.service = open_service(home, clock=self.clock, policy=policy, database=database)
        part = part or ApiPart(access=AccessPart(limits=MANY, secure=False))
        self.access = Access(self.service.database, self.service.identities, self.clock, part.access)
        if own:
            self.app = create_api(self.service, part, access=self.access)
            self.context: Context = self.app.state.context
        else:
            self.app = one_app()
            self.context = Context(service=self.service, access=self.access, part=part)
        self.client = TestClient(self.app, base_url="http://service.test")
        if database is not None:  # there are no keys in it yet
            keys = self.access.keys
            self.texts = {name: keys.make(SYSTEM, role, name, identity=who)[1] for name, (role, who) in ROLES.items()}  # type: ignore[arg-type]
        self.actors: dict[str, Actor] = {name: self.access.keys.authenticate(text) for name, text in self.texts.items()}

    def make(self, name: str, role: str) -> None:
        """Another key."""
        _, self.texts[name] = self.access.keys.make(SYSTEM, role, name)  # type: ignore[arg-type]
        self.actors[name] = self.access.keys.authenticate(self.texts[name])

    def actor(self, who: str) -> Actor:
        return self.actors[who]

    def call(self, who: str | None, method: str, path: str, **options: Any) -> Any:
        self.app.state.context = self.context
        headers = {**({"Authorization": f"Bearer {self.texts[who]}"} if who else {}), **options.pop("headers", {})}
        return self.client.request(method, path, headers=headers, **options)

    def get(self, who: str | None, path: str, **options: Any) -> Any:
        return self.call(who, "GET", path, **options)

    def post(self, who: str | None, path: str, **options: Any) -> Any:
        return self.call(who, "POST", path, **options)

    def file(self, identity: str = SUBJECT, *, verified: bool = True, **fields: Any) -> Request:
        return self.service.desk.file(self.actor("operator"), Filing(identity=identity, verified=verified, **fields))

    def later(self, **by: float) -> None:
        self.clock.advance(timedelta(**by))

    def close(self) -> None:
        self.client.close()
        self.service.close()


def is_problem(reply: Any, status: int, kind: str | None = None) -> dict[str, Any]:
    """The problem in a reply, after it was looked at."""
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    told: dict[str, Any] = reply.json()
    assert set(told) == {"type", "title", "status", "detail", "errors"}
    assert told["status"] == status
    if kind is not None:
        assert told["type"] == f"urn:expunge:problem:{kind}"
    return told
