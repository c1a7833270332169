"""All that is peculiar to DBOS 3.4, in one place: its settings, its serialiser, its log, its one private function.

Read in the library's source (3.4.0):

- Values are pickled unless a serialiser is set (`DBOSConfig.serializer`, `DBOSClient(serializer=…)`). Ours is its
  portable JSON. Each row also names its own serialiser, and a row that says ``py_pickle`` would be unpickled whatever
  is set: whoever can write a row could run code. So unpickling is refused here (`refuse_pickles`).
- Every execution has a token (``owner_xid``); a record by one that lost its job is refused. That is the fence behind
  the roll of workers.
- `resume_workflow` puts back whatever is not finished, cancelled jobs and jobs that another worker has taken up
  meanwhile included, and forgets how often a job was taken up. `SystemDatabase.reenqueue_for_recovery`, which the
  library's own recovery uses, puts back only what is pending under the worker that is named. It is private; the tests
  notice if it goes.
- Claiming jobs is one transaction whose answer can be lost with the connection: they are then pending under a worker
  that does not know of them. The worker looks for such strays itself (`shift`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from dbos import DBOS, DBOSClient, DBOSConfig, DBOSPortableJSONSerializer
from dbos import _dbos as library
from dbos._serialization import DefaultSerializer
from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError

from expunge.errors import TamperedEvidence, WrongState
from expunge.service.database import Database
from expunge.service.jobs.port import JobsUnreachable

APPLICATION = "expunge"
SCHEMA = "expunge_jobs"  # of PostgreSQL
QUEUE = "expunge_requests"
JOB = "expunge.job"
VERSION = "expunge-jobs-1"  # of the order in which a job records its steps, not of the package: see `jobs.dbos_jobs`

TOLD_ELSEWHERE = {"JobFailed", "DBOSAwaitedWorkflowCancelledError"}  # errors that are how a job ends


def jobs_url(database: Database) -> str:
    """Where the library keeps its tables: a schema of the same PostgreSQL, or a file beside the SQLite file."""
    if database.file is not None:
        return f"sqlite:///{database.file.absolute().with_suffix('.jobs.sqlite')}"
    return database.engine.url.render_as_string(hide_password=False)


def prepare(url: str) -> None:
    """Make or bring up to date the library's tables. Safe to do from several processes at once."""
    quieten()
    refuse_pickles()
    with reaching():
        if url.startswith("sqlite"):
            _write_ahead(url)
        DBOS.migrate(url, schema=SCHEMA)


def _write_ahead(url: str) -> None:
    """Readers and the one writer then do not wait for each other; the file keeps the setting."""
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout=30000")
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    finally:
        engine.dispose()


def client(url: str) -> DBOSClient:
    """A client that runs no job. It raises where the database is away, rather than wait for it."""
    with reaching():
        return DBOSClient(
            system_database_url=url,
            dbos_system_schema=SCHEMA,
            serializer=DBOSPortableJSONSerializer(),
            application_name=APPLICATION,
            retry_connection_errors=False,
        )


def settings(url: str, worker_id: str) -> DBOSConfig:
    """Of a worker."""
    return DBOSConfig(
        name=APPLICATION,
        system_database_url=url,
        dbos_system_schema=SCHEMA,
        serializer=DBOSPortableJSONSerializer(),
        application_version=VERSION,
        executor_id=worker_id,
        db_engine_kwargs={"hide_parameters": True},  # results of steps do not belong in a log
        log_level="WARNING",
        notification_listener_polling_interval_sec=0.2,
    )


def hand_on(of: DBOSClient, job_id: str, worker_id: str) -> bool:
    """Put the job back into its queue, if and only if it is pending under that worker. Returns whether it was."""
    return of._sys_db.reenqueue_for_recovery(job_id, [worker_id], QUEUE)


def is_launched() -> bool:
    return library._dbos_global_instance is not None


@contextmanager
def launched(config: DBOSConfig, job: Any) -> Iterator[DBOS]:
    """The library at work in this process with `job` registered; it is one a process.

    Raises:
        WrongState: it is at work already.
    """
    if is_launched():
        raise WrongState("a worker runs in this process already", "Stop it first, or start another process")
    instance = DBOS(config=config)
    try:
        DBOS.workflow(name=JOB, max_recovery_attempts=None)(job)
        with reaching():
            DBOS.launch()
        yield instance
    finally:
        DBOS.destroy(destroy_registry=True)


def stop_claiming(instance: DBOS) -> None:
    """Let the library's threads take up no further job; those that it has go on."""
    for event in instance.background_thread_stop_events:
        event.set()


@contextmanager
def reaching() -> Iterator[None]:
    """Turn errors of the connection into `JobsUnreachable`."""
    try:
        yield
    except SQLAlchemyError as error:
        raise JobsUnreachable(
            f"the database of the jobs does not answer ({type(error).__name__})", "Start it, and ask again"
        ) from None


def refuse_pickles() -> None:
    """Nothing is ever unpickled, whatever a row says of itself."""
    DefaultSerializer.deserialize = _refused  # type: ignore[method-assign, assignment]


def _refused(_self: DefaultSerializer, _text: str) -> NoReturn:
    raise TamperedEvidence("a record of a job is a pickle, and none was ever written", "Find out who wrote it")


def quieten() -> None:
    """The library's log goes where the program's log goes, without traces: they would quote messages of errors."""
    logger = logging.getLogger("dbos")
    if not any(isinstance(handler, logging.NullHandler) for handler in logger.handlers):
        logger.addHandler(logging.NullHandler())  # the library adds a console of its own only where there is none
        logger.addFilter(_without_trace)


def _without_trace(record: logging.LogRecord) -> bool:
    if record.exc_info and record.exc_info[0] is not None:
        if record.exc_info[0].__name__ in TOLD_ELSEWHERE:
            return False
        record.msg, record.args = f"{record.getMessage()} ({record.exc_info[0].__name__})", ()
    record.exc_info = record.exc_text = None
    return True
