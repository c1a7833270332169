"""Messages on their way: to the checked address, signed, again until they arrive, and without anybody's name."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import http.server
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from house import SUBJECT, House, is_problem
from sqlalchemy import insert, select
from sqlalchemy.dialects import sqlite

from expunge.service import tables
from expunge.service.clock import stamp
from expunge.service.entities import SYSTEM
from expunge.service.webhooks.courier import BACK_OFF, Courier, forget_deliveries, message_id, unread, wait
from expunge.service.webhooks.sending import Answer, Caller
from expunge.service.webhooks.signing import verify
from expunge.service.webhooks.targets import Rules

PUBLIC = "93.184.216.34"
HOOK = "https://hooks.example.com/in?k=v"


class Receiving:
    """A server on this machine that writes down what it got, and answers as it is told."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self.got: list[tuple[dict[str, str], bytes, str]] = []
        self.status, self.headers, self.slow, self.body = 200, {}, 0.0, b"ok"
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                told = {name.lower(): value for name, value in self.headers.items()}
                outer.got.append((told, self.rfile.read(length), self.path))
                self.send_response(outer.status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    for _ in range(int(outer.slow * 20)):
                        time.sleep(0.05)
                        self.wfile.write(b".")
                    self.wfile.write(outer.body)
                except OSError:
                    pass

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(of a server called hooks.example.com, of a client that believes it)."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hooks.example.com")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("hooks.example.com")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    client = ssl.create_default_context()
    client.load_verify_locations(cadata=certificate.public_bytes(serialization.Encoding.PEM).decode())
    return server, client


@pytest.fixture
def receiving(authority: tuple[ssl.SSLContext, ssl.SSLContext]) -> Iterator[Receiving]:
    made = Receiving(authority[0])
    yield made
    made.close()


def caller_of(receiving: Receiving, context: ssl.SSLContext | None, **options: Any) -> tuple[Caller, list[Any]]:
    """A caller for whom hooks.example.com is a public address, behind which the test's server stands."""
    dialled: list[Any] = []

    def dial(address: str, port: int, seconds: float) -> socket.socket:
        dialled.append((address, port))
        return socket.create_connection(("127.0.0.1", receiving.port), timeout=seconds)

    options = {"resolve": lambda host, port: [PUBLIC], "dial": dial, "context": context, **options}
    return Caller(**options), dialled


# --- one call ---------------------------------------------------------------------------------------------------------


def test_a_call_arrives_with_its_headers(receiving: Receiving, authority: Any) -> None:
    caller, dialled = caller_of(receiving, authority[1])
    assert caller.post(HOOK, b'{"a":1}', {"webhook-id": "m"}) == Answer(status=200)
    headers, body, path = receiving.got[0]
    assert (body, path, headers["host"], headers["webhook-id"]) == (b'{"a":1}', "/in?k=v", "hooks.example.com", "m")
    assert headers["content-type"] == "application/json"
    assert dialled == [(PUBLIC, 443)]


def test_the_name_is_resolved_once_and_the_checked_address_is_called(receiving: Receiving, authority: Any) -> None:
    asked = iter([[PUBLIC], ["127.0.0.1"], ["127.0.0.1"]])  # rebinding: the second answer would be inside
    caller, dialled = caller_of(receiving, authority[1], resolve=lambda host, port: next(asked))
    assert caller.post(HOOK, b"{}", {}).delivered
    assert dialled == [(PUBLIC, 443)]
    assert caller.post(HOOK, b"{}", {}) == Answer(status=None, why="refused")
    assert len(dialled) == 1


def test_a_server_with_another_name_is_not_told(receiving: Receiving, authority: Any) -> None:
    caller, _ = caller_of(receiving, authority[1])
    assert caller.post("https://other.example.com/", b"{}", {}) == Answer(status=None, why="certificate")
    caller, _ = caller_of(receiving, None)
    assert caller.post(HOOK, b"{}", {}) == Answer(status=None, why="certificate")
    assert receiving.got == []


def test_a_redirect_is_not_followed(receiving: Receiving, authority: Any) -> None:
    receiving.status, receiving.headers = 302, {"Location": "https://169.254.169.254/latest/meta-data/"}
    caller, dialled = caller_of(receiving, authority[1])
    answer = caller.post(HOOK, b"{}", {})
    assert (answer.status, answer.delivered, len(dialled)) == (302, False, 1)


def test_an_endless_answer_is_cut(receiving: Receiving, authority: Any) -> None:
    receiving.body = b"x" * 50_000_000
    caller, _ = caller_of(receiving, authority[1])
    started = time.perf_counter()
    assert caller.post(HOOK, b"{}", {}).delivered
    assert time.perf_counter() - started < 2


