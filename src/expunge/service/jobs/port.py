"""The port of durable jobs: what the service asks of them, and what a step owes them. Nothing here knows a library.

A request has one job. A job is a list of steps, made by its first step, the plan. Each step is durable: once its result
is recorded it is not begun again, whichever process is killed. Between its effect and its record there is a gap that no
library can close, so a step runs **at least once**, and after a partition even twice at the same time. Hence what a
step owes:

1. Idempotent: what it finds done it leaves ("already erased is no failure"), and returns the same result.
2. Whole or not at all: it writes under a name of its own (with its process and a random part in it) and renames, or in
   one transaction under a unique key.
3. Its arguments, its result and the text of a `StepFailed` are recorded: opaque ids and figures, nothing personal.
   JSON only, no NaN.
4. It raises when it failed. A failed step ends the job as failed, after the retries that `Retries` allows.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from expunge.errors import Conflict, ExpungeError, NotEnoughRoom, RequestError, ServiceError

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

Step = Callable[[str, Json], Json]
"""(request id, argument of the call) -> result."""

Steps = Mapping[str, Step]

State = Literal["waiting", "running", "succeeded", "failed", "cancelled"]
OPEN: frozenset[State] = frozenset({"waiting", "running"})
StepState = Literal["waiting", "running", "done", "failed"]

PLAN = "plan"  # the first step, which lists the others
SETTLE = "settle"  # the last step of a job that failed
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True)
class StepCall:
    """One step of a job.

    Args:
        name: in the mapping of steps. argument: handed to it; recorded, so ids and figures only.
    """

    name: str
    argument: Json = None


Plan = Callable[[str], list[StepCall]]
"""Request id -> the steps of its job, in order. It is itself the first durable step: made once, kept, then followed,
even by a worker of a later release and even if the world has changed since. It runs at least once, like any step."""


@dataclass(frozen=True)
class JobError:
    """Why a step failed. It is written to the record, so it holds nothing personal.

    Args:
        step: its name. kind: the class of the error. text: of a `StepFailed`, its words; of any other error only the
            place in the code, since a message of a library may quote a record. attempt: from 1. at: UTC.
    """

    step: str
    kind: str
    text: str
    attempt: int
    at: datetime


Settle = Callable[[str, JobError], None]
"""The last durable step of a job that failed, not of one that was cancelled: moves the request to ``failed``."""


@dataclass(frozen=True)
class StepStatus:
    """How far one step is. Times are UTC; attempts counts those that ended, the good one included."""

    call: StepCall
    state: StepState
    attempts: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: JobError | None = None
    result: Json = None


@dataclass(frozen=True)
class JobStatus:
    """How far a job is.

    Args:
        round: 1, and one more after each `Jobs.retry`. step: that is running or comes next. done, total: steps, the
            plan included; the total is unknown until there is a plan. attempt: of that step, from 1. error: the last
            one of that step, also while it is tried again. worker: that took it up last.
    """

    request_id: str
    round: int
    state: State
    step: str | None
    done: int
    total: int | None
    attempt: int
    error: JobError | None
    worker: str | None
    submitted_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    steps: tuple[StepStatus, ...]

    @property
    def ended(self) -> bool:
        return self.state not in OPEN


class StepFailed(ServiceError):
    """What a step raises to say why, in words for the record.

    Args:
        cause, remedy: without anything personal: they are kept and shown. again: whether trying again may help.
    """

    status = 500

    def __init__(self, cause: str, remedy: str, *, again: bool = False) -> None:
        super().__init__(cause, remedy)
        self.again = again


class JobsUnreachable(ServiceError):
    """The database of the jobs does not answer. Nothing was lost; what was asked may or may not have been noted, so ask
    again: every call may be repeated."""

    status = 503


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How a step is tried again: after first, first × factor, first × factor² … seconds, at most `most_seconds`.

    The worker's place is taken while it waits. A refusal of expunge (`ExpungeError`) is not tried again, save
    `Conflict` (another writer was faster), `NotEnoughRoom` and a `StepFailed` that says so; any other error is.

    Args:
        attempts: in all, ≥ 1. first_seconds, most_seconds: ≥ 0. factor: ≥ 1. lives: how often a job may be taken up
            before it counts as what kills its workers, ≥ 1; each restart of a worker takes one.
    """

    attempts: int = 4
    first_seconds: float = 1.0
    factor: float = 4.0
    most_seconds: float = 300.0
    lives: int = 20

    def __post_init__(self) -> None:
        numbers = (self.first_seconds, self.most_seconds, self.factor)
        if self.attempts < 1 or self.lives < 1 or not all(math.isfinite(n) for n in numbers):
            raise RequestError("retries need at least one attempt and one life, and finite times", "Correct the policy")
        if self.first_seconds < 0 or self.most_seconds < 0 or self.factor < 1:
            raise RequestError("retries wait 0 seconds or more, and longer each time", "Correct the policy")

    def wait_seconds(self, attempt: int) -> float:
        """After the `attempt`-th attempt (from 1) failed."""
        try:
            grown = self.first_seconds * self.factor ** (attempt - 1)
        except OverflowError:
            grown = self.most_seconds
        return min(grown, self.most_seconds)

    def again(self, error: BaseException, attempt: int) -> bool:
        """Whether to try once more after `attempt` attempts, the last of which ended in `error`."""
        if attempt >= self.attempts:
            return False
        if isinstance(error, StepFailed):
            return error.again
        return not isinstance(error, ExpungeError) or isinstance(error, (Conflict, NotEnoughRoom))


