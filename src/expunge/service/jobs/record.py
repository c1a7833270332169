"""What is recorded of an attempt at a step, and how a job's progress is read from the records.

An attempt is recorded whether it went well or not, with what follows from it (again at, or never). So retries survive
the worker, waits included, and whoever replays the record takes the same turns as the one who wrote it.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, cast

from expunge.errors import ServiceError
from expunge.service.clock import stamp, unstamp
from expunge.service.jobs.port import (
    PLAN,
    SETTLE,
    JobError,
    JobStatus,
    Json,
    State,
    StepCall,
    StepFailed,
    StepState,
    StepStatus,
)

OURS = "expunge."


@dataclass(frozen=True)
class Noted:
    """An attempt as it was recorded: its record and when it ran (UTC)."""

    name: str
    record: dict[str, Any]
    started_at: datetime | None
    ended_at: datetime | None


class NotJson(ServiceError):
    """A step returned, or a plan holds, what JSON cannot say."""

    status = 500

    def __init__(self) -> None:
        super().__init__(
            "what it returned is not JSON", "Return None, bool, int, finite float, str, list or dict of str"
        )


def as_json(value: object) -> Json:
    """A copy of plain JSON types.

    Raises:
        NotJson: a type, a key or a number that JSON does not have.
    """
    try:
        again = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        raise NotJson from None
    if again != _plain(value):  # json.dumps silently turns keys such as 1 and None into text
        raise NotJson
    return cast(Json, again)


def _plain(value: object) -> object:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def told(error: BaseException) -> tuple[str, str]:
    """The class of an error and a text that can be recorded: never the message of an error that is not made for it."""
    kind = type(error).__name__
    if isinstance(error, (StepFailed, NotJson)):
        return kind, str(error)
    return kind, f"{_place(error.__traceback__)}; its message is withheld, since it may quote a record"


def _place(trace: TracebackType | None) -> str:
    frames = [(frame.f_globals.get("__name__", "?"), line) for frame, line in traceback.walk_tb(trace)]
    here = [frame for frame in frames if not frame[0].startswith(f"{OURS}service.jobs.")]
    ours = [frame for frame in here if frame[0].startswith(OURS)]
    module, line = next(reversed(ours or here), ("an unknown place", 0))
    return f"at {module}:{line}"


# --- records ----------------------------------------------------------------------------------------------------------


def done(result: Json) -> dict[str, Json]:
    return {"done": result}


def failed(error: JobError, again_at: float | None) -> dict[str, Json]:
    """`again_at`: seconds since the epoch, or None for never."""
    return {"failed": written(error), "again_at": again_at}


def written(error: JobError) -> dict[str, Json]:
    return {
        "step": error.step,
        "kind": error.kind,
        "text": error.text,
        "attempt": error.attempt,
        "at": stamp(error.at),
    }


def read_error(note: object, step: str) -> JobError:
    """The error as `written`; what cannot be read is told without its text."""
    try:
        found = cast(dict[str, Any], note)
        return JobError(
            step=str(found["step"]),
            kind=str(found["kind"]),
            text=str(found["text"]),
            attempt=int(found["attempt"]),
            at=unstamp(found["at"]),
        )
    except (KeyError, TypeError, ValueError):
        return JobError(step, "Unknown", "the record of this failure cannot be read", 1, datetime.fromtimestamp(0, UTC))


def plan_note(calls: Iterable[StepCall]) -> Json:
    return [{"name": call.name, "argument": call.argument} for call in calls]


def read_plan(note: Json) -> list[StepCall]:
    """The calls of a plan's record."""
    return [StepCall(str(item["name"]), item["argument"]) for item in cast(list[dict[str, Json]], note)]


# --- progress ---------------------------------------------------------------------------------------------------------


def steps_of(notes: Sequence[Noted], *, running: bool) -> tuple[StepStatus, ...]:
    """Each step as far as it is: the plan, and, once there is one, all that it lists.

    Args:
        notes: the attempts in order. running: whether a worker has the job, so that the first step without a result is
            under way.
    """
    attempts = iter([note for note in notes if note.name != SETTLE])
    pending = "running" if running else "waiting"
    plan = _step(StepCall(PLAN), attempts, pending)
    found = [plan]
    if plan.state == "done":
        for call in read_plan(plan.result):
            open_before = found[-1].state != "done"
            found.append(StepStatus(call, "waiting") if open_before else _step(call, attempts, pending))
    return tuple(found)


def _step(call: StepCall, attempts: Iterator[Noted], pending: str) -> StepStatus:
    count, error, began = 0, None, None
    for note in attempts:
        count += 1
        began = began or note.started_at
        if "done" in note.record:
            return StepStatus(call, "done", count, began, note.ended_at, None, note.record["done"])
        error = read_error(note.record.get("failed"), call.name)
        if note.record.get("again_at") is None:
            return StepStatus(call, "failed", count, began, note.ended_at, error)
    return StepStatus(call, cast(StepState, pending), count, began, None, error)


def status_of(
    request_id: str,
    round_: int,
    state: State,
    notes: Sequence[Noted],
    *,
    failure: JobError | None,
    worker: str | None,
    submitted_at: datetime,
    started_at: datetime | None,
    ended_at: datetime | None,
) -> JobStatus:
    steps = steps_of(notes, running=state == "running")
    planned = steps[0].state == "done"
    now = next((step for step in steps if step.state != "done"), None)
    return JobStatus(
        request_id=request_id,
        round=round_,
        state=state,
        step=now.call.name if now else None,
        done=sum(step.state == "done" for step in steps),
        total=len(steps) if planned else None,
        attempt=(now.attempts + (now.state != "failed")) if now else 1,
        error=failure or (now.error if now else None),
        worker=worker,
        submitted_at=submitted_at,
        started_at=started_at,
        ended_at=ended_at,
        steps=steps,
    )
