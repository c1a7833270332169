"""The desk: requests come in, are decided on and closed. Nothing else writes their rows.

Every action is one transaction: the row, the line of history and the line of the audit trail are written together or
not at all. `move` is the only place that changes a status.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, func, insert, select, update

from expunge.errors import Conflict, ExpungeError, NotFound, RequestError, TooMany, WrongState
from expunge.service import tables
from expunge.service.clock import Clock, stamp, unstamp
from expunge.service.database import Database
from expunge.service.deadlines import due_at, extended_due, soon_at
from expunge.service.entities import (
    SYSTEM,
    Actor,
    BulkOutcome,
    Event,
    Exposed,
    Filing,
    Filter,
    Layer,
    Listing,
    Page,
    Request,
    digest_of,
)
from expunge.service.exposure import exposure_of
from expunge.service.identity import Identities
from expunge.service.permissions import check
from expunge.service.planning import Planner
from expunge.service.policy import Policy
from expunge.service.registry import Registry
from expunge.service.rows import after_cursor, cursor_of, event_of, layer_of, request_of, sla_condition, where
from expunge.service.words import DENIAL_REASONS, FINAL, HOLDABLE, MOVES, SLAS, DenialReason, Sla, Status

r = tables.request.c
Names = list[str]
LONGEST_NOTE = 1000
BULK_MOST = 5000
_OF_SUBJECT = r.subject_token.in_(bindparam("tokens", expanding=True))
# one statement, made once: what a filing asks before it is taken
BEFORE_FILING = select(
    select(func.count()).where(r.received_at > bindparam("day")).scalar_subquery(),
    select(func.count()).where(_OF_SUBJECT, r.received_at > bindparam("year")).scalar_subquery(),
    select(r.id)
    .where(_OF_SUBJECT, r.scope_digest == bindparam("digest"), r.status.not_in(sorted(FINAL)))
    .limit(1)
    .scalar_subquery(),
)
OPEN_SLAS: tuple[Sla, ...] = ("breached", "overdue", "due_soon", "on_track")


def new_id(kind: str) -> str:
    """An id that nobody guesses: 128 random bits, 26 letters and digits."""
    return f"{kind}_{base64.b32encode(secrets.token_bytes(16)).decode().rstrip('=').lower()}"


class Desk:
    """
    Args:
        database, identities, clock: where and when. policy: what is decided by. registry: what there is.
    """

    def __init__(
        self, database: Database, identities: Identities, policy: Policy, clock: Clock, registry: Registry
    ) -> None:
        self.database, self.identities, self.clock, self.registry = database, identities, clock, registry
        self.policy = policy
        self.planner = Planner(registry, policy, clock)

    # --- coming in ----------------------------------------------------------------------------------------------------

    def file(self, actor: Actor, filing: Filing) -> Request:
        """Take a request in. The same subject and scope while one is open: the new one is closed as its duplicate.

        Raises:
            NotAllowed: a subject files for somebody else. RequestError: no such regime. TooMany: a cap is reached.
        """
        with self._acting(actor, "file") as (connection, said):
            now = self.clock()
            received = filing.received_at or now
            if received > now + timedelta(minutes=5):
                raise RequestError("the request was received in the future", "Correct received_at, or the clock")
            name = filing.regime or self.policy.default_regime
            regime = self.policy.regime(name)
            tokens = [] if filing.identity is None else self.identities.tokens(filing.identity)
            token = tokens[0] if tokens else None
            own = actor.role == "subject"
            if own and (actor.subject_token is None or actor.subject_token not in tokens):
                raise Conflict("a subject files for nobody else", "Give the identity that the key was made for")
            scope = self._scope(filing)
            scope_digest = digest_of(scope)
            open_one = self._before_filing(connection, tokens, scope_digest, now)
            due = due_at(received, regime)
            request_id = new_id("req")
            sealed = None
            if filing.tell_not and open_one is None:
                told = json.dumps([t.model_dump(mode="json") for t in filing.tell_not], ensure_ascii=False)
                sealed = self.identities.seal(request_id, told)
            row: dict[str, Any] = {
                **dict.fromkeys(r.keys()),
                "id": request_id,
                "external_id": filing.external_id,
                "subject_token": token,
                "scope": {**scope, "tokens": tokens},
                "scope_digest": scope_digest,
                "reason": filing.reason,
                "least_guarantee": filing.least_guarantee,
                "regime": name,
                "status": "received",
                "verified": int(own or filing.verified),
                "received_at": stamp(received),
                "acknowledged_at": stamp(now),
                "due_at": stamp(due),
                "soon_at": stamp(soon_at(received, due, self.policy.due_soon)),
                "limit_at": stamp(extended_due(received, regime) if regime.extends else due),
                "filed_by": actor.id,
                "duplicate_of": open_one,
                "sealed": sealed,
                "version": 1,
            }
            lines = [self._line(request_id, actor, "filed", None, "received", {"regime": name})]
            # a new row is put in as it will stand, instead of being moved at once: filing must be quick
            if open_one is not None:
                row |= {"status": "cancelled", "closed_at": stamp(now), "version": 2}
                lines.append(self._line(request_id, actor, "duplicate", "received", "cancelled", {"of": open_one}))
            elif own or filing.verified:
                row |= {"status": "verified", "version": 2}
                lines.append(self._line(request_id, actor, "verified", "received", "verified", {}))
            connection.execute(insert(tables.request), row)
            connection.execute(insert(tables.event), lines)
            said.append(request_id)
            return request_of(row, now)

    def _scope(self, filing: Filing) -> dict[str, Any]:
        """The scope as it is kept: record ids as keyed hashes, under the oldest key so that duplicates are seen."""
        scope = filing.scope
        told: dict[str, Any] = {"kind": scope.kind, "targets": sorted(scope.targets)}
        if scope.records:
            told["records"] = sorted(self.identities.record_tokens(i)[-1] for i in set(scope.records))
        if scope.about:
            told["about"] = scope.about
        return told

    def _before_filing(
        self, connection: Connection, tokens: Sequence[str], scope_digest: str, now: datetime
    ) -> str | None:
        """The open request of the same subject and scope, if there is one.

        Raises:
            TooMany: a cap is reached.
        """
        approval = self.policy.approval
        day, year, open_one = connection.execute(
            BEFORE_FILING,
            {
                "day": stamp(now - timedelta(days=1)),
                "year": stamp(now - timedelta(days=365)),
                "tokens": list(tokens),
                "digest": scope_digest,
            },
        ).one()
        if day >= approval.per_day:
            raise TooMany(f"{approval.per_day} requests a day are taken, and that many came", "Send it tomorrow")
        if year >= approval.per_subject_a_year:
            raise TooMany(
                f"one subject may file {approval.per_subject_a_year} requests a year", "Ask an operator to raise it"
            )
        return None if open_one is None else str(open_one)

    # --- decisions ----------------------------------------------------------------------------------------------------

    def verify(self, actor: Actor, request_id: str) -> Request:
        """The subject's identity has been verified."""
        return self._decide(actor, "verify", request_id, lambda c, row: self._verified(c, row, actor))

    def _verified(self, connection: Connection, row: RowMapping, actor: Actor) -> None:
        connection.execute(update(tables.request).where(r.id == row["id"]).values(verified=1))
        self._move(connection, row, "verified", actor, "verified")

    def approve(self, actor: Actor, request_id: str) -> Request:
        """Let the work begin. Where much of a model would go, a second approver must agree.

        Raises:
            Conflict: whoever filed it approves it, nothing holds the subject's rows, the guarantee is out of reach, or
                it costs more than the cap.
        """
        reaching = self.estimate(actor, request_id, action="approve")
        return self._decide(actor, "approve", request_id, lambda c, row: self._approved(c, row, actor, reaching))

    def _approved(self, connection: Connection, row: RowMapping, actor: Actor, estimate: dict[str, Any]) -> None:
        approval = self.policy.approval
        if row["status"] != "verified":  # a failed one is retried, which resets what failed
            raise WrongState(f"the request is {row['status']}", "Only a verified request is approved")
        if approval.four_eyes and actor.id == row["filed_by"]:
            raise Conflict("whoever filed a request does not approve it", "Ask another approver")
        if estimate["refused"]:
            raise Conflict("; ".join(estimate["refused"]), "Deny it with that reason, or ask for another guarantee")
        cost = estimate["options"][self.policy.serving.rule]["cost"]
        if approval.cost_cap is not None and cost > approval.cost_cap:
            raise Conflict(
                f"it would cost {cost:.2f} {self.policy.serving.currency}, and the cap is {approval.cost_cap:g}",
                "Raise the cap in the policy, or let it wait for the periodic retraining",
            )
        share = max((t["share"] for t in estimate["targets"]), default=0.0)
        if share > approval.largest_share:
            before = connection.execute(
                select(tables.event.c.actor).where(
                    tables.event.c.request_id == row["id"], tables.event.c.kind == "approved_by_one"
                )
            ).scalars()
            if set(before) <= {actor.id}:
                self._event(connection, row["id"], actor, "approved_by_one", row["status"], row["status"],
                            {"share": round(share, 4)})  # fmt: skip
                return
        connection.execute(
            update(tables.request).where(r.id == row["id"]).values(approved_by=actor.id, estimate=estimate)
        )
        self._move(connection, row, "approved", actor, "approved")

    def estimate(self, actor: Actor, request_id: str, *, action: str = "estimate") -> dict[str, Any]:
        """What it would touch, take and cost: now, batched, and at the next periodic retraining. A dry run."""
        check(actor, action)
        row = self._seen(actor, request_id)
        return self.planner.estimate(row)

    def deny(self, actor: Actor, request_id: str, reason: DenialReason, note: str = "") -> Request:
        """
        Raises:
            RequestError: no reason of the list. WrongState.
        """
        if reason not in DENIAL_REASONS:
            raise RequestError("that is no reason to deny", f"One of: {', '.join(DENIAL_REASONS)}")
        told = _note(note)

        def denied(connection: Connection, row: RowMapping) -> None:
            connection.execute(update(tables.request).where(r.id == row["id"]).values(denial_reason=reason))
            self._move(connection, row, "denied", actor, "denied", reason=reason, note=told)

        return self._decide(actor, "deny", request_id, denied)

    def cancel(self, actor: Actor, request_id: str) -> Request:
        """The subject takes it back, or it was filed by mistake; what is under way is not stopped half-done."""
        return self._decide(
            actor, "cancel", request_id, lambda c, row: self._move(c, row, "cancelled", actor, "cancelled")
        )

    def extend(self, actor: Actor, request_id: str, reason: str) -> Request:
        """The one extension, told before the first due date.

        Raises:
            Conflict: the regime has none, it was used, or the due date has passed. RequestError: no reason.
        """
        told = _note(reason)
        if not told:
            raise RequestError("an extension needs a reason: the subject is told it", "Give one")

        def extended(connection: Connection, row: RowMapping) -> None:
            regime, now = self.policy.regime(row["regime"]), self.clock()
            request = request_of(row, now)
            if request.status in FINAL:
                raise WrongState(f"the request is {request.status}", "Only open requests are extended")
            if not regime.extends:
                raise Conflict(f"the regime {request.regime} knows no extension", "Carry it out in time")
            if request.extended_at is not None:
                raise Conflict("it was extended before, and once is all there is", "Carry it out in time")
            if now >= request.due_at:
                raise Conflict(
                    "the due date has passed: an extension is told before", "Carry it out as soon as possible"
                )
            due = extended_due(request.received_at, regime)
            connection.execute(
                update(tables.request)
                .where(r.id == row["id"])
                .values(
                    due_at=stamp(due),
                    soon_at=stamp(soon_at(request.received_at, due, self.policy.due_soon)),
                    extended_at=stamp(now),
                    extension_reason=told,
                    version=r.version + 1,
                )
            )
            self._event(connection, row["id"], actor, "extended", row["status"], row["status"], {"reason": told})

        return self._decide(actor, "extend", request_id, extended)

    def hold(self, actor: Actor, request_id: str, reason: str) -> Request:
        """A legal hold: nothing is erased until it is released. The deadline goes on; the reason stands beside it."""
        told = _note(reason)
        if not told:
            raise RequestError("a hold needs a reason", "Give one")

        def held(connection: Connection, row: RowMapping) -> None:
            if row["status"] not in HOLDABLE:
                raise WrongState(f"the request is {row['status']}", "Only what has not begun can be held")
            connection.execute(
                update(tables.request).where(r.id == row["id"]).values(hold_reason=told, paused_from=row["status"])
            )
            self._move(connection, row, "paused", actor, "held", reason=told)

        return self._decide(actor, "hold", request_id, held)

    def release(self, actor: Actor, request_id: str) -> Request:
        """Back to where the hold found it."""

        def released(connection: Connection, row: RowMapping) -> None:
            if row["status"] != "paused":
                raise WrongState(f"the request is {row['status']}", "Only a held request is released")
            connection.execute(
                update(tables.request).where(r.id == row["id"]).values(hold_reason=None, paused_from=None)
            )
            self._move(connection, row, row["paused_from"], actor, "released")

        return self._decide(actor, "release", request_id, released)

    def retry(self, actor: Actor, request_id: str) -> Request:
        """Begin again with what failed; what is done stays done."""

        def again(connection: Connection, row: RowMapping) -> None:
            if row["status"] != "failed":
                raise WrongState(f"the request is {row['status']}", "Only a failed request is tried again")
            connection.execute(
                update(tables.layer)
                .where(tables.layer.c.request_id == row["id"], tables.layer.c.status == "failed")
                .values(status="pending", batch_id=None, outcome=None)
            )
            self._move(connection, row, "approved", actor, "retried")

        return self._decide(actor, "retry", request_id, again)

    def finalise(self, actor: Actor, request_id: str, note: str) -> Request:
        """Close by hand what the service cannot do: an approver answers for it, and the history says so.

        Raises:
            Conflict: whoever filed it finalises it. WrongState: work is under way, or a layer failed.
        """
        told = _note(note)
        if not told:
            raise RequestError("who closes a request by hand says what was done", "Give a note without personal data")

        def finalised(connection: Connection, row: RowMapping) -> None:
            if self.policy.approval.four_eyes and actor.id == row["filed_by"]:
                raise Conflict("whoever filed a request does not finalise it", "Ask another approver")
            if row["status"] not in ("approved", "planned"):
                raise WrongState(f"the request is {row['status']}", "Approve it first; what runs is not closed by hand")
            request = row
            for to in ("planned", "running", "evaluated", "fulfilled"):
                if request["status"] == "planned" and to == "planned":
                    continue
                self._move(connection, request, to, actor, "finalised_by_hand", note=told)
                request = self._row(connection, request_id)

        return self._decide(actor, "finalise", request_id, finalised)

    def bulk(self, actor: Actor, wanted: Filter, action: str, *, dry: bool = False, **arguments: Any) -> BulkOutcome:
        """One action on everything that a filter lets through, each on its own: some may be refused.

        Raises:
            RequestError: no such action, or more than 5000 at once.
        """
        known: dict[str, Callable[..., Request]] = {
            "verify": self.verify,
            "approve": self.approve,
            "deny": self.deny,
            "cancel": self.cancel,
            "extend": self.extend,
            "hold": self.hold,
            "release": self.release,
            "retry": self.retry,
        }
        if action not in known:
            raise RequestError("there is no such action on many", f"One of: {', '.join(known)}")
        check(actor, action)
        with self.database.read() as connection:
            ids = list(
                connection.execute(
                    select(r.id).where(where(wanted, actor, self.clock())).limit(BULK_MOST + 1)
                ).scalars()
            )
        if len(ids) > BULK_MOST:
            raise RequestError(f"the filter lets more than {BULK_MOST} requests through", "Narrow it")
        if dry:
            return BulkOutcome(action=action, done=tuple(ids), refused=(), dry=True)
        done, refused = [], []
        for request_id in ids:
            try:
                known[action](actor, request_id, **arguments)
                done.append(request_id)
            except ExpungeError as error:
                refused.append((request_id, error.cause))
        return BulkOutcome(action=action, done=tuple(done), refused=tuple(refused))

    # --- reading ------------------------------------------------------------------------------------------------------

    def get(self, actor: Actor, request_id: str) -> Request:
        """
        Raises:
            NotFound: it is not there, or another subject's: the two look alike.
        """
        check(actor, "see")
        return request_of(self._seen(actor, request_id), self.clock())

    def list(self, actor: Actor, wanted: Filter | None = None, page: Page | None = None) -> Listing:
        """A page of requests by due date.

        Raises:
            RequestError: `after` is not of a page before.
        """
        check(actor, "list")
        wanted, page, now = wanted or Filter(), page or Page(), self.clock()
        condition = where(wanted, actor, now)
        order = (r.due_at.desc(), r.id.desc()) if page.newest_first else (r.due_at, r.id)
        query = select(tables.request).where(condition).order_by(*order).limit(page.limit + 1)
        if page.after is not None:
            query = query.where(after_cursor(page.after, page.newest_first))
        with self.database.read() as connection:
            rows = connection.execute(query).mappings().all()
            total = connection.execute(select(func.count()).select_from(tables.request).where(condition)).scalar_one()
        more = len(rows) > page.limit
        rows = rows[: page.limit]
        items = tuple(request_of(row, now) for row in rows)
        return Listing(items=items, next=cursor_of(rows[-1]) if more else None, total=total)

    def history(self, actor: Actor, request_id: str) -> Sequence[Event]:
        """Every event of a request, the first one first."""
        check(actor, "see")
        self._seen(actor, request_id)
        e = tables.event.c
        with self.database.read() as connection:
            rows = connection.execute(select(tables.event).where(e.request_id == request_id).order_by(e.id)).mappings()
            return [event_of(row) for row in rows]

    def layers(self, actor: Actor, request_id: str) -> Sequence[Layer]:
        """What is done to which target, weak stages first."""
        check(actor, "see")
        self._seen(actor, request_id)
        c = tables.layer.c
        with self.database.read() as connection:
            rows = connection.execute(
                select(tables.layer).where(c.request_id == request_id).order_by(c.target, c.not_before, c.stage.desc())
            ).mappings()
            return [layer_of(row) for row in rows]

    def exposure(self, actor: Actor, request_id: str) -> Sequence[Exposed]:
        """How long each target still told of the subject, and how strongly it was kept from it."""
        return exposure_of(self.get(actor, request_id), self.layers(actor, request_id))

    def export(self, actor: Actor, wanted: Filter, form: str) -> Iterator[str]:
        """Requests as CSV or a JSON list, in pieces; nothing in it leads to a person.

        Raises:
            RequestError: no such form.
        """
        from expunge.service.export import FORMS

        check(actor, "export")
        if form not in FORMS:
            raise RequestError("there is no such form of export", f"One of: {', '.join(FORMS)}")
        self._trail(actor, "export", None, "done")
        return FORMS[form](self._all(actor, wanted))

    def _all(self, actor: Actor, wanted: Filter) -> Iterator[Request]:
        page: Page | None = Page(limit=500)
        while page is not None:
            listing = self.list(actor, wanted, page)
            yield from listing.items
            page = None if listing.next is None else Page(limit=500, after=listing.next)

    def counts(self, actor: Actor) -> dict[str, dict[str, int]]:
        """How many in each state, and by how they stand; what nobody verified is counted by itself."""
        check(actor, "list")
        now = self.clock()
        with self.database.read() as connection:
            by_status = connection.execute(
                select(r.status, func.count()).where(where(Filter(), actor, now)).group_by(r.status)
            ).all()
            slas = self._standing(connection, actor, now, SLAS)
            hidden = where(Filter(verified=False, open=True), actor, now)
            unverified = connection.execute(
                select(func.count()).select_from(tables.request).where(hidden, r.verified == 0)
            ).scalar_one()
        return {"status": {str(k): int(v) for k, v in by_status}, "sla": slas, "unverified": {"open": unverified}}

    def standing(self, actor: Actor) -> dict[str, int]:
        """How many open requests stand how: a part of `counts` that takes little time."""
        check(actor, "list")
        with self.database.read() as connection:
            return self._standing(connection, actor, self.clock(), OPEN_SLAS)

    def _standing(
        self, connection: Connection, actor: Actor, now: datetime, slas: Sequence[Sla]
    ) -> dict[str, int]:  # fmt: skip
        shown = where(Filter(), actor, now)
        return {  # an index leads to each; to group all by a computed word would sort them
            sla: connection.execute(
                select(func.count()).select_from(tables.request).where(shown, sla_condition(sla, stamp(now)))
            ).scalar_one()
            for sla in slas
        }

    def calendar(self, actor: Actor, first: datetime, last: datetime) -> dict[str, int]:
        """Due dates of open requests between two times: date (UTC) -> how many."""
        check(actor, "list")
        day = func.substr(r.due_at, 1, 10)
        condition = where(Filter(open=True, due_from=first, due_before=last), actor, self.clock())
        with self.database.read() as connection:
            rows = connection.execute(select(day, func.count()).where(condition).group_by(day).order_by(day)).all()
        return {str(date): int(count) for date, count in rows}

    def due_moments(self, actor: Actor, first: datetime, last: datetime) -> Sequence[tuple[datetime, int]]:
        """The same by the moment itself, which tells the last day in time in the regime's own zone."""
        check(actor, "list")
        condition = where(Filter(open=True, due_from=first, due_before=last), actor, self.clock())
        with self.database.read() as connection:
            rows = connection.execute(
                select(r.due_at, func.count()).where(condition).group_by(r.due_at).order_by(r.due_at)
            ).all()
        return [(unstamp(due), int(count)) for due, count in rows]

    # --- inside -------------------------------------------------------------------------------------------------------

    def move(self, connection: Connection, request_id: str, to: Status, kind: str, **detail: Any) -> None:
        """For the workers: change a request's state within their own transaction."""
        self._move(connection, self._row(connection, request_id), to, SYSTEM, kind, **detail)

    def note(self, connection: Connection, request_id: str, kind: str, **detail: Any) -> None:
        """For the workers: a line of history that changes no state."""
        status = self._row(connection, request_id)["status"]
        self._event(connection, request_id, SYSTEM, kind, status, status, detail)

    def _move(
        self, connection: Connection, row: RowMapping, to: Status, actor: Actor, kind: str, **detail: Any
    ) -> None:
        """
        Raises:
            WrongState: no such move. Conflict: somebody else moved it in between.
        """
        at: Status = row["status"]
        if at == "paused" and kind != "released":  # verifying or approving it would lift the hold unnoticed
            raise WrongState("the request is held", "Release it first")
        if to not in MOVES[at]:
            raise WrongState(f"a request that is {at} cannot become {to}", "Look at its history")
        values: dict[str, Any] = {"status": to, "version": r.version + 1}
        if to in FINAL:
            values["closed_at"] = stamp(self.clock())
        done = connection.execute(
            update(tables.request).where(r.id == row["id"], r.status == at).values(**values)
        ).rowcount  # fmt: skip
        if done != 1:
            raise Conflict("somebody else changed the request just now", "Look at it again")
        self._event(connection, row["id"], actor, kind, at, to, detail)

    def _event(
        self,
        connection: Connection,
        request_id: str,
        actor: Actor,
        kind: str,
        before: str | None,
        to: str | None,
        detail: dict[str, Any],
    ) -> None:
        connection.execute(insert(tables.event), self._line(request_id, actor, kind, before, to, detail))

    def _line(
        self, request_id: str, actor: Actor, kind: str, before: str | None, to: str | None, detail: dict[str, Any]
    ) -> dict[str, Any]:
        """A row of the history."""
        return {
            "request_id": request_id,
            "at": stamp(self.clock()),
            "actor": actor.id,
            "kind": kind,
            "from_status": before,
            "to_status": to,
            "detail": {k: v for k, v in detail.items() if v not in (None, "")},
        }

    def _decide(
        self, actor: Actor, action: str, request_id: str, decide: Callable[[Connection, RowMapping], None]
    ) -> Request:
        with self._acting(actor, action, request_id) as (connection, _):
            row = self._row(connection, request_id)
            if not _visible(actor, row):
                raise NotFound("request")
            decide(connection, row)
            return self._request(connection, request_id)

    @contextmanager
    def _acting(self, actor: Actor, action: str, about: str | None = None) -> Iterator[tuple[Connection, Names]]:
        """A transaction with its line in the audit trail; a refusal leaves its line too."""
        said: Names = [about] if about else []
        try:
            check(actor, action)
            with self.database.write() as connection:
                yield connection, said
                self._trail_in(connection, actor, action, said[0] if said else None, "done")
        except ExpungeError as error:
            self._trail(actor, action, about, f"refused: {type(error).__name__}")
            raise

    def _trail(self, actor: Actor, action: str, about: str | None, outcome: str) -> None:
        with self.database.write() as connection:
            self._trail_in(connection, actor, action, about, outcome)

    def _trail_in(self, connection: Connection, actor: Actor, action: str, about: str | None, outcome: str) -> None:
        known = about if about is None or len(about) <= 80 else "too long to be an id"
        line = {"at": stamp(self.clock()), "actor": actor.id, "role": actor.role, "action": action}
        connection.execute(insert(tables.audit_trail), {**line, "object": known, "outcome": outcome})

    def _row(self, connection: Connection, request_id: str) -> RowMapping:
        row = connection.execute(select(tables.request).where(r.id == request_id)).mappings().first()
        if row is None:
            raise NotFound("request")
        return row

    def _seen(self, actor: Actor, request_id: str) -> RowMapping:
        with self.database.read() as connection:
            row = self._row(connection, request_id)
        if not _visible(actor, row):
            raise NotFound("request")
        return row

    def _request(self, connection: Connection, request_id: str) -> Request:
        return request_of(self._row(connection, request_id), self.clock())


def _visible(actor: Actor, row: RowMapping) -> bool:
    return actor.role != "subject" or (
        actor.subject_token is not None and actor.subject_token in row["scope"].get("tokens", ())
    )


def _note(text: str) -> str:
    told = " ".join(text.split())
    if len(told) > LONGEST_NOTE:
        raise RequestError(f"a note has at most {LONGEST_NOTE} characters", "Shorten it; put no personal data there")
    return told
