"""Keys of programs: ``exk_ID_SECRET``, shown once, kept as a hash.

The secret has 256 random bits, so nobody finds it by trying, and a slow hash (scrypt, argon2) has nothing to slow down:
those are for passwords, which people choose. HMAC-SHA256 under a salt of the key's own costs a microsecond a request
instead of fifty milliseconds, and what is stored is as useless to a thief.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, func, insert, or_, select, update

from expunge.errors import NotFound, NotSignedIn, RequestError
from expunge.service import tables
from expunge.service.clock import Clock, stamp, unstamp
from expunge.service.database import Database
from expunge.service.desk import new_id
from expunge.service.entities import Actor
from expunge.service.identity import Identities
from expunge.service.permissions import check
from expunge.service.trail import Trail
from expunge.service.words import ROLES, Role

FORM = re.compile(r"exk_([a-z2-7]{26})_([A-Za-z0-9_-]{43})")
SECRET_BYTES = 32
USED_EVERY = timedelta(minutes=10)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,59}")
LONGEST_DAYS = 3650
k = tables.api_key.c


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key without its secret.

    Args:
        name: of the program; no person's. bound: to one subject.
    """

    id: str
    role: Role
    name: str
    bound: bool
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class Keys:
    """The keys of a service."""

    def __init__(self, database: Database, identities: Identities, clock: Clock) -> None:
        self.database, self.identities, self.clock = database, identities, clock
        self.trail = Trail(database, clock)

    def make(
        self, actor: Actor, role: Role, name: str, *, identity: str | None = None, days: float | None = None
    ) -> tuple[Key, str]:
        """A key, and the text that opens with it, which is shown this once.

        Args:
            identity: of the subject that a subject's key is bound to; hashed at once. days: until it expires.

        Raises:
            NotAllowed: approvers' keys are made by approvers, the others by operators: nobody can be four eyes alone.
            RequestError: no such role, a name that may be a person's, an identity too many or missing.
        """
        if role not in ROLES:
            raise RequestError("there is no such role", f"One of: {', '.join(ROLES)}")
        if not NAME.fullmatch(name):
            raise RequestError(
                "a key's name has letters, digits, spaces, dots and dashes", "Name the program it is for"
            )
        if (identity is not None) != (role == "subject"):
            raise RequestError("a subject's key is made for an identity, and no other is", "Give one, or another role")
        if days is not None and not 0 < days <= LONGEST_DAYS:
            raise RequestError(f"a key is in force for up to {LONGEST_DAYS} days", "Give the days until it expires")
        bare = new_id("key").removeprefix("key_")
        secret, salt, now = secrets.token_urlsafe(SECRET_BYTES), secrets.token_bytes(16), self.clock()
        with self.trail.acting(actor, "make_key", _maker(role), f"key_{bare}") as connection:
            connection.execute(
                insert(tables.api_key).values(
                    id=f"key_{bare}",
                    role=role,
                    name=name,
                    salt=salt.hex(),
                    hash=_hash(salt, secret),
                    subject_token=None if identity is None else self.identities.token(identity),
                    created_at=stamp(now),
                    expires_at=None if days is None else stamp(now + timedelta(days=days)),
                )
            )
        return self._get(f"key_{bare}"), f"exk_{bare}_{secret}"

    def authenticate(self, text: str) -> Actor:
        """Who opens with this.

        Raises:
            NotSignedIn: not known, expired or revoked; which is not told.
        """
        match = FORM.fullmatch(text)
        row = None
        if match is not None:
            with self.database.read() as connection:
                query = select(tables.api_key).where(k.id == f"key_{match[1]}")
                row = connection.execute(query).mappings().first()
        wanted = row["hash"] if row is not None else "0" * 64
        given = _hash(bytes.fromhex(row["salt"]) if row is not None else bytes(16), match[2] if match else "")
        now = self.clock()
        if not hmac.compare_digest(wanted, given) or row is None or not in_force(row, now):
            raise NotSignedIn
        if row["last_used_at"] is None or unstamp(row["last_used_at"]) < now - USED_EVERY:
            with self.database.write() as connection:
                connection.execute(update(tables.api_key).where(k.id == row["id"]).values(last_used_at=stamp(now)))
        return Actor(id=row["id"], role=row["role"], subject_token=row["subject_token"])

    def still(self, key_id: str) -> bool:
        """Whether the key is in force, for sessions that were begun with it."""
        with self.database.read() as connection:
            row = connection.execute(select(tables.api_key).where(k.id == key_id)).mappings().first()
        return row is not None and in_force(row, self.clock())

    def revoke(self, actor: Actor, key_id: str) -> None:
        """From now on nobody comes in with it; its sessions end too.

        Raises:
            NotFound.
        """
        with self.trail.acting(actor, "revoke_key", "manage_keys", key_id) as connection:
            known = connection.execute(select(k.id).where(k.id == key_id)).first()
            if known is None:
                raise NotFound("key")
            connection.execute(
                update(tables.api_key)
                .where(k.id == key_id, k.revoked_at.is_(None))
                .values(revoked_at=stamp(self.clock()))
            )

    def list(self, actor: Actor) -> list[Key]:
        """All, revoked ones included, the first one first."""
        check(actor, "manage_keys")
        with self.database.read() as connection:
            rows = connection.execute(select(tables.api_key).order_by(k.created_at, k.id)).mappings()
            return [_key(row) for row in rows]

    def _get(self, key_id: str) -> Key:
        with self.database.read() as connection:
            return _key(connection.execute(select(tables.api_key).where(k.id == key_id)).mappings().one())

    def count(self, role: Role) -> int:
        """Keys of a role in force: where there are none, whoever starts the service makes the first."""
        now = stamp(self.clock())
        alive = and_(k.role == role, k.revoked_at.is_(None), or_(k.expires_at.is_(None), k.expires_at > now))
        with self.database.read() as connection:
            return connection.execute(select(func.count()).select_from(tables.api_key).where(alive)).scalar_one()


def in_force(row: Mapping[Any, Any], now: datetime) -> bool:
    """Neither revoked nor expired."""
    return row["revoked_at"] is None and (row["expires_at"] is None or unstamp(row["expires_at"]) > now)


def _maker(role: Role) -> str:
    return "make_approver" if role == "approver" else "make_key"


def _hash(salt: bytes, secret: str) -> str:
    return hmac.digest(salt, secret.encode(), "sha256").hex()


def _key(row: Mapping[Any, Any]) -> Key:
    def time(text: str | None) -> datetime | None:
        return None if text is None else unstamp(text)

    return Key(
        id=row["id"],
        role=row["role"],
        name=row["name"],
        bound=row["subject_token"] is not None,
        created_at=unstamp(row["created_at"]),
        expires_at=time(row["expires_at"]),
        revoked_at=time(row["revoked_at"]),
        last_used_at=time(row["last_used_at"]),
    )
