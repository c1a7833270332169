"""A service with requests in every state, its pages, and somebody signed in for each role."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from desk_tools import APPROVER, OPERATOR, SECOND, Bench, Counted
from html_tools import Form, Page
from sqlalchemy import insert
from starlette.testclient import TestClient

from expunge.service import tables
from expunge.service.access.gate import Access, AccessPart
from expunge.service.access.limits import LimitsPart
from expunge.service.carry.contract import Hands, Outcome, Work
from expunge.service.clock import stamp
from expunge.service.dashboard.app import create_pages
from expunge.service.entities import SYSTEM, Filing
from expunge.service.policy import Policy
from expunge.service.registry import Target
from expunge.service.words import Role, Stage

PEOPLE = [f"person-{number}" for number in range(1, 25)]
SUBJECT = PEOPLE[0]
POLICY = Policy.model_validate(
    {
        "regimes": {
            "gdpr": {"calendar_months": 1, "extension_months": 2, "working_day": True, "zone": "Europe/Berlin"},
            "ccpa": {"days": 45, "extension_days": 45, "zone": "America/Los_Angeles"},
            "house": {"days": 5},
        },
        "serving": {"rule": "escalation", "cost_per_hour": 3.5},
        "approval": {"per_subject_a_year": 100, "largest_share": 0.5},
    }
)
GENEROUS = LimitsPart(key_per_second=1e6, key_burst=1_000_000, address_per_second=1e6, address_burst=1_000_000)


class Kept(Counted):
    """One that leaves a report in the service's folder, which its certificates name."""

    def carry_out(self, hands: Hands, target: Target, stage: Stage, batch_id: str, works: Sequence[Work]) -> Outcome:
        outcome = super().carry_out(hands, target, stage, batch_id, works)
        path = hands.home / "runs" / f"{batch_id}.json"
        path.write_text(f'{{"rows": {sum(outcome.rows.values())}}}')
        return replace(outcome, evidence=(("report", str(path), hashlib.sha256(path.read_bytes()).hexdigest()),))


