"""Certificates out, and in to be checked; the log's head; health and figures."""

from __future__ import annotations

import base64
import copy
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from house import OTHER, House, is_problem
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import insert

from expunge.audit.keys import KeyFolder
from expunge.audit.layers import certify
from expunge.service import tables
from expunge.service.api.meter import Meter, gauge
from expunge.service.clock import stamp
from expunge.service.words import SLAS, STATUSES


@pytest.fixture
def certified(house: House) -> tuple[House, str, Path]:
    """A request with one layer that was certified as a worker does it."""
    request = house.file()
    path = house.service.home / "certificates" / "batch_a.json"
    about = {
        "request_ids": (request.id,),
        "policy": ("gdpr",),
        "due_at": stamp(request.due_at),
        "issued_at": "2026-03-02T09:00:00Z",
        "target": "mail",
        "kind": "dataset",
        "stage": "exact",
        "guarantee_class": {"class": "exact", "equality": "bitwise"},
        "evidence": (),
        "findings": {"rows left of the subjects": 0},
        "out_of_scope": ("copies elsewhere",),
    }
    service = house.service
    certify(path, about, service.home / "log", service.keys, service.log_origin)
    with service.database.write() as connection:
        values = {"request_id": request.id, "target": "mail", "stage": "exact", "kind": "dataset", "status": "done"}
        connection.execute(insert(tables.layer).values(**values, certificate="certificates/batch_a.json"))
    return house, request.id, path


def test_a_certificate_is_listed_downloaded_and_checked(certified: tuple[House, str, Path]) -> None:
    house, request_id, path = certified
    [told] = house.get("subject", f"/v1/requests/{request_id}/certificates").json()["items"]
    assert (told["target"], told["stage"]) == ("mail", "exact")
    reply = house.get("subject", told["href"])
    assert reply.content == path.read_bytes()
    assert reply.headers["content-disposition"] == f'attachment; filename="{request_id}-mail-exact.json"'
    verdict = house.post("subject", "/v1/certificates/verify", json={"certificate": reply.json()}).json()
    assert verdict["outcome"] == "pass", verdict
    assert verdict["says"]["requestIds"] == [request_id]
    keys = house.get(None, "/v1/log/keys").json()
    body = {"certificate": reply.json(), "keys": keys}
    assert house.post("auditor", "/v1/certificates/verify", json=body).json() == verdict
    actions = {one["action"] for one in house.get("auditor", "/v1/audit").json()["items"]}
    assert "get_certificate" in actions


def test_a_certificate_that_was_changed_does_not_pass(certified: tuple[House, str, Path], tmp_path: Path) -> None:
    house, _, path = certified
    good = json.loads(path.read_text())

    def verdict(**body: Any) -> str:
        outcome: str = house.post("auditor", "/v1/certificates/verify", json=body).json()["outcome"]
        return outcome

    changed = copy.deepcopy(good)
    changed["log"]["index"] = 7
    assert verdict(certificate=changed) == "fail"
    changed = copy.deepcopy(good)
    changed["envelope"]["signatures"][0]["sig"] = changed["envelope"]["signatures"][0]["sig"][::-1]
    assert verdict(certificate=changed) == "fail"
    strangers = KeyFolder.make(tmp_path / "keys", "example.com/strangers").trusted.as_dict()
    assert verdict(certificate=good, keys=strangers) == "fail"
    assert verdict(certificate=good) == "pass"


@pytest.mark.parametrize("remove", ["log", "envelope", "format"])
def test_half_a_certificate_is_answered(certified: tuple[House, str, Path], remove: str) -> None:
    house, _, path = certified
    half = json.loads(path.read_text())
    del half[remove]
    reply = house.post("auditor", "/v1/certificates/verify", json={"certificate": half})
    assert reply.status_code in (200, 422)
    if reply.status_code == 200:
        assert reply.json()["outcome"] == "fail"


@pytest.mark.parametrize(
    "body", [{"certificate": {}}, {"certificate": {"envelope": []}}, {"certificate": {"log": 1, "format": 1}}]
)
def test_what_is_no_certificate_does_not_pass(shared: House, body: Any) -> None:
    reply = shared.post("auditor", "/v1/certificates/verify", json=body)
    assert reply.status_code == 422 or reply.json()["outcome"] == "fail"
    is_problem(shared.post("auditor", "/v1/certificates/verify", json={"certificate": {}, "keys": {"name": 1}}), 422)


def test_certificates_of_others_are_not_there(certified: tuple[House, str, Path]) -> None:
    house, request_id, _ = certified
    for path in ("certificates", "certificates/mail/exact"):
        is_problem(house.get("other", f"/v1/requests/{request_id}/{path}"), 404)
    for path in ("mail/approximate", "none/exact", "mail/none", "..%2f..%2fservice.db/exact", "mail/exact/x"):
        is_problem(house.get("subject", f"/v1/requests/{request_id}/certificates/{path}"), 404)


