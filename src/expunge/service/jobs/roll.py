"""The roll of workers: who is there, who was silent for too long.

A worker's clock is not asked. Whoever watches measures on its own clock for how long the sign of another has not
changed, so a clock that is wrong makes nobody dead. While the database was away, or the machine asleep, nobody could
sign: what passes between two looks counts only up to a bound.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable

from sqlalchemy import insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from expunge.service.clock import Clock, stamp, system_clock
from expunge.service.database import Database
from expunge.service.tables import worker

log = logging.getLogger(__name__)
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


def new_worker_id() -> str:
    return "wrk_" + "".join(secrets.choice(_ALPHABET) for _ in range(26))


class Roll:
    """The table of workers.

    Args:
        database: that it is in. clock: one that moves, since a sign that does not change is silence.
    """

    def __init__(self, database: Database, clock: Clock = system_clock) -> None:
        self.database = database
        self.clock = clock

    def enrol(self, worker_id: str) -> None:
        now = stamp(self.clock())
        with self.database.write() as connection:
            connection.execute(insert(worker).values(id=worker_id, started_at=now, beat_at=now, stopped_at=None))

    def beat(self, worker_id: str) -> bool:
        """Sign. False if it was struck off (or left): its jobs are no longer its own."""
        with self.database.write() as connection:
            found = connection.execute(
                update(worker)
                .where(worker.c.id == worker_id, worker.c.stopped_at.is_(None))
                .values(beat_at=stamp(self.clock()))
            )
        return found.rowcount == 1

    def leave(self, worker_id: str) -> None:
        """Strike off: itself when it ends, another when that one is dead. Twice is once."""
        with self.database.write() as connection:
            connection.execute(
                update(worker)
                .where(worker.c.id == worker_id, worker.c.stopped_at.is_(None))
                .values(stopped_at=stamp(self.clock()))
            )

    def present(self) -> dict[str, str]:
        """Worker id -> its last sign, of those who were not struck off."""
        with self.database.read() as connection:
            rows = connection.execute(select(worker.c.id, worker.c.beat_at).where(worker.c.stopped_at.is_(None)))
            return {row.id: row.beat_at for row in rows}


class Heart:
    """Signs every so often, in a thread of its own.

    Args:
        lease_seconds: after which others count a silent worker as dead. It signs six times as often.
    """

    def __init__(self, roll: Roll, worker_id: str, lease_seconds: float) -> None:
        self.lost = threading.Event()
        self._roll, self._worker_id, self._lease = roll, worker_id, lease_seconds
        self._halt = threading.Event()
        self._signed = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="expunge-heart", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._halt.set()
        self._thread.join()

    @property
    def fresh(self) -> bool:
        """Whether the last sign is so young that nobody can have counted this worker as dead."""
        return not self.lost.is_set() and time.monotonic() - self._signed < self._lease / 2

    def _run(self) -> None:
        while not self._halt.wait(self._lease / 6):
            began = time.monotonic()
            try:
                if not self._roll.beat(self._worker_id):
                    self.lost.set()
                    return
            except SQLAlchemyError as error:  # the database is away: for the others, too
                log.warning("worker %s cannot sign: %s", self._worker_id, type(error).__name__)
                continue
            self._signed = began


class Watch:
    """Who of the others is dead.

    Args:
        lease_seconds: of silence. monotonic: seconds that only grow.
    """

    def __init__(self, lease_seconds: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._lease, self._monotonic = lease_seconds, monotonic
        self._silence: dict[str, tuple[str, float]] = {}
        self._looked = monotonic()

    def dead(self, present: dict[str, str]) -> list[str]:
        """Those of `present` whose sign has not changed for the lease. To be called several times a lease.

        A gap between two looks counts for a third of the lease at most: nobody is dead for one long gap.
        """
        now = self._monotonic()
        passed = min(now - self._looked, self._lease / 3)
        self._looked = now
        before, self._silence = self._silence, {}
        for worker_id, sign in present.items():
            known, silence = before.get(worker_id, (None, 0.0))
            self._silence[worker_id] = (sign, silence + passed if known == sign else 0.0)
        return [worker_id for worker_id, (_, silence) in self._silence.items() if silence > self._lease]
