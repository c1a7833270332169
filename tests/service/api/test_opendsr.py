"""OpenDSR 2.0 as a privacy platform uses it."""

from __future__ import annotations

import base64
import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID
from house import MANY, OTHER, SUBJECT, House, is_problem
from sqlalchemy import select

from expunge.errors import RunError
from expunge.service import tables
from expunge.service.access.gate import AccessPart
from expunge.service.api.settings import ApiPart, OpenDsrPart
from expunge.service.api.signing import signed_headers
from expunge.service.opendsr import Part, status_of
from expunge.service.webhooks.courier import Courier
from expunge.service.webhooks.sending import Answer

UUID = "a7551968-d5d6-44b2-9831-815ac9017798"


def body(*identities: str, **changed: Any) -> dict[str, Any]:
    return {
        "regulation": "gdpr",
        "subject_request_id": UUID,
        "subject_request_type": "erasure",
        "submitted_time": "2026-03-01T09:00:00Z",
        "subject_identities": [
            {"identity_type": "email", "identity_value": one, "identity_format": "raw"}
            for one in identities or (SUBJECT,)
        ],
        "api_version": "2.0",
        **changed,
    }


def status(house: House, who: str = "operator") -> str:
    told: str = house.get(who, f"/opendsr/requests/{UUID}").json()["request_status"]
    return told


def requests(house: House) -> list[Any]:
    with house.service.database.read() as connection:
        return list(connection.execute(select(tables.request).order_by(tables.request.c.external_id)).mappings())


def test_discovery_says_what_is_supported(shared: House) -> None:
    told = shared.get(None, "/opendsr/discovery").json()
    assert told["api_version"] == "2.0"
    assert told["supported_subject_request_types"] == ["erasure"]
    assert {"identity_type": "email", "identity_format": "raw"} in told["supported_identities"]
    assert told["processor_certificate"] is None
    is_problem(shared.get(None, "/opendsr/certificate.pem"), 404)


def test_a_request_is_filed_with_every_identity(house: House) -> None:
    sent = json.dumps(body(SUBJECT, OTHER)).encode()
    reply = house.post("operator", "/opendsr/requests", content=sent, headers={"content-type": "application/json"})
    assert reply.status_code == 201, reply.text
    told = reply.json()
    assert base64.b64decode(told["encoded_request"]) == sent
    assert told["subject_request_id"] == UUID
    assert told["received_time"].startswith("2026-03-01T09:00:00")
    assert told["expected_completion_time"].startswith("2026-04-02T00:00:00")
    assert reply.headers["x-opendsr-processor-domain"] == "localhost"
    rows = requests(house)
    assert [row["external_id"] for row in rows] == [f"opendsr:{UUID}:0", f"opendsr:{UUID}:1"]
    assert {row["status"] for row in rows} == {"verified"}
    assert rows[0]["subject_token"] == house.service.identities.token(SUBJECT)
    assert house.post("operator", "/opendsr/requests", json=body(SUBJECT, OTHER)).status_code == 201
    assert len(requests(house)) == 2


def move(house: House, request_id: str, *states: str) -> None:
    with house.service.database.write() as connection:
        for to in states:
            house.service.desk.move(connection, request_id, to, to)  # type: ignore[arg-type]


def test_how_it_stands_from_the_first_day_to_the_last(house: House) -> None:
    house.post("operator", "/opendsr/requests", json=body(SUBJECT, OTHER))
    first, second = (row["id"] for row in requests(house))
    assert status(house) == "pending"
    house.service.desk.hold(house.actor("operator"), first, "litigation")
    assert status(house) == "pending"
    house.service.desk.release(house.actor("approver"), first)
    move(house, first, "approved", "planned", "running")
    assert status(house) == "in_progress"
    move(house, first, "failed")
    assert status(house) == "in_progress"
    move(house, first, "approved", "planned", "running", "evaluated", "fulfilled")
    assert status(house) == "pending"  # the other identity still waits, and nothing is said to be done
    house.service.desk.deny(house.actor("approver"), second, "no_match")
    assert status(house) == "completed"