def test_a_trickling_answer_has_a_deadline(receiving: Receiving, authority: Any) -> None:
    receiving.slow = 5
    caller, _ = caller_of(receiving, authority[1], whole_seconds=0.4, connect_seconds=3)
    started = time.perf_counter()
    assert caller.post(HOOK, b"{}", {}) == Answer(status=200)
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_trickles_before_its_answer_has_a_deadline(scheme: str) -> None:
    def trickle(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            for _ in range(60):
                connection.sendall(b"H")
                time.sleep(0.05)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=trickle, args=(server,))
        thread.start()
        caller = Caller(rules=Rules(development=True), whole_seconds=0.3, connect_seconds=3)
        started = time.perf_counter()
        answer = caller.post(f"{scheme}://127.0.0.1:{server.getsockname()[1]}/", b"{}", {})
        assert time.perf_counter() - started < 2
        thread.join()
    assert answer.status is None
    assert answer.why in ("timeout", "connection")


def test_a_server_that_never_answers_has_a_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        caller = Caller(rules=Rules(development=True), whole_seconds=0.3, connect_seconds=3)
        assert caller.post(f"http://127.0.0.1:{port}/", b"{}", {}) == Answer(status=None, why="timeout")


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    caller = Caller(rules=Rules(development=True))
    assert caller.post(f"http://127.0.0.1:{port}/", b"{}", {}) == Answer(status=None, why="connection")

    def nothing(host: str, port: int) -> list[str]:
        raise OSError

    assert Caller(resolve=nothing).post(HOOK, b"{}", {}) == Answer(status=None, why="unresolved")
    assert Caller().post("https://10.0.0.1/", b"{}", {}) == Answer(status=None, why="refused")


def test_no_proxy_of_the_environment_is_used(
    receiving: Receiving, authority: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    caller, _ = caller_of(receiving, authority[1])
    assert caller.post(HOOK, b"{}", {}).delivered


# --- events to webhooks -----------------------------------------------------------------------------------------------


class Line:
    """A courier whose calls are answered here."""

    def __init__(self, house: House, *, events: tuple[str, ...] = ("*",), who: str = "operator") -> None:
        self.house, self.calls, self.answers = house, [], {}
        self.hook, self.secret = house.context.webhooks.make(house.actor(who), HOOK, events)
        self.courier = Courier(
            house.service.database,
            house.service.identities,
            house.clock,
            house.service.home,
            caller=self,  # type: ignore[arg-type]
        )

    def post(self, url: str, body: bytes, headers: dict[str, str]) -> Answer:
        self.calls.append((url, body, dict(headers)))
        return self.answers.get("next", Answer(status=200))

    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body, _ in self.calls]


def test_every_move_is_told_once_and_signed(house: House) -> None:
    line = Line(house)
    request = house.file(external_id="ticket-9")
    assert line.courier.step() == 2
    assert line.courier.step() == 0
    told = line.messages()
    assert [one["type"] for one in told] == ["request.received", "request.verified"]
    assert told[1]["data"] == {
        "request_id": request.id,
        "external_id": "ticket-9",
        "status": "verified",
        "due_at": stamp(request.due_at),
        "certificates": [],
    }
    for url, body, headers in line.calls:
        assert url == HOOK
        assert verify(line.secret, headers, body, house.clock())
    assert len({headers["webhook-id"] for _, _, headers in line.calls}) == 2


def test_the_reference_library_takes_a_delivery(house: House) -> None:
    house.clock.at = dt.datetime.now(dt.UTC)
    line = Line(house)
    house.file()
    line.courier.step()
    _, body, headers = line.calls[0]
    assert standardwebhooks.Webhook(line.secret).verify(body, headers)["type"] == "request.received"


def test_nothing_that_is_told_leads_to_a_person(house: House) -> None:
    line = Line(house)
    request = house.file(tell_not=[{"answer": ["Erin the planted"]}])
    house.service.desk.hold(house.actor("operator"), request.id, "a planted reason")
    line.courier.step()
    token = house.service.identities.token(SUBJECT)
    for text in (SUBJECT, token, token[-64:], "planted", house.actor("operator").id):
        assert all(text.encode() not in body for _, body, _ in line.calls)


def test_only_what_was_asked_for(house: House) -> None:
    line = Line(house, events=("request.denied", "request.extended"))
    request = house.file()
    house.service.desk.extend(house.actor("operator"), request.id, "many requests")
    house.service.desk.deny(house.actor("approver"), request.id, "other")
    line.courier.step()
    assert [one["type"] for one in line.messages()] == ["request.extended", "request.denied"]


def test_what_happened_before_it_was_made_is_not_told(house: House) -> None:
    house.file()
    house.later(seconds=1)
    line = Line(house)
    assert line.courier.step() == 0
    house.file("someone.else@example.org")
    assert line.courier.step() == 2


