"""Durable jobs on DBOS, embedded: no server beside the database.

The library keeps its tables beside ours, not among them: in a file of its own next to an SQLite database
(``requests.sqlite`` -> ``requests.jobs.sqlite``), in the schema ``expunge_jobs`` of a PostgreSQL one. SQLite has one
writer a file: with two files, a worker that records a step and a request that is filed do not wait for each other, and
each file keeps the settings its owner needs (ours overwrites what is deleted; the library's holds opaque ids, and syncs
each commit). What this costs is a transaction across both. So whoever moves a request and submits its job does it in
this order, and submits again what it finds moved without a job: `submit` may be repeated.

Submitting, cancelling and asking need only a client, so any process may do it; `work` starts the library itself, which
is one a process.

A job records its steps in a fixed order (`shift`): attempts at the plan, then at each call in the plan's order, then,
after a failure, at settling. `library.VERSION` names that order; a worker takes up only jobs of its own version. It
changes only when that order does, not with each release: what a step does may change under a running job, since it is
looked up by name.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

from dbos import PortableWorkflowError

from expunge.errors import NotFound, RequestError, TooMany, WrongState
from expunge.service.clock import Clock, system_clock
from expunge.service.database import Database
from expunge.service.jobs import library
from expunge.service.jobs.port import (
    JobError,
    JobStatus,
    Plan,
    Retries,
    Settle,
    State,
    Steps,
    checked_id,
    checked_steps,
)
from expunge.service.jobs.record import Noted, read_error, status_of
from expunge.service.jobs.roll import Roll, new_worker_id
from expunge.service.jobs.shift import JobFailed, Shift, Work

ROUNDS = 32
LAST = 2**31 - 1  # the lowest priority
_EPOCH = datetime(2020, 1, 1, tzinfo=UTC)
_STATES: dict[str, State] = {
    "ENQUEUED": "waiting",
    "DELAYED": "waiting",
    "PENDING": "running",
    "SUCCESS": "succeeded",
    "ERROR": "failed",
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": "failed",
    "CANCELLED": "cancelled",
}
_working = threading.Lock()


class DbosJobs:
    """The port `Jobs`, on DBOS.

    Args:
        database: of the service; the roll of workers is in it. plan: makes a job's list of steps. steps: name ->
            function. settle: told of a job that failed. retries: see there. clock: that errors are dated by; the roll
            keeps real time.
        concurrency: jobs at once in a worker; the worker that started last decides for all. lease_seconds: after which
            a silent worker is dead; a job of a killed worker goes on after about that long. poll_seconds: between looks
            into the queue; a worker begins at most `concurrency` jobs in each.

    Raises:
        RequestError: a step's name is unfit, or a number out of range. JobsUnreachable: the database does not answer.
    """

    def __init__(
        self,
        database: Database,
        plan: Plan,
        steps: Steps,
        *,
        settle: Settle | None = None,
        retries: Retries | None = None,
        clock: Clock = system_clock,
        concurrency: int = 1,
        lease_seconds: float = 30.0,
        poll_seconds: float = 0.5,
    ) -> None:
        if concurrency < 1 or lease_seconds <= 0 or poll_seconds <= 0:
            raise RequestError("a worker needs at least one place, a lease and a time between looks", "Correct them")
        self._work = Work(
            plan=plan,
            steps=checked_steps(steps),
            settle=settle,
            retries=retries or Retries(),
            clock=clock,
            concurrency=concurrency,
            lease_seconds=lease_seconds,
            poll_seconds=poll_seconds,
        )
        self._url = library.jobs_url(database)
        self._roll = Roll(database)
        library.prepare(self._url)
        self._client = library.client(self._url)

    def submit(self, request_id: str, *, due: datetime | None = None) -> None:
        self._enqueue(checked_id(request_id), 1, due)

    def retry(self, request_id: str, *, due: datetime | None = None) -> None:
        rounds = self._rounds(request_id)
        if not rounds:
            raise NotFound("job")
        state = _STATES[rounds[-1].status]
        if state in ("waiting", "running"):
            return
        if state == "succeeded":
            raise WrongState("the job succeeded", "There is nothing to try again; file another request")
        if len(rounds) == ROUNDS:
            raise TooMany(f"the job was begun {ROUNDS} times", "Find out why it fails before filing the request again")
        self._enqueue(request_id, len(rounds) + 1, due)

    def cancel(self, request_id: str) -> None:
        for job in self._rounds(request_id):
            if _STATES[job.status] in ("waiting", "running"):
                with library.reaching():
                    self._client.cancel_workflow(job.workflow_id)

    def status(self, request_id: str) -> JobStatus | None:
        rounds = self._rounds(request_id)
        if not rounds:
            return None
        job = rounds[-1]
        with library.reaching():
            steps = self._client.list_workflow_steps(job.workflow_id)
        notes = [
            Noted(
                name=step["function_name"],
                record=step["output"],
                started_at=_time(step["started_at_epoch_ms"]),
                ended_at=_time(step["completed_at_epoch_ms"]),
            )
            for step in steps
            if isinstance(step["output"], dict)
        ]
        state = _STATES[job.status]
        return status_of(
            request_id,
            len(rounds),
            state,
            notes,
            failure=_failure(job) if state == "failed" else None,
            worker=job.executor_id,
            submitted_at=_time(job.created_at) or _EPOCH,
            started_at=(notes[0].started_at if notes else None) or _time(job.dequeued_at),
            ended_at=_latest(_time(job.completed_at), notes[-1].ended_at if notes else None)
            if job.completed_at
            else None,
        )

    def erase(self, request_id: str) -> None:
        rounds = self._rounds(request_id)
        if any(_STATES[job.status] in ("waiting", "running") for job in rounds):
            raise WrongState("the job is not over", "Cancel it first, or wait")
        if rounds:
            with library.reaching():
                self._client.delete_workflows([job.workflow_id for job in rounds])

    def work(self, *, until_idle: bool = False, stop: threading.Event | None = None) -> None:
        if not _working.acquire(blocking=False):
            raise WrongState("a worker runs in this process already", "Stop it first, or start another process")
        try:
            shift = Shift(self._work, self._url, self._client, self._roll, new_worker_id())
            shift.run(until_idle=until_idle, stop=stop or threading.Event())
        finally:
            _working.release()

    def close(self) -> None:
        self._client.destroy()

    def _enqueue(self, request_id: str, round_: int, due: datetime | None) -> None:
        with library.reaching():
            self._client.enqueue(
                {
                    "workflow_name": library.JOB,
                    "queue_name": library.QUEUE,
                    "workflow_id": _job_id(request_id, round_),
                    "app_version": library.VERSION,
                    "priority": _priority(due),
                },
                request_id,
            )

    def _rounds(self, request_id: str) -> list[Any]:
        checked_id(request_id)
        ids = [_job_id(request_id, round_) for round_ in range(1, ROUNDS + 1)]
        with library.reaching():
            found = self._client.list_workflows(workflow_ids=ids, load_input=False)
        return sorted(found, key=lambda job: ids.index(job.workflow_id))


def _job_id(request_id: str, round_: int) -> str:
    return f"{request_id}:{round_}"


def _priority(due: datetime | None) -> int:
    """Minutes, so that the earliest due goes first."""
    if due is None:
        return LAST
    return min(max(1, int((due - _EPOCH).total_seconds() // 60)), LAST - 1)


def _time(epoch_ms: int | None) -> datetime | None:
    return None if epoch_ms is None else datetime.fromtimestamp(epoch_ms / 1000, UTC)


def _latest(*times: datetime | None) -> datetime | None:
    """SQLite's clock has whole seconds only, so what came last is not always what says so."""
    return max((time for time in times if time is not None), default=None)


def _failure(job: Any) -> JobError:
    """Why the job failed. An error of the library itself is told by its class alone."""
    error = job.error
    if isinstance(error, PortableWorkflowError):
        if error.name == JobFailed.__name__:
            return read_error(error.data, "unknown")
        kind = error.name
    else:
        kind = type(error).__name__ if isinstance(error, Exception) else "Unknown"
    at = _time(job.completed_at) or _EPOCH
    return JobError("unknown", kind, "the jobs' library ended it; its message is withheld", 1, at)