def part(state: Any, denial: str | None = None) -> Part:
    return Part(id="r", external_id="x", status=state, denial_reason=denial, received_at="", due_at="")


@pytest.mark.parametrize(
    ("parts", "word"),
    [
        ([part("received")], "pending"),
        ([part("verified"), part("paused")], "pending"),
        ([part("verified"), part("fulfilled")], "pending"),
        ([part("approved"), part("verified")], "in_progress"),
        ([part("failed"), part("fulfilled")], "in_progress"),
        ([part("evaluated")], "in_progress"),
        ([part("fulfilled"), part("fulfilled")], "completed"),
        ([part("fulfilled"), part("denied", "no_match")], "completed"),
        ([part("denied", "no_match")], "completed"),
        ([part("fulfilled"), part("denied", "suspected_fraud")], "cancelled"),
        ([part("fulfilled"), part("cancelled")], "cancelled"),
        ([part("cancelled")], "cancelled"),
    ],
)
def test_the_words_of_the_specification(parts: list[Part], word: str) -> None:
    assert status_of(parts) == word


def test_a_duplicate_stands_as_what_it_repeats(house: House) -> None:
    first = house.file(SUBJECT)
    house.post("operator", "/opendsr/requests", json=body())
    assert requests(house)[-1]["status"] == "cancelled"
    assert status(house) == "pending"
    move(house, first.id, "approved", "planned", "running")
    assert status(house) == "in_progress"
    move(house, first.id, "evaluated", "fulfilled")
    assert status(house) == "completed"


def test_it_is_taken_back_while_it_is_pending(house: House) -> None:
    house.post("operator", "/opendsr/requests", json=body(SUBJECT, OTHER))
    reply = house.call("operator", "DELETE", f"/opendsr/requests/{UUID}")
    assert reply.status_code == 202
    assert set(reply.json()) == {"controller_id", "received_time", "subject_request_id", "api_version"}
    assert status(house) == "cancelled"
    is_problem(house.call("operator", "DELETE", f"/opendsr/requests/{UUID}"), 409)


def test_taking_it_back_leaves_what_others_filed(house: House) -> None:
    first = house.file(SUBJECT)
    house.post("operator", "/opendsr/requests", json=body(SUBJECT, OTHER))
    assert house.call("operator", "DELETE", f"/opendsr/requests/{UUID}").status_code == 202
    assert house.get("auditor", f"/v1/requests/{first.id}").json()["status"] == "verified"
    assert requests(house)[-1]["status"] == "cancelled"
    assert status(house) == "pending"


def test_once_work_has_begun_it_is_not(house: House) -> None:
    house.post("operator", "/opendsr/requests", json=body())
    move(house, requests(house)[0]["id"], "approved")
    is_problem(house.call("operator", "DELETE", f"/opendsr/requests/{UUID}"), 409)
    assert status(house) == "in_progress"


def test_a_controller_finds_its_own_alone(house: House) -> None:
    house.make("rival", "operator")
    house.post("operator", "/opendsr/requests", json=body())
    for method in ("GET", "DELETE"):
        is_problem(house.call("rival", method, f"/opendsr/requests/{UUID}"), 404)
    assert house.post("rival", "/opendsr/requests", json=body(OTHER)).status_code == 201
    assert len(requests(house)) == 2
    assert status(house) == status(house, "rival") == "pending"


@pytest.mark.parametrize(
    "changed",
    [
        {"subject_request_type": "access"},
        {"regulation": "lgpd"},
        {"subject_request_id": UUID.upper()},
        {"subject_request_id": "a7551968-d5d6-14b2-9831-815ac9017798"},
        {"subject_identities": []},
        {"subject_identities": [{"identity_type": "email", "identity_value": "x", "identity_format": "sha256"}]},
        {"subject_identities": [{"identity_type": "android_id", "identity_value": "x", "identity_format": "raw"}]},
        {"subject_identities": body(*"abcdefghijk")["subject_identities"]},
        {"submitted_time": "yesterday"},
        {"submitted_time": "2026-03-03T09:00:00Z"},
        {"api_version": "1.0"},
        {"status_callback_urls": ["https://unknown.example.com/"]},
        {"status_callback_urls": ["https://169.254.169.254/"]},
    ],
    ids=str,
)
def test_what_is_not_supported_is_refused(house: House, changed: dict[str, Any]) -> None:
    told = is_problem(house.post("operator", "/opendsr/requests", json=body(**changed)), 422)
    assert SUBJECT not in json.dumps(told)
    assert requests(house) == []


