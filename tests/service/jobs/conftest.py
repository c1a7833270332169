"""A database and jobs for each test; a PostgreSQL server for those that need one."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # what the tests of the service share

from job_stubs import Stubs, make_jobs
from postgres import PostgresServer

from expunge.service.database import Database, connect
from expunge.service.jobs.dbos_jobs import DbosJobs


@pytest.fixture(autouse=True)
def in_time(request: pytest.FixtureRequest) -> Iterator[None]:
    """What is broken here waits for ever, as a rule: then the test fails."""
    seconds = 300 if request.node.get_closest_marker("slow") else 90

    def late(*_: object) -> None:
        raise TimeoutError(f"not over after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    found = connect(tmp_path / "requests.sqlite")
    yield found
    found.close()


@pytest.fixture
def stubs(database: Database, tmp_path: Path) -> Stubs:
    folder = tmp_path / "effects"
    folder.mkdir()
    return Stubs(database, folder)


@pytest.fixture
def jobs(database: Database, stubs: Stubs) -> Iterator[DbosJobs]:
    found = make_jobs(database, stubs)
    yield found
    found.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server
