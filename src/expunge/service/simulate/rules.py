"""The serving rules: ``now``, ``periodic`` and ``escalation`` here, ``batched`` in its own module."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from expunge.errors import RequestError, UnknownName
from expunge.service.policy import RULES, Serving
from expunge.service.simulate.batched import Beside, serve_batched
from expunge.service.simulate.served import Runs, Served
from expunge.service.simulate.servers import Draws, Servers, Work
from expunge.service.simulate.times import DAY, HOUR, SECOND, Times, midnight
from expunge.service.simulate.traffic import Codes, Traffic
from expunge.service.simulate.waiting import starts_in_order

Places = npt.NDArray[np.int64]


SIMULATED = (*RULES, "periodic_guarded", "escalation_guarded")
"""The policy's rules, and two with a guard: a window is not waited for past start_by, as the service plans it."""

WITH_WINDOWS = tuple(rule for rule in SIMULATED if rule.startswith(("periodic", "escalation")))


def serve(rule: str, traffic: Traffic, due: Times, servers: Servers, serving: Serving, *, seed: int) -> Served:
    """Serve all requests of `traffic` by one rule, until the last one is fulfilled.

    Args:
        due: (n,) first moments at which each request is late. serving: windows, margin, largest batch; its own rule is
            not read.

    Raises:
        RequestError: an unknown rule, or an approximation that cannot keep its hours. DataError: see `serve_batched`.
    """
    ready = traffic.received + round(servers.approval_days * DAY)
    name, _, guarded = rule.partition("_")
    if rule not in SIMULATED:
        raise UnknownName("serving rule", rule, SIMULATED)
    # With a period of 0 every moment is a window.
    period = round(serving.period_days * DAY)
    if name == "now" or (name == "periodic" and period == 0):
        return serve_now(ready, servers, seed=seed)
    if name == "escalation":
        return serve_escalation(ready, due, traffic.regime, servers, serving, guarded=bool(guarded), seed=seed)
    if name == "periodic" and not guarded:
        return serve_periodic(ready, due, servers, serving, seed=seed)
    return serve_batched(
        ready,
        due,
        traffic.regime,
        servers,
        margin=round(serving.margin_hours * HOUR),
        largest=serving.largest_batch,
        windows=(midnight(serving.epoch), period) if guarded else None,
        seed=seed,
    )[0]


def serve_now(ready: Times, servers: Servers, *, seed: int) -> Served:
    """A run for each request as it comes in."""
    ones = np.ones(len(ready), dtype=np.int64)
    durations = servers.exact.durations(ones, Draws(servers.exact, seed, "exact"))
    start = starts_in_order(ready, durations, servers.workers)
    return Served(runs=Runs(start, start + durations, ones), run_of=np.arange(len(ready)))


def serve_periodic(ready: Times, due: Times, servers: Servers, serving: Serving, *, seed: int) -> Served:
    """All that is ready at a window of retraining runs then, in as few runs as the largest batch allows.

    Windows are at ``serving.epoch`` and every ``period_days`` from there.
    """
    window = windows(ready, midnight(serving.epoch), round(serving.period_days * DAY))
    at, sizes, run_of = gathered(window, due, serving.largest_batch)
    durations = servers.exact.durations(sizes, Draws(servers.exact, seed, "exact"))
    start = starts_in_order(at, durations, servers.workers)
    return Served(runs=Runs(start, start + durations, sizes), run_of=run_of)


