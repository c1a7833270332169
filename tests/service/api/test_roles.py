"""Each role against each endpoint, and the ids of others."""

from __future__ import annotations

import re
from typing import Any

import pytest
from house import OTHER, SUBJECT, House, is_problem
from sqlalchemy import select

from expunge.service import tables
from expunge.service.api.operations import BY_ID, OPERATIONS, TAGS, Operation
from expunge.service.permissions import ALLOWED
from expunge.service.words import ROLES

UUID = "a7551968-d5d6-44b2-9831-815ac9017798"
NOBODYS = "a" * 26

# what is sent to each endpoint so that nothing but the role can be wrong with it
BODIES: dict[str, Any] = {
    "file_request": {"identity": SUBJECT},
    "act_on_many": {"action": "cancel", "dry_run": True},
    "deny_request": {"reason": "other"},
    "extend_request": {"reason": "many requests"},
    "hold_request": {"reason": "litigation"},
    "finalise_request": {"note": "by hand"},
    "check_suppression": {"identities": [SUBJECT]},
    "register_target": {"id": "x", "name": "X", "version": "1", "kind": "other", "location": "elsewhere"},
    "verify_certificate": {"certificate": {}},
    "make_webhook": {"url": "https://hooks.example.com/"},
    "make_key": {"role": "auditor", "name": "x"},
    "opendsr_file": {
        "regulation": "gdpr",
        "subject_request_id": UUID,
        "subject_request_type": "erasure",
        "submitted_time": "2026-03-02T08:00:00Z",
        "subject_identities": [{"identity_type": "email", "identity_value": SUBJECT, "identity_format": "raw"}],
    },
}
QUERIES = {"due_dates": {"month": "2026-03"}}


def path_of(operation: Operation, request_id: str = f"req_{NOBODYS}") -> str:
    return operation.path.format(
        request_id=request_id,
        target_id="nothing",
        stage="exact",
        webhook_id=f"wh_{NOBODYS}",
        key_id=f"key_{NOBODYS}",
        subject_request_id=UUID,
    ) if "{" in operation.path else operation.path  # fmt: skip


def call(house: House, operation: Operation, who: str | None, **options: Any) -> Any:
    body = BODIES.get(operation.id)
    options = {"json": body, **options} if body is not None else options
    return house.call(who, operation.method, path_of(operation), params=QUERIES.get(operation.id), **options)


# An endpoint whose permission is wider than one of the things that it does: a role that comes in may still be refused.
WITHIN = {("make_key", "approver"): 403, ("act_on_many", "approver"): 403, ("act_on_many", "auditor"): 403}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.id)
def test_a_role_comes_in_exactly_where_the_table_says(shared: House, operation: Operation, role: str) -> None:
    reply = call(shared, operation, role)
    assert reply.status_code != 401
    if operation.permission is None or role in ALLOWED[operation.permission]:
        if (operation.id, role) in WITHIN:
            is_problem(reply, WITHIN[operation.id, role])
        else:
            assert reply.status_code in (operation.status, 404, 409, 422), reply.text
    else:
        told = is_problem(reply, 403, "not-allowed")
        assert role in told["detail"]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.id)
def test_nobody_comes_in_without_a_key(shared: House, operation: Operation) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer exk_wrong"},
        {"Authorization": "Basic eDp5"},
        {"Cookie": "expunge_session=x"},
    ):
        reply = call(shared, operation, None, headers=headers)
        if operation.permission is None:
            assert reply.status_code in (200, 404)
        else:
            is_problem(reply, 401, "not-signed-in")
            assert reply.headers["www-authenticate"] == "Bearer"


def test_the_way_in_is_before_the_body(shared: House) -> None:
    for content in (b"{", b"x" * 1000, b""):
        is_problem(shared.post(None, "/v1/requests", content=content), 401)
        is_problem(shared.post("auditor", "/v1/requests", content=content), 403)


