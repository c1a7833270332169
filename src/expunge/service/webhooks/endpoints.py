"""Who is told of what: URLs, the events they asked for, and a secret each, sealed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, insert, select, update

from expunge.errors import Conflict, NotFound, RequestError
from expunge.service import tables
from expunge.service.clock import Clock, stamp, unstamp
from expunge.service.database import Database
from expunge.service.desk import new_id
from expunge.service.entities import Actor
from expunge.service.identity import Identities
from expunge.service.permissions import check
from expunge.service.trail import Trail
from expunge.service.webhooks.signing import new_secret
from expunge.service.webhooks.targets import Rules, read_url
from expunge.service.words import STATUSES

OPENDSR = "opendsr.status"
EVERY = "*"
EVENT_TYPES = (*(f"request.{status}" for status in STATUSES), "request.extended")
MOST = 100
OLD_SECRET_HOURS = 24
w, d = tables.webhook.c, tables.delivery.c


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """Who is told.

    Args:
        events: types of events, ``*`` for all of ours, or ``opendsr.status`` alone. created_by: id of a key.
    """

    id: str
    url: str
    events: tuple[str, ...]
    created_by: str
    created_at: datetime
    disabled_at: datetime | None

    def wants(self, type_: str) -> bool:
        return type_ in self.events or (EVERY in self.events and type_ != OPENDSR)


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One event on its way to one webhook.

    Args:
        status: ``pending``, ``delivered`` or ``given_up``. due_at: of the next attempt. response_code: of the last.
    """

    id: str
    webhook_id: str
    event_id: int
    attempt: int
    due_at: datetime
    status: str
    response_code: int | None
    at: datetime | None


class Webhooks:
    """The webhooks of a service.

    Args:
        rules: which URLs they may have.
    """

    def __init__(self, database: Database, identities: Identities, clock: Clock, rules: Rules | None = None) -> None:
        self.database, self.identities, self.clock = database, identities, clock
        self.rules = rules or Rules()
        self.trail = Trail(database, clock)

    def make(self, actor: Actor, url: str, events: Sequence[str]) -> tuple[Webhook, str]:
        """A webhook, and its secret, which is shown this once.

        Raises:
            RequestError: not a URL that may be called, or no such event. Conflict: there are 100 already.
        """
        chosen = _events(events)
        read_url(url, self.rules)
        webhook_id, secret = new_id("wh"), new_secret()
        with self.trail.acting(actor, "make_webhook", "manage_webhooks", webhook_id) as connection:
            if connection.execute(select(func.count()).select_from(tables.webhook)).scalar_one() >= MOST:
                raise Conflict(f"there are {MOST} webhooks already", "Remove one")
            connection.execute(
                insert(tables.webhook).values(
                    id=webhook_id,
                    url=url,
                    secret_sealed=self.identities.seal(webhook_id, json.dumps({"now": secret})),
                    events=list(chosen),
                    created_by=actor.id,
                    created_at=stamp(self.clock()),
                )
            )
        return self.get(actor, webhook_id), secret

    def get(self, actor: Actor, webhook_id: str) -> Webhook:
        """
        Raises:
            NotFound.
        """
        check(actor, "manage_webhooks")
        with self.database.read() as connection:
            row = connection.execute(select(tables.webhook).where(w.id == webhook_id)).mappings().first()
        if row is None:
            raise NotFound("webhook")
        return webhook_of(row)

    def remove(self, actor: Actor, webhook_id: str) -> None:
        """Its deliveries and its secret go with it.

        Raises:
            NotFound.
        """
        with self.trail.acting(actor, "remove_webhook", "manage_webhooks", webhook_id) as connection:
            if not connection.execute(delete(tables.webhook).where(w.id == webhook_id)).rowcount:
                raise NotFound("webhook")
            connection.execute(delete(tables.delivery).where(d.webhook_id == webhook_id))
        self.identities.destroy(webhook_id)

    def rotate(self, actor: Actor, webhook_id: str) -> str:
        """A new secret, shown this once; for a day messages are signed with the old one too.

        Raises:
            NotFound.
        """
        secret = new_secret()
        with self.trail.acting(actor, "rotate_webhook", "manage_webhooks", webhook_id) as connection:
            sealed = connection.execute(select(w.secret_sealed).where(w.id == webhook_id)).scalar()
            if sealed is None:
                raise NotFound("webhook")
            told = {
                "now": secret,
                "before": json.loads(self.identities.unseal(webhook_id, sealed))["now"],
                "until": stamp(self.clock() + timedelta(hours=OLD_SECRET_HOURS)),
            }
            connection.execute(
                update(tables.webhook)
                .where(w.id == webhook_id)
                .values(secret_sealed=self.identities.seal(webhook_id, json.dumps(told)))
            )
        return secret

    def switch(self, actor: Actor, webhook_id: str, *, on: bool) -> Webhook:
        """Stop telling it, or begin again with what happens from now on.

        Raises:
            NotFound.
        """
        action = "enable_webhook" if on else "disable_webhook"
        with self.trail.acting(actor, action, "manage_webhooks", webhook_id) as connection:
            now = stamp(self.clock())
            changed = connection.execute(
                update(tables.webhook).where(w.id == webhook_id).values(disabled_at=None if on else now)
            ).rowcount
            if not changed:
                raise NotFound("webhook")
        return self.get(actor, webhook_id)

    def deliveries(self, actor: Actor, webhook_id: str, *, limit: int = 100) -> list[Delivery]:
        """The newest first.

        Raises:
            NotFound.
        """
        self.get(actor, webhook_id)
        query = select(tables.delivery).where(d.webhook_id == webhook_id).order_by(d.event_id.desc()).limit(limit)
        with self.database.read() as connection:
            return [delivery_of(row) for row in connection.execute(query).mappings()]

    def list(self, actor: Actor) -> list[Webhook]:
        """All, the first one first."""
        check(actor, "manage_webhooks")
        with self.database.read() as connection:
            rows = connection.execute(select(tables.webhook).order_by(w.created_at, w.id)).mappings()
            return [webhook_of(row) for row in rows]


def secrets_of(identities: Identities, webhook_id: str, sealed: str, now: datetime) -> list[str]:
    """The secrets to sign with, the newest first."""
    told = json.loads(identities.unseal(webhook_id, sealed))
    old = [told["before"]] if "before" in told and stamp(now) < told["until"] else []
    return [told["now"], *old]


def _events(events: Sequence[str]) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(events))
    if not chosen or any(one not in (*EVENT_TYPES, EVERY, OPENDSR) for one in chosen):
        raise RequestError(
            "a webhook is told of something that does not happen here", f"Use *, {', '.join(EVENT_TYPES)}"
        )
    if OPENDSR in chosen and len(chosen) > 1:
        raise RequestError(f"{OPENDSR} has messages of another form", "Make a webhook of its own for it")
    return chosen


def webhook_of(row: Mapping[Any, Any]) -> Webhook:
    return Webhook(
        id=row["id"],
        url=row["url"],
        events=tuple(row["events"]),
        created_by=row["created_by"],
        created_at=unstamp(row["created_at"]),
        disabled_at=None if row["disabled_at"] is None else unstamp(row["disabled_at"]),
    )


def delivery_of(row: Mapping[Any, Any]) -> Delivery:
    at = row["at"]
    return Delivery(**{**row, "due_at": unstamp(row["due_at"]), "at": None if at is None else unstamp(at)})
