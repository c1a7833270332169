"""Requests over HTTP: filed, listed page by page, acted on, exported, and sent twice."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from house import NOW, OTHER, SUBJECT, House, is_problem
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, update

from expunge.service import tables
from expunge.service.clock import stamp


def filed(house: House) -> int:
    with house.service.database.read() as connection:
        return connection.execute(select(func.count()).select_from(tables.request)).scalar_one()


def test_a_request_is_filed_and_found(house: House) -> None:
    body = {
        "identity": SUBJECT,
        "verified": True,
        "reason": "copyright",
        "regime": "ccpa",
        "external_id": "ticket-9",
        "least_guarantee": "empirical",
        "received_at": "2026-03-01T09:00:00+01:00",
    }
    reply = house.post("operator", "/v1/requests", json=body)
    assert reply.status_code == 201
    told = reply.json()
    assert reply.headers["location"] == f"/v1/requests/{told['id']}"
    assert (told["status"], told["sla"], told["reason"], told["regime"]) == (
        "verified",
        "on_track",
        "copyright",
        "ccpa",
    )
    assert told["received_at"] == "2026-03-01T08:00:00Z"
    assert house.get("auditor", reply.headers["location"]).json() == told
    assert not {"subject_token", "identity", "filed_by"} & set(told)
    assert SUBJECT not in reply.text
    kinds = [one["kind"] for one in house.get("auditor", f"/v1/requests/{told['id']}/history").json()]
    assert kinds == ["filed", "verified"]


def test_each_decision_moves_it(house: House) -> None:
    request = house.file(verified=False)
    at = f"/v1/requests/{request.id}"

    def do(who: str, action: str, body: Any = None) -> dict[str, Any]:
        reply = house.post(who, f"{at}/{action}", **({"json": body} if body else {}))
        assert reply.status_code == 200, reply.text
        told: dict[str, Any] = reply.json()
        return told

    assert do("operator", "verify")["status"] == "verified"
    assert do("operator", "hold", {"reason": "litigation"})["status"] == "paused"
    is_problem(house.post("approver", f"{at}/approve"), 409)
    assert do("approver", "release")["status"] == "verified"
    told = do("operator", "extend", {"reason": "many requests"})
    assert told["extended_at"]
    assert told["extension_reason"] == "many requests"
    is_problem(house.post("operator", f"{at}/extend", json={"reason": "again"}), 409)
    told = do("approver", "deny", {"reason": "no_match", "note": "nothing of theirs"})
    assert (told["status"], told["denial_reason"]) == ("denied", "no_match")
    for action in ("cancel", "retry", "verify"):
        is_problem(house.post("operator", f"{at}/{action}"), 409)


def test_a_subject_takes_it_back(house: House) -> None:
    request = house.file()
    assert house.post("subject", f"/v1/requests/{request.id}/cancel").json()["status"] == "cancelled"


# --- pages ------------------------------------------------------------------------------------------------------------


def pages(house: House, query: str) -> tuple[list[str], list[int]]:
    """Ids in order, following the header `Link`; and the totals told."""
    ids: list[str] = []
    totals: list[int] = []
    path: str | None = f"/v1/requests?{query}"
    while path is not None:
        reply = house.get("auditor", path)
        assert reply.status_code == 200, reply.text
        told = reply.json()
        ids += [one["id"] for one in told["items"]]
        totals.append(told["total"])
        link = reply.headers.get("link")
        assert (link is None) == (told["next"] is None)
        if link is not None:
            assert link.endswith('; rel="next"')
            assert f"after={told['next']}" in link
            assert link.count("after=") == 1
        path = link[1 : link.index(">")] if link else None
    return ids, totals


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = House(tmp_path_factory.mktemp("full") / "service")
    made.ids = []  # type: ignore[attr-defined]
    for number in range(23):
        regime = "ccpa" if number % 3 == 0 else "gdpr"
        request = made.file(f"person-{number}@example.org", regime=regime, verified=number % 5 != 0)
        made.ids.append((request.due_at, request.id, number))  # type: ignore[attr-defined]
        made.later(hours=number % 2)  # some come at the same moment
    yield made
    made.close()


@pytest.mark.parametrize("limit", [1, 2, 7, 22, 23, 24, 500])
@pytest.mark.parametrize("newest", ["false", "true"])
def test_pages_hold_everything_once_in_order(full: Any, limit: int, newest: str) -> None:
    ids, totals = pages(full, f"limit={limit}&verified=any&newest_first={newest}")
    wanted = [request_id for _, request_id, _ in sorted(full.ids, reverse=newest == "true")]
    assert ids == wanted
    assert set(totals) == {23}


def test_filters_hold_on_every_page(full: Any) -> None:
    ids, totals = pages(full, "limit=2&regime=ccpa")
    assert set(ids) == {i for _, i, n in full.ids if n % 3 == 0 and n % 5 != 0}
    assert set(totals) == {len(ids)}
    assert set(pages(full, "verified=no")[0]) == {i for _, i, n in full.ids if n % 5 == 0}
    assert pages(full, "status=denied&status=cancelled")[0] == []
    assert len(pages(full, "status=received&status=verified&verified=any")[0]) == 23
    assert pages(full, f"query={full.ids[3][1]}&verified=any")[0] == [full.ids[3][1]]
    assert len(pages(full, "open=true&verified=any")[0]) == 23
    assert pages(full, "open=false&verified=any")[0] == []
    due = sorted(full.ids)[10][0]
    before = pages(full, f"due_before={due.isoformat().replace('+', '%2B')}&verified=any")[0]
    assert set(before) == {i for at, i, _ in full.ids if at < due}


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=501",
        "limit=x",
        "after=%00",
        "after=AAAA",
        "after=" + "a" * 300,
        "status=nope",
        "sla=nope",
        "due_before=yesterday",
        "due_before=2026-03-01",
        "due_before=2026-03-01T00:00:00",
        "due_before=0001-01-01T00:00:00%2B14:00",
        "due_before=12345",
        "open=maybe",
        "verified=maybe",
        "query=erin%40example.org",
        "unknown=1",
        "newest_first=2",
    ],
)
def test_a_wrong_parameter_is_told_by_its_name(full: Any, query: str) -> None:
    told = is_problem(full.get("auditor", f"/v1/requests?{query}"), 422)
    name = query.partition("=")[0]
    value = query.partition("=")[2]
    if name not in ("unknown",) and told["errors"]:
        assert told["errors"][0]["pointer"].startswith(f"/query/{name}")
    assert "erin" not in json.dumps(told)
    assert len(value) < 5 or value not in json.dumps(told)


def test_how_requests_stand(house: House) -> None:
    request = house.file()
    for days, sla in ((0, "on_track"), (25, "due_soon"), (10, "overdue"), (80, "breached")):
        house.later(days=days)
        assert house.get("auditor", f"/v1/requests/{request.id}").json()["sla"] == sla
        assert [one["id"] for one in house.get("auditor", f"/v1/requests?sla={sla}").json()["items"]] == [request.id]
        assert house.get("auditor", "/v1/counts").json()["sla"][sla] == 1


# --- many -------------------------------------------------------------------------------------------------------------


def test_one_action_on_many_and_its_dry_run(house: House) -> None:
    mine = [house.file(f"person-{n}@example.org").id for n in range(5)]
    body = {"action": "deny", "reason": "other", "filter": {"status": ["verified"]}}
    dry = house.post("approver", "/v1/requests/bulk", json={**body, "dry_run": True}).json()
    assert (set(dry["done"]), dry["refused"], dry["dry_run"]) == (set(mine), [], True)
    assert house.get("auditor", "/v1/counts").json()["status"] == {"verified": 5}
    house.post("operator", f"/v1/requests/{mine[0]}/hold", json={"reason": "x"})
    body["filter"] = {"ids": mine}
    done = house.post("approver", "/v1/requests/bulk", json=body).json()
    assert set(done["done"]) == set(mine[1:])
    assert [one["id"] for one in done["refused"]] == mine[:1]
    assert house.get("auditor", "/v1/counts").json()["status"] == {"denied": 4, "paused": 1}


@pytest.mark.parametrize(
    "body",
    [
        {"action": "deny"},
        {"action": "deny", "reason": "because"},
        {"action": "cancel", "reason": "other"},
        {"action": "hold"},
        {"action": "hold", "reason": "x", "note": "y"},
        {"action": "finalise"},
        {"action": "explode"},
        {"action": "cancel", "dry_run": "yes"},
        {"action": "cancel", "filter": {"unknown": 1}},
        {"action": "cancel", "filter": {"ids": ["x"]}},
    ],
)
def test_a_wrong_action_on_many_does_nothing(house: House, body: dict[str, Any]) -> None:
    house.file()
    is_problem(house.post("operator", "/v1/requests/bulk", json=body), 422)
    assert house.get("auditor", "/v1/counts").json()["status"] == {"verified": 1}


def test_exports_hold_no_person_and_no_formula(house: House) -> None:
    for number in range(3):
        house.file(f"planted-{number}@example.org", external_id=f"ticket-{number}")
    reply = house.get("operator", "/v1/requests/export")
    assert reply.headers["content-type"] == "text/csv; charset=utf-8"
    assert reply.headers["content-disposition"] == 'attachment; filename="requests.csv"'
    rows = list(csv.DictReader(io.StringIO(reply.text)))
    assert {row["external_id"] for row in rows} == {"ticket-0", "ticket-1", "ticket-2"}
    told = house.get("operator", "/v1/requests/export?form=json").json()
    assert {one["id"] for one in told} == {row["id"] for row in rows}
    token = house.service.identities.token("planted-0@example.org")
    for text in (reply.text, json.dumps(told)):
        assert "planted" not in text
        assert token not in text
    assert list(csv.DictReader(io.StringIO(house.get("operator", "/v1/requests/export?status=denied").text))) == []
    is_problem(house.get("operator", "/v1/requests/export?form=xml"), 422)


def test_due_dates_of_a_month(house: House) -> None:
    house.file()
    house.file(OTHER, regime="ccpa")
    assert house.get("auditor", "/v1/calendar?month=2026-04").json() == {"2026-04-03": 1, "2026-04-17": 1}
    assert house.get("auditor", "/v1/calendar?month=2026-12").json() == {}
    for month in ("2026-13", "2026-1", "26-01", "2026-01-01", ""):
        is_problem(house.get("auditor", f"/v1/calendar?month={month}"), 422)


# --- sent twice -------------------------------------------------------------------------------------------------------


def test_the_same_key_and_body_have_one_effect_and_one_answer(house: House) -> None:
    body = {"identity": SUBJECT, "verified": True}
    first = house.post("operator", "/v1/requests", json=body, headers={"Idempotency-Key": "k-1"})
    house.later(hours=23)
    again = house.post("operator", "/v1/requests", json=body, headers={"Idempotency-Key": "k-1"})
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    assert "idempotency-replayed" not in first.headers
    assert filed(house) == 1
    house.later(hours=2)  # and after a day it is forgotten
    third = house.post("operator", "/v1/requests", json=body, headers={"Idempotency-Key": "k-1"})
    assert third.json()["id"] != first.json()["id"]


def test_the_same_key_for_something_else_is_refused(house: House) -> None:
    headers = {"Idempotency-Key": "k-1"}
    request = house.file(OTHER)
    house.post("operator", "/v1/requests", json={"identity": SUBJECT}, headers=headers)
    for path, body in (
        ("/v1/requests", {"identity": OTHER}),
        ("/v1/suppression/check", {"identities": [SUBJECT]}),
        (f"/v1/requests/{request.id}/hold", {"reason": "x"}),
    ):
        told = is_problem(house.post("operator", path, json=body, headers=headers), 422, "idempotency-key-reused")
        assert SUBJECT not in json.dumps(told)
    assert filed(house) == 2


def test_the_same_body_at_another_address_is_something_else(house: House) -> None:
    request = house.file()
    body, headers = {"reason": "x"}, {"Idempotency-Key": "k-1"}
    assert house.post("operator", f"/v1/requests/{request.id}/extend", json=body, headers=headers).status_code == 200
    reply = house.post("operator", f"/v1/requests/{request.id}/hold", json=body, headers=headers)
    is_problem(reply, 422, "idempotency-key-reused")


def test_keys_of_others_are_others(house: House) -> None:
    headers = {"Idempotency-Key": "k-1"}
    one = house.post("operator", "/v1/requests", json={"identity": SUBJECT}, headers=headers)
    other = house.post("subject", "/v1/requests", json={"identity": SUBJECT}, headers=headers)
    assert one.json()["id"] != other.json()["id"]


def test_what_was_refused_may_be_sent_again(house: House) -> None:
    request = house.file()
    house.post("operator", f"/v1/requests/{request.id}/hold", json={"reason": "x"})
    headers, path = {"Idempotency-Key": "k-1"}, f"/v1/requests/{request.id}/deny"
    is_problem(house.post("approver", path, json={"reason": "other"}, headers=headers), 409)
    house.post("approver", f"/v1/requests/{request.id}/release")
    assert house.post("approver", path, json={"reason": "other"}, headers=headers).status_code == 200


def test_a_secret_in_an_answer_is_kept_sealed(house: House) -> None:
    body, headers = {"role": "auditor", "name": "x"}, {"Idempotency-Key": "planted-key"}
    first = house.post("operator", "/v1/keys", json=body, headers=headers)
    again = house.post("operator", "/v1/keys", json=body, headers=headers)
    assert again.json()["key"] == first.json()["key"]
    assert house.access.authenticate(f"Bearer {first.json()['key']}").role == "auditor"
    kept = b"".join(path.read_bytes() for path in house.service.home.rglob("*") if path.is_file())
    assert first.json()["key"].split("_", 2)[2].encode() not in kept
    assert b"planted-key" not in kept


def test_what_was_sent_is_kept_as_a_keyed_hash(house: House) -> None:
    import hashlib

    body = json.dumps({"identity": SUBJECT}).encode()
    house.post(
        "operator",
        "/v1/requests",
        content=body,
        headers={"Idempotency-Key": "k", "content-type": "application/json"},
    )
    with house.service.database.read() as connection:
        row = connection.execute(select(tables.idempotency)).mappings().one()
    assert hashlib.sha256(body).hexdigest() not in str(dict(row))
    assert "k0001:" in row["digest"]


@pytest.mark.parametrize("key", ["", " ", "a b", "ä", "x" * 256, "tab\t"])
def test_a_key_that_cannot_be_kept_is_refused(house: House, key: str) -> None:
    headers = [(b"idempotency-key", key.encode()), (b"authorization", f"Bearer {house.texts['operator']}".encode())]
    reply = house.client.post("/v1/requests", json={"identity": SUBJECT}, headers=headers)
    is_problem(reply, 400, "bad-idempotency-key")
    assert filed(house) == 0


def test_many_at_once_have_one_effect(house: House) -> None:
    replies: list[Any] = []

    def send() -> None:
        body = {"identity": SUBJECT, "verified": True}
        replies.append(house.post("operator", "/v1/requests", json=body, headers={"Idempotency-Key": "k-1"}))

    run_together([send] * 8)
    assert filed(house) == 1
    assert {reply.status_code for reply in replies} <= {201, 409}
    assert len({reply.content for reply in replies if reply.status_code == 201}) == 1
    for reply in replies:
        if reply.status_code == 409:
            is_problem(reply, 409, "idempotency-under-way")
            assert reply.headers["retry-after"] == "1"


def run_together(work: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=one) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_what_a_killed_process_left_is_taken_up_after_a_while(house: House) -> None:
    body, headers = {"identity": SUBJECT}, {"Idempotency-Key": "k-1"}
    house.post("operator", "/v1/requests", json=body, headers=headers)
    with house.service.database.write() as connection:  # killed before its answer was kept
        connection.execute(update(tables.idempotency).values(status=None, body=None))
    house.later(minutes=4)
    is_problem(house.post("operator", "/v1/requests", json=body, headers=headers), 409, "idempotency-under-way")
    house.later(minutes=2)
    assert house.post("operator", "/v1/requests", json=body, headers=headers).status_code == 201


# --- the registry, suppression and the policy -------------------------------------------------------------------------


def test_targets_are_registered_and_retired(house: House) -> None:
    data = {"id": "mail", "name": "Mail", "version": "1", "kind": "elsewhere", "location": "s3://mail"}
    model = {**data, "id": "spam", "kind": "remote", "made_from": ["mail"], "options": {"rows": 3}}
    is_problem(house.post("operator", "/v1/targets", json=model), 422)
    assert house.post("operator", "/v1/targets", json=data).status_code == 201
    made = house.post("operator", "/v1/targets", json=model)
    assert made.status_code == 201
    assert house.get("auditor", "/v1/targets/spam").json() == made.json()
    listed = house.get("auditor", "/v1/targets").json()
    assert [one["id"] for one in listed["items"]] == ["mail", "spam"]
    assert "learner" in listed["kinds"]
    lineage = {one["id"]: one["from"] for one in house.get("auditor", "/v1/lineage").json()["items"]}
    assert lineage == {"mail": [], "spam": ["mail"]}
    assert house.post("operator", "/v1/targets/spam/reindex").status_code == 200
    assert house.post("operator", "/v1/targets/spam/retire").status_code == 204
    assert house.get("auditor", "/v1/targets/spam").json()["retired_at"] == "2026-03-02T09:00:00Z"
    is_problem(house.post("operator", "/v1/targets/none/retire"), 404)
    is_problem(house.post("operator", "/v1/targets", json={**model, "kind": "other"}), 409)


def test_whoever_was_erased_is_blocked(house: House) -> None:
    request = house.file()
    with house.service.database.write() as connection:
        house.service.suppression.add(connection, request.id, house.service.identities.tokens(SUBJECT))
    body = {"identities": [OTHER, f" {SUBJECT}", "x", SUBJECT]}
    assert house.post("operator", "/v1/suppression/check", json=body).json() == {"blocked": [False, True, False, True]}
    for wrong in (
        {"identities": []},
        {"identities": "x"},
        {"identities": ["x" * 1001]},
        {"identities": ["x"] * 10_001},
    ):
        is_problem(house.post("operator", "/v1/suppression/check", json=wrong), 422)


def test_the_policy_is_shown(house: House) -> None:
    told = house.get("auditor", "/v1/policy").json()
    assert told == house.service.policy.model_dump(mode="json")


def test_pages_of_the_trail(house: House) -> None:
    for number in range(5):
        house.file(f"person-{number}@example.org")
    ids: list[int] = []
    path: str | None = "/v1/audit?limit=2&action=file"
    while path is not None:
        reply = house.get("auditor", path)
        ids += [one["id"] for one in reply.json()["items"]]
        link = reply.headers.get("link")
        path = link[1 : link.index(">")] if link else None
    assert len(ids) == 5
    assert ids == sorted(ids, reverse=True)


@settings(deadline=None, max_examples=25)
@given(seconds=st.integers(-(10**9), 10**9))
def test_any_time_is_filed_or_refused(shared: House, seconds: int) -> None:
    at = NOW + timedelta(seconds=seconds)
    identity = f"time-{seconds}@example.org"
    reply = shared.post("operator", "/v1/requests", json={"identity": identity, "received_at": stamp(at)})
    if at <= NOW:
        assert reply.status_code == 201
    else:
        assert reply.status_code in (201, 422)
