"""The whole service, its workers killed at random and its database restarted: no request is lost, none done twice."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from desk_tools import APPROVER, OPERATOR
from postgres import PostgresServer
from sqlalchemy import select

from expunge.audit.layers import read_layer, verify_layer
from expunge.service import tables
from expunge.service.entities import Filing
from expunge.service.registry import Target
from expunge.service.service import Service, open_service
from expunge.training.files import read_json

pytestmark = pytest.mark.slow
FILES = 4
POLICY = "serving: {rule: now, largest_batch: 25}\nretries: {attempts: 6, first_seconds: 0.2, longest_seconds: 2}\n"


def prepared(home: Path, url: str | None, requests: int) -> tuple[Service, list[str], list[Path]]:
    """A service with `FILES` files of rows, and as many approved requests as owners."""
    home.mkdir(mode=0o700)
    (home / "policy.yaml").write_text(POLICY)
    service = open_service(home, database=url)
    paths = []
    for n in range(FILES):
        path = home.parent / f"file{n}.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["owner", "told"])
            writer.writerows(
                (f"person-{k:05d}", f"words {k}") for k in range(n, requests + FILES, FILES) for _ in (0, 1)
            )
        service.registry.register(
            Target(
                id=f"file{n}",
                name=f"file{n}",
                version="1",
                kind="dataset",
                location=str(path),
                options={"owner": "owner"},
            )
        )
        paths.append(path)
    ids = []
    for k in range(requests):
        request = service.desk.file(OPERATOR, Filing(identity=f"person-{k:05d}", verified=True))
        service.desk.approve(APPROVER, request.id)
        ids.append(request.id)
    return service, ids, paths


class Crowd:
    """Worker processes of a service, killed and started again."""

    def __init__(self, home: Path, url: str | None, count: int) -> None:
        command = [sys.executable, "-m", "expunge", "worker", "--home", str(home), "--lease", "3"]
        self.command = [*command, "--database", url] if url else command
        self.log = (home.parent / "workers.log").open("ab")
        self.processes = [self._start() for _ in range(count)]

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(self.command, stdout=self.log, stderr=self.log, env=environment)

    def kill_one(self, draw: random.Random) -> None:
        place = draw.randrange(len(self.processes))
        self.processes[place].send_signal(signal.SIGKILL)
        self.processes[place].wait()
        self.processes[place] = self._start()

    def keep_up(self) -> None:
        """A worker that ended because its database was away is started again, as a supervisor would."""
        for place, process in enumerate(self.processes):
            if process.poll() is not None:
                self.processes[place] = self._start()

    def close(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.log.close()


def open_requests(service: Service) -> int:
    with service.database.read() as connection:
        states = Counter(connection.execute(select(tables.request.c.status)).scalars())
    return sum(n for status, n in states.items() if status != "fulfilled")


def all_is_right(service: Service, ids: list[str], paths: list[Path]) -> None:
    with service.database.read() as connection:
        states = Counter(connection.execute(select(tables.request.c.status)).scalars())
        events = connection.execute(select(tables.event.c.request_id, tables.event.c.kind)).all()
        layers = connection.execute(select(tables.layer.c.request_id, tables.layer.c.status)).all()
        batches = connection.execute(select(tables.batch.c.id, tables.batch.c.status, tables.batch.c.size)).all()
    assert states == {"fulfilled": len(ids)}
    ends = Counter(request_id for request_id, kind in events if kind == "fulfilled")
    assert set(ends) == set(ids) and set(ends.values()) == {1}  # each once
    assert Counter(request_id for request_id, _ in layers) == dict.fromkeys(ids, 1)
    assert {status for _, status in layers} <= {"done", "already"}
    assert {status for _, status, _ in batches} == {"done"} and sum(size for *_, size in batches) == len(ids)
    named: Counter[str] = Counter()
    leaves = (service.home / "log" / "entries.jsonl").read_bytes().splitlines()
    for batch_id, _, _ in batches:
        path = service.home / "certificates" / f"{batch_id}.json"
        assert verify_layer(read_json(path), keys=service.keys.trusted).outcome == "pass"
        named.update(read_layer(path).predicate.request_ids)
    assert named == dict.fromkeys(ids, 1) and len(leaves) == len(set(leaves)) == len(batches)
    for path in paths:  # one owner more than asked was in each file: two rows are left
        assert len(path.read_text().splitlines()) == 3
        assert not path.with_name(f".{path.name}.superseded").exists()
    assert all(service.suppression.blocked([f"person-{k:05d}" for k in range(len(ids))]))


def wait_for(service: Service, crowd: Crowd, seconds: float, draw: random.Random, kills: int, server: object) -> None:
    """Kill workers while the work goes on; restart the database once, about half-way."""
    end, killed, restarted, first = time.monotonic() + seconds, 0, server is None, open_requests(service)
    while time.monotonic() < end:
        time.sleep(0.5)
        crowd.keep_up()
        left = open_requests(service)
        if left == 0:
            break
        if not restarted and left < first * 0.6:
            server.restart(away_seconds=1.0, immediately=True)  # type: ignore[attr-defined]
            restarted = True
        if killed < kills and draw.random() < 0.4:
            crowd.kill_one(draw)
            killed += 1
    assert killed == kills and restarted and open_requests(service) == 0, (killed, restarted, open_requests(service))


def test_sqlite_with_one_worker(tmp_path: Path) -> None:
    service, ids, paths = prepared(tmp_path / "home", None, 300)
    crowd = Crowd(tmp_path / "home", None, 1)
    try:
        wait_for(service, crowd, 240, random.Random(0), 3, None)
    finally:
        crowd.close()
    all_is_right(service, ids, paths)
    service.close()


def test_postgresql_with_three_workers_and_a_restart(tmp_path: Path) -> None:
    with PostgresServer() as server:
        url = server.new_database()
        service, ids, paths = prepared(tmp_path / "home", url, 1000)
        crowd = Crowd(tmp_path / "home", url, 3)
        try:
            wait_for(service, crowd, 280, random.Random(1), 6, server)
        finally:
            crowd.close()
        all_is_right(service, ids, paths)
        service.close()
