"""What the API, keys, sessions and webhooks write, on PostgreSQL, where several write at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from house import ROLES, SUBJECT, House, is_problem
from postgres import PostgresServer, machine_binaries, wheel_binaries
from sqlalchemy import func, select

from expunge.service import tables
from expunge.service.webhooks.courier import Courier, unread
from expunge.service.webhooks.sending import Answer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (machine_binaries() or wheel_binaries()), reason="no PostgreSQL here"),
]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with PostgresServer() as server:
        made = House(tmp_path_factory.mktemp("postgres") / "service", database=server.new_database())
        yield made
        made.close()


class Line:
    def __init__(self) -> None:
        self.ids: list[str] = []

    def post(self, url: str, body: bytes, headers: dict[str, str]) -> Answer:
        self.ids.append(headers["webhook-id"])
        return Answer(status=200)


def together(work: Callable[[], Any], times: int) -> None:
    threads = [threading.Thread(target=work) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_it_is_postgresql(house: House) -> None:
    assert house.service.database.engine.dialect.name == "postgresql"
    assert set(house.actors) == set(ROLES)


def test_the_same_key_at_once_has_one_effect(house: House) -> None:
    replies: list[Any] = []
    body = {"identity": SUBJECT, "verified": True}

    def send() -> None:
        replies.append(house.post("operator", "/v1/requests", json=body, headers={"Idempotency-Key": "k"}))

    together(send, 8)
    assert {reply.status_code for reply in replies} <= {201, 409}
    assert len({reply.json()["id"] for reply in replies if reply.status_code == 201}) == 1
    with house.service.database.read() as connection:
        assert connection.execute(select(func.count()).select_from(tables.request)).scalar_one() == 1
    again = house.post("operator", "/v1/requests", json=body, headers={"Idempotency-Key": "k"})
    assert again.headers["idempotency-replayed"] == "true"


def test_messages_are_delivered_once_by_several_couriers(house: House) -> None:
    house.context.webhooks.make(house.actor("operator"), "https://hooks.example.com/", ["*"])
    for number in range(30):
        house.file(f"person-{number}@example.org")
    line, service = Line(), house.service
    couriers = [
        Courier(service.database, service.identities, house.clock, service.home, caller=line)  # type: ignore[arg-type]
        for _ in range(3)
    ]
    waiting = iter(couriers * 2)
    lock = threading.Lock()

    def step() -> None:
        with lock:
            courier = next(waiting)
        courier.step()

    together(step, 6)
    for courier in couriers:
        courier.step()
    assert len(line.ids) == len(set(line.ids)) >= 60
    assert unread(service.database) == 0
    house.later(minutes=1)
    assert couriers[0].step() == 0


def test_sessions_keys_and_the_trail(house: House) -> None:
    cookie, session = house.access.sign_in(house.texts["auditor"])
    assert house.access.session(cookie) == session
    made = house.post("operator", "/v1/keys", json={"role": "auditor", "name": "x", "days": 2.5}).json()
    assert house.call("operator", "DELETE", f"/v1/keys/{made['id']}").status_code == 204
    lines = house.get("auditor", "/v1/audit?limit=2&action=revoke_key").json()["items"]
    assert lines[0]["object"] == made["id"]
    assert house.get("auditor", "/metrics").status_code == 200
    assert house.get(None, "/readyz").status_code == 200


@pytest.mark.parametrize("path", ["/v1/requests?regime=%00", "/v1/requests?query=a%00", "/v1/audit?action=%00"])
def test_what_postgresql_cannot_keep_does_not_reach_it(house: House, path: str) -> None:
    is_problem(house.get("auditor", path), 422)


def test_pages_on_postgresql(house: House) -> None:
    seen: list[str] = []
    after = ""
    while True:
        told = house.get("auditor", f"/v1/requests?limit=7{after}").json()
        seen += [one["id"] for one in told["items"]]
        if told["next"] is None:
            break
        after = f"&after={told['next']}"
    assert len(seen) == len(set(seen)) == told["total"] == 31
