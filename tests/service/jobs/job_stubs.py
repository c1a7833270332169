"""Jobs whose steps only leave traces: each in a table under a unique key and in a file by a rename.

Also a worker process: ``python job_stubs.py --database URL --folder FOLDER``. It can be told where to kill itself,
once.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Column, Integer, MetaData, Table, Text, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from expunge.service.database import Database, connect
from expunge.service.jobs import library
from expunge.service.jobs.dbos_jobs import DbosJobs
from expunge.service.jobs.port import JobError, Json, Retries, StepCall, StepFailed
from expunge.service.jobs.worker import run_worker

metadata = MetaData()
effect = Table(
    "stub_effect",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("step", Text, primary_key=True),
)
tally = Table("stub_tally", metadata, Column("request_id", Text, primary_key=True), Column("effects", Integer))
final = Table("stub_final", metadata, Column("request_id", Text, primary_key=True), Column("state", Text))
run = Table(
    "stub_run",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("request_id", Text),
    Column("step", Text),
    Column("pid", Integer),
)
TARGETS = ("model_a", "store_b")
EFFECTS = [f"carry_out {target}" for target in TARGETS] + ["close"]
PLACES = ["plan", "before carry_out", "half of carry_out", "after carry_out", "before close", "after close"]
SETTLING = ["before settle", "after settle"]
HANDING = ["handing on"]  # while it takes over the jobs of another that died
SECRET = "alice@example.org"


class Stubs:
    """The plan, the steps and the settling. What a request does is in its id: ``req_7_fails``, ``req_8_wobbles``, …"""

    def __init__(self, database: Database, folder: Path, *, kill: str | None = None, seconds: float = 0.0) -> None:
        self.database, self.folder, self.kill, self.seconds = database, folder, kill, seconds
        self.mended = False
        with database.write() as connection:
            metadata.create_all(connection)

    def plan(self, request_id: str) -> list[StepCall]:
        self.arrive("plan", request_id)
        return [StepCall("carry_out", {"target": target}) for target in TARGETS] + [StepCall("close")]

    @property
    def steps(self) -> dict[str, Callable[[str, Json], Json]]:
        return {"carry_out": self.carry_out, "close": self.close}

    def carry_out(self, request_id: str, argument: Json) -> Json:
        assert isinstance(argument, dict)
        step = f"carry_out {argument['target']}"
        count = self.begun(request_id, step)
        self.arrive("before carry_out", request_id)
        time.sleep(self.seconds)
        if argument["target"] == TARGETS[1]:
            if "fails" in request_id and not self.mended:
                raise StepFailed("store_b holds a lock that nobody releases", "Release it")
            if "leaks" in request_id:
                raise ValueError(f"no row of {SECRET}")
            if "wobbles" in request_id and count < 3:
                raise OSError(f"the disk of {SECRET} is busy")
            if "kills" in request_id:
                os.kill(os.getpid(), signal.SIGKILL)
        path = self.folder / f"{request_id}.{argument['target']}"
        part = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        part.write_text(f"{request_id} {argument['target']}\n")
        self.arrive("half of carry_out", request_id)
        part.rename(path)
        self.leave_trace(request_id, step)
        self.arrive("after carry_out", request_id)
        return {"target": argument["target"], "status": "done"}

    def close(self, request_id: str, _argument: Json) -> Json:
        self.begun(request_id, "close")
        self.arrive("before close", request_id)
        self.leave_trace(request_id, "close", state="fulfilled")
        self.arrive("after close", request_id)
        return None

    def settle(self, request_id: str, error: JobError) -> None:
        self.begun(request_id, "settle")
        self.arrive("before settle", request_id)
        self.leave_trace(request_id, f"settle {error.step}", state="failed")
        self.arrive("after settle", request_id)

    def begun(self, request_id: str, step: str) -> int:
        """How often it has begun, this time included."""
        with self.database.write() as connection:
            connection.execute(insert(run).values(request_id=request_id, step=step, pid=os.getpid()))
            rows = connection.execute(select(run.c.id).where(run.c.request_id == request_id, run.c.step == step)).all()
        return len(rows)

    def leave_trace(self, request_id: str, step: str, state: str | None = None) -> None:
        """Idempotent by the unique key: only who inserts it adds to the tally."""
        dialect = sqlite if self.database.is_sqlite else postgresql
        with self.database.write() as connection:
            added = connection.execute(
                dialect.insert(effect)
                .values(request_id=request_id, step=step)
                .on_conflict_do_nothing()
                .returning(effect.c.step)
            )
            if added.first() is None:
                return
            connection.execute(dialect.insert(tally).values(request_id=request_id, effects=0).on_conflict_do_nothing())
            connection.execute(
                update(tally).where(tally.c.request_id == request_id).values(effects=tally.c.effects + 1)
            )
            if state is not None:
                connection.execute(insert(final).values(request_id=request_id, state=state))  # a second one is an error

    def arrive(self, place: str, request_id: str) -> None:
        """Die here, if this is the place, and nobody died here before."""
        if self.kill == place:
            self.die(place)

    def die(self, place: str) -> None:
        try:
            (self.folder / f".killed {place}").touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    # --- what was left ------------------------------------------------------------------------------------------------

    def effects(self) -> dict[str, list[str]]:
        """Request -> its effects, each as often as it was counted."""
        with self.database.read() as connection:
            rows = connection.execute(select(effect.c.request_id, effect.c.step).order_by(effect.c.step)).all()
            counts = {row.request_id: row.effects for row in connection.execute(select(tally))}
        found: dict[str, list[str]] = {}
        for row in rows:
            found.setdefault(row.request_id, []).append(row.step)
        assert counts == {request_id: len(steps) for request_id, steps in found.items()}
        return found

    def finals(self) -> dict[str, str]:
        with self.database.read() as connection:
            return {row.request_id: row.state for row in connection.execute(select(final))}

    def runs(self, request_id: str | None = None) -> list[str]:
        """The steps in the order in which they began, as often as they began."""
        with self.database.read() as connection:
            rows = connection.execute(select(run.c.request_id, run.c.step).order_by(run.c.id)).all()
        return [row.step for row in rows if request_id in (None, row.request_id)]

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if not path.name.startswith("."))


def make_jobs(database: Database, stubs: Stubs, **options: object) -> DbosJobs:
    """Jobs in a hurry: short leases and waits."""
    chosen: dict[str, object] = {
        "settle": stubs.settle,
        "retries": Retries(first_seconds=0.02, factor=2.0, lives=5),
        "concurrency": 4,
        "lease_seconds": 1.2,
        "poll_seconds": 0.03,
    }
    return DbosJobs(database, stubs.plan, stubs.steps, **(chosen | options))  # type: ignore[arg-type]


def start_worker(database: Database, folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """A worker in a process of its own."""
    url = database.engine.url.render_as_string(hide_password=False)
    command = [sys.executable, "-W", "error", __file__, "--database", url, "--folder", str(folder), *arguments]
    with (folder / ".log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--database", required=True)
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--kill")
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--lease", type=float, default=1.2)
    parser.add_argument("--lives", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--until-idle", action="store_true")
    given = parser.parse_args()
    database = connect(given.database)
    stubs = Stubs(database, given.folder, kill=given.kill, seconds=given.seconds)
    if given.kill in HANDING:
        hand_on = library.hand_on

        def killing(*arguments: object) -> bool:
            stubs.die(given.kill)
            return hand_on(*arguments)  # type: ignore[arg-type]

        library.hand_on = killing
    retries = Retries(first_seconds=0.02, factor=2.0, attempts=6, lives=given.lives)
    jobs = make_jobs(database, stubs, retries=retries, lease_seconds=given.lease, concurrency=given.concurrency)
    print(f"worker {os.getpid()} works", file=sys.stderr, flush=True)
    run_worker(jobs, until_idle=given.until_idle, pause_seconds=0.2)
    jobs.close()
    database.close()


if __name__ == "__main__":
    main()
