"""One worker at work: takes jobs up, carries them out step by step, and looks after those of workers that died."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from typing import Any, cast

from dbos import DBOS, DBOSClient
from sqlalchemy.exc import SQLAlchemyError

from expunge.service.clock import Clock
from expunge.service.jobs import library
from expunge.service.jobs.port import (
    PLAN,
    SETTLE,
    JobError,
    JobsUnreachable,
    Json,
    Plan,
    Retries,
    Settle,
    StepCall,
    StepFailed,
    Steps,
    WorkerReplaced,
)
from expunge.service.jobs.record import as_json, done, failed, plan_note, read_error, read_plan, told, written
from expunge.service.jobs.roll import Heart, Roll, Watch

log = logging.getLogger(__name__)
TICK_SECONDS = 0.2


class HandedBack(BaseException):
    """This worker goes: the job ends here without an outcome. No `Exception`, so that nobody takes it for one."""


class JobFailed(Exception):
    """The outcome of a job that failed. The library records `data`."""

    def __init__(self, error: JobError) -> None:
        super().__init__(f"{error.step} failed: {error.kind}")
        self.data = written(error)


class _Ended(Exception):
    """A step failed for good."""

    def __init__(self, error: JobError) -> None:
        super().__init__(error.kind)
        self.error = error


@dataclass
class _Held:
    """A job while this worker has it."""

    job_id: str
    request_id: str
    lives: int | None = None


@dataclass(frozen=True)
class Work:
    """What a worker is to do and how: the arguments of `DbosJobs`."""

    plan: Plan
    steps: Steps
    settle: Settle | None
    retries: Retries
    clock: Clock
    concurrency: int
    lease_seconds: float
    poll_seconds: float


class Shift:
    """From enrolling to leaving.

    Args:
        url: of the library's tables. client: on the same. roll: of workers. worker_id: of this one, new.
    """

    def __init__(self, work: Work, url: str, client: DBOSClient, roll: Roll, worker_id: str) -> None:
        self.work, self.url, self.client, self.roll, self.worker_id = work, url, client, roll, worker_id
        self.heart = Heart(roll, worker_id, work.lease_seconds)
        self.watch = Watch(work.lease_seconds)
        self._ending = threading.Event()
        self._held: dict[str, _Held] = {}
        self._changed = threading.Condition()
        self._strays: dict[str, tuple[int | None, float]] = {}

    def run(self, *, until_idle: bool, stop: threading.Event) -> None:
        with library.reaching():
            self.client.register_queue(
                library.QUEUE,
                worker_concurrency=self.work.concurrency,
                polling_interval_sec=self.work.poll_seconds,
                on_conflict="always_update",
            )
            self.roll.enrol(self.worker_id)
        self.heart.start()
        try:
            with library.launched(library.settings(self.url, self.worker_id), self._job()) as instance:
                try:
                    self._look_on(until_idle, stop)
                finally:
                    self._ending.set()
                    library.stop_claiming(instance)
                    with self._changed:
                        self._changed.wait_for(lambda: not self._held)
            if self.heart.lost.is_set():
                raise WorkerReplaced(self.worker_id)
            with library.reaching():
                for job in self._pending():
                    if job.executor_id == self.worker_id:
                        library.hand_on(self.client, job.workflow_id, self.worker_id)
                self.roll.leave(self.worker_id)
        finally:
            self.heart.stop()

    # --- looking on ---------------------------------------------------------------------------------------------------

    def _look_on(self, until_idle: bool, stop: threading.Event) -> None:
        next_look = 0.0
        while not stop.is_set() and not self.heart.lost.is_set():
            try:
                with library.reaching():
                    if time.monotonic() >= next_look:
                        self._take_over()
                        next_look = time.monotonic() + self.work.lease_seconds / 6
                    if until_idle and self._idle():
                        return
            except JobsUnreachable as error:
                log.warning("worker %s: %s", self.worker_id, error)
            stop.wait(TICK_SECONDS)

    def _idle(self) -> bool:
        states = ["ENQUEUED", "PENDING", "DELAYED"]
        return not self.client.list_workflows(
            name=library.JOB, status=states, limit=1, load_input=False, load_output=False
        )

    def _pending(self) -> list[Any]:
        return self.client.list_workflows(name=library.JOB, status="PENDING", load_input=False, load_output=False)

    def _take_over(self) -> None:
        """Put jobs back that nobody has: of workers that died or left, and strays of this one."""
        pending = self._pending()  # before the roll: whoever claims a job is on the roll already
        present = self.roll.present()
        present.pop(self.worker_id, None)
        for dead in self.watch.dead(present):
            self.roll.leave(dead)  # first strike off, then hand on: if this worker dies between, the next one goes on
            del present[dead]
            log.warning("worker %s was silent for %g s", dead, self.work.lease_seconds)
        strays = {}
        for job in pending:
            if job.executor_id == self.worker_id:
                stray = self._stray(job)
                if stray is not None:
                    strays[job.workflow_id] = stray
            elif job.executor_id not in present and library.hand_on(self.client, job.workflow_id, job.executor_id):
                log.warning("job %s of worker %s is handed on", job.workflow_id, job.executor_id)
        self._strays = strays

    def _stray(self, job: Any) -> tuple[int | None, float] | None:
        """Since when a job has been claimed for this worker without its having begun; handed on if that is too long."""
        if job.workflow_id in self._held:
            return None
        claimed, since = self._strays.get(job.workflow_id, (job.dequeued_at, time.monotonic()))
        if claimed != job.dequeued_at:
            return job.dequeued_at, time.monotonic()
        if time.monotonic() - since > self.work.lease_seconds / 2:
            library.hand_on(self.client, job.workflow_id, self.worker_id)
            log.warning("job %s was claimed and not begun; it is handed on", job.workflow_id)
            return None
        return claimed, since

    # --- a job --------------------------------------------------------------------------------------------------------

    def _job(self) -> Callable[[str], None]:
        def job(request_id: str) -> None:
            with self._holding(str(DBOS.workflow_id), request_id) as held:
                try:
                    self._carry_out(held)
                except _Ended as ended:
                    self._settle(held, ended.error)
                    raise JobFailed(ended.error) from None
                except SQLAlchemyError as error:  # in keeping the record: no outcome of the job
                    log.warning("job %s is put back: its record cannot be kept (%s)", held.job_id, type(error).__name__)
                    raise HandedBack from None
                except Exception as error:  # a step's own errors do not come here
                    self._settle_unrecorded(held, error)
                    raise

        return job

    @contextmanager
    def _holding(self, job_id: str, request_id: str) -> Iterator[_Held]:
        held = _Held(job_id, request_id)
        with self._changed:
            self._held[job_id] = held
        try:
            yield held
        finally:
            with self._changed:
                if self._held.get(job_id) is held:  # else it was taken up again meanwhile
                    del self._held[job_id]
                self._changed.notify_all()

    def _carry_out(self, held: _Held) -> None:
        calls = read_plan(self._step(held, PLAN, lambda: self._plan(held.request_id)))
        for call in calls:
            self._step(held, call.name, lambda call=call: self._call(held.request_id, call))  # type: ignore[misc]

    def _plan(self, request_id: str) -> Json:
        calls = self.work.plan(request_id)
        unknown = sorted({call.name for call in calls} - set(self.work.steps))
        if unknown or not calls:
            wrong = f"it names {', '.join(unknown)}, which nobody can do" if unknown else "it lists nothing to do"
            raise StepFailed(f"the plan cannot be followed: {wrong}", "Correct the planning; then try again")
        return plan_note(calls)

    def _call(self, request_id: str, call: StepCall) -> Json:
        function = self.work.steps.get(call.name)
        if function is None:
            raise StepFailed(f"this release has no step {call.name}", "Try the request again: it is planned anew")
        return function(request_id, call.argument)

    def _settle(self, held: _Held, error: JobError) -> None:
        settle = self.work.settle
        if settle is None:
            return
        try:
            self._step(held, SETTLE, lambda: settle(held.request_id, error))
        except _Ended as ended:  # the job ends as failed all the same, for the reason that it had
            log.error("job %s failed and could not be settled: %s", held.job_id, ended.error.text)

    def _settle_unrecorded(self, held: _Held, error: Exception) -> None:
        """The record cannot be followed: it was changed, or the order of steps was without a new `library.VERSION`."""
        kind, text = told(error)
        log.error("job %s ends, since its record cannot be followed (%s)", held.job_id, kind)
        if self.work.settle is not None:
            note = JobError("unknown", kind, text, 1, self.work.clock().astimezone(UTC))
            try:
                self.work.settle(held.request_id, note)
            except Exception as wrong:
                log.error("job %s could not be settled: %s, %s", held.job_id, *told(wrong))

    def _step(self, held: _Held, name: str, function: Callable[[], Json]) -> Json:
        """The result of a step, from the record if it was done before.

        Raises:
            _Ended: it failed for good. HandedBack: this worker goes.
        """
        for attempt in itertools.count(1):
            self._may_begin()
            note: dict[str, Any] = DBOS.run_step({"name": name}, self._attempt, held, name, attempt, function)
            if "done" in note:
                return cast(Json, note["done"])
            if note["again_at"] is None:
                raise _Ended(read_error(note["failed"], name))
            self._wait_until(float(note["again_at"]))
        raise AssertionError("unreachable")

    def _attempt(self, held: _Held, name: str, attempt: int, function: Callable[[], Json]) -> dict[str, Any]:
        """One attempt, as it is recorded. It never raises: a failure is a record, too."""
        retries = self.work.retries
        try:
            self._live(held, name)
            return done(as_json(function()))
        except (Exception, SystemExit) as error:
            kind, text = told(error)
            again = retries.again(error, attempt)
            log.warning("job %s, step %s, attempt %d: %s, %s", held.job_id, name, attempt, kind, text)
            note = JobError(name, kind, text, attempt, self.work.clock().astimezone(UTC))
            return failed(note, time.time() + retries.wait_seconds(attempt) if again else None)

    def _live(self, held: _Held, name: str) -> None:
        """Refuse to take a job up for ever that ends its workers each time."""
        if held.lives is None:
            try:
                found = self.client.list_workflows(workflow_ids=[held.job_id], load_input=False, load_output=False)
                held.lives = found[0].recovery_attempts or 1
            except Exception:  # the database is away, or the job was erased: the record will say so
                return
        allowed = self.work.retries.lives * (2 if name == SETTLE else 1)
        if held.lives > allowed:
            raise WorkerLost(held.lives)

    def _may_begin(self) -> None:
        """Wait while nobody can tell whether this worker still counts.

        Raises:
            HandedBack: it goes, or no longer counts.
        """
        while not self._ending.is_set() and not self.heart.lost.is_set():
            if self.heart.fresh:
                return
            self._ending.wait(0.05)
        raise HandedBack

    def _wait_until(self, epoch: float) -> None:
        most = self.work.retries.most_seconds  # a clock that was put back must not stretch it
        self._ending.wait(min(max(0.0, epoch - time.time()), most))


class WorkerLost(StepFailed):
    """The job was taken up again and again, and no worker lived to see its end."""

    def __init__(self, lives: int) -> None:
        super().__init__(
            f"the job was taken up {lives} times, and its worker was lost each time",
            "Look for what ends the process (memory, as a rule), then try the request again",
        )