def test_every_route_is_in_the_table_and_the_other_way_round(shared: House) -> None:
    found = {
        (method.upper(), path, entry["operationId"])
        for path, methods in shared.app.openapi()["paths"].items()
        for method, entry in methods.items()
    }
    assert found == {(o.method, o.path, o.id) for o in OPERATIONS}
    assert {o.permission for o in OPERATIONS} - {None} <= set(ALLOWED)
    assert len(BY_ID) == len(OPERATIONS)
    assert {o.tag for o in OPERATIONS} == set(TAGS)
    assert len({(o.method, o.path) for o in OPERATIONS}) == len(OPERATIONS)


def test_only_these_are_open_to_everybody() -> None:
    assert {o.id for o in OPERATIONS if o.permission is None} == {
        "healthz",
        "readyz",
        "opendsr_discovery",
        "opendsr_certificate",
        "get_trusted_keys",
    }


@pytest.mark.parametrize("role", ["auditor"])
def test_an_auditor_changes_nothing(role: str) -> None:
    changing = [o for o in OPERATIONS if o.method != "GET" and o.permission and role in ALLOWED[o.permission]]
    assert {o.id for o in changing} == {"act_on_many", "verify_certificate"}  # the first asks the desk for each action


def test_an_auditor_changes_nothing_on_many_either(house: House) -> None:
    house.file()
    for action in ("verify", "approve", "deny", "cancel", "extend", "hold", "release", "retry"):
        reason = {"deny": "other", "extend": "x", "hold": "x"}.get(action)
        body = {"action": action, "reason": reason, "filter": {"verified": "any"}}
        is_problem(house.post("auditor", "/v1/requests/bulk", json=body), 403)
    with house.service.database.read() as connection:
        assert connection.execute(select(tables.request.c.status)).scalars().all() == ["verified"]


OF_ONE = [o for o in OPERATIONS if "{request_id}" in o.path]


@pytest.mark.parametrize("operation", OF_ONE, ids=lambda o: o.id)
def test_the_ids_of_others_are_not_there(house: House, operation: Operation) -> None:
    """Somebody else's request, one that nobody filed, and what is no id at all look alike."""
    request = house.file(OTHER)
    roles = ALLOWED[str(operation.permission)]
    if "subject" not in roles:
        return
    body = BODIES.get(operation.id)
    told = []
    for request_id in (request.id, f"req_{NOBODYS}", "req_x", "otto.other@example.org"):
        options = {"json": body} if body is not None else {}
        reply = house.call("subject", operation.method, path_of(operation, request_id), **options)
        problem = is_problem(reply, 404, "not-found")
        told.append((problem["type"], problem["title"], problem["errors"]))
        assert request_id not in reply.text
    assert len({str(one) for one in told}) == 1
    with house.service.database.read() as connection:
        assert connection.execute(select(tables.request.c.status)).scalars().all() == ["verified"]


def test_a_subject_sees_and_counts_their_own_alone(house: House) -> None:
    mine, _ = house.file(SUBJECT), house.file(OTHER)
    house.file("third@example.org", verified=False)
    assert [one["id"] for one in house.get("subject", "/v1/requests?verified=any").json()["items"]] == [mine.id]
    assert house.get("subject", "/v1/requests").json()["total"] == 1
    assert house.get("subject", "/v1/counts").json()["status"] == {"verified": 1}
    assert sum(house.get("subject", "/v1/calendar?month=2026-04").json().values()) == 1
    bulk = house.post("subject", "/v1/requests/bulk", json={"action": "cancel", "filter": {"verified": "any"}})
    assert bulk.json()["done"] == [mine.id]


def test_a_subject_files_for_themselves_alone(house: House) -> None:
    assert house.post("subject", "/v1/requests", json={"identity": f" {SUBJECT} "}).status_code == 201
    reply = house.post("subject", "/v1/requests", json={"identity": OTHER})
    assert reply.status_code in (403, 409)
    assert OTHER not in reply.text


