"""Periodic retraining: forget by training again from scratch, once for as many requests as their deadlines allow.

No paper: it is what every method of forgetting has to beat. The model after a retraining is the model of a fresh fit by
definition, θ = A(D ∖ (U_1 ∪ … ∪ U_K); seed), at the price of one training run instead of K. What it costs is time:
until then the records of U_1, … are in the model, and `pending` says so.

`forget` retrains at once. `defer` queues and leaves the model as it is; `flush` retrains for everything that is queued.
The clock is the caller's: nothing here asks what time it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import numpy as np

from expunge.data.records import Array, Records
from expunge.errors import EmptyForgetSet, EmptyRetainSet, RequestError
from expunge.methods.learner import Job, Learned, Learner, State
from expunge.methods.retraining_schedule import Durations
from expunge.methods.stack_parts import fixed_threads, part_logits, repeatable_engine, stack_part
from expunge.recipe import Recipe
from expunge.result import Unlearned
from expunge.training.fit import fit
from expunge.training.stack import build

QUEUE = "queue"


@dataclass(frozen=True, kw_only=True)
class Pending:
    """A record that was asked to be forgotten and is still in the model.

    Args:
        received, due: with a time zone.
    """

    id: str
    received: datetime
    due: datetime


@dataclass(frozen=True, kw_only=True)
class PeriodicRetraining(Learner):
    """A classifier that is retrained, at once or before the earliest deadline of what is queued.

    Args:
        recipe: the network and its training.
        run_seconds: how long a retraining takes, say its 95th percentile; it is given rather than measured, so that a
            state does not depend on how fast a machine was. evaluation_seconds: what follows it.
        margin_seconds: kept free before a deadline for what goes wrong.
    """

    name: ClassVar[str] = "periodic_retraining"
    summary: ClassVar[str] = "retrains from scratch, once for all requests that can wait"
    paper: ClassVar[str] = "none: the baseline"
    needs: ClassVar[tuple[str, ...]] = ("recipe",)

    recipe: Recipe
    run_seconds: float = 3600.0
    evaluation_seconds: float = 0.0
    margin_seconds: float = 86400.0

    def __post_init__(self) -> None:
        self.durations  # noqa: B018  checks them

    @property
    def durations(self) -> Durations:
        return Durations(run=self.run_seconds, evaluation=self.evaluation_seconds, margin=self.margin_seconds)

    # --- the contract -------------------------------------------------------------------------------------------------

    def learn(self, records: Records, *, seed: int, job: Job) -> Learned:
        def on_step(done: int, total: int, loss: float) -> None:
            if job.progress:
                job.progress("retraining", done, total)

        engine = repeatable_engine(build(self.recipe, 0))
        with fixed_threads(1):
            fitted = fit(self.recipe, records, [seed], engine=engine, on_step=on_step)
        return Learned(parts={"model": stack_part(fitted.stack)}, examples=int(fitted.examples.sum()))

    def remove(self, state: State, ids: tuple[str, ...], *, job: Job) -> Learned:
        learned = self.learn(state.rows.without(ids), seed=state.seed, job=job)
        return replace(learned, facts=_facts(p for p in pending(state) if p.id not in set(ids)))

    def predict(self, state: State, x: Array) -> Array:
        return np.asarray(self.scores(state, x).argmax(1))

    def scores(self, state: State, x: Array) -> Array:
        """(n, classes) logits."""
        return part_logits(self.recipe, state.parts["model"], x)

    # --- the queue ----------------------------------------------------------------------------------------------------

    def defer(self, state: State, ids: Collection[str], *, received: datetime, due: datetime) -> State:
        """`state` with `ids` queued: **their records stay in the model** until `flush`, and are listed by `pending`.

        An id that is queued already keeps the earlier of its times: asking again never puts a deadline off.

        Raises:
            EmptyForgetSet, UnknownIds, EmptyRetainSet: as `forget` would, with what is queued counted in. RequestError:
                a time has no zone, or the deadline lies before the request.
        """
        _check_times(received=received, due=due)
        if due < received:
            raise RequestError(f"received {received} and due {due}", "A deadline lies after its request")
        wanted = self.check_ids(state, ids)
        queue = {p.id: p for p in pending(state)}
        for i in wanted:
            old = queue.get(i, Pending(id=i, received=received, due=due))
            queue[i] = Pending(id=i, received=min(old.received, received), due=min(old.due, due))
        if len(queue) == len(state.rows):
            raise EmptyRetainSet(self.name)
        return replace(state, facts=_facts(queue.values()))

    def due(self, state: State) -> datetime | None:
        """When the retraining for what is queued must start at the latest; None if nothing is queued.

        start_by = min(due) − run − evaluation − margin; it may have passed already, and then means at once.
        """
        deadlines = [p.due for p in pending(state)]
        return min(deadlines) - timedelta(seconds=self.durations.total) if deadlines else None

    def flush(self, state: State, *, now: datetime, job: Job | None = None) -> tuple[State, Unlearned]:
        """Retrain once without anything that is queued; the state afterwards holds no trace of the queue.

        The trace of the outcome tells how long the records stayed in the model until `now`, and how many of them are
        answered after their deadline if the run takes what it is said to take.

        Raises:
            EmptyForgetSet: nothing is queued. RequestError: `now` has no zone, or lies before a request.
        """
        _check_times(now=now)
        queue = pending(state)
        if not queue:
            raise EmptyForgetSet
        if now < max(p.received for p in queue):
            raise RequestError(
                f"the clock says {now}, and a request was received after that", "Correct the clock or the request"
            )
        finished = now + timedelta(seconds=self.durations.work)
        exposures = [(now - p.received).total_seconds() for p in queue]
        event = {
            "flushed": len(queue),
            "longest_exposure_seconds": max(exposures),
            "mean_exposure_seconds": sum(exposures) / len(exposures),
            "late": sum(p.due < finished for p in queue),
        }
        after, unlearned = self.forget(state, [p.id for p in queue], job=job)
        return after, replace(unlearned, trace=(*unlearned.trace, event))


def pending(state: State) -> tuple[Pending, ...]:
    """What was asked to be forgotten and is still in the model, by deadline, then receipt, then id."""
    queue: Mapping[str, Mapping[str, str]] = state.facts.get(QUEUE, {})
    entries = [
        Pending(id=i, received=datetime.fromisoformat(v["received"]), due=datetime.fromisoformat(v["due"]))
        for i, v in queue.items()
    ]
    return tuple(sorted(entries, key=lambda p: (p.due, p.received, p.id)))


def _facts(queue: Iterable[Pending]) -> dict[str, Any]:
    """The queue as JSON, by id, in one time zone; nothing at all when it is empty, so that a flush leaves no trace."""
    entries = {
        p.id: {"received": p.received.astimezone(UTC).isoformat(), "due": p.due.astimezone(UTC).isoformat()}
        for p in sorted(queue, key=lambda p: p.id)
    }
    return {QUEUE: entries} if entries else {}


def _check_times(**times: datetime) -> None:
    for name, value in times.items():
        if not isinstance(value, datetime) or value.utcoffset() is None:
            raise RequestError(
                f"{name} must be a time with a zone, got {value!r}",
                "Write datetime(..., tzinfo=UTC) or the zone it is in",
            )