def test_a_failure_comes_again_with_the_same_id_until_it_is_given_up(house: House) -> None:
    line = Line(house, events=("request.received",))
    line.answers["next"] = Answer(status=500)
    house.file()
    for attempt, seconds in enumerate(BACK_OFF, start=1):
        assert line.courier.step() == 1
        house.later(seconds=seconds - 1)
        assert line.courier.step() == 0, f"attempt {attempt + 1} came too early"
        house.later(seconds=1 + seconds / 10)
    assert line.courier.step() == 1
    house.later(days=10)
    assert line.courier.step() == 0
    assert len(line.calls) == len(BACK_OFF) + 1
    assert len({headers["webhook-id"] for _, _, headers in line.calls}) == 1
    assert len({headers["webhook-timestamp"] for _, _, headers in line.calls}) == len(line.calls)
    told = house.context.webhooks.deliveries(house.actor("operator"), line.hook.id)
    assert [(one.status, one.attempt, one.response_code) for one in told] == [("given_up", 10, 500)]
    assert unread(house.service.database) == 0
    assert forget_deliveries(house.service.database, house.clock()) == 1


def test_a_failure_that_heals_is_delivered(house: House) -> None:
    line = Line(house, events=("request.received",))
    line.answers["next"] = Answer(status=None, why="connection")
    house.file()
    line.courier.step()
    assert unread(house.service.database) == 1
    line.answers.clear()
    house.later(seconds=6)
    assert line.courier.step() == 1
    [told] = house.context.webhooks.deliveries(house.actor("operator"), line.hook.id)
    assert (told.status, told.attempt, told.response_code) == ("delivered", 2, 200)


def test_waits_grow_and_differ_a_little() -> None:
    for attempt, seconds in enumerate(BACK_OFF, start=1):
        waits = {wait(message_id("wh", n), attempt).total_seconds() for n in range(50)}
        assert min(waits) >= seconds
        assert max(waits) <= 1.1 * seconds
        assert len(waits) > 10


def test_gone_means_never_again(house: House) -> None:
    line = Line(house)
    line.answers["next"] = Answer(status=410)
    house.file()
    line.courier.step()
    assert house.context.webhooks.get(SYSTEM, line.hook.id).disabled_at is not None
    house.file("someone.else@example.org")
    house.later(days=1)
    assert line.courier.step() == 0


def test_a_disabled_webhook_hears_nothing_and_later_only_what_is_new(house: House) -> None:
    line = Line(house)
    house.context.webhooks.switch(house.actor("operator"), line.hook.id, on=False)
    house.file()
    assert line.courier.step() == 0
    house.later(seconds=1)
    house.context.webhooks.switch(house.actor("operator"), line.hook.id, on=True)
    house.file("someone.else@example.org")
    assert line.courier.step() == 2


def test_a_killed_couriers_messages_come_again(house: House) -> None:
    line = Line(house, events=("request.received",))
    house.file()
    line.courier.enqueue()
    assert len(line.courier._claim()) == 1  # and then the process was killed
    assert line.courier.deliver() == 0
    house.later(seconds=181)
    assert line.courier.deliver() == 1


