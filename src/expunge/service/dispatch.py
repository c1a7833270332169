"""From requests to jobs: what was approved is planned, what is due is put into batches, each batch is a durable job.

Any number of processes may dispatch at once: every call finds what another has done.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from expunge.errors import (
    Conflict,
    EmptyRetainSet,
    ExpungeError,
    NotEnoughRoom,
    RequestError,
    RunError,
    ServiceError,
    UnknownIds,
)
from expunge.service.jobs.port import JobError, Jobs, Json, StepCall, StepFailed, Steps
from expunge.service.maintenance import Maintenance
from expunge.service.work import STEPS

if TYPE_CHECKING:
    from expunge.service.service import Service

log = logging.getLogger("expunge.service")
DAY = timedelta(days=1)
# Refusals whose words hold nothing of anybody's records: operators may read them.
TOLD = (ServiceError, RequestError, RunError, EmptyRetainSet)


def plan_of(_batch_id: str) -> list[StepCall]:
    """The steps of every batch."""
    return [StepCall(name) for name in STEPS]


def steps_of(service: Service) -> Steps:
    """Name -> what a worker does."""

    def step(carry: Callable[[str], dict[str, Json]]) -> Callable[[str, Json], Json]:
        def run(batch_id: str, _argument: Json) -> Json:
            try:
                return carry(batch_id)
            except TOLD as error:
                if isinstance(error, UnknownIds):  # it names them
                    raise
                again = isinstance(error, (Conflict, NotEnoughRoom, RunError))
                raise StepFailed(error.cause, error.remedy, again=again) from None

        return run

    return {name: step(getattr(service.work, name)) for name in STEPS}


def make_jobs(
    service: Service, *, concurrency: int = 1, lease_seconds: float = 30.0, poll_seconds: float = 0.5
) -> Jobs:
    """The durable jobs of a service."""
    from expunge.service.jobs.dbos_jobs import DbosJobs
    from expunge.service.jobs.port import Retries

    told = service.policy.retries

    def settle(batch_id: str, error: JobError) -> None:
        service.work.settle(batch_id, error.kind, error.text)

    return DbosJobs(
        service.database,
        plan_of,
        steps_of(service),
        settle=settle,
        retries=Retries(
            attempts=told.attempts,
            first_seconds=told.first_seconds,
            factor=told.factor,
            most_seconds=told.longest_seconds,
        ),
        clock=service.clock,
        concurrency=concurrency,
        lease_seconds=lease_seconds,
        poll_seconds=poll_seconds,
    )


class Dispatcher:
    """
    Args:
        jobs: that batches are submitted to. every_seconds: between looks.
    """

    def __init__(self, service: Service, jobs: Jobs, *, every_seconds: float = 1.0) -> None:
        self.service, self.jobs, self.every = service, jobs, every_seconds
        self._kept: datetime | None = None

    def tick(self) -> int:
        """One look: how many batches are open."""
        while self.service.work.plan_approved():
            pass
        open_batches = self.service.work.batches_due()
        for batch_id in open_batches:
            self.jobs.submit(batch_id)
            job = self.jobs.status(batch_id)
            if job is not None and job.state == "failed":  # and nobody came to say so
                kind, text = ("failed", "") if job.error is None else (job.error.kind, job.error.text)
                self.service.work.settle(batch_id, kind, text)
        now = self.service.clock()
        if self._kept is None or now - self._kept >= DAY:
            Maintenance(self.service).run()
            self._kept = now
        return len(open_batches)

    def run(self, stop: threading.Event) -> None:
        """Look again and again until `stop` is set; what fails is told and tried again."""
        while not stop.is_set():
            try:
                self.tick()
            except ExpungeError as error:
                log.warning("dispatching failed: %s", error)
            except Exception as error:  # a database that is away; its words may quote a row
                log.warning("dispatching failed (%s); it is tried again", type(error).__name__)
            stop.wait(self.every)