def test_a_subject_is_not_told_what_staff_wrote(house: House) -> None:
    request = house.file()
    house.post("operator", f"/v1/requests/{request.id}/hold", json={"reason": "a planted reason"})
    for path in ("", "/history", "/layers", "/exposure"):
        reply = house.get("subject", f"/v1/requests/{request.id}{path}")
        assert reply.status_code == 200
        assert "planted" not in reply.text
        assert house.actor("operator").id not in reply.text
    assert "planted" in house.get("operator", f"/v1/requests/{request.id}/history").text


def test_four_eyes(house: House) -> None:
    """Whoever files does not approve, and nobody can lend themselves the other pair."""
    filed = house.post("operator", "/v1/requests", json={"identity": SUBJECT, "verified": True}).json()
    is_problem(house.post("operator", f"/v1/requests/{filed['id']}/approve"), 403)
    is_problem(house.post("operator", "/v1/keys", json={"role": "approver", "name": "x"}), 403)
    is_problem(house.post("approver", "/v1/keys", json={"role": "operator", "name": "x"}), 403)
    is_problem(house.post("approver", "/v1/requests", json={"identity": SUBJECT}), 403)
    assert house.post("approver", "/v1/keys", json={"role": "approver", "name": "x"}).status_code == 201


def test_refusals_are_in_the_trail_and_say_nothing_of_what_was_sent(house: House) -> None:
    house.post("auditor", "/v1/requests", json={"identity": "planted@example.org"})
    house.get("subject", "/v1/audit?action=planted")
    house.get("operator", "/v1/requests/planted@example.org")
    reply = house.get("auditor", "/v1/audit")
    lines = [(one["role"], one["action"], one["outcome"]) for one in reply.json()["items"]]
    assert ("auditor", "file_request", "refused: NotAllowed") in lines
    assert ("subject", "read_audit_trail", "refused: NotAllowed") in lines
    assert "planted" not in reply.text


def test_the_trail_keeps_ids_of_ours_alone(house: House) -> None:
    kept = ["req_" + "a" * 26, "target:spam-sisa"]
    for about in (*kept, "planted@example.org", "req_x", "spam-sisa", "target:A b", "x" * 200):
        house.context.trail.tell(house.actor("operator"), "try", about)
    told = house.get("auditor", "/v1/audit?action=try").json()["items"]
    assert [one["object"] for one in told][::-1] == [*kept, None, None, None, None, None]


def test_what_changes_something_is_in_the_trail(house: House) -> None:
    request = house.post("operator", "/v1/requests", json={"identity": SUBJECT, "verified": True}).json()
    hook = house.post("operator", "/v1/webhooks", json={"url": "https://hooks.example.com/"}).json()
    key = house.post("operator", "/v1/keys", json={"role": "auditor", "name": "x"}).json()
    house.post("operator", "/v1/targets", json=BODIES["register_target"])
    house.post("operator", f"/v1/requests/{request['id']}/hold", json={"reason": "x"})
    house.call("operator", "DELETE", f"/v1/webhooks/{hook['id']}")
    house.call("operator", "DELETE", f"/v1/keys/{key['id']}")
    house.post("operator", "/v1/suppression/check", json={"identities": [SUBJECT]})
    house.get("auditor", "/v1/requests/export")
    told = house.get("auditor", "/v1/audit").json()["items"]
    lines = {(one["action"], one["object"]) for one in told if one["outcome"] == "done"}
    assert lines >= {
        ("file", request["id"]),
        ("hold", request["id"]),
        ("make_webhook", hook["id"]),
        ("remove_webhook", hook["id"]),
        ("make_key", key["id"]),
        ("revoke_key", key["id"]),
        ("register_target", "target:x"),
        ("check_suppression", None),
        ("export", None),
    }
    assert all(re.fullmatch(r"key_[a-z2-7]{26}|system", one["actor"]) for one in told)
