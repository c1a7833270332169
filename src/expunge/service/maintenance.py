"""What a service forgets of its own accord, and what it does again: retention, and the search for who came back.

A request's own record is personal data, if little of it. After the policy's times the keys are destroyed, the record is
reduced to what statistics need, and old lines of the audit trail go; a single request can be erased altogether.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select, update

from expunge.errors import UnknownIds, WrongState
from expunge.service import tables
from expunge.service.clock import stamp
from expunge.service.deadlines import due_at, extended_due, soon_at
from expunge.service.desk import new_id
from expunge.service.entities import SYSTEM, Actor
from expunge.service.permissions import check
from expunge.service.words import FINAL
from expunge.training.files import read_json

if TYPE_CHECKING:
    from expunge.service.service import Service

r = tables.request.c
AT_ONCE = 500


class Maintenance:
    """Of one service; every part may be repeated."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def run(self) -> dict[str, int]:
        """Everything that is due: what was done, and how often."""
        told = {
            "keys destroyed": self.destroy_keys(),
            "requests minimised": self.minimise(),
            "lines dropped": self.drop_lines(),
            "came back": self.look_again(),
        }
        self.service.database.purge()
        return told

    def destroy_keys(self) -> int:
        """Owners' keys and seals of requests that were closed long enough ago: what was logged of them is unlinked."""
        service, count = self.service, 0
        before = stamp(service.clock() - timedelta(days=service.policy.retention.identity_days))
        with service.database.read() as connection:
            closed = set(
                connection.execute(
                    select(r.id).where(r.closed_at.is_not(None), r.closed_at <= before)
                ).scalars()
            )  # fmt: skip
        for request_id in closed:
            count += service.identities.destroy(request_id)
            path = owner_tags_path(service, request_id)
            if path.exists():
                for tag in read_json(path)["tags"]:
                    try:
                        service.keys.destroy_tag(tag)
                        count += 1
                    except UnknownIds:  # it was destroyed before a crash
                        continue
                path.unlink()
        return count

    def minimise(self) -> int:
        """Reduce what was closed long ago to what statistics need: dates, regime, reason, outcome."""
        service = self.service
        before = stamp(service.clock() - timedelta(days=service.policy.retention.request_days))
        with service.database.read() as connection:
            ids = list(
                connection.execute(
                    select(r.id).where(r.closed_at.is_not(None), r.closed_at <= before, r.minimised_at.is_(None))
                ).scalars()
            )
        for start in range(0, len(ids), AT_ONCE):
            part = ids[start : start + AT_ONCE]
            with service.database.write() as connection:
                for row in connection.execute(select(r.id, r.scope).where(r.id.in_(part))).all():
                    connection.execute(
                        update(tables.request)
                        .where(r.id == row.id)
                        .values(
                            scope={"kind": row.scope["kind"], "targets": []},
                            subject_token=None,
                            external_id=None,
                            scope_digest="",
                            filed_by="",
                            approved_by=None,
                            planned_by=None,
                            hold_reason=None,
                            extension_reason=None,
                            estimate=None,
                            sealed=None,
                            minimised_at=stamp(service.clock()),
                        )
                    )
                event = tables.event.c
                connection.execute(
                    update(tables.event).where(event.request_id.in_(part)).values(detail={}, actor="")
                )  # fmt: skip
        return len(ids)

    def drop_lines(self) -> int:
        """Old lines of the audit trail, answers kept for repeated calls, sessions that ended, old deliveries."""
        service = self.service
        now = service.clock()
        old = stamp(now - timedelta(days=service.policy.retention.log_days))
        yesterday, month = stamp(now - timedelta(days=1)), stamp(now - timedelta(days=30))
        trail, kept, session = tables.audit_trail, tables.idempotency, tables.session
        delivery, blocked = tables.delivery, tables.suppressed
        with service.database.write() as connection:
            return sum(
                connection.execute(statement).rowcount
                for statement in (
                    delete(trail).where(trail.c.at <= old),
                    delete(kept).where(kept.c.at <= yesterday),
                    delete(session).where(session.c.expires_at <= stamp(now)),
                    delete(delivery).where(delivery.c.status != "pending", delivery.c.due_at <= month),
                    delete(blocked).where(blocked.c.until.is_not(None), blocked.c.until <= stamp(now)),
                )
            )

    def look_again(self) -> int:
        """Subjects on the suppression list whose rows are in some target again: each is filed anew, as the law of some
        regimes asks, and so that re-ingestion elsewhere does not undo what was done."""
        service = self.service
        held, blocked = tables.holding.c, tables.suppressed.c
        with service.database.read() as connection:
            found = connection.execute(
                select(blocked.subject_token, blocked.request_id)
                .join(tables.holding, held.subject_token == blocked.subject_token)
                .distinct()
            ).all()
        count = 0
        for token, request_id in found:
            count += self._file_again(token, request_id)
        return count

    def _file_again(self, token: str, request_id: str) -> bool:
        service = self.service
        with service.database.write() as connection:
            row = connection.execute(select(tables.request).where(r.id == request_id)).mappings().first()
            is_open = connection.execute(
                select(r.id).where(r.subject_token == token, r.status.not_in(sorted(FINAL)))
            ).first()  # fmt: skip
            if row is None or is_open is not None:
                return False
            now = service.clock()
            regime = service.policy.regimes.get(row["regime"]) or service.policy.regime(service.policy.default_regime)
            due = due_at(now, regime)
            again = new_id("req")
            connection.execute(
                insert(tables.request).values(
                    id=again,
                    subject_token=token,
                    scope={"kind": "owner", "targets": [], "tokens": [token]},
                    scope_digest=row["scope_digest"],
                    reason=row["reason"],
                    least_guarantee=row["least_guarantee"],
                    regime=row["regime"],
                    status="received",
                    verified=1,
                    received_at=stamp(now),
                    acknowledged_at=stamp(now),
                    due_at=stamp(due),
                    soon_at=stamp(soon_at(now, due, service.policy.due_soon)),
                    limit_at=stamp(extended_due(now, regime) if regime.extends else due),
                    filed_by=SYSTEM.id,
                    version=1,
                )
            )
            service.desk.note(connection, again, "came_back", after=request_id)
            service.desk.move(connection, again, "verified", "verified")
        return True

    def erase(self, actor: Actor, request_id: str) -> None:
        """Remove every trace of a closed request but its certificates, its place on the suppression list and counts.

        Raises:
            NotFound, NotAllowed. WrongState: it is open.
        """
        check(actor, "erase")
        service = self.service
        request = service.desk.get(actor, request_id)
        if request.closed_at is None:
            raise WrongState(f"the request is {request.status}", "Only a closed request is erased")
        service.identities.destroy(request_id)
        owner_tags_path(service, request_id).unlink(missing_ok=True)
        event, layer, blocked, trail = tables.event, tables.layer, tables.suppressed, tables.audit_trail
        with service.database.write() as connection:
            connection.execute(delete(event).where(event.c.request_id == request_id))
            connection.execute(delete(layer).where(layer.c.request_id == request_id))
            connection.execute(update(blocked).where(blocked.c.request_id == request_id).values(request_id=None))
            connection.execute(update(trail).where(trail.c.object == request_id).values(object=None))
            connection.execute(delete(tables.request).where(r.id == request_id))
        service.database.purge()


def owner_tags_path(service: Service, request_id: str) -> Path:
    """Where it is noted, until they are destroyed, which owners' keys a request leaves behind: tags, no names."""
    return service.home / "batches" / f"{request_id}.owners.json"
