"""Takes events to webhooks: each one until it has arrived, or for three days.

An event becomes a delivery by being seen in the history, not by being handed over: who writes history needs to know
nothing of webhooks, and a process killed in between loses nothing. The same event seen twice is the same delivery.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from expunge.errors import ExpungeError
from expunge.service import tables
from expunge.service.clock import Clock, stamp
from expunge.service.database import Database
from expunge.service.identity import Identities
from expunge.service.opendsr import is_opendsr
from expunge.service.webhooks.endpoints import OPENDSR, Webhook, secrets_of, webhook_of
from expunge.service.webhooks.messages import message_of, type_of
from expunge.service.webhooks.sending import Answer, Caller
from expunge.service.webhooks.signing import headers

log = logging.getLogger("expunge.webhooks")
# Standard Webhooks' own schedule: seconds from one attempt to the next
BACK_OFF = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
LEASE_SECONDS = 180
ROUND_SECONDS = 60
TOGETHER = 8
BATCH = 64
CURSOR = "webhook_cursor"
# On a database with several writers an event may appear after one with a later number; for so long they are sought.
SETTLE_SECONDS = 30
PAGE = 1000
w, d, e = tables.webhook.c, tables.delivery.c, tables.event.c


class Courier:
    """
    Args:
        caller: makes the calls. home: the service's folder. pause_seconds: between two looks, for `run`.
    """

    def __init__(
        self,
        database: Database,
        identities: Identities,
        clock: Clock,
        home: str | Path,
        *,
        caller: Caller | None = None,
        pause_seconds: float = 1.0,
    ) -> None:
        self.database, self.identities, self.clock, self.home = database, identities, clock, Path(home)
        self.caller, self.pause_seconds = caller or Caller(), pause_seconds

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop. What fails is told in the log, without its words, and tried again."""
        while not stop.is_set():
            try:
                busy = self.step()
            except Exception as error:
                log.error("webhooks could not be delivered (%s); tried again", type(error).__name__)
                busy = 0
            if not busy:
                stop.wait(self.pause_seconds)

    def step(self) -> int:
        """Look for new events once, and make the calls that are due; how many calls were made."""
        self.enqueue()
        return self.deliver()

    # --- events become deliveries -------------------------------------------------------------------------------------

    def enqueue(self) -> int:
        """How many deliveries were made of events that were not seen before."""
        with self.database.write() as connection:
            cursor = self._cursor(connection)
            hooks = [
                webhook_of(row)
                for row in connection.execute(select(tables.webhook).where(w.disabled_at.is_(None))).mappings()
            ]
            if not hooks:
                newest = connection.execute(select(func.max(e.id))).scalar() or 0
                if newest > cursor:
                    self._set_cursor(connection, newest)
                return 0
            settled = stamp(self.clock() - timedelta(seconds=0 if self.database.is_sqlite else SETTLE_SECONDS))
            made, start, moving = 0, cursor, True
            while rows := self._events(connection, start):
                made += self._deliveries(connection, hooks, rows)
                start = rows[-1]["id"]
                for row in rows:
                    moving = moving and row["at"] <= settled
                    cursor = row["id"] if moving else cursor
            self._set_cursor(connection, cursor)
            return made

    def _cursor(self, connection: Connection) -> int:
        c = tables.setting.c
        query = select(c.value).where(c.key == CURSOR)
        found = connection.execute(query if self.database.is_sqlite else query.with_for_update()).scalar()
        if found is None:
            connection.execute(self._new(tables.setting).values(key=CURSOR, value=0).on_conflict_do_nothing())
        return int(found or 0)

    @staticmethod
    def _set_cursor(connection: Connection, event_id: int) -> None:
        c = tables.setting.c
        connection.execute(update(tables.setting).where(c.key == CURSOR).values(value=event_id))

    @staticmethod
    def _events(connection: Connection, start: int) -> Sequence[Mapping[Any, Any]]:
        c = tables.request.c
        query = (
            select(e.id, e.at, e.kind, e.from_status, e.to_status, c.external_id, c.filed_by)
            .join(tables.request, c.id == e.request_id)
            .where(e.id > start)
            .order_by(e.id)
            .limit(PAGE)
        )
        return connection.execute(query).mappings().all()

    def _deliveries(self, connection: Connection, hooks: Sequence[Webhook], events: Sequence[Mapping[Any, Any]]) -> int:
        rows = [
            {
                "id": message_id(hook.id, event["id"]),
                "webhook_id": hook.id,
                "event_id": event["id"],
                "attempt": 0,
                "due_at": stamp(self.clock()),
                "status": "pending",
            }
            for event in events
            for hook in hooks
            if event["at"] >= stamp(hook.created_at) and _wanted(hook, event)
        ]
        if not rows:
            return 0
        return max(0, connection.execute(self._new(tables.delivery).on_conflict_do_nothing(), rows).rowcount)

    def _new(self, table: Any) -> Any:
        """An insertion that leaves what is there."""
        return (sqlite if self.database.is_sqlite else postgresql).insert(table)

    # --- deliveries are called ----------------------------------------------------------------------------------------

    def deliver(self) -> int:
        """Make the calls that are due; how many were made."""
        claimed = self._claim()
        if not claimed:
            return 0
        by_hook: dict[str, list[dict[str, Any]]] = {}
        for row in claimed:
            by_hook.setdefault(row["webhook_id"], []).append(row)
        with ThreadPoolExecutor(min(TOGETHER, len(by_hook))) as pool:
            return sum(pool.map(self._in_turn, by_hook.values()))

    def _in_turn(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """One webhook's calls in the order of what happened; how many were made.

        Where it does not answer, the others wait until their lease is over: a slow receiver keeps nobody else waiting.
        """
        started = time.monotonic()
        for made, row in enumerate(rows, start=1):
            answer = self._call(row)
            self._note(row, answer)
            if (answer is not None and answer.status is None) or time.monotonic() - started > ROUND_SECONDS:
                return made
        return len(rows)

    def _claim(self) -> list[dict[str, Any]]:
        """Due deliveries, out of others' reach until the lease is over: those of a killed process come back then."""
        now = self.clock()
        due = (d.status == "pending", d.due_at <= stamp(now))
        query = select(tables.delivery).where(*due).order_by(d.due_at, d.event_id).limit(BATCH)
        if not self.database.is_sqlite:
            query = query.with_for_update(skip_locked=True)
        with self.database.read() as connection:  # nothing due is the usual case, and needs no lock
            if connection.execute(select(d.id).where(*due).limit(1)).first() is None:
                return []
        with self.database.write() as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
            until = stamp(now + timedelta(seconds=LEASE_SECONDS))
            ids = [row["id"] for row in rows]
            connection.execute(update(tables.delivery).where(d.id.in_(ids)).values(due_at=until))
        return rows

    def _call(self, row: Mapping[str, Any]) -> Answer | None:
        """None: there is nobody, or nothing, to tell any more."""
        with self.database.read() as connection:
            hook = connection.execute(select(tables.webhook).where(w.id == row["webhook_id"])).mappings().first()
            event = connection.execute(select(tables.event).where(e.id == row["event_id"])).mappings().first()
            if hook is None or event is None or hook["disabled_at"] is not None:
                return None
            try:
                body = message_of(connection, event, webhook_of(hook), self.home)
                now = self.clock()
                known = secrets_of(self.identities, hook["id"], hook["secret_sealed"], now)
            except ExpungeError as error:
                log.error("a message for webhook %s could not be made (%s)", hook["id"], type(error).__name__)
                return Answer(status=None, why="connection")
        if body is None:
            return None
        return self.caller.post(hook["url"], body, headers(known, row["id"], now, body))

    def _note(self, row: Mapping[str, Any], answer: Answer | None) -> None:
        now = self.clock()
        attempt = row["attempt"] + 1
        code = answer.status if answer else None
        values: dict[str, Any] = {"at": stamp(now), "attempt": attempt, "response_code": code}
        if answer is not None and answer.delivered:
            values["status"] = "delivered"
        elif answer is None or answer.status == 410 or attempt > len(BACK_OFF):
            values["status"] = "given_up"
        else:
            values["due_at"] = stamp(now + wait(row["id"], attempt))
        with self.database.write() as connection:
            connection.execute(update(tables.delivery).where(d.id == row["id"]).values(**values))
            if answer is not None and answer.status == 410:  # gone: the receiver asks for no more
                connection.execute(
                    update(tables.webhook).where(w.id == row["webhook_id"]).values(disabled_at=stamp(now))
                )
        if answer is not None and not answer.delivered:
            log.warning("webhook %s: attempt %d failed (%s)", row["webhook_id"], attempt, answer.status or answer.why)


def message_id(webhook_id: str, event_id: int) -> str:
    """The same for the same event and webhook, so that nothing is delivered as two messages."""
    digest = hashlib.sha256(f"{webhook_id}.{event_id}".encode()).digest()[:16]
    return "msg_" + base64.b32encode(digest).decode().rstrip("=").lower()


def wait(delivery_id: str, attempt: int) -> timedelta:
    """From the attempt (1, 2, …) to the next; up to a tenth longer, so that many do not come back at once."""
    share = hashlib.sha256(f"{delivery_id}.{attempt}".encode()).digest()[0] / 255
    return timedelta(seconds=BACK_OFF[attempt - 1] * (1 + share / 10))


def _wanted(hook: Webhook, event: Mapping[Any, Any]) -> bool:
    type_ = type_of(event)
    if type_ is None:
        return False
    if OPENDSR in hook.events:
        return is_opendsr(event["external_id"]) and event["filed_by"] == hook.created_by
    return hook.wants(type_)


def unread(database: Database) -> int:
    """How many deliveries wait, for the metrics."""
    with database.read() as connection:
        query = select(func.count()).select_from(tables.delivery).where(d.status == "pending")
        return connection.execute(query).scalar_one()


def forget_deliveries(database: Database, before: datetime) -> int:
    """Remove deliveries that ended before a time; how many."""
    with database.write() as connection:
        ended = delete(tables.delivery).where(d.status != "pending", d.at < stamp(before))
        return connection.execute(ended).rowcount
