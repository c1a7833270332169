"""The control plane with 50,000 requests in its table: how long lists and pages take, and how many are filed a second.

    python benchmarks/service_load.py [--requests 50000] [--mix year|open|both] [--database URL] [--json OUT]

`year`: a year of requests, of which those that are older than their deadline are closed. `open`: all are open, which is
the worst that a queue can be. Requests are put into the tables directly, as the desk would leave them; what is measured
goes the whole way: sign-in or key, limits, permission, database, JSON or HTML. "Process": the ASGI application in this
process, wall and processor time. "Socket": the same in a process of its own behind uvicorn, one client that keeps its
connection. Filing: through the desk in this process, then through the API, by one client and by eight, on top of what
is there. The figures hold for a machine that does nothing else; `idle_ms`, the wall time of a fixed computation, says
how it was.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import multiprocessing
import os
import random
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import httpx
import uvicorn
from sqlalchemy import insert, text

from expunge.service import tables
from expunge.service.access.gate import Access, AccessPart
from expunge.service.access.limits import LimitsPart
from expunge.service.api.app import create_api
from expunge.service.api.context import ApiPart
from expunge.service.clock import FixedClock, stamp
from expunge.service.dashboard.app import create_pages
from expunge.service.deadlines import due_at, extended_due, soon_at
from expunge.service.desk import new_id
from expunge.service.entities import SYSTEM, Actor, Filing
from expunge.service.policy import Policy
from expunge.service.registry import Target
from expunge.service.service import Service, open_service
from expunge.service.words import REASONS

NOW = datetime(2026, 11, 2, 9, tzinfo=UTC)
OWNERS, ROWS_EACH = 5_000, 4
BOUND_MS, BOUND_A_SECOND = 100.0, 200.0
FREE = LimitsPart(key_per_second=1e9, key_burst=10**9, address_per_second=1e9, address_burst=10**9)
POLICY = Policy.model_validate({"approval": {"per_subject_a_year": 1_000_000, "per_day": 10_000_000}})
OPEN = ("verified", "verified", "verified", "approved", "planned", "running", "failed", "paused", "received")
CLOSED = ("fulfilled",) * 8 + ("denied", "cancelled")
PAGES = {
    "queue": "/requests",
    "queue, one standing": "/requests?sla=due_soon",
    "queue, several filters": "/requests?status=verified&reason=privacy&regime=gdpr",
    "queue, closed ones too": "/requests?show=all",
    "queue, latest first": "/requests?show=all&order=last",
    "queue, found by reference": "/requests?q=T-4711",
    "queue, a day": "/requests?due_from=2026-11-20&due_to=2026-11-20",
    "calendar": "/calendar",
    "system": "/system",
}
CALLS = {
    "list": "/v1/requests",
    "list, filtered": "/v1/requests?status=verified&reason=privacy&regime=gdpr",
    "list, due soon": "/v1/requests?sla=due_soon&open=true",
    "counts": "/v1/counts",
}


def make_service(home: Path, database: str | None) -> Service:
    service = open_service(home, database=database, policy=POLICY, clock=FixedClock(NOW))
    people = home / "people.csv"
    if not people.exists():
        with people.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "owner", "x"])
            writer.writerows([f"{n}-{k}", f"person-{n}", k] for n in range(OWNERS) for k in range(ROWS_EACH))
        options = {"owner": "owner", "id": "id"}
        target = Target(id="people", name="People", version="1", kind="dataset", location=str(people), options=options)
        service.registry.register(target)
    return service


def access_of(service: Service) -> Access:
    return Access(service.database, service.identities, service.clock, AccessPart(secure=False, limits=FREE))


def fill(service: Service, count: int, mix: str) -> float:
    """Requests and their first events, as the desk would leave them; seconds."""
    draw, rows, events = random.Random(0), [], []
    for number in range(count):
        days = draw.uniform(0, 365 if mix == "year" else 60)
        received = NOW - timedelta(days=days)
        name = draw.choice(tuple(POLICY.regimes))
        regime = POLICY.regimes[name]
        due = due_at(received, regime)
        closed = mix == "year" and (due < NOW + timedelta(days=10) or draw.random() < 0.2) and draw.random() < 0.995
        status = draw.choice(CLOSED if closed else OPEN)
        ended = received + timedelta(days=draw.uniform(0, min(days, 44)))
        tokens = service.identities.tokens(f"person-{number % OWNERS}")
        request_id, at = new_id("req"), stamp(received)
        rows.append(
            {
                "id": request_id,
                "external_id": f"T-{number}",
                "subject_token": tokens[0],
                "scope": {"kind": "owner", "targets": [], "tokens": tokens},
                "scope_digest": f"{number:064x}",
                "reason": draw.choice(REASONS),
                "least_guarantee": "exact",
                "regime": name,
                "status": status,
                "paused_from": "verified" if status == "paused" else None,
                "denial_reason": "no_match" if status == "denied" else None,
                "verified": int(status != "received"),
                "received_at": at,
                "acknowledged_at": at,
                "due_at": stamp(due),
                "soon_at": stamp(soon_at(received, due, POLICY.due_soon)),
                "limit_at": stamp(extended_due(received, regime) if regime.extends else due),
                "closed_at": stamp(ended) if closed else None,
                "filed_by": "key_of_nobody",
                "version": 2,
            }
        )
        for kind, before, after in (("filed", None, "received"), ("verified", "received", "verified")):
            events.append({"request_id": request_id, "at": at, "actor": "key_of_nobody", "kind": kind,
                           "from_status": before, "to_status": after, "detail": {}})  # fmt: skip
    started = time.perf_counter()
    with service.database.write() as connection:
        for start in range(0, count, 5000):
            connection.execute(insert(tables.request), rows[start : start + 5000])
            connection.execute(insert(tables.event), events[2 * start : 2 * start + 10_000])
        if not service.database.is_sqlite:
            connection.execute(text("ANALYZE"))
    return time.perf_counter() - started


def keys_of(service: Service) -> tuple[str, str]:
    """A key's text, and the cookie of a session."""
    access = access_of(service)
    key = access.keys.make(SYSTEM, "operator", "load")[1]
    return key, f"{access.sessions.cookie}={access.sign_in(key)[0]}"


