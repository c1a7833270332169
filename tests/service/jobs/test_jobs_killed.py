"""Workers killed by SIGKILL at named and at random places, and jobs that kill. On SQLite, in subprocesses."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from job_stubs import EFFECTS, HANDING, PLACES, SETTLING, Stubs, make_jobs, start_worker

from expunge.service.database import Database
from expunge.service.jobs.dbos_jobs import DbosJobs

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(database: Database, stubs: Stubs) -> Iterator[Start]:
    """Starts workers, and ends those that are left."""
    found: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: str) -> subprocess.Popen[bytes]:
        found.append(start_worker(database, stubs.folder, *arguments))
        return found[-1]

    yield begin
    for process in found:
        process.kill()
        process.wait()


def until(true: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def check(jobs: DbosJobs, stubs: Stubs, good: list[str], bad: list[str]) -> None:
    """Every job has its one right end, and everything was done once in effect."""
    states = {request_id: jobs.status(request_id) for request_id in good + bad}
    assert {name: found.state for name, found in states.items() if found} == {
        **dict.fromkeys(good, "succeeded"),
        **dict.fromkeys(bad, "failed"),
    }
    assert stubs.finals() == {**dict.fromkeys(good, "fulfilled"), **dict.fromkeys(bad, "failed")}
    settled = ["carry_out model_a", "settle carry_out"]
    assert stubs.effects() == dict.fromkeys(good, EFFECTS) | dict.fromkeys(bad, settled)
    files = [f"{name}.{target}" for name in good for target in ("model_a", "store_b")] + [f"{n}.model_a" for n in bad]
    assert stubs.files() == sorted(files)


def killed_at(place: str, start: Start, jobs: DbosJobs, stubs: Stubs) -> None:
    jobs.submit("req_1")
    jobs.submit("req_2_fails")
    first = start("--kill", place, "--until-idle")
    assert first.wait(60) == -signal.SIGKILL
    jobs.work(until_idle=True)  # this process takes over
    check(jobs, stubs, ["req_1"], ["req_2_fails"])


def test_a_worker_is_killed_and_another_goes_on(start: Start, jobs: DbosJobs, stubs: Stubs) -> None:
    killed_at("after close", start, jobs, stubs)
    assert stubs.runs("req_1") == [*EFFECTS, "close"]  # done, and not recorded: begun again, without a second effect


@pytest.mark.slow
@pytest.mark.parametrize("place", [*PLACES[:-1], *SETTLING])
def test_killed_at_every_other_named_place(place: str, start: Start, jobs: DbosJobs, stubs: Stubs) -> None:
    killed_at(place, start, jobs, stubs)
    if place == "before close":
        assert stubs.runs("req_1") == [*EFFECTS, "close"]  # what was recorded is not begun again


@pytest.mark.slow
def test_killed_while_taking_over(start: Start, jobs: DbosJobs, stubs: Stubs) -> None:
    jobs.submit("req_1")
    assert start("--kill", "half of carry_out", "--until-idle").wait(60) == -signal.SIGKILL
    assert start("--kill", HANDING[0], "--until-idle").wait(60) == -signal.SIGKILL
    jobs.work(until_idle=True)
    check(jobs, stubs, ["req_1"], [])


@pytest.mark.slow
def test_a_job_that_kills_its_workers_ends_as_failed(start: Start, database: Database, stubs: Stubs) -> None:
    jobs = make_jobs(database, stubs)
    jobs.submit("req_1_kills")
    for _ in range(2):
        assert start("--until-idle", "--lease", "0.3").wait(60) == -signal.SIGKILL
    assert start("--until-idle", "--lease", "0.3", "--lives", "2").wait(60) == 0
    found = jobs.status("req_1_kills")
    assert found is not None and found.error is not None
    assert (found.state, found.step, found.error.kind) == ("failed", "carry_out", "WorkerLost")
    assert "taken up 3 times" in found.error.text
    check(jobs, stubs, [], ["req_1_kills"])
    jobs.close()


@pytest.mark.slow
def test_a_worker_that_is_told_to_go_hands_its_jobs_on(start: Start, jobs: DbosJobs, stubs: Stubs) -> None:
    jobs.submit("req_1")
    worker = start("--seconds", "0.4", "--lease", "60")
    until(lambda: stubs.runs())
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    found = jobs.status("req_1")
    assert found is not None and (found.state, found.done) == ("waiting", 2)
    jobs.work(until_idle=True)  # at once: nobody waits for the lease of 60 s
    assert stubs.runs() == EFFECTS
    check(jobs, stubs, ["req_1"], [])


@pytest.mark.slow
def test_a_worker_that_stood_still_finds_its_jobs_gone(start: Start, jobs: DbosJobs, stubs: Stubs) -> None:
    """Stopped, taken for dead, woken up: its record is refused, and it begins nothing that is no longer its own."""
    jobs.submit("req_1")
    worker = start("--seconds", "0.5", "--until-idle")
    until(lambda: stubs.runs())
    worker.send_signal(signal.SIGSTOP)
    jobs.work(until_idle=True)
    assert stubs.finals() == {"req_1": "fulfilled"}
    runs = stubs.runs()
    assert runs == ["carry_out model_a", *EFFECTS]
    worker.send_signal(signal.SIGCONT)
    assert worker.wait(60) == 0  # replaced; it started again and found nothing to do
    assert stubs.runs() == runs
    check(jobs, stubs, ["req_1"], [])
    assert b"silent for too long" in (stubs.folder / ".log").read_bytes()


@pytest.mark.slow
def test_killed_at_random_again_and_again(start: Start, jobs: DbosJobs, stubs: Stubs) -> None:
    seeded = random.Random(7)
    good = [f"req_{n}" for n in range(30)] + [f"req_{n}_wobbles" for n in range(4)]
    bad = [f"req_{n}_fails" for n in range(4)]
    for request_id in good + bad:
        jobs.submit(request_id)
    kills = 0
    while kills < 5:
        worker = start("--until-idle", "--lives", "50")
        before = len(stubs.runs())
        until(lambda before=before: len(stubs.runs()) > before)
        time.sleep(seeded.uniform(0.0, 0.25))
        worker.kill()
        assert worker.wait() == -signal.SIGKILL
        kills += 1
    assert start("--until-idle", "--lives", "50").wait(90) == 0
    check(jobs, stubs, good, bad)
    assert len(stubs.runs()) > 3 * len(good)
