"""API, pages, dispatcher and a worker in one process, or a worker alone."""

from __future__ import annotations

import logging
import threading
from typing import Any

from expunge.errors import RunError
from expunge.service.dispatch import Dispatcher, make_jobs
from expunge.service.service import Service

log = logging.getLogger("expunge.service")


def create_app(service: Service) -> Any:
    """API and pages as one ASGI application."""
    from expunge.service.api.app import create_api
    from expunge.service.dashboard import mount_pages

    app = create_api(service)
    mount_pages(app, service)
    return app


def first_key(service: Service) -> str | None:
    """The operator's key of a service that has none yet, told this once; None where there are keys."""
    from expunge.service.access.keys import Keys
    from expunge.service.entities import SYSTEM

    keys = Keys(service.database, service.identities, service.clock)
    return None if keys.list(SYSTEM) else keys.make(SYSTEM, "operator", "first operator")[1]


class Crew:
    """A dispatcher and a worker in threads of this process.

    Args:
        concurrency: jobs at once.
    """

    def __init__(self, service: Service, *, concurrency: int = 1, every_seconds: float = 1.0) -> None:
        from expunge.service.jobs.worker import keep_working

        self.jobs = make_jobs(service, concurrency=concurrency)
        self.stop = threading.Event()
        dispatcher = Dispatcher(service, self.jobs, every_seconds=every_seconds)
        self.threads = [
            threading.Thread(target=dispatcher.run, args=(self.stop,), name="dispatcher", daemon=True),
            threading.Thread(
                target=lambda: keep_working(self.jobs, stop=self.stop), name="worker", daemon=True
            ),
        ]  # fmt: skip

    def __enter__(self) -> Crew:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(timeout=30)
        self.jobs.close()


def serve(service: Service, host: str, port: int, *, work: bool = True) -> None:
    """Serve until Ctrl-C.

    Raises:
        RunError: the address is taken.
    """
    import socket

    import uvicorn

    app = create_app(service)
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise RunError(
            f"cannot listen at {host}:{port} ({error.strerror})", "Choose another --port or --host"
        ) from None
    where = listener.getsockname()
    print(f"expunge serves at http://{where[0]}:{where[1]}/  (API: /openapi.json, folder: {service.home})", flush=True)
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, date_header=False)
    server = uvicorn.Server(config)
    if work:
        with Crew(service):
            server.run(sockets=[listener])
    else:
        server.run(sockets=[listener])


def work_alone(service: Service, *, concurrency: int = 1, until_idle: bool = False) -> None:
    """A worker and a dispatcher until SIGTERM or Ctrl-C, or until nothing is left to do now."""
    from expunge.service.jobs.worker import run_worker

    jobs = make_jobs(service, concurrency=concurrency)
    dispatcher = Dispatcher(service, jobs)
    if until_idle:
        try:
            while dispatcher.tick():
                run_worker(jobs, until_idle=True)
        finally:
            jobs.close()
        return
    stop = threading.Event()
    thread = threading.Thread(target=dispatcher.run, args=(stop,), name="dispatcher", daemon=True)
    thread.start()
    try:
        run_worker(jobs)
    finally:
        stop.set()
        thread.join(timeout=30)
        jobs.close()
