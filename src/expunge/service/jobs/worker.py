"""The loop of a worker process: works until it is told to go, and starts again when it was taken for dead."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from expunge.service.jobs.port import Jobs, JobsUnreachable, WorkerReplaced

log = logging.getLogger(__name__)
PAUSE_SECONDS = 5.0


def keep_working(
    jobs: Jobs, *, stop: threading.Event, until_idle: bool = False, pause_seconds: float = PAUSE_SECONDS
) -> None:
    """Work until `stop` is set (or nothing is left), through replacements and a database that is away.

    For a thread beside the API, too: it ends only when it is told to, or by an error that waiting cannot cure.

    Args:
        pause_seconds: before it starts again.
    """
    while not stop.is_set():
        try:
            jobs.work(until_idle=until_idle, stop=stop)
            return
        except (WorkerReplaced, JobsUnreachable) as error:
            log.warning("the worker starts again in %g s: %s", pause_seconds, error)
            stop.wait(pause_seconds)


def run_worker(jobs: Jobs, *, until_idle: bool = False, pause_seconds: float = PAUSE_SECONDS) -> None:
    """The whole life of a worker process, in its main thread: SIGTERM and SIGINT let it end its steps and go.

    A second SIGINT is a KeyboardInterrupt. A process that must go at once may be killed: nothing is lost.
    """
    stop = threading.Event()
    with _told_by_signals(stop):
        keep_working(jobs, stop=stop, until_idle=until_idle, pause_seconds=pause_seconds)


@contextmanager
def _told_by_signals(stop: threading.Event) -> Iterator[None]:
    def go(number: int, _frame: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, go) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
