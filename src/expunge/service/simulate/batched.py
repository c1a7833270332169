"""The rule ``batched``: earliest deadline first, as late as is safe; and windows that are not waited for past that."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heapreplace

import numpy as np
import numpy.typing as npt

from expunge.errors import DataError
from expunge.service.simulate.served import Runs, Served
from expunge.service.simulate.servers import Draws, Servers
from expunge.service.simulate.times import Times
from expunge.service.simulate.traffic import Codes

Places = npt.NDArray[np.int64]


@dataclass
class Queue:
    """The requests of one regime: who came first is due first, so that those pending are a stretch of it.

    Args:
        ready, due: (m,) moments, rising. places: (m,) of the requests among all, or None for all of them.
        head: the first that is not served. taken: how many each run took, with the run's number.
    """

    ready: Times
    due: Times
    places: Places | None
    head: int
    taken: list[tuple[int, int]]

    def pending(self, at: int) -> int:
        return int(self.ready.searchsorted(at, side="right")) - self.head


@dataclass(frozen=True)
class Beside:
    """Runs of another stage on the same workers: (runs,) moments from which on they may start, and durations."""

    ready: Times
    durations: Times


def serve_batched(
    ready: Times,
    due: Times,
    regime: Codes,
    servers: Servers,
    *,
    margin: int,
    largest: int,
    seed: int,
    windows: tuple[int, int] | None = None,
    beside: Beside | None = None,
) -> tuple[Served, Times]:
    """Runs that start at start_by = min(due) − p95(run) − p95(evaluation) − margin, or once a worker is free then.

    min(due) is over the requests that are pending at that time, and p95(run) is that of a run for as many of them as
    fit, so that start_by can only come nearer while a batch waits. A run takes the `largest` requests that are due
    first, of equal due dates those that came first.

    Args:
        ready: (n,) moments from which on a request may run, rising. due: (n,). margin: microseconds.
        windows: (epoch, period): a batch also starts at the first window after its first request, if that is earlier.
        beside: other runs for the same workers, of which those that are ready first, or at the same time, go first.

    Returns:
        What became of the requests, and (runs,) moments at which the runs of `beside` start.

    Raises:
        DataError: within one regime a later request is due earlier.
    """
    queues = _queues(ready, due, regime)
    draws = Draws(servers.exact, seed, "exact")
    others = Others(beside)
    free = [min(int(ready[0]), others.first)] * servers.workers
    starts: list[int] = []
    ends: list[int] = []
    sizes: list[int] = []
    decided = int(ready[0])
    while waiting := [q for q in queues if q.head < len(q.ready)]:
        # What the last run left behind is decided on after that run was put together, not before.
        came = min(int(q.ready[q.head]) for q in waiting)
        earliest = max(came, decided)
        begin = _start(waiting, servers, earliest, margin, largest)
        if windows is not None:
            begin = min(begin, max(earliest, next_window(came, *windows)))
        others.start(free, until=begin)
        decided = max(begin, free[0])
        counts = _choose(waiting, [q.pending(decided) for q in waiting], largest)
        for queue, count in zip(waiting, counts, strict=True):
            if count > 0:
                queue.taken.append((len(starts), count))
                queue.head += count
        end = decided + draws.next_duration(sum(counts))
        heapreplace(free, end)
        starts.append(decided)
        ends.append(end)
        sizes.append(sum(counts))
    others.start(free, until=None)
    return Served(runs=Runs.of(starts, ends, sizes), run_of=_runs_of(queues, len(ready))), others.starts


def next_window(ready: int, epoch: int, period: int) -> int:
    """The first of the moments epoch + k · period at or after `ready`."""
    return epoch - (epoch - ready) // period * period


class Others:
    """The runs of another stage, which come in between."""

    def __init__(self, beside: Beside | None) -> None:
        self._runs = [] if beside is None else list(zip(beside.ready.tolist(), beside.durations.tolist(), strict=True))
        self._starts: list[int] = []

    def start(self, free: list[int], *, until: int | None) -> None:
        """Start those that are ready by `until`, each on the worker that is free first."""
        while len(self._starts) < len(self._runs):
            ready, takes = self._runs[len(self._starts)]
            if until is not None and ready > until:
                return
            start = max(free[0], ready)
            heapreplace(free, start + takes)
            self._starts.append(start)

    @property
    def first(self) -> int:
        """When the first of them is ready; the end of time if there are none."""
        return self._runs[0][0] if self._runs else int(np.iinfo(np.int64).max)

    @property
    def starts(self) -> Times:
        return np.array(self._starts, dtype=np.int64)


def _queues(ready: Times, due: Times, regime: Codes) -> list[Queue]:
    kinds = np.unique(regime)
    queues = []
    for code in kinds:
        places = None if len(kinds) == 1 else np.flatnonzero(regime == code)
        mine = due if places is None else due[places]
        if (np.diff(mine) < 0).any():
            raise DataError("a later request is due earlier than one of the same regime", "Sort requests by receipt")
        queues.append(
            Queue(ready=ready if places is None else ready[places], due=mine, places=places, head=0, taken=[])
        )
    return queues


def _start(queues: list[Queue], servers: Servers, earliest: int, margin: int, largest: int) -> int:
    """The first moment from `earliest` on that is not before start_by as it is then; start_by never rises."""

    def start_by(at: int) -> int:
        counts = [(q, q.pending(at)) for q in queues]
        first = min(int(q.due[q.head]) for q, count in counts if count > 0)
        return first - servers.exact.p95(min(largest, sum(count for _, count in counts))) - margin

    low, high = earliest, start_by(earliest)
    while low < high:
        latest = start_by(high)
        if latest >= high:
            return high
        # The moment t looked for has start_by(t) ≤ t ≤ high, so that t ≥ start_by(t) ≥ start_by(high) = latest.
        low = max(low, latest)
        middle = (low + high) // 2
        if (found := start_by(middle)) <= middle:
            high = middle
        else:
            low, high = middle + 1, min(high, found)
    return low


def _choose(queues: list[Queue], pending: list[int], largest: int) -> list[int]:
    """How many of each queue a run takes: the `largest` that are due first, of equal ones those that came first."""
    pending = [max(0, count) for count in pending]
    if sum(pending) <= largest:
        return pending
    heads = [
        (q.due[q.head :][: min(n, largest)], q.ready[q.head :][: min(n, largest)])
        for q, n in zip(queues, pending, strict=True)
    ]
    if len(heads) == 1:
        return [largest]
    last = np.partition(np.concatenate([due for due, _ in heads]), largest - 1)[largest - 1]
    sure = [int(due.searchsorted(last, side="left")) for due, _ in heads]
    tied = [int(due.searchsorted(last, side="right")) for due, _ in heads]
    left = largest - sum(sure)
    came = [ready[a:b] for (_, ready), a, b in zip(heads, sure, tied, strict=True)]
    owner = np.repeat(np.arange(len(came)), [len(c) for c in came])
    first = np.argsort(np.concatenate(came), kind="stable")[:left]
    extra = np.bincount(owner[first], minlength=len(came))
    return [a + int(b) for a, b in zip(sure, extra, strict=True)]


def _runs_of(queues: list[Queue], count: int) -> Places:
    """(n,) the number of the run that served each request."""
    found = np.empty(count, dtype=np.int64)
    for queue in queues:
        numbers, counts = np.array(queue.taken, dtype=np.int64).T
        found[slice(None) if queue.places is None else queue.places] = np.repeat(numbers, counts)
    return found
