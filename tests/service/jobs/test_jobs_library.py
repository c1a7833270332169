"""What is peculiar to the library: no pickles, no surprise from its private parts, its log, and loading it late."""

from __future__ import annotations

import base64
import json
import logging
import os
import pickle
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from dbos import DBOS
from job_stubs import EFFECTS, Stubs, make_jobs
from postgres import PostgresServer
from sqlalchemy.exc import OperationalError

from expunge.errors import RunError, WrongState
from expunge.service.database import Database, connect
from expunge.service.jobs import library
from expunge.service.jobs.dbos_jobs import DbosJobs
from expunge.service.jobs.port import JobsUnreachable
from expunge.service.jobs.roll import Roll
from expunge.service.jobs.shift import HandedBack, Shift


@contextmanager
def record(database: Database) -> Iterator[sqlite3.Connection]:
    """The library's own tables."""
    with closing(sqlite3.connect(library.jobs_url(database).removeprefix("sqlite:///"))) as connection:
        yield connection
        connection.commit()


class Trap:
    """What a pickle does when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_everything_is_recorded_as_json(jobs: DbosJobs, database: Database) -> None:
    for request_id in ("req_1", "req_2_fails", "req_3_wobbles"):
        jobs.submit(request_id)
    jobs.work(until_idle=True)
    with record(database) as connection:
        kinds = connection.execute("SELECT DISTINCT serialization FROM workflow_status").fetchall()
        kinds += connection.execute("SELECT DISTINCT serialization FROM operation_outputs").fetchall()
        values = [row[0] for row in connection.execute("SELECT inputs FROM workflow_input")]
        values += [row[0] for row in connection.execute("SELECT coalesce(output, error) FROM workflow_output")]
        values += [row[0] for row in connection.execute("SELECT coalesce(output, error) FROM operation_outputs")]
        versions = connection.execute("SELECT DISTINCT application_version FROM workflow_status").fetchall()
    assert kinds == [("portable_json",)] * 2
    assert len(values) > 15
    for value in values:
        json.loads(value)
    assert json.loads(values[0]) == {"namedArgs": {}, "positionalArgs": ["req_1"]}  # nothing but the opaque id
    assert versions == [(library.VERSION,)]


def test_a_planted_pickle_is_not_loaded(jobs: DbosJobs, database: Database, stubs: Stubs, tmp_path: Path) -> None:
    """Whoever can write a row cannot run code."""
    bad = base64.b64encode(pickle.dumps(Trap(tmp_path / "trapped"))).decode()
    for request_id in ("req_1", "req_2"):
        jobs.submit(request_id)
    with record(database) as connection:
        connection.execute("UPDATE workflow_status SET serialization = 'py_pickle' WHERE workflow_uuid = 'req_1:1'")
        connection.execute("UPDATE workflow_input SET inputs = ? WHERE workflow_uuid = 'req_1:1'", (bad,))
    jobs.work(until_idle=True)
    found = jobs.status("req_1")
    assert found is not None and found.state == "failed" and found.error is not None
    assert "withheld" in found.error.text
    with record(database) as connection:
        connection.execute("UPDATE operation_outputs SET serialization = 'py_pickle', output = ?", (bad,))
        connection.execute("UPDATE workflow_status SET serialization = 'py_pickle'")
        connection.execute("UPDATE workflow_output SET output = ?, error = ?", (bad, bad))
    for request_id in ("req_1", "req_2"):
        assert jobs.status(request_id) is not None
    assert not (tmp_path / "trapped").exists()
    assert stubs.effects() == {"req_2": EFFECTS}


def test_a_record_that_cannot_be_followed_ends_the_job_and_settles_it(
    database: Database, stubs: Stubs, caplog: pytest.LogCaptureFixture
) -> None:
    stubs.seconds = 0.3
    jobs = make_jobs(database, stubs)
    jobs.submit("req_1")
    stop = threading.Event()
    worker = threading.Thread(target=lambda: jobs.work(stop=stop))
    worker.start()
    while not stubs.runs():
        time.sleep(0.01)
    stop.set()
    worker.join()
    with record(database) as connection:
        connection.execute("UPDATE operation_outputs SET function_name = 'pray' WHERE function_name = 'carry_out'")
    jobs.work(until_idle=True)
    found = jobs.status("req_1")
    assert found is not None and found.state == "failed"
    assert stubs.finals() == {"req_1": "failed"}
    assert "cannot be followed (DBOSUnexpectedStepError)" in caplog.text
    jobs.close()


def test_a_job_that_was_claimed_and_not_begun_is_found(jobs: DbosJobs, database: Database, stubs: Stubs) -> None:
    """The answer to a claim can be lost with the connection: the job is pending under a worker that knows nothing."""
    jobs.submit("req_1")
    stop = threading.Event()
    worker = threading.Thread(target=lambda: jobs.work(stop=stop))
    worker.start()
    found = jobs.status("req_1")
    while found is None or not found.ended:
        found = jobs.status("req_1")
        time.sleep(0.02)
    claim = (
        "UPDATE workflow_status SET status = 'PENDING', executor_id = ?, owner_xid = 'lost', started_at_epoch_ms = 1"
    )
    for number in range(2, 99):  # until one is claimed like that before the worker itself claims it
        jobs.submit(f"req_{number}")
        with record(database) as connection:
            claimed = connection.execute(
                f"{claim} WHERE workflow_uuid = ? AND status = 'ENQUEUED'", (found.worker, f"req_{number}:1")
            )
        if claimed.rowcount:
            break
    end = time.monotonic() + 20
    while f"req_{number}" not in stubs.finals() and time.monotonic() < end:
        time.sleep(0.02)
    stop.set()
    worker.join()
    assert stubs.effects() == {f"req_{n}": EFFECTS for n in range(1, number + 1)}


def test_only_what_is_pending_under_that_worker_is_handed_on(jobs: DbosJobs, database: Database) -> None:
    """The one private function of the library that is used here does what it did in 3.4."""
    jobs.submit("req_1")
    jobs.submit("req_2")
    jobs.cancel("req_2")
    with record(database) as connection:
        connection.execute(
            "UPDATE workflow_status SET status = 'PENDING', executor_id = 'wrk_1' WHERE status = 'ENQUEUED'"
        )
    assert not library.hand_on(jobs._client, "req_1:1", "wrk_2")
    assert not library.hand_on(jobs._client, "req_2:1", "wrk_1")
    assert not library.hand_on(jobs._client, "req_3:1", "wrk_1")
    assert library.hand_on(jobs._client, "req_1:1", "wrk_1")
    assert not library.hand_on(jobs._client, "req_1:1", "wrk_1")
    found = [jobs.status(name) for name in ("req_1", "req_2")]
    assert [status.state for status in found if status] == ["waiting", "cancelled"]


def test_a_job_of_another_version_waits_for_a_worker_of_its_own(
    jobs: DbosJobs, stubs: Stubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(library, "VERSION", "expunge-jobs-2")
        jobs.submit("req_1")
    jobs.submit("req_2")
    stop = threading.Event()
    worker = threading.Thread(target=lambda: jobs.work(stop=stop))
    worker.start()
    while "req_2" not in stubs.finals():
        time.sleep(0.02)
    stop.set()
    worker.join()
    found = jobs.status("req_1")
    assert found is not None and found.state == "waiting"


def test_a_worker_does_not_join_someone_elses_library(jobs: DbosJobs, tmp_path: Path) -> None:
    DBOS(config={"name": "other", "system_database_url": f"sqlite:///{tmp_path / 'other.sqlite'}"})
    try:
        with pytest.raises(WrongState, match="runs in this process"):
            jobs.work()
    finally:
        DBOS.destroy(destroy_registry=True)


def test_the_log_of_the_library_quotes_no_error(caplog: pytest.LogCaptureFixture) -> None:
    library.quieten()
    library.quieten()
    logger = logging.getLogger("dbos")
    try:
        raise ValueError("alice@example.org")
    except ValueError as error:
        logger.error("it broke:", exc_info=error)
    assert "it broke: (ValueError)" in caplog.text and "alice" not in caplog.text
    assert len(logger.filters) == len(set(logger.filters))


def test_tables_stand_beside_ours(database: Database, jobs: DbosJobs, tmp_path: Path) -> None:
    assert (tmp_path / "requests.jobs.sqlite").exists()
    with database.read() as connection:
        names = connection.exec_driver_sql("SELECT name FROM sqlite_master").scalars().all()
    assert not any("workflow" in name for name in names)
    with record(database) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_database_that_cannot_be_reached_is_said_to_be(stubs: Stubs, database: Database, tmp_path: Path) -> None:
    (tmp_path / "requests.jobs.sqlite").mkdir()
    with pytest.raises(JobsUnreachable):
        make_jobs(database, stubs)


def test_the_program_starts_without_the_library() -> None:
    code = "import expunge, expunge.cli, expunge.service.jobs.port, sys; print('dbos' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.slow
def test_on_postgresql_the_tables_have_a_schema_and_a_dead_server_is_reported(tmp_path: Path) -> None:
    with PostgresServer() as server:
        database = connect(server.new_database())
        stubs = Stubs(database, tmp_path)
        jobs = make_jobs(database, stubs)
        jobs.submit("req_1")
        with database.read() as connection:
            schemas = connection.exec_driver_sql(
                "SELECT DISTINCT table_schema FROM information_schema.tables"
            ).scalars()
            assert {"public", "expunge_jobs"} <= set(schemas)
        server.stop(immediately=True)
        for call in (jobs.submit, jobs.status, jobs.cancel, jobs.retry, jobs.erase):
            with pytest.raises(JobsUnreachable):
                call("req_1")
        with pytest.raises(JobsUnreachable):
            jobs.work(until_idle=True)
        with pytest.raises(RunError):
            connect(server.url)
        server.start()
        jobs.work(until_idle=True)
        assert stubs.effects() == {"req_1": EFFECTS}
        jobs.close()
        database.close()


def test_a_record_that_could_not_be_kept_is_no_outcome(
    database: Database, stubs: Stubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the connection that the library does not wait out: the job is put back, and succeeds later."""
    run_step, broken = DBOS.run_step, []

    def breaks_once(options: Any, *arguments: Any) -> Any:
        if options["name"] == "close" and not broken:
            broken.append(True)
            raise OperationalError("INSERT", {}, Exception("alice@example.org"))
        return run_step(options, *arguments)

    monkeypatch.setattr(DBOS, "run_step", breaks_once)
    jobs = make_jobs(database, stubs, lease_seconds=0.6)
    jobs.submit("req_1")
    jobs.work(until_idle=True)
    found = jobs.status("req_1")
    assert found is not None and found.state == "succeeded" and broken
    assert stubs.runs() == EFFECTS
    jobs.close()


def test_nothing_is_begun_while_nobody_knows_whether_this_worker_counts(database: Database, stubs: Stubs) -> None:
    jobs = make_jobs(database, stubs, lease_seconds=0.6)
    roll = Roll(database)
    roll.enrol("wrk_1")
    shift = Shift(jobs._work, jobs._url, jobs._client, roll, "wrk_1")
    shift._may_begin()
    time.sleep(0.4)  # its heart does not beat: it was not started
    assert not shift.heart.fresh
    threading.Timer(0.1, shift.heart.lost.set).start()
    with pytest.raises(HandedBack):
        shift._may_begin()
    jobs.close()
