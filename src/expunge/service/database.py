"""One database: an SQLite file by default, PostgreSQL by its URL. Nothing above knows which."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, insert, inspect, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError

from expunge.errors import RunError
from expunge.service import tables

READ = "expunge_read"
BUSY_SECONDS = 30.0


class Database:
    """An engine with the tables in it.

    Args:
        engine: made by `connect`.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Without the password."""
        return self.engine.url.render_as_string(hide_password=True)

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @property
    def file(self) -> Path | None:
        """Of SQLite."""
        return Path(str(self.engine.url.database)) if self.is_sqlite else None

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads: it waits for no writer."""
        with self.engine.connect().execution_options(**{READ: True}) as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes: it commits whole, or leaves nothing."""
        if self.is_sqlite:  # one writer at a time: waiting here is fair, and SQLite's own waiting is not
            with self._lock, self.engine.begin() as connection:
                yield connection
            return
        with self.engine.begin() as connection:
            yield connection

    def purge(self) -> None:
        """Write over in the files what was deleted, as far as the engine can (`expunge doctor` says how far)."""
        if self.is_sqlite:
            raw = self.engine.raw_connection()  # a checkpoint is not made within a transaction
            try:
                raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                raw.close()

    def close(self) -> None:
        self.engine.dispose()


def connect(url: str | Path) -> Database:
    """The database at `url`, its tables made where there are none.

    Args:
        url: ``postgresql://user:password@host/name``, ``sqlite:///path`` or the path of an SQLite file.

    Raises:
        RunError: it cannot be reached, or was written by a newer version.
    """
    text = str(url)
    if "://" not in text:
        text = f"sqlite:///{Path(text).absolute()}"
    try:
        address = make_url(text)
        if address.drivername in ("postgres", "postgresql"):
            address = address.set(drivername="postgresql+psycopg")
        if address.drivername == "sqlite":
            if not address.database or address.database == ":memory:":
                raise RunError("a database in memory is gone with the process", "Give the path of a file")
            Path(address.database).parent.mkdir(parents=True, exist_ok=True)
            engine = create_engine(address, connect_args={"timeout": BUSY_SECONDS}, pool_size=16, max_overflow=32)
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        else:
            engine = create_engine(address, pool_pre_ping=True, pool_size=8, max_overflow=24, pool_timeout=30)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise RunError(
            f"the address of the database cannot be used ({type(error).__name__})",
            "Give postgresql://user:password@host/name (with `pip install 'expunge[service]'`), or the path of a file",
        ) from None
    database = Database(engine)
    try:
        _make_tables(database)
    except OperationalError as error:
        reason = str(error.orig).splitlines()[0] if error.orig else type(error).__name__
        engine.dispose()
        raise RunError(
            f"the database {database.url} cannot be reached: {reason}", "Start it, or correct the address"
        ) from None
    return database


def _make_tables(database: Database) -> None:
    try:
        with database.write() as connection:
            if not database.is_sqlite:  # several processes may start at once
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7240163)")
            known = inspect(connection).has_table("setting")
            if not known:
                tables.metadata.create_all(connection)
                connection.execute(insert(tables.setting).values(key="schema", value=tables.SCHEMA))
                return
            found = connection.execute(select(tables.setting.c.value).where(tables.setting.c.key == "schema")).scalar()
    except DBAPIError as error:
        if isinstance(error.orig, sqlite3.DatabaseError) and "not a database" in str(error.orig):
            raise RunError(f"{database.url} is not a database", "Choose another file") from None
        raise
    if found != tables.SCHEMA:
        raise RunError(
            f"the database has schema {found!r} and this version writes {tables.SCHEMA}",
            "Use the version of expunge that made it, or a new database",
        )


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun below, by us
    for pragma in (
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "foreign_keys=ON",
        "secure_delete=ON",
        "temp_store=MEMORY",
    ):
        connection.execute(f"PRAGMA {pragma}")
    if connection.execute("PRAGMA secure_delete").fetchone() != (1,):
        raise RunError("this SQLite does not overwrite what is deleted", "Use another build, or PostgreSQL")


def _begin_sqlite(connection: Connection) -> None:
    # a transaction that reads first and then writes would fail where another one wrote in between
    reading = connection.get_execution_options().get(READ)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