class Office:
    """
    Args:
        policy: `POLICY` by default. part: settings of the way in.
    """

    ids: dict[str, str]

    def __init__(self, home: Path, policy: Policy = POLICY, part: AccessPart | None = None) -> None:
        def rows(count: int, every: Sequence[str] = PEOPLE) -> dict[str, int]:
            return dict.fromkeys(every, count)

        self.bench = Bench(
            home,
            policy,
            orders=Kept(rows(12), can=("exact",)),
            adapters=Counted(rows(3, PEOPLE[:16]), can=("approximate", "exact"), kind="counted"),
        )
        service = self.bench.service
        registry = service.registry
        registry.register(
            Target(
                id="classifier",
                name="Churn classifier",
                version="7",
                kind="adapters",
                location="classifier",
                made_from=("orders",),
                parent="adapters",
            )
        )
        registry.register(
            Target(
                id="distilled",
                name="Distilled copy",
                version="1",
                kind="copy",
                location="elsewhere",
                parent="classifier",
            )
        )
        self.access = Access(
            service.database, service.identities, service.clock, part or AccessPart(secure=False, limits=GENEROUS)
        )
        self.app = create_pages(service, self.access)
        self._known: dict[tuple[str, str], Visitor] = {}

    @property
    def service(self) -> Any:
        return self.bench.service

    @property
    def desk(self) -> Any:
        return self.bench.desk

    def key(self, role: Role, identity: str = SUBJECT) -> str:
        """The text of a new key."""
        maker = APPROVER if role == "approver" else OPERATOR
        bound = identity if role == "subject" else None
        return self.access.keys.make(maker, role, f"{role} of a test", identity=bound)[1]

    def known(self, role: Role, identity: str = SUBJECT) -> Visitor:
        """The same one each time, for tests that only look."""
        if (role, identity) not in self._known:
            self._known[role, identity] = self.visitor(role, identity)
        return self._known[role, identity]

    def visitor(self, role: Role | None, identity: str = SUBJECT) -> Visitor:
        """Somebody with a browser, signed in; None: not signed in."""
        visitor = Visitor(self)
        if role is not None:
            visitor.sign_in(self.key(role, identity))
        return visitor

    def file(self, person: str = SUBJECT, **told: Any) -> str:
        """A request that the service's own maker filed, verified."""
        told.setdefault("verified", True)
        return str(self.desk.file(SYSTEM, Filing(identity=person, **told)).id)

    def approved(self, person: str, **told: Any) -> str:
        request_id = self.file(person, **told)
        self.desk.approve(APPROVER, request_id)
        if self.bench.status(request_id) == "verified":
            self.desk.approve(SECOND, request_id)
        return request_id

    def every_state(self) -> dict[str, str]:
        """State -> id of a request in it."""
        told, work = {}, self.service.work
        told["fulfilled"] = self.approved(PEOPLE[1], external_id="ticket/1")
        self.bench.work()
        for days in (1, 4):
            self.bench.clock.advance(timedelta(days=days))
            self.bench.work()
        told["received"] = self.file(PEOPLE[2], verified=False)
        told["verified"] = self.file(PEOPLE[3], external_id="ticket/3")
        told["approved"] = self.approved(PEOPLE[4])
        told["denied"] = self.file(PEOPLE[5])
        self.desk.deny(APPROVER, told["denied"], "suspected_fraud", "same address as ten others")
        told["cancelled"] = self.file(PEOPLE[6])
        self.desk.cancel(OPERATOR, told["cancelled"])
        told["paused"] = self.file(PEOPLE[7])
        self.desk.hold(OPERATOR, told["paused"], "a court has asked for it")
        for state in ("planned", "failed", "running", "evaluated"):
            told[state] = self.approved(PEOPLE[8 + len(told)])
            work._plan_one(told[state])
        with self.service.database.write() as connection:
            for state in ("failed", "running", "evaluated"):
                self.desk.move(connection, told[state], "running", "begun")
            self.desk.move(connection, told["failed"], "failed", "failed", target="orders", reason="the disk is full")
            self.desk.move(connection, told["evaluated"], "evaluated", "evaluated")
        return told

    def worker(self) -> None:
        """One that has signed just now, and one that is silent."""
        now = self.service.clock()
        with self.service.database.write() as connection:
            for name, silent in (("wrk_alive", timedelta(seconds=3)), ("wrk_silent", timedelta(minutes=9))):
                connection.execute(
                    insert(tables.worker).values(
                        id=name,
                        started_at=stamp(now - timedelta(hours=5)),
                        beat_at=stamp(now - silent),
                        stopped_at=None,
                    )
                )

    def close(self) -> None:
        self.bench.close()


class Visitor:
    """A browser without scripts: it follows redirects and sends the forms that it is shown."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self.client = TestClient(office.app)
        self._csrf = ""

    def sign_in(self, key: str) -> Any:
        return self.client.post("/sign-in", data={"key": key})

    def get(self, path: str, **told: Any) -> Any:
        return self.client.get(path, **told)

    def csrf(self) -> str:
        """The session's token, as its forms have it."""
        if not self._csrf:
            found = re.search(r'name="csrf" value="([^"]+)"', self.get("/policy-of-nobody").text)
            assert found is not None
            self._csrf = found[1]
        return self._csrf

    def post(self, path: str, data: Mapping[str, Any] | None = None, *, csrf: bool = True, **told: Any) -> Any:
        """Send fields, with the session's token."""
        fields = dict(data or {})
        if csrf:
            fields["csrf"] = self.csrf()
        return self.client.post(path, data=fields, **told)

    def page(self, path: str) -> Page:
        answer = self.get(path)
        assert answer.status_code == 200, answer.text
        return Page(answer.text)

    def submit(self, form: Form, *, files: Any = None, **changed: Any) -> Any:
        """Send a form of a page."""
        told = form.filled(**changed)
        if form.method == "get":
            return self.client.get(form.action, params=told)
        names = dict.fromkeys(name for name, _ in told)
        fields = {name: [value for key, value in told if key == name] for name in names}
        return self.client.post(form.action, data=fields, files=files)

    def decide(self, request_id: str, action: str, **fields: str) -> Any:
        """Send an action's form, as the page of the request has it."""
        text = self.get(f"/requests/{request_id}").text
        found = re.search(r'name="version" value="(\d+)"', text)
        return self.post(f"/requests/{request_id}/{action}", {"version": found[1] if found else "0", **fields})


@contextmanager
def open_office(home: Path, **told: Any) -> Iterator[Office]:
    made = Office(home, **told)
    try:
        yield made
    finally:
        made.close()