def test_callbacks_are_signed_webhooks_to_who_filed_it(house: House) -> None:
    house.make("rival", "operator")
    url = "https://hooks.example.com/opendsr"
    hook, _ = house.context.webhooks.make(house.actor("operator"), url, ["opendsr.status"])
    house.context.webhooks.make(house.actors["rival"], "https://rival.example.com/", ["opendsr.status"])
    sent = body(status_callback_urls=[url])
    assert house.post("operator", "/opendsr/requests", json=sent).status_code == 201
    is_problem(house.post("rival", "/opendsr/requests", json=body(OTHER, status_callback_urls=[url])), 422)
    house.file("somebody.else@example.org")
    calls: list[tuple[str, Any]] = []

    class Line:
        def post(self, url: str, message: bytes, headers: dict[str, str]) -> Answer:
            calls.append((url, json.loads(message)))
            return Answer(status=202)

    service = house.service
    courier = Courier(service.database, service.identities, house.clock, service.home, caller=Line())  # type: ignore[arg-type]
    courier.step()
    assert {where for where, _ in calls} == {url}
    with service.database.read() as connection:
        told = connection.execute(select(tables.delivery.c.webhook_id)).scalars().all()
    assert set(told) == {hook.id}
    assert calls[-1][1] == {
        "controller_id": house.actor("operator").id,
        "status_callback_url": url,
        "subject_request_id": UUID,
        "request_status": "pending",
        "expected_completion_time": "2026-04-02T00:00:00.000000Z",
    }
    move(house, requests(house)[-1]["id"], "approved", "planned", "running", "evaluated", "fulfilled")
    courier.step()
    assert calls[-1][1]["request_status"] == "completed"
    assert SUBJECT not in json.dumps(calls)


def make_pem(folder: Path, key: Any) -> tuple[str, str]:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "opendsr.example.com")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now).not_valid_after(now + dt.timedelta(days=1)).sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(key.private_bytes(*private))
    return str(folder / "cert.pem"), str(folder / "key.pem")


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_answers_are_signed_where_there_is_a_certificate(tmp_path: Path, kind: str) -> None:
    key = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())
    certificate, private = make_pem(tmp_path, key)
    dsr = OpenDsrPart(domain="opendsr.example.com", certificate=certificate, key=private)
    part_ = ApiPart(access=AccessPart(limits=MANY, secure=False), opendsr=dsr)
    house = House(tmp_path / "service", part=part_)
    reply = house.post("operator", "/opendsr/requests", json=body())
    shown = x509.load_pem_x509_certificate(house.get(None, "/opendsr/certificate.pem").content)
    assert house.get(None, "/opendsr/discovery").json()["processor_certificate"] == (
        "https://opendsr.example.com/opendsr/certificate.pem"
    )
    signature = base64.b64decode(reply.headers["x-opendsr-signature"])
    check = (
        (lambda data: shown.public_key().verify(signature, data, padding.PKCS1v15(), hashes.SHA256()))  # type: ignore[union-attr, call-arg]
        if kind == "rsa"
        else (lambda data: shown.public_key().verify(signature, data, ec.ECDSA(hashes.SHA256())))  # type: ignore[union-attr, call-arg]
    )
    check(reply.content)
    with pytest.raises(InvalidSignature):
        check(reply.content + b" ")
    house.close()


def test_a_key_that_cannot_sign_is_told(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("no key")
    for path in (str(tmp_path / "key.pem"), str(tmp_path / "none.pem")):
        with pytest.raises(RunError):
            signed_headers(OpenDsrPart(key=path), b"x")
