"""API, pages, dispatcher and a worker in one process, or a worker alone."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from expunge.errors import RunError
from expunge.service.dispatch import Dispatcher, make_jobs
from expunge.service.service import Service

if TYPE_CHECKING:
    from fastapi import FastAPI

    from expunge.service.api.settings import ApiPart
    from expunge.service.webhooks.courier import Courier

log = logging.getLogger("expunge.service")


def create_app(service: Service, part: ApiPart | None = None) -> FastAPI:
    """API and pages as one ASGI application."""
    from expunge.service.api.app import create_api
    from expunge.service.dashboard import mount_pages

    app = create_api(service, part)
    mount_pages(app, service)
    return app


def read_settings(service: Service, host: str) -> ApiPart:
    """``service.yaml`` in the service's folder; where there is none, the defaults, and at a loopback address, which no
    certificate is for, cookies that go over http.

    Raises:
        RequestError: it cannot be read.
    """
    from expunge.service.access.gate import AccessPart
    from expunge.service.api.settings import ApiPart

    path = service.home / "service.yaml"
    if path.exists():
        return ApiPart.read(path)
    local = host in ("127.0.0.1", "::1", "localhost")
    return ApiPart(access=AccessPart(secure=not local))


def first_key(service: Service) -> str | None:
    """The operator's key of a service that has none yet, told this once; None where there are keys."""
    from expunge.service.access.keys import Keys
    from expunge.service.entities import SYSTEM

    keys = Keys(service.database, service.identities, service.clock)
    return None if keys.list(SYSTEM) else keys.make(SYSTEM, "operator", "first operator")[1]


def demo_keys(service: Service) -> dict[str, str]:
    """A key of each role for whoever looks at the demo: role -> key."""
    from expunge.service.access.keys import Keys
    from expunge.service.entities import SYSTEM
    from expunge.service.words import Role

    keys = Keys(service.database, service.identities, service.clock)
    roles: tuple[Role, ...] = ("operator", "approver", "auditor")
    return {role: keys.make(SYSTEM, role, f"demo {role}", days=1)[1] for role in roles}


class Crew:
    """A dispatcher, a worker and a courier of webhooks in threads of this process.

    Args:
        concurrency: jobs at once. development: webhooks may go to this machine.
    """

    def __init__(
        self, service: Service, *, concurrency: int = 1, every_seconds: float = 1.0, development: bool = False
    ) -> None:
        from expunge.service.jobs.worker import keep_working

        self.jobs = make_jobs(service, concurrency=concurrency)
        self.stop = threading.Event()
        dispatcher = Dispatcher(service, self.jobs, every_seconds=every_seconds)
        self.threads = [
            threading.Thread(target=dispatcher.run, args=(self.stop,), name="dispatcher", daemon=True),
            threading.Thread(
                target=courier_of(service, development).run, args=(self.stop,), name="courier", daemon=True
            ),
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


def courier_of(service: Service, development: bool = False) -> Courier:
    """Who takes events to webhooks."""
    from expunge.service.webhooks.courier import Courier
    from expunge.service.webhooks.sending import Caller
    from expunge.service.webhooks.targets import Rules

    caller = Caller(rules=Rules(development=development))
    return Courier(service.database, service.identities, service.clock, service.home, caller=caller)


def serve(service: Service, host: str, port: int, *, work: bool = True) -> None:
    """Serve until Ctrl-C.

    Raises:
        RunError: the address is taken.
    """
    import socket

    import uvicorn

    settings = read_settings(service, host)
    app = create_app(service, settings)
    # the protocol is named, or asyncio would leave Nagle's algorithm on and each answer would wait 40 ms
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
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
        with Crew(service, development=settings.development):
            server.run(sockets=[listener])
    else:
        server.run(sockets=[listener])


def work_alone(
    service: Service, *, concurrency: int = 1, until_idle: bool = False, lease_seconds: float = 30.0
) -> None:
    """A worker and a dispatcher until SIGTERM or Ctrl-C, or until nothing is left to do now."""
    from expunge.service.jobs.worker import run_worker

    jobs = make_jobs(service, concurrency=concurrency, lease_seconds=lease_seconds)
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
