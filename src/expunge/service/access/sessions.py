"""Sessions of people in a browser: a random cookie whose hash is kept, and a token against forged forms."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, insert, select

from expunge.errors import NotAllowed, NotSignedIn
from expunge.service import tables
from expunge.service.access.keys import Keys
from expunge.service.clock import Clock, stamp, unstamp
from expunge.service.database import Database
from expunge.service.entities import Actor

COOKIE = "expunge_session"
SECURE_COOKIE = "__Host-expunge_session"  # browsers take it over https alone, from this host alone
HOURS = 8.0
s = tables.session.c


@dataclass(frozen=True, kw_only=True)
class Session:
    """A person who has signed in.

    Args:
        csrf: what every form that changes something must bring with it.
    """

    actor: Actor
    csrf: str
    expires_at: datetime


class Sessions:
    """The sessions of a service.

    Args:
        keys: a session that was begun with a key ends with it. hours: until one must sign in again. secure: the cookie
            goes over https alone; False only for a service that is reached on its own machine.
    """

    def __init__(
        self, database: Database, clock: Clock, keys: Keys, *, hours: float = HOURS, secure: bool = True
    ) -> None:
        self.database, self.clock, self.keys = database, clock, keys
        self.hours, self.secure = hours, secure

    @property
    def cookie(self) -> str:
        """Its name."""
        return SECURE_COOKIE if self.secure else COOKIE

    def start(self, actor: Actor) -> tuple[str, Session]:
        """A session, and the cookie's value, which is kept nowhere here."""
        value, csrf, now = secrets.token_urlsafe(32), secrets.token_urlsafe(32), self.clock()
        until = now + timedelta(hours=self.hours)
        with self.database.write() as connection:
            connection.execute(delete(tables.session).where(s.expires_at <= stamp(now)))
            connection.execute(
                insert(tables.session).values(
                    id_hash=_hash(value),
                    actor=actor.id,
                    role=actor.role,
                    subject_token=actor.subject_token,
                    csrf=csrf,
                    created_at=stamp(now),
                    expires_at=stamp(until),
                )
            )
        return value, Session(actor=actor, csrf=csrf, expires_at=until)

    def find(self, value: str | None) -> Session:
        """
        Raises:
            NotSignedIn: no such session, it is over, or its key was revoked.
        """
        with self.database.read() as connection:
            query = select(tables.session).where(s.id_hash == _hash(value or ""), s.expires_at > stamp(self.clock()))
            row = connection.execute(query).mappings().first()
        if row is None or (row["actor"].startswith("key_") and not self.keys.still(row["actor"])):
            raise NotSignedIn
        actor = Actor(id=row["actor"], role=row["role"], subject_token=row["subject_token"])
        return Session(actor=actor, csrf=row["csrf"], expires_at=unstamp(row["expires_at"]))

    def end(self, value: str | None) -> None:
        """Sign out; nothing happens where there is no such session."""
        with self.database.write() as connection:
            connection.execute(delete(tables.session).where(s.id_hash == _hash(value or "")))

    def set_cookie(self, value: str) -> str:
        """The header ``Set-Cookie``: no script reads it, and no other site's form sends it."""
        tail = "; Secure" if self.secure else ""
        return f"{self.cookie}={value}; Path=/; Max-Age={int(self.hours * 3600)}; HttpOnly; SameSite=Lax{tail}"

    def clear_cookie(self) -> str:
        """The header that removes it."""
        tail = "; Secure" if self.secure else ""
        return f"{self.cookie}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax{tail}"


def check_csrf(session: Session, given: str | None) -> None:
    """
    Raises:
        NotAllowed: the form was not made for this session.
    """
    if given is None or not hmac.compare_digest(session.csrf.encode(), given.encode("utf-8", "surrogatepass")):
        raise NotAllowed("the form is not of this session", "Load the page again and send it from there")


def _hash(value: str) -> str:
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