class Jobs(Protocol):
    """Durable jobs, one a request. Every call may be repeated, from any process, at the same time.

    Errors of all: RequestError (an id that is no opaque id), JobsUnreachable.
    """

    def submit(self, request_id: str, *, due: datetime | None = None) -> None:
        """Note that the job is to be done. If the request has a job already, whatever became of it, nothing happens.

        Args:
            due: the earliest goes first; those without come after all others.
        """

    def retry(self, request_id: str, *, due: datetime | None = None) -> None:
        """Begin again from the plan after a failure or a cancellation. If the job is waiting or running, nothing
        happens.

        Raises:
            NotFound: there is no job. WrongState: it succeeded. TooMany: it was begun 32 times.
        """

    def cancel(self, request_id: str) -> None:
        """Begin no further step. A step that is running ends, and its effect stays. No job, or one that ended: nothing
        happens."""

    def status(self, request_id: str) -> JobStatus | None:
        """How far the latest round is; None without a job."""

    def erase(self, request_id: str) -> None:
        """Forget that the job was ever there (retention). No job: nothing happens. Rows go; in an SQLite file, bytes of
        opaque ids may stay in free pages.

        Raises:
            WrongState: it is waiting or running.
        """

    def work(self, *, until_idle: bool = False, stop: threading.Event | None = None) -> None:
        """Carry jobs out, in this process, until `stop` is set. One call a process at a time.

        After `stop`, the steps that are running end, no other begins, and the jobs go back to the queue. A process in a
        hurry may be killed instead: nothing is lost.

        Args:
            until_idle: return when no job waits or runs anywhere.

        Raises:
            WrongState: a worker runs in this process. WorkerReplaced: it was taken for dead, and another has its jobs.
        """

    def close(self) -> None:
        """Let go of the connections."""


class WorkerReplaced(ServiceError):
    """This worker did not show a sign of life for too long, and others have taken up its jobs."""

    status = 503

    def __init__(self, worker: str) -> None:
        super().__init__(
            f"worker {worker} was silent for too long, and its jobs were handed on", "Start it again; nothing is lost"
        )


def checked_id(request_id: str) -> str:
    """The id, if it is an opaque one. Names, addresses and numbers of people do not belong in a record of jobs.

    Raises:
        RequestError: it is none.
    """
    if not isinstance(request_id, str) or not _ID.fullmatch(request_id):
        raise RequestError("that is no id of a request", "Hand over the opaque id that filing returned")
    return request_id


def checked_steps(steps: Steps) -> Steps:
    """The mapping, if its names can stand in a record.

    Raises:
        RequestError: a name that is taken or unfit.
    """
    for name in steps:
        if name in (PLAN, SETTLE) or not _NAME.fullmatch(name):
            raise RequestError(f"a step cannot be called {name!r}", f"Use a-z, 0-9 and _, not {PLAN} or {SETTLE}")
    return dict(steps)