def serve_escalation(
    ready: Times, due: Times, regime: Codes, servers: Servers, serving: Serving, *, guarded: bool = False, seed: int
) -> Served:
    """Suppressed at once, approximated within hours, exact at the next window; the same workers for both kinds of run.

    Approximations start at ticks so near to each other that p95 of a run for one request, evaluation included, ends
    within the promised hours while a worker is free. A request whose window comes at or before its tick skips the
    approximation. Runs are served in the order in which they are ready, approximations first.

    Args:
        guarded: a window is not waited for past start_by.

    Raises:
        RequestError: no approximate work is given, or it takes longer than it may.
    """
    if servers.approximate is None:
        raise RequestError("escalation needs an approximate stage, and none is given", "Give its run time")
    epoch, period = midnight(serving.epoch), round(serving.period_days * DAY)
    window = windows(ready, epoch, period) if period else ready
    tick = windows(ready, epoch, _tick(servers.approximate, serving))
    soon = np.flatnonzero(tick < window)
    at, sizes, soft_of = gathered(tick[soon], due[soon], serving.largest_batch)
    soft = Beside(at, servers.approximate.durations(sizes, Draws(servers.approximate, seed, "approximate")))
    if guarded and period:
        margin = round(serving.margin_hours * HOUR)
        hard, start = serve_batched(
            ready,
            due,
            regime,
            servers,
            margin=margin,
            largest=serving.largest_batch,
            windows=(epoch, period),
            beside=soft,
            seed=seed,
        )
    else:
        gathered_hard = gathered(window, due, serving.largest_batch) if period else _each(ready)
        hard, start = _beside(gathered_hard, soft, servers, seed)
    approximate_of = np.full(len(ready), -1, dtype=np.int64)
    approximate_of[soon] = soft_of
    return Served(
        runs=hard.runs,
        run_of=hard.run_of,
        approximate=Runs(start, start + soft.durations, sizes),
        approximate_of=approximate_of,
        suppress_after=round(servers.suppress_seconds * SECOND),
    )


def _each(ready: Times) -> tuple[Times, Places, Places]:
    return ready, np.ones(len(ready), dtype=np.int64), np.arange(len(ready))


def _beside(hard: tuple[Times, Places, Places], soft: Beside, servers: Servers, seed: int) -> tuple[Served, Times]:
    """Two kinds of runs in one row of workers, approximations first where both are ready at once."""
    at, sizes, run_of = hard
    takes = servers.exact.durations(sizes, Draws(servers.exact, seed, "exact"))
    ready, durations = np.concatenate([soft.ready, at]), np.concatenate([soft.durations, takes])
    order = np.argsort(ready, kind="stable")
    start = np.empty(len(order), dtype=np.int64)
    start[order] = starts_in_order(ready[order], durations[order], servers.workers)
    soft_start, hard_start = start[: len(soft.ready)], start[len(soft.ready) :]
    return Served(runs=Runs(hard_start, hard_start + takes, sizes), run_of=run_of), soft_start


def _tick(work: Work, serving: Serving) -> int:
    left = round(serving.approximate_within_hours * HOUR) - work.p95(1)
    if left <= 0:
        raise RequestError(
            f"an approximation takes {work.p95(1) / HOUR:.3g} hours (95th percentile) and may take "
            f"{serving.approximate_within_hours:g}",
            "Raise approximate_within_hours, or choose a quicker method",
        )
    return left


def windows(ready: Times, epoch: int, period: int) -> Times:
    """(n,) the first of the moments epoch + k · period at or after each of (n,) moments."""
    found: Times = epoch - (epoch - ready) // period * period
    return found


def gathered(window: Times, due: Times, largest: int) -> tuple[Times, Places, Places]:
    """The runs of requests that share a window, `largest` at most each, those due first in the earlier run.

    Args:
        window, due: (n,) moments, `window` rising.

    Returns:
        (runs,) when each is ready, (runs,) its requests, and (n,) the run of each request.
    """
    if not len(window):
        empty = np.zeros(0, dtype=np.int64)
        return empty, empty, empty
    first = np.flatnonzero(np.diff(window, prepend=window[0] - 1))
    counts = np.diff(first, append=len(window))
    each = -(-counts // largest)
    runs_before = np.cumsum(each) - each
    group = np.repeat(np.arange(len(first)), counts)
    place = np.arange(len(window)) - first[group]
    for g in np.flatnonzero(each > 1):
        a, b = first[g], first[g] + counts[g]
        if (np.diff(due[a:b]) < 0).any():
            ranks = np.empty(b - a, dtype=np.int64)
            ranks[np.argsort(due[a:b], kind="stable")] = np.arange(b - a)
            place[a:b] = ranks
    sizes = np.full(int(each.sum()), largest, dtype=np.int64)
    last = runs_before + each - 1
    sizes[last] = counts - (each - 1) * largest
    return np.repeat(window[first], each), sizes, runs_before[group] + place // largest