def headers_of(path: str, key: str, cookie: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if path.startswith("/v1") else {"Cookie": cookie}


def wanted(service: Service, key: str, cookie: str) -> dict[str, tuple[str, dict[str, str]]]:
    """What is measured: name -> (path, headers)."""
    listing = service.desk.list(Actor(id="load", role="operator"))
    one = listing.items[0].id
    deep = httpx.URL("/requests", params={"show": "all", "after": _deep(service)})
    pages = {f"page: {name}": path for name, path in PAGES.items()}
    pages |= {"page: queue, deep in it": str(deep), "page: a request": f"/requests/{one}"}
    calls = {f"API: {name}": path for name, path in CALLS.items()} | {"API: a request": f"/v1/requests/{one}"}
    told = {name: (path, headers_of(path, key, cookie)) for name, path in {**pages, **calls}.items()}
    part = {"hx-request-type": "partial", "Cookie": cookie}
    return told | {"page: queue, the list alone": (PAGES["queue, several filters"], part)}


def _deep(service: Service) -> str:
    """A cursor into the middle of everything."""
    from expunge.service.entities import Filter, Page

    desk, actor, after = service.desk, Actor(id="load", role="operator"), None
    for _ in range(40):
        after = desk.list(actor, Filter(), Page(limit=500, after=after)).next or after
    return str(after)


def in_process(app: Any, asked: dict[str, tuple[str, dict[str, str]]], turns: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of wall and of processor."""

    async def run() -> dict[str, dict[str, float]]:
        told = {}
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://load.test") as client:
            for name, (path, headers) in asked.items():
                wall, processor = [], []
                for turn in range(turns + 2):
                    started, used = time.perf_counter(), time.process_time()
                    answer = await client.get(path, headers=headers)
                    if turn >= 2:
                        wall.append(1000 * (time.perf_counter() - started))
                        processor.append(1000 * (time.process_time() - used))
                    assert answer.status_code == 200, (name, answer.status_code, answer.text[:300])
                told[name] = {"wall_ms": statistics.median(wall), "processor_ms": statistics.median(processor)}
        return told

    return asyncio.run(run())


def both(service: Service) -> Any:
    """API and pages as one application."""
    access = access_of(service)
    app = create_api(service, ApiPart(access=access.part), access=access)
    app.mount("/", create_pages(service, access))
    return app


def _serve(home: str, database: str | None, listener: socket.socket) -> None:
    app = both(make_service(Path(home), database))
    config = uvicorn.Config(app, log_level="error", access_log=False, lifespan="off")
    uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def served(home: Path, database: str | None) -> Iterator[str]:
    """The service in a process of its own."""
    # named, or asyncio would leave Nagle's algorithm on, and each answer would wait 40 ms for an acknowledgement
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        process = multiprocessing.get_context("fork").Process(target=_serve, args=(str(home), database, listener))
        process.start()
        try:
            for _ in range(300):
                try:
                    httpx.get(f"{address}/healthz", timeout=5)
                    break
                except httpx.TransportError:
                    time.sleep(0.1)
            yield address
        finally:
            process.terminate()
            process.join(20)


def over_socket(address: str, asked: dict[str, tuple[str, dict[str, str]]], turns: int) -> dict[str, float]:
    told = {}
    with httpx.Client(base_url=address, timeout=60) as client:
        for name, (path, headers) in asked.items():
            times = []
            for turn in range(turns + 2):
                started = time.perf_counter()
                answer = client.get(path, headers=headers)
                if turn >= 2:
                    times.append(1000 * (time.perf_counter() - started))
                assert answer.status_code == 200, (name, answer.status_code)
            told[name] = statistics.median(times)
    return told


def filed_by_desk(service: Service, count: int) -> float:
    """Requests a second."""
    operator = Actor(id="load", role="operator")
    started = time.perf_counter()
    for number in range(count):
        service.desk.file(operator, Filing(identity=f"desk-{number}", verified=True, external_id=f"D-{number}"))
    return count / (time.perf_counter() - started)


def filed_by_api(address: str, key: str, count: int, clients: int) -> float:
    """Requests a second, all clients together."""
    failed: list[str] = []

    def one(client: int) -> None:
        with httpx.Client(base_url=address, headers={"Authorization": f"Bearer {key}"}, timeout=60) as session:
            for number in range(count // clients):
                body = {"identity": f"api-{clients}-{client}-{number}", "verified": True}
                answer = session.post("/v1/requests", json=body)
                if answer.status_code != 201:
                    failed.append(answer.text)

    threads = [threading.Thread(target=one, args=(client,)) for client in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    assert not failed, failed[0]
    return count // clients * clients / seconds


def idle_ms(work: Callable[[], object] = lambda: sum(range(1_500_000))) -> float:
    """Wall time of a fixed computation, which others on the machine make longer."""
    times = []
    for _ in range(9):
        started = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)


def run(mix: str, count: int, turns: int, filings: int, database: str | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="expunge-load-") as folder:
        home = Path(folder)
        service = make_service(home, database)
        seconds = fill(service, count, mix)
        key, cookie = keys_of(service)
        asked = wanted(service, key, cookie)
        idle = idle_ms()
        inside = in_process(both(service), asked, turns)
        with served(home, database) as address:
            outside = over_socket(address, asked, turns)
            api_one = filed_by_api(address, key, filings, 1)
            api_eight = filed_by_api(address, key, filings, 8)
        desk = filed_by_desk(service, filings)
        kind = "sqlite" if service.database.is_sqlite else "postgresql"
        service.close()
    return {
        "mix": mix,
        "database": kind,
        "requests": count,
        "put_in_seconds": seconds,
        "idle_ms": idle,
        "load": os.getloadavg()[0],
        "cores": os.cpu_count(),
        "milliseconds": {name: {**inside[name], "socket_ms": outside[name]} for name in asked},
        "filed_a_second": {"desk": desk, "API, one client": api_one, "API, eight clients": api_eight},
    }


def table(found: dict[str, Any]) -> str:
    lines = [
        f"{found['requests']:,} requests, mix {found['mix']}, {found['database']}, {found['cores']} cores, "
        f"load {found['load']:.1f}, idle figure {found['idle_ms']:.0f} ms",
        f"{'median ms':34}{'process':>9}{'processor':>11}{'socket':>9}",
    ]
    for name, told in found["milliseconds"].items():
        late = "  over the bound" if max(told["wall_ms"], told["socket_ms"]) > BOUND_MS else ""
        lines.append(f"{name:34}{told['wall_ms']:9.1f}{told['processor_ms']:11.1f}{told['socket_ms']:9.1f}{late}")
    for name, rate in found["filed_a_second"].items():
        lines.append(f"filed a second, {name:18}{rate:9.0f}{'  under the bound' if rate < BOUND_A_SECOND else ''}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--mix", choices=("year", "open", "both"), default="both")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--filings", type=int, default=800)
    parser.add_argument("--database", help="of PostgreSQL, empty; an SQLite file by default")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    mixes = ("year", "open") if options.mix == "both" else (options.mix,)
    found = [run(mix, options.requests, options.turns, options.filings, options.database) for mix in mixes]
    print(json.dumps(found, indent=1))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for one in found:
        print(table(one), end="\n\n")


if __name__ == "__main__":
    main()
