"""The work of requests: planned into layers, layers put into batches, and each batch's steps.

A batch is one run: one stage at one target, for all the requests that wait for it. Every step may run twice and then
finds what the first time did; what a step changes in the tables, it changes in one transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, RowMapping, func, insert, select, update

from expunge.audit.layers import certify
from expunge.audit.statement import OUT_OF_SCOPE
from expunge.errors import Conflict, NotFound
from expunge.service import tables
from expunge.service.carry.contract import Hands, Outcome, Work
from expunge.service.clock import stamp, unstamp
from expunge.service.desk import new_id
from expunge.service.entities import SYSTEM
from expunge.service.planning import run_time, start_by
from expunge.service.words import LAYER_DONE

if TYPE_CHECKING:
    from expunge.service.service import Service

r, y, b = tables.request.c, tables.layer.c, tables.batch.c
STEPS = ("begin", "carry_out", "check", "certify", "close")
AT_ONCE = 500


class WorkRoom:
    """What workers do, given the service's parts."""

    def __init__(self, service: Service) -> None:
        self.service = service

    # --- planning -----------------------------------------------------------------------------------------------------

    def plan_approved(self) -> int:
        """Layers for every approved request; how many requests were planned."""
        with self.service.database.read() as connection:
            ids = list(
                connection.execute(
                    select(r.id).where(r.status == "approved").order_by(r.due_at).limit(AT_ONCE)
                ).scalars()
            )  # fmt: skip
        for request_id in ids:
            self._plan_one(request_id)
        return len(ids)

    def _plan_one(self, request_id: str) -> None:
        desk = self.service.desk
        with self.service.database.read() as connection:
            row = connection.execute(select(tables.request).where(r.id == request_id)).mappings().first()
        if row is None or row["status"] != "approved":
            return
        steps, outside, refused = desk.planner.steps(row)
        with self.service.database.write() as connection:
            now = connection.execute(select(r.status).where(r.id == request_id)).scalar()
            if now != "approved":
                return
            if refused or not steps:
                why = "; ".join(refused) or "nothing holds anything of the subject any more"
                done = self._earlier(connection, request_id)
                if not done:
                    desk.move(connection, request_id, "failed", "not_planned", reason=why)
                    return
            known = {(one["target"], one["stage"]) for one in self._earlier(connection, request_id)}
            for step in steps:
                if (step.target, step.stage) in known:
                    continue
                connection.execute(
                    insert(tables.layer).values(
                        request_id=request_id,
                        target=step.target,
                        stage=step.stage,
                        kind=step.kind,
                        status="pending",
                        not_before=None if step.not_before is None else stamp(step.not_before),
                        rows=step.rows,
                    )
                )
            connection.execute(update(tables.request).where(r.id == request_id).values(planned_by=SYSTEM.id))
            desk.move(connection, request_id, "planned", "planned", layers=len(steps), out_of_scope=outside)

    def _earlier(self, connection: Connection, request_id: str) -> Sequence[RowMapping]:
        return connection.execute(select(tables.layer).where(y.request_id == request_id)).mappings().all()

    # --- batching -----------------------------------------------------------------------------------------------------

    def batches_due(self) -> list[str]:
        """Put the layers that should begin now into batches; the ids of all batches that wait, old ones included.

        A target has one open batch at a time: two runs on the same model would only wait for each other.
        """
        service, now = self.service, self.service.clock()
        with service.database.write() as connection:
            if not service.database.is_sqlite:  # several dispatchers, one at a time
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7240164)")
            busy = set(connection.execute(select(b.target).where(b.status.in_(("pending", "running")))).scalars())
            rows = connection.execute(
                select(y.request_id, y.target, y.stage, y.not_before, r.due_at)
                .join(tables.request, r.id == y.request_id)
                .where(y.status == "pending", y.batch_id.is_(None), r.status.in_(("planned", "running")))
                .order_by(r.due_at, y.request_id)
            ).all()
            groups: dict[tuple[str, str], list[Any]] = {}
            for row in rows:
                if row.target not in busy:
                    groups.setdefault((row.target, row.stage), []).append(row)
            targets = {t.id: t for t in service.registry.targets(retired=True)}
            for (target, stage), waiting in groups.items():
                seconds, _ = run_time(targets[target], stage)  # type: ignore[arg-type]
                chosen = self._chosen(waiting, seconds, now)[: service.policy.serving.largest_batch]
                if chosen and target not in busy:
                    self._open(connection, target, stage, chosen)
                    busy.add(target)
            return list(
                connection.execute(
                    select(b.id).where(b.status.in_(("pending", "running"))).order_by(b.created_at)
                ).scalars()
            )  # fmt: skip

    def _chosen(self, waiting: Sequence[Any], seconds: float, now: datetime) -> list[str]:
        """Ids of those that begin now: all of a group as soon as one must, since the run costs the same."""
        policy, at = self.service.policy, stamp(now)
        must = any(
            (one.not_before is not None and one.not_before <= at)
            or start_by(unstamp(one.due_at), seconds, policy) <= now
            for one in waiting
        )
        return [one.request_id for one in waiting] if must or len(waiting) >= policy.serving.largest_batch else []

    def _open(self, connection: Connection, target: str, stage: str, ids: Sequence[str]) -> None:
        batch_id = new_id("batch")
        connection.execute(
            insert(tables.batch).values(
                id=batch_id,
                target=target,
                stage=stage,
                status="pending",
                size=len(ids),
                created_at=stamp(self.service.clock()),
            )
        )
        for start in range(0, len(ids), AT_ONCE):
            connection.execute(
                update(tables.layer)
                .where(y.target == target, y.stage == stage, y.request_id.in_(ids[start : start + AT_ONCE]))
                .where(y.status == "pending", y.batch_id.is_(None))
                .values(batch_id=batch_id)
            )

    def next_moment(self) -> datetime | None:
        """When something will have to begin that need not begin now; None: nothing waits."""
        service = self.service
        with service.database.read() as connection:
            rows = connection.execute(
                select(y.target, y.stage, func.min(y.not_before), func.min(r.due_at))
                .join(tables.request, r.id == y.request_id)
                .where(y.status == "pending", y.batch_id.is_(None))
                .group_by(y.target, y.stage)
            ).all()
        targets = {t.id: t for t in service.registry.targets(retired=True)}
        moments = []
        for target, stage, not_before, due in rows:
            seconds, _ = run_time(targets[target], stage)
            latest = start_by(unstamp(due), seconds, service.policy)
            moments.append(latest if not_before is None else min(latest, unstamp(not_before)))
        return min(moments, default=None)

    # --- the steps of a batch -----------------------------------------------------------------------------------------

    def begin(self, batch_id: str) -> dict[str, Any]:
        """The batch runs, and so do its requests; whoever was held or cancelled in between is left out."""
        service = self.service
        with service.database.write() as connection:
            batch = self._batch(connection, batch_id)
            rows = self._layers(connection, batch_id)
            at = stamp(service.clock())
            out = 0
            for row in rows:
                status = connection.execute(select(r.status).where(r.id == row["request_id"])).scalar()
                if status == "planned":
                    service.desk.move(connection, row["request_id"], "running", "begun", batch=batch_id)
                elif status != "running":
                    connection.execute(
                        update(tables.layer)
                        .where(y.request_id == row["request_id"], y.batch_id == batch_id)
                        .values(batch_id=None)
                    )
                    out += 1
            connection.execute(
                update(tables.layer)
                .where(y.batch_id == batch_id, y.status == "pending")
                .values(status="running", started_at=at)
            )
            connection.execute(update(tables.batch).where(b.id == batch_id).values(status="running"))
            return {"target": batch["target"], "stage": batch["stage"], "requests": len(rows) - out, "left_out": out}

    def carry_out(self, batch_id: str) -> dict[str, Any]:
        """What the kind of target does; its outcome is written down before anything rests on it."""
        service = self.service
        with service.database.read() as connection:
            batch = self._batch(connection, batch_id)
            rows = self._layers(connection, batch_id)
            works = self._works(connection, rows, batch["stage"])
        path = self._outcome_path(batch_id)
        if not works or path.exists():
            return {"requests": len(works)}
        target = service.registry.get(batch["target"])
        handler = service.registry.kinds[target.kind]
        start = perf_counter()
        outcome = handler.carry_out(self._hands(batch), target, batch["stage"], batch_id, works)
        seconds = perf_counter() - start
        from expunge.training.files import write_json

        write_json(path, {"outcome": outcome.as_dict(), "seconds": seconds})
        return {"requests": len(works)}

    def check(self, batch_id: str) -> dict[str, Any]:
        """Look at the target as it is now, whatever the run said of itself."""
        batch, works, told = self._told(batch_id)
        if told is None:
            return {"requests": 0}
        target = self.service.registry.get(batch["target"])
        handler = self.service.registry.kinds[target.kind]
        findings = handler.check(self._hands(batch), target, batch["stage"], works, Outcome.from_dict(told["outcome"]))
        from expunge.training.files import write_json

        write_json(self._outcome_path(batch_id), {**told, "checked": findings})
        return {"requests": len(works)}

    def certify(self, batch_id: str) -> dict[str, Any]:
        """Sign what was done and found, and append it to the log."""
        batch, works, told = self._told(batch_id)
        if told is None:
            return {"certificate": None}
        service = self.service
        outcome = Outcome.from_dict(told["outcome"])
        path = service.home / "certificates" / f"{batch_id}.json"
        digest = certify(
            path,
            {
                "request_ids": tuple(sorted(w.request_id for w in works)),
                "policy": tuple(sorted({w.regime for w in works})),
                "due_at": min(w.due_at for w in works),
                "issued_at": _seconds(batch["created_at"]),
                "target": batch["target"],
                "kind": service.registry.get(batch["target"]).kind,
                "stage": batch["stage"],
                "guarantee_class": dict(outcome.guarantee),
                "already": all(n == 0 for n in outcome.rows.values()) and batch["stage"] != "suppress",
                "evidence": tuple({"name": n, "sha256": s, "path": self._relative(p)} for n, p, s in outcome.evidence),
                "findings": {**outcome.findings, **told["checked"]},
                "out_of_scope": (*OUT_OF_SCOPE, *outcome.outside),
            },
            service.home / "log",
            service.keys,
            service.log_origin,
        )
        return {"certificate": digest}

    def close(self, batch_id: str) -> dict[str, Any]:
        """The layers are done; requests whose every layer is done are fulfilled, and their subjects stay out."""
        batch, works, told = self._told(batch_id)
        service, at = self.service, stamp(self.service.clock())
        if told is None:
            with service.database.write() as connection:
                connection.execute(update(tables.batch).where(b.id == batch_id).values(status="done", ended_at=at))
            return {"fulfilled": 0}
        rows = told["outcome"]["rows"]
        target = service.registry.get(batch["target"])
        service.registry.reindex(target.id)  # before the layers are done: a kill in between reads again
        fulfilled = []
        with service.database.write() as connection:
            again = self._batch(connection, batch_id)
            for work in works:
                erased = rows.get(work.request_id, 0) != 0 or batch["stage"] == "suppress"
                outcome = {
                    "rows": rows.get(work.request_id, 0),
                    "guarantee": told["outcome"]["guarantee"],
                    **({"fronts": told["outcome"]["findings"]["fronts"]} if target.kind == "box" else {}),
                }
                connection.execute(
                    update(tables.layer)
                    .where(y.request_id == work.request_id, y.batch_id == batch_id)
                    .where(y.status.not_in(sorted(LAYER_DONE)))
                    .values(
                        status="done" if erased else "already",
                        outcome=outcome,
                        certificate=f"certificates/{batch_id}.json",
                        ended_at=at,
                    )
                )
                if self._finish(connection, work):
                    fulfilled.append(work.request_id)
            if again["status"] != "done":
                service.registry.measured(connection, target.id, batch["stage"], told["seconds"])
                connection.execute(
                    update(tables.batch)
                    .where(b.id == batch_id)
                    .values(status="done", ended_at=at, seconds=told["seconds"], reason=None)
                )
        for request_id in fulfilled:
            self._clean(request_id)
        return {"fulfilled": len(fulfilled)}

    def settle(self, batch_id: str, kind: str, text: str) -> None:
        """A step failed for good: the layers and their requests say so, and what was done before stays done."""
        service = self.service
        with service.database.write() as connection:
            batch = self._batch(connection, batch_id)
            if batch["status"] == "failed":
                return
            rows = self._layers(connection, batch_id)
            at = stamp(service.clock())
            reason = f"{kind}: {text}"[:1000]
            connection.execute(
                update(tables.layer)
                .where(y.batch_id == batch_id, y.status.not_in(sorted(LAYER_DONE)))
                .values(status="failed", outcome={"reason": reason}, ended_at=at)
            )
            for row in rows:
                status = connection.execute(select(r.status).where(r.id == row["request_id"])).scalar()
                if status in ("planned", "running", "evaluated"):
                    service.desk.move(
                        connection, row["request_id"], "failed", "failed", target=batch["target"],
                        stage=batch["stage"], reason=reason,
                    )  # fmt: skip
            connection.execute(
                update(tables.batch).where(b.id == batch_id).values(status="failed", ended_at=at, reason=reason)
            )
        self._outcome_path(batch_id).unlink(missing_ok=True)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _finish(self, connection: Connection, work: Work) -> bool:
        """Fulfil a request if every one of its layers is done."""
        service = self.service
        states = list(connection.execute(select(y.status).where(y.request_id == work.request_id)).scalars())
        status = connection.execute(select(r.status).where(r.id == work.request_id)).scalar()
        if not LAYER_DONE.issuperset(states) or status != "running":
            return False
        service.desk.move(connection, work.request_id, "evaluated", "evaluated", layers=len(states))
        service.desk.move(connection, work.request_id, "fulfilled", "fulfilled")
        if not work.records:  # somebody of whom single records went may go on bringing others
            service.suppression.add(connection, work.request_id, sorted(work.tokens))
        return True

    def _clean(self, request_id: str) -> None:
        """What hid the subject's data may go where the data is gone: rules of boxes, and the key of what was sealed."""
        service = self.service
        with service.database.read() as connection:
            rows = connection.execute(select(tables.layer).where(y.request_id == request_id)).mappings().all()
        if any(row["stage"] != "suppress" for row in rows):
            for row in rows:
                if row["kind"] == "box":
                    from expunge.service.carry.box import Box

                    Box().lift(service.registry.get(row["target"]), request_id)
        service.identities.destroy(request_id)

    def _works(self, connection: Connection, rows: Sequence[RowMapping], stage: str) -> list[Work]:
        import json

        works = []
        for row in rows:
            request = connection.execute(select(tables.request).where(r.id == row["request_id"])).mappings().one()
            told = ()
            if stage == "suppress" and request["sealed"]:
                told = tuple(json.loads(self.service.identities.unseal(request["id"], request["sealed"])))
            works.append(
                Work(
                    request_id=request["id"],
                    regime=request["regime"],
                    due_at=request["due_at"],
                    tokens=frozenset(request["scope"].get("tokens", ())),
                    records=frozenset(request["scope"].get("records", ())),
                    tell_not=told,
                )
            )
        return works

    def _told(self, batch_id: str) -> tuple[RowMapping, list[Work], dict[str, Any] | None]:
        from expunge.training.files import read_json

        with self.service.database.read() as connection:
            batch = self._batch(connection, batch_id)
            works = self._works(connection, self._layers(connection, batch_id), "read")
        if not works:
            return batch, works, None
        path = self._outcome_path(batch_id)
        if not path.exists():
            raise Conflict("the outcome of the run is not there", "Retry the request: the run is taken up again")
        return batch, works, read_json(path)

    def _outcome_path(self, batch_id: str) -> Path:
        return self.service.home / "batches" / f"{batch_id}.json"

    def _hands(self, batch: Mapping[Any, Any]) -> Hands:
        service = self.service
        return Hands(
            home=service.home, keys=service.keys, identities=service.identities, at=unstamp(batch["created_at"])
        )

    def _relative(self, path: str) -> str | None:
        try:
            return str(Path(path).resolve().relative_to(self.service.home.resolve()))
        except ValueError:
            return None

    @staticmethod
    def _batch(connection: Connection, batch_id: str) -> RowMapping:
        row = connection.execute(select(tables.batch).where(b.id == batch_id)).mappings().first()
        if row is None:
            raise NotFound("batch")
        return row

    @staticmethod
    def _layers(connection: Connection, batch_id: str) -> Sequence[RowMapping]:
        return connection.execute(
            select(tables.layer).where(y.batch_id == batch_id).order_by(y.request_id)
        ).mappings().all()  # fmt: skip


def _seconds(text: str) -> str:
    """A stamp as certificates write times."""
    from expunge.audit.trust import timestamp

    return timestamp(unstamp(text))
