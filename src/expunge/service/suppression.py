"""Who must not come back: whoever was erased is refused at re-ingestion, by keyed hashes alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import Connection, delete, insert, select

from expunge.errors import TooMany
from expunge.service import tables
from expunge.service.clock import Clock, stamp
from expunge.service.database import Database
from expunge.service.identity import Identities
from expunge.service.policy import Policy

MOST = 10_000
CHUNK = 500
s = tables.suppressed.c


class Suppression:
    """The list of a service."""

    def __init__(self, database: Database, identities: Identities, policy: Policy, clock: Clock) -> None:
        self.database, self.identities, self.policy, self.clock = database, identities, policy, clock

    def blocked(self, identities: Sequence[str]) -> list[bool]:
        """For each identity whether its rows must not be learned from, in the same order.

        Raises:
            TooMany: more than 10,000 at once.
        """
        if len(identities) > MOST:
            raise TooMany(f"at most {MOST} identities are checked at once", "Send them in parts")
        tokens = [self.identities.tokens(identity) for identity in identities]
        flat = [t for mine in tokens for t in mine]
        found: set[str] = set()
        now = stamp(self.clock())
        with self.database.read() as connection:
            for start in range(0, len(flat), CHUNK):
                chunk = flat[start : start + CHUNK]
                found |= set(
                    connection.execute(
                        select(s.subject_token).where(
                            s.subject_token.in_(chunk), s.until.is_(None) | (s.until > now)
                        )
                    ).scalars()
                )  # fmt: skip
        return [any(t in found for t in mine) for mine in tokens]

    def add(self, connection: Connection, request_id: str, tokens: Sequence[str]) -> None:
        """Block the subject; a later request renews it."""
        days = self.policy.retention.suppression_days
        now = self.clock()
        until = None if days is None else stamp(now + timedelta(days=days))
        for token in tokens:
            connection.execute(delete(tables.suppressed).where(s.subject_token == token))
            connection.execute(
                insert(tables.suppressed).values(
                    subject_token=token, request_id=request_id, since=stamp(now), until=until
                )
            )  # fmt: skip

    def count(self) -> int:
        """Entries in force."""
        from sqlalchemy import func

        with self.database.read() as connection:
            return connection.execute(
                select(func.count()).select_from(tables.suppressed)
            ).scalar_one()  # fmt: skip