def test_two_couriers_deliver_once(house: House) -> None:
    line = Line(house)
    other = Courier(
        house.service.database,
        house.service.identities,
        house.clock,
        house.service.home,
        caller=line,  # type: ignore[arg-type]
    )
    for number in range(20):
        house.file(f"person-{number}@example.org")
    threads = [threading.Thread(target=c.step) for c in (line.courier, other, line.courier, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(line.calls) == 40
    assert len({headers["webhook-id"] for _, _, headers in line.calls}) == 40


def test_events_of_the_last_moments_are_sought_again_where_several_write(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line(house, events=("request.received",))
    monkeypatch.setattr(type(house.service.database), "is_sqlite", property(lambda self: False))
    monkeypatch.setattr(Courier, "_new", lambda self, table: sqlite.insert(table))
    request = house.file()
    house.file("someone.else@example.org")
    with house.service.database.engine.begin() as connection:  # an event with an earlier number appears later
        connection.execute(tables.event.delete().where(tables.event.c.id == 1))
    assert line.courier.enqueue() == 1
    with house.service.database.engine.begin() as connection:
        values = {"id": 1, "request_id": request.id, "at": stamp(house.clock()), "actor": "x", "kind": "filed"}
        connection.execute(insert(tables.event).values(**values, from_status=None, to_status="received", detail={}))
    assert line.courier.enqueue() == 1
    house.later(seconds=31)
    assert line.courier.enqueue() == 0
    with house.service.database.read() as connection:
        assert (
            connection.execute(select(tables.setting.c.value).where(tables.setting.c.key == "webhook_cursor")).scalar()
            == 4
        )


def test_secrets_are_sealed_and_rotated(house: House) -> None:
    line = Line(house, events=("request.received",))
    with house.service.database.read() as connection:
        sealed = connection.execute(select(tables.webhook.c.secret_sealed)).scalar_one()
    assert line.secret not in sealed
    assert line.secret.removeprefix("whsec_") not in sealed
    new = house.context.webhooks.rotate(house.actor("operator"), line.hook.id)
    house.file()
    line.courier.step()
    _, body, headers = line.calls[-1]
    for secret in (line.secret, new):
        assert verify(secret, headers, body, house.clock())
    house.later(hours=24)
    house.file("someone.else@example.org")
    line.courier.step()
    _, body, headers = line.calls[-1]
    assert headers["webhook-signature"].count("v1,") == 1
    assert verify(new, headers, body, house.clock())


def test_a_removed_webhook_leaves_nothing(house: House) -> None:
    line = Line(house)
    house.file()
    line.courier.enqueue()
    key = house.service.identities.seals / f"{line.hook.id}.key"
    assert key.exists()
    house.context.webhooks.remove(house.actor("operator"), line.hook.id)
    assert not key.exists()
    assert line.courier.step() == 0
    assert unread(house.service.database) == 0


def test_certificates_are_told_by_their_digest(house: House) -> None:
    line = Line(house, events=("request.fulfilled",))
    request = house.file()
    path = house.service.home / "certificates" / "batch_x.json"
    path.write_bytes(b'{"format": 1}')
    with house.service.database.write() as connection:
        values = {"request_id": request.id, "target": "spam", "stage": "exact", "kind": "learner", "status": "done"}
        connection.execute(insert(tables.layer).values(**values, certificate="certificates/batch_x.json"))
        for to in ("approved", "planned", "running", "evaluated", "fulfilled"):
            house.service.desk.move(connection, request.id, to, to)
    line.courier.step()
    [told] = line.messages()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert told["data"]["certificates"] == [{"target": "spam", "stage": "exact", "sha256": digest}]


def test_a_silent_receiver_is_called_once_a_round(house: House) -> None:
    line = Line(house)
    line.answers["next"] = Answer(status=None, why="timeout")
    for number in range(3):
        house.file(f"person-{number}@example.org")
    assert line.courier.step() == 1
    line.answers.clear()
    house.later(seconds=181)
    assert line.courier.step() == 6
    assert {one.attempt for one in house.context.webhooks.deliveries(SYSTEM, line.hook.id)} == {1, 2}


def test_run_goes_on_after_a_fault_and_stops_when_told(house: House, caplog: pytest.LogCaptureFixture) -> None:
    line = Line(house, events=("request.received",))
    stop, rounds = threading.Event(), []
    step: Callable[[], int] = line.courier.step

    def faulty() -> int:
        rounds.append(1)
        if len(rounds) == 1:
            raise OSError("planted words")
        stop.set()
        return step()

    line.courier.step = faulty  # type: ignore[method-assign]
    line.courier.pause_seconds = 0.01
    house.file()
    thread = threading.Thread(target=line.courier.run, args=(stop,))
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    assert len(line.calls) == 1
    assert "OSError" in caplog.text
    assert "planted" not in caplog.text


def test_a_real_delivery_over_tls(house: House, receiving: Receiving, authority: Any) -> None:
    hook, secret = house.context.webhooks.make(house.actor("operator"), HOOK, ["request.received"])
    caller, _ = caller_of(receiving, authority[1])
    courier = Courier(house.service.database, house.service.identities, house.clock, house.service.home, caller=caller)
    house.file()
    assert courier.step() == 1
    headers, body, _ = receiving.got[0]
    assert verify(secret, headers, body, house.clock())
    assert house.context.webhooks.deliveries(SYSTEM, hook.id)[0].status == "delivered"


def test_the_secret_of_an_unknown_seal_is_told_in_the_log_alone(house: House, caplog: pytest.LogCaptureFixture) -> None:
    line = Line(house, events=("request.received",))
    house.service.identities.destroy(line.hook.id)
    house.file()
    assert line.courier.step() == 1
    assert line.calls == []
    assert "NotFound" in caplog.text


def test_urls_are_checked_when_they_are_named(house: House) -> None:
    for url in ("http://hooks.example.com/", "https://127.0.0.1/", "https://x@hooks.example.com/"):
        told = is_problem(house.post("operator", "/v1/webhooks", json={"url": url}), 422)
        assert url not in told["detail"]


def test_no_path_leads_out_of_the_house(house: House, tmp_path: Path) -> None:
    from expunge.errors import TamperedEvidence
    from expunge.service.webhooks.messages import certificate_file

    (tmp_path / "outside.json").write_text("{}")
    for path in (
        "../outside.json",
        "certificates/../../outside.json",
        str(tmp_path / "outside.json"),
        "certificates/none.json",
    ):
        with pytest.raises(TamperedEvidence):
            certificate_file(house.service.home, path)
