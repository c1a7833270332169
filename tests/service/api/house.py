"""A service with its API for the tests: a clock that stands still, and a key for each role."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from expunge.service.access.gate import AccessPart
from expunge.service.access.limits import LimitsPart
from expunge.service.api.app import create_api
from expunge.service.api.context import ApiPart
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


class House:
    """
    Args:
        part: settings of the API; by default without limits that a test would meet by accident.
    """

    def __init__(self, home: Path, *, part: ApiPart | None = None, policy: Policy | None = None) -> None:
        self.clock = FixedClock(NOW)
        self.service = open_service(home, clock=self.clock, policy=policy)
        self.part = part or ApiPart(access=AccessPart(limits=MANY, secure=False))
        self.app = create_api(self.service, self.part)
        self.context = self.app.state.context
        self.access = self.context.access
        self.client = TestClient(self.app, base_url="http://service.test")
        self.texts, self.actors = {}, {}
        for role in ("subject", "operator", "approver", "auditor"):
            self.make(role, role, identity=SUBJECT if role == "subject" else None)
        self.make("other", "subject", identity=OTHER)
        self.make("second", "approver")

    def make(self, name: str, role: str, identity: str | None = None) -> None:
        key, self.texts[name] = self.access.keys.make(SYSTEM, role, name, identity=identity)
        self.actors[name] = self.access.keys.authenticate(self.texts[name])

    def actor(self, who: str) -> Actor:
        return self.actors[who]

    def call(self, who: str | None, method: str, path: str, **options: Any) -> Any:
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
