"""What there is: data sets and models, who is in which, and what can be done about it.

A model is indexed when it is registered: the token of every owner whose rows it holds, and how many. So a request finds
all that its subject reached without anybody's name being stored. What nobody can index is listed as out of scope, by
name, wherever it descends from something that was reached.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, delete, insert, select, update

from expunge.errors import Conflict, NotFound, RequestError
from expunge.service import tables
from expunge.service.clock import Clock, stamp, unstamp
from expunge.service.database import Database
from expunge.service.entities import Reached
from expunge.service.identity import Identities
from expunge.service.words import Stage

if TYPE_CHECKING:
    from expunge.service.carry.contract import Handler

ID = re.compile(r"^[a-z0-9][a-z0-9._-]{0,79}$")
KEPT_RUNS = 50
CHUNK = 5000


@dataclass(frozen=True, kw_only=True)
class Target:
    """A model or a store.

    Args:
        kind: which of `expunge.service.carry.KINDS` serves it; any other word is listed and never served. location: a
            folder or file. parent: id of the model that it was made from. made_from: ids of data sets. options: of its
            kind. run_seconds: stage -> the latest measured run times.
    """

    id: str
    name: str
    version: str
    kind: str
    location: str
    digest: str | None = None
    parent: str | None = None
    made_from: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    run_seconds: Mapping[str, Sequence[float]] = field(default_factory=dict)
    registered_at: datetime | None = None
    retired_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Index:
    """Who is in a target, as its kind reads it.

    Args:
        owners: owner -> rows. digest: of the state or file. rows: of all. options: what the kind found out, kept with
            the target's own: ``guarantee`` is stage -> the word that it may reach.
    """

    owners: Mapping[str, int]
    digest: str
    rows: int
    options: Mapping[str, Any] = field(default_factory=dict)


class Registry:
    """The models and data sets of a service.

    Args:
        kinds: word -> what serves such targets (`expunge.service.carry.KINDS`).
    """

    def __init__(self, database: Database, identities: Identities, clock: Clock, kinds: Mapping[str, Handler]) -> None:
        self.database, self.identities, self.clock, self.kinds = database, identities, clock, kinds

    # --- registering --------------------------------------------------------------------------------------------------

    def register(self, target: Target) -> Target:
        """Add a model or store, and index who is in it; the same again indexes it anew.

        Raises:
            RequestError: the id, parent or a data set is not known, or the location does not hold what the kind says.
            Conflict: the id is taken by something of another kind or place.
        """
        if not ID.match(target.id):
            raise RequestError("an id is lower-case letters, digits, dots and dashes", "Choose one such as 'spam-sisa'")
        known = {t.id: t for t in self.targets(retired=True)}
        for other in (*([target.parent] if target.parent else []), *target.made_from):
            if other not in known:
                raise RequestError(f"{other!r} is not registered", "Register what it was made from first")
        before = known.get(target.id)
        if before is not None and (before.kind, before.location) != (target.kind, target.location):
            raise Conflict(f"{target.id!r} is registered as another model", "Retire that one, or choose another id")
        handler = self.kinds.get(target.kind)
        index = handler.index(target) if handler is not None else None
        with self.database.write() as connection:
            row = {
                "name": target.name,
                "version": target.version,
                "kind": target.kind,
                "location": target.location,
                "digest": index.digest if index else target.digest,
                "parent": target.parent,
                "made_from": list(target.made_from),
                "options": {**target.options, **({"rows": index.rows, **index.options} if index else {})},
                "retired_at": None,
            }
            if before is None:
                row |= {"id": target.id, "run_seconds": dict(target.run_seconds), "registered_at": stamp(self.clock())}
                connection.execute(insert(tables.target).values(**row))
            else:
                connection.execute(update(tables.target).where(tables.target.c.id == target.id).values(**row))
            if index is not None:
                self._hold(connection, target.id, target.kind, index.owners)
        return self.get(target.id)

    def reindex(self, target_id: str) -> None:
        """Read again who is in a target: after it forgot, and after lookup keys were rotated."""
        self.register(self.get(target_id))

    def retire(self, target_id: str) -> None:
        """Take a model out of service: it is found no more.

        Raises:
            NotFound.
        """
        with self.database.write() as connection:
            row = tables.target
            done = connection.execute(
                update(row).where(row.c.id == target_id).values(retired_at=stamp(self.clock()))
            ).rowcount
            if not done:
                raise NotFound("model or store")
            connection.execute(delete(tables.holding).where(tables.holding.c.target == target_id))

    def _hold(self, connection: Connection, target: str, kind: str, owners: Mapping[str, int]) -> None:
        connection.execute(delete(tables.holding).where(tables.holding.c.target == target))
        rows = [
            {"subject_token": token, "target": target, "kind": kind, "rows": count}
            for owner, count in owners.items()
            for token in self.identities.tokens(owner)
        ]
        for start in range(0, len(rows), CHUNK):
            connection.execute(insert(tables.holding), rows[start : start + CHUNK])

    def gone(self, connection: Connection, target: str, tokens: Iterable[str]) -> None:
        """The target holds nothing of these subjects any more."""
        held = tables.holding
        connection.execute(delete(held).where(held.c.target == target, held.c.subject_token.in_(list(tokens))))

    def measured(self, connection: Connection, target: str, stage: str, seconds: float) -> None:
        """Remember how long a run took."""
        row = tables.target
        told = connection.execute(select(row.c.run_seconds).where(row.c.id == target)).scalar() or {}
        told = dict(told)
        told[stage] = [*told.get(stage, []), round(seconds, 3)][-KEPT_RUNS:]
        connection.execute(update(row).where(row.c.id == target).values(run_seconds=told))

    # --- reading ------------------------------------------------------------------------------------------------------

    def targets(self, *, retired: bool = False) -> list[Target]:
        with self.database.read() as connection:
            query = select(tables.target).order_by(tables.target.c.registered_at, tables.target.c.id)
            if not retired:
                query = query.where(tables.target.c.retired_at.is_(None))
            return [_target(row._mapping) for row in connection.execute(query)]

    def get(self, target_id: str) -> Target:
        """
        Raises:
            NotFound.
        """
        with self.database.read() as connection:
            row = connection.execute(select(tables.target).where(tables.target.c.id == target_id)).first()
        if row is None:
            raise NotFound("model or store")
        return _target(row._mapping)

    def reach(self, tokens: Sequence[str], only: Sequence[str] = ()) -> tuple[list[Reached], list[str]]:
        """What holds rows of a subject, and what descends from it and can be neither searched nor served.

        Args:
            tokens: of the subject. only: ids of targets to look at; empty: all.
        """
        held = tables.holding
        with self.database.read() as connection:
            rows = dict(
                connection.execute(
                    select(held.c.target, held.c.rows).where(held.c.subject_token.in_(list(tokens)))
                ).all()
            )
        every = self.targets()
        reached, outside = [], []
        boxes = [t for t in every if t.kind == "box"]
        for target in every:
            if only and target.id not in only:
                continue
            if target.id in rows:
                can, why = self._stages(target)
                reached.append(
                    Reached(
                        target=target.id, name=target.name, kind=target.kind, rows=rows[target.id], can=can, why=why
                    )
                )
            elif target.kind not in self.kinds and self._descends(target, set(rows), every):
                outside.append(
                    f"{target.id}: made from what holds the subject's rows, and nobody can search a {target.kind}"
                )
        names = {r.target for r in reached}
        for box in boxes:  # a box holds no rows; it stands before a model that does
            fronts = {box.parent, *box.options.get("fronts", ())} - {None}
            if fronts & names and (not only or box.id in only):
                can, why = self._stages(box)
                reached.append(Reached(target=box.id, name=box.name, kind="box", rows=0, can=can, why=why))
        return reached, outside

    @staticmethod
    def _descends(target: Target, reached: set[str], every: Sequence[Target]) -> bool:
        """Whether something that was reached is among what the target was made from, at any distance."""
        by_id = {t.id: t for t in every}
        waiting, seen = [target.id], set()
        while waiting:
            one = by_id.get(waiting.pop())
            if one is None or one.id in seen:
                continue
            seen.add(one.id)
            parents = {*one.made_from, *([one.parent] if one.parent else [])}
            if parents & reached:
                return True
            waiting += parents
        return False

    def lineage(self) -> list[dict[str, Any]]:
        """Every target and what it was made from, for a picture."""
        return [
            {
                "id": t.id,
                "name": t.name,
                "version": t.version,
                "kind": t.kind,
                "from": [*t.made_from, *([t.parent] if t.parent else [])],
            }
            for t in self.targets()
        ]

    def _stages(self, target: Target) -> tuple[tuple[Stage, ...], dict[str, str]]:
        handler = self.kinds.get(target.kind)
        if handler is None:
            return (), {"exact": f"nobody can serve a {target.kind}"}
        return handler.stages(target)


def _target(row: Mapping[Any, Any]) -> Target:
    return Target(
        id=row["id"],
        name=row["name"],
        version=row["version"],
        kind=row["kind"],
        location=row["location"],
        digest=row["digest"],
        parent=row["parent"],
        made_from=tuple(row["made_from"]),
        options=row["options"],
        run_seconds=row["run_seconds"],
        registered_at=unstamp(row["registered_at"]),
        retired_at=unstamp(row["retired_at"]) if row["retired_at"] else None,
    )
