"""The audit trail beside the desk's own lines: keys, webhooks, registry, evidence that was handed out.

An object is named by an id that this service made or knows, or not at all: nobody can write somebody's name into the
trail by asking for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, and_, insert, select, true

from expunge.errors import ExpungeError, RequestError
from expunge.service import tables
from expunge.service.clock import Clock, stamp, unstamp
from expunge.service.database import Database
from expunge.service.entities import Actor
from expunge.service.permissions import check

# `target:` is set before the id of a model by whoever has found that model
ID = re.compile(r"[a-z]{2,8}_[a-z2-7]{26}|target:[a-z0-9][a-z0-9._-]{0,79}")
a = tables.audit_trail.c


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of the trail."""

    id: int
    at: datetime
    actor: str
    role: str
    action: str
    object: str | None
    outcome: str


class Trail:
    """The trail of a service."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self.database, self.clock = database, clock

    def add(self, connection: Connection, actor: Actor, action: str, about: str | None, outcome: str = "done") -> None:
        """A line, within the transaction that does what it tells."""
        known = about if about is not None and ID.fullmatch(about) else None
        connection.execute(
            insert(tables.audit_trail).values(
                at=stamp(self.clock()), actor=actor.id, role=actor.role, action=action, object=known, outcome=outcome
            )
        )

    def tell(self, actor: Actor, action: str, about: str | None = None, outcome: str = "done") -> None:
        """A line by itself."""
        with self.database.write() as connection:
            self.add(connection, actor, action, about, outcome)

    @contextmanager
    def acting(self, actor: Actor, action: str, permission: str, about: str | None = None) -> Iterator[Connection]:
        """A transaction with its line; a refusal leaves a line too.

        Raises:
            NotAllowed: the role may not do that.
        """
        try:
            check(actor, permission)
            with self.database.write() as connection:
                yield connection
                self.add(connection, actor, action, about)
        except ExpungeError as error:
            self.tell(actor, action, about, f"refused: {type(error).__name__}")
            raise

    def lines(
        self, actor: Actor, *, limit: int = 100, after: str | None = None, action: str | None = None
    ) -> tuple[list[Line], str | None]:
        """The newest first, and where the next page begins.

        Raises:
            NotAllowed. RequestError: `after` is not of a page before.
        """
        check(actor, "see_audit")
        if after is not None and not (after.isascii() and after.isdigit() and len(after) <= 18):
            raise RequestError("`after` is not what a page before this one gave", "Begin again without it")
        condition = and_(
            a.id < int(after) if after is not None else true(), a.action == action if action is not None else true()
        )
        query = select(tables.audit_trail).where(condition).order_by(a.id.desc()).limit(limit + 1)
        with self.database.read() as connection:
            rows = connection.execute(query).mappings().all()
        told = [Line(**{**row, "at": unstamp(row["at"])}) for row in rows[:limit]]
        return told, str(told[-1].id) if len(rows) > limit else None
