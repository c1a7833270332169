"""Many requests, workers killed at random, and on PostgreSQL a database that goes away in the middle."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

import pytest
from job_stubs import EFFECTS, Stubs, make_jobs, start_worker
from postgres import PostgresServer, machine_binaries, wheel_binaries

from expunge.service.database import Database, connect
from expunge.service.jobs.port import JobsUnreachable

PATIENT_SECONDS = 170.0


class Crew:
    """So many workers, replaced when they are killed.

    Args:
        seed: of who is killed and when.
    """

    def __init__(self, database: Database, stubs: Stubs, workers: int, seed: int) -> None:
        self.database, self.stubs = database, stubs
        self.random = random.Random(seed)
        self.kills = 0
        self.workers = [self._start() for _ in range(workers)]

    def _start(self) -> subprocess.Popen[bytes]:
        return start_worker(self.database, self.stubs.folder, "--lives", "50", "--lease", "2", "--until-idle")

    def kill_one(self) -> None:
        """One that still works, if any."""
        busy = [worker for worker in self.workers if worker.poll() is None]
        if not busy:
            return
        victim = self.random.choice(busy)
        victim.kill()
        victim.wait()
        self.kills += 1
        self.workers[self.workers.index(victim)] = self._start()

    def keep_up(self) -> None:
        """Replace those that ended with an error, as a supervisor would."""
        for index, worker in enumerate(self.workers):
            if worker.poll() not in (None, 0):
                self.workers[index] = self._start()

    def join(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while any(worker.poll() is None for worker in self.workers):
            self.keep_up()
            assert time.monotonic() < end, self.log()
            time.sleep(0.05)
        assert [worker.returncode for worker in self.workers] == [0] * len(self.workers), self.log()

    def end(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait()

    def log(self) -> str:
        return (self.stubs.folder / ".log").read_text()[-4000:]


def names(count: int) -> dict[str, str]:
    """Request -> how its job ends."""
    found = {}
    for n in range(count):
        if n % 25 == 7:
            found[f"req_{n}_fails"] = "failed"
        elif n % 25 == 13:
            found[f"req_{n}_wobbles"] = "succeeded"
        elif n % 25 == 19:
            found[f"req_{n}_gone"] = "cancelled"
        else:
            found[f"req_{n}"] = "succeeded"
    return found


def carry_through(
    database: Database, folder: Path, *, count: int, workers: int, kills: int, server: PostgresServer | None = None
) -> None:
    """`kills` kills, and a restart of the server after half of the jobs."""
    folder.mkdir()
    stubs = Stubs(database, folder)
    jobs = make_jobs(database, stubs)
    expected = names(count)
    began = time.monotonic()
    for request_id in expected:
        jobs.submit(request_id)
        jobs.submit(request_id)
        if expected[request_id] == "cancelled":
            jobs.cancel(request_id)
    crew = Crew(database, stubs, workers, seed=count)
    open_jobs = sum(state != "cancelled" for state in expected.values())
    try:
        restarted = server is None
        marks = [open_jobs * (n + 1) // (kills + 2) for n in range(kills)]
        while marks or not restarted:
            assert time.monotonic() - began < PATIENT_SECONDS, crew.log()
            crew.keep_up()
            ended = len(stubs.finals())
            if server is not None and not restarted and ended >= open_jobs // 2:
                server.stop(immediately=True)  # a crash: every connection is cut
                with pytest.raises(JobsUnreachable):  # whoever asks is told so, and does not hang
                    jobs.status("req_0")
                with pytest.raises(JobsUnreachable):
                    jobs.submit("req_0")
                time.sleep(1.0)
                server.start()
                restarted = True
            if marks and ended >= marks[0]:
                marks.pop(0)
                crew.kill_one()
            time.sleep(0.05)
        crew.join(PATIENT_SECONDS - (time.monotonic() - began))
    finally:
        crew.end()
    assert crew.kills == kills
    found = {request_id: jobs.status(request_id) for request_id in expected}
    wrong = [status for name, status in found.items() if status is None or status.state != expected[name]]
    assert wrong == []
    good = [name for name, state in expected.items() if state == "succeeded"]
    bad = [name for name, state in expected.items() if state == "failed"]
    assert stubs.finals() == {**dict.fromkeys(good, "fulfilled"), **dict.fromkeys(bad, "failed")}
    settled = ["carry_out model_a", "settle carry_out"]
    assert stubs.effects() == dict.fromkeys(good, EFFECTS) | dict.fromkeys(bad, settled)
    assert len(stubs.files()) == 2 * len(good) + len(bad)
    jobs.close()


def test_sixty_requests_on_sqlite_with_a_worker_that_is_killed(database: Database, tmp_path: Path) -> None:
    carry_through(database, tmp_path / "effects", count=60, workers=1, kills=1)


@pytest.mark.slow
def test_a_thousand_requests_on_sqlite_with_a_worker_that_is_killed(database: Database, tmp_path: Path) -> None:
    carry_through(database, tmp_path / "effects", count=1000, workers=1, kills=6)


@pytest.mark.slow
def test_a_thousand_requests_on_postgresql_with_three_workers(postgres: PostgresServer, tmp_path: Path) -> None:
    """Workers are killed at random, and the server crashes and comes back in the middle."""
    database = connect(postgres.new_database())
    carry_through(database, tmp_path / "effects", count=1000, workers=3, kills=8, server=postgres)
    database.close()


@pytest.mark.slow
@pytest.mark.parametrize("binaries", [machine_binaries(), wheel_binaries()], ids=["machine", "wheel"])
def test_jobs_on_each_server_there_is(binaries: Path | None, tmp_path: Path) -> None:
    if binaries is None:
        pytest.skip("this server is not installed")
    with PostgresServer(binaries) as server:
        database = connect(server.new_database())
        carry_through(database, tmp_path / "effects", count=40, workers=1, kills=1)
        database.close()