def test_a_certificate_that_is_gone_is_a_fault_of_the_house(certified: tuple[House, str, Path]) -> None:
    house, request_id, path = certified
    path.unlink()
    for at in ("certificates", "certificates/mail/exact"):
        told = is_problem(house.get("auditor", f"/v1/requests/{request_id}/{at}"), 500, "failed")
        assert str(path.parent) not in told["detail"]


def test_the_logs_head_is_the_one_on_disk(certified: tuple[House, str, Path]) -> None:
    house, _, _ = certified
    reply = house.get("auditor", "/v1/log/checkpoint")
    assert reply.headers["content-type"].startswith("text/plain")
    assert reply.text == (house.service.home / "log" / "checkpoint").read_text()
    assert reply.text.splitlines()[:2] == [house.service.log_origin, "1"]


def test_before_the_first_certificate_there_is_no_log(house: House) -> None:
    is_problem(house.get("auditor", "/v1/log/checkpoint"), 404)
    assert house.get("auditor", f"/v1/requests/{house.file().id}/certificates").json() == {"items": []}


def test_no_private_key_is_shown(shared: House) -> None:
    text = shared.get(None, "/v1/log/keys").text
    folder = shared.service.home / "keys"
    secrets = [
        p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != "trusted.json" and p.stat().st_size
    ]
    assert secrets
    for secret in secrets:
        for form in (secret.hex(), base64.b64encode(secret).decode(), secret.decode("latin-1")):
            assert form.strip()[:60] not in text
    assert set(json.loads(text)) == {"format", "name", "keys"}


# --- health and figures -----------------------------------------------------------------------------------------------


def families(text: str) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_the_figures_are_prometheus_and_right(house: House) -> None:
    house.file()
    house.file(OTHER)
    house.file("third@example.org", verified=False)
    house.context.webhooks.make(house.actor("operator"), "https://hooks.example.com/", ["*"])
    with house.service.database.write() as connection:
        beat = stamp(house.clock() - timedelta(seconds=7))
        connection.execute(insert(tables.worker).values(id="w", started_at=beat, beat_at=beat))
    reply = house.get("auditor", "/metrics")
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    told = families(reply.text)
    by_status = {s.labels["status"]: s.value for s in told["expunge_requests"].samples}
    assert by_status == {status: 2.0 if status == "verified" else 0.0 for status in STATUSES}
    assert {s.labels["sla"] for s in told["expunge_requests_sla"].samples} == set(SLAS)
    assert told["expunge_requests_unverified"].samples[0].value == 1
    assert told["expunge_webhook_deliveries_pending"].samples[0].value == 0
    assert told["expunge_worker_silence_seconds"].samples[0].value == 7
    assert told["expunge_next_due_seconds"].samples[0].value > 20 * 86_400
    assert "example.org" not in reply.text


def test_answers_are_counted_by_endpoint_and_status(tmp_path: Path) -> None:
    house = House(tmp_path / "service", own=True)
    for path in ("/v1/policy", "/v1/policy", "/v1/none", "/v1/requests/x"):
        house.get("auditor", path)
    house.get(None, "/v1/policy")
    told = families(house.get("auditor", "/metrics").text)
    counts = {(s.labels["operation"], s.labels["status"]): s.value for s in told["expunge_http_requests"].samples}
    assert counts == {("get_policy", "200"): 2, ("none", "404"): 1, ("get_request", "404"): 1, ("get_policy", "401"): 1}
    house.close()


def test_the_histogram_adds_up() -> None:
    meter = Meter()
    for seconds in (0.001, 0.005, 0.006, 0.3, 100.0):
        meter.count("x", 200, seconds)
    told = families("\n".join(meter.lines()) + "\n")["expunge_http_request_seconds"]
    buckets = {s.labels["le"]: s.value for s in told.samples if s.name.endswith("_bucket")}
    assert (buckets["0.005"], buckets["0.01"], buckets["0.5"], buckets["5.0"], buckets["+Inf"]) == (2, 3, 4, 4, 5)
    values = {s.name: s.value for s in told.samples if not s.labels.get("le")}
    assert values["expunge_http_request_seconds_count"] == 5
    assert values["expunge_http_request_seconds_sum"] == pytest.approx(100.312)


def test_a_gauge_without_a_label() -> None:
    assert list(gauge("a", "b", {"": 1})) == ["# HELP a b", "# TYPE a gauge", "a 1"]


def test_health_is_open_and_says_little(house: House) -> None:
    for path in ("/healthz", "/readyz"):
        assert house.get(None, path).json() == {"status": "ok"}
