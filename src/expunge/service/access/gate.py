"""The way in, whoever comes and however: a program with a key, or a person with a session."""

from __future__ import annotations

from expunge.errors import NotSignedIn
from expunge.request import Strict
from expunge.service.access.keys import Keys
from expunge.service.access.limits import Limits, LimitsPart
from expunge.service.access.oidc import Oidc, OidcPart
from expunge.service.access.sessions import Session, Sessions
from expunge.service.clock import Clock
from expunge.service.database import Database
from expunge.service.entities import Actor
from expunge.service.identity import Identities

UNKNOWN_ADDRESS = "unknown"


class AccessPart(Strict):
    """Settings of the way in.

    Args:
        limits: how often. session_hours: until one must sign in again. secure: the service is reached over https (a
            proxy before it counts). oidc: single sign-on; None: keys alone.
    """

    limits: LimitsPart = LimitsPart()
    session_hours: float = 8.0
    secure: bool = True
    oidc: OidcPart | None = None


class Access:
    """Keys, sessions, sign-on and limits of a service, for its API and its pages alike."""

    def __init__(
        self, database: Database, identities: Identities, clock: Clock, part: AccessPart | None = None
    ) -> None:
        part = part or AccessPart()
        self.part = part
        self.keys = Keys(database, identities, clock)
        self.sessions = Sessions(database, clock, self.keys, hours=part.session_hours, secure=part.secure)
        self.limits = Limits(part.limits)
        self.oidc = None if part.oidc is None else Oidc(part.oidc, identities, clock)

    def authenticate(self, authorization: str | None, address: str = UNKNOWN_ADDRESS) -> Actor:
        """Who sends ``Authorization: Bearer exk_…``.

        Args:
            address: of the client. Its failures are counted, and shut nobody out who has a key: others may share it.

        Raises:
            NotSignedIn: no such key in force. TooOften: from this address, or with this key, too many came.
        """
        self.limits.addresses.take(address)
        scheme, _, text = (authorization or "").partition(" ")
        try:
            if scheme.lower() != "bearer":
                raise NotSignedIn("no key was given")
            actor = self.keys.authenticate(text.strip())
        except NotSignedIn:
            if authorization:
                self.limits.failures.take(address)
            raise
        self.limits.keys.take(actor.id)
        return actor

    def session(self, cookie: str | None, address: str = UNKNOWN_ADDRESS) -> Session:
        """Who sends the session's cookie.

        Raises:
            NotSignedIn, TooOften.
        """
        self.limits.addresses.take(address)
        session = self.sessions.find(cookie)
        self.limits.keys.take(session.actor.id)
        return session

    def sign_in(self, key: str, address: str = UNKNOWN_ADDRESS) -> tuple[str, Session]:
        """A session for whoever types a key into a form: (the cookie's value, the session).

        Raises:
            NotSignedIn, TooOften.
        """
        return self.sessions.start(self.authenticate(f"Bearer {key.strip()}", address))
