"""Errors: one form, the right status, and nothing of what was sent. Bodies of any size and form."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from house import SUBJECT, House, is_problem
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from expunge.errors import Conflict, DataError, RequestError, RunError, TamperedEvidence, TooMany
from expunge.service.access.gate import AccessPart
from expunge.service.access.limits import LimitsPart, TooOften
from expunge.service.api.operations import OPERATIONS
from expunge.service.api.problems import OURS, Problem, problem_of, texts, without
from expunge.service.api.settings import ApiPart
from expunge.service.api.shell import Shell

PLANTED = "planted.name@example.org"


# --- nothing of what was sent -----------------------------------------------------------------------------------------

TARGET = {"id": "a", "name": "n", "version": "1", "kind": "x", "location": "l"}
WRONG: list[tuple[str, str, Any]] = [
    ("POST", "/v1/requests", {"identity": PLANTED, "regime": PLANTED}),
    ("POST", "/v1/requests", {"identity": PLANTED, "reason": PLANTED}),
    ("POST", "/v1/requests", {"identity": PLANTED, PLANTED: 1}),
    ("POST", "/v1/requests", {"identity": [PLANTED]}),
    ("POST", "/v1/requests", {"identity": PLANTED, "external_id": PLANTED}),
    ("POST", "/v1/requests", {"identity": PLANTED, "scope": {"kind": "records"}}),
    ("POST", "/v1/requests", {"identity": PLANTED, "scope": {"kind": "concept"}}),
    ("POST", "/v1/requests", {"identity": PLANTED, "tell_not": [{}]}),
    ("POST", "/v1/requests", {"identity": PLANTED, "tell_not": [{"answer": [PLANTED], PLANTED: [PLANTED]}]}),
    ("POST", "/v1/requests", {"identity": PLANTED, "received_at": "2999-01-01T00:00:00Z"}),
    ("POST", "/v1/requests", {"identity": PLANTED, "verified": PLANTED}),
    ("POST", "/v1/requests", {"identity": PLANTED * 100}),
    ("POST", "/v1/requests", {"identity": PLANTED + "\x00"}),
    ("POST", "/v1/requests", {"identity": "   "}),
    ("POST", "/v1/requests", {}),
    ("POST", "/v1/requests", PLANTED),
    ("POST", "/v1/requests", [PLANTED]),
    ("POST", "/v1/requests/bulk", {"action": PLANTED}),
    ("POST", "/v1/requests/bulk", {"action": "deny", "reason": PLANTED}),
    ("POST", f"/v1/requests/{PLANTED}/deny", {"reason": "other"}),
    ("GET", f"/v1/requests/{PLANTED}", None),
    ("GET", f"/v1/requests?query={PLANTED}", None),
    ("GET", f"/v1/requests?{PLANTED}=1", None),
    ("GET", f"/v1/requests?after={PLANTED}", None),
    ("GET", f"/v1/requests?due_before={PLANTED}", None),
    ("GET", f"/v1/targets/{PLANTED}", None),
    ("GET", "/v1/targets/planted.name", None),
    ("POST", "/v1/targets/planted.name/reindex", None),
    ("POST", "/v1/targets", {"id": "a", "name": PLANTED, "version": "1", "kind": "learner", "location": f"/{PLANTED}"}),
    ("POST", "/v1/targets", {**TARGET, "parent": "planted.name"}),
    ("POST", "/v1/webhooks", {"url": f"https://{PLANTED}/"}),
    ("POST", "/v1/webhooks", {"url": "https://hooks.example.com/", "events": [PLANTED]}),
    ("POST", "/v1/keys", {"role": "auditor", "name": PLANTED}),
    ("POST", "/v1/keys", {"role": "auditor", "name": "x", "identity": PLANTED}),
    ("POST", "/v1/keys", {"role": PLANTED, "name": "x"}),
    ("DELETE", f"/v1/keys/{PLANTED}", None),
    ("GET", f"/v1/{PLANTED}", None),
    ("PUT", f"/v1/requests/{PLANTED}", None),
    ("GET", f"/opendsr/requests/{PLANTED}", None),
    ("POST", "/opendsr/requests", {"subject_identities": [{"identity_value": PLANTED}]}),
    ("POST", "/v1/certificates/verify", {"certificate": {"envelope": PLANTED}, "keys": {"name": PLANTED}}),
    ("GET", f"/v1/calendar?month={PLANTED}", None),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body"), WRONG, ids=range(len(WRONG)))
def test_an_error_repeats_nothing_that_was_sent(
    shared: House,
    method: str,
    path: str,
    body: Any,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    reply = shared.call("operator", method, path, **({"json": body} if body is not None else {}))
    assert 400 <= reply.status_code < 500, reply.text
    is_problem(reply, reply.status_code)
    ours = "\n".join(r.getMessage() for r in caplog.records if r.name.startswith(("expunge", "uvicorn", "sqlalchemy")))
    out, err = capfd.readouterr()
    for text in (reply.text, str(reply.headers), ours, out, err):
        assert "planted" not in text.lower()


def test_planted_names_are_in_no_file_log_or_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A service that was used in every way holds no identity in its files, and tells none in its log."""
    caplog.set_level(logging.DEBUG)
    house = House(tmp_path / "service")
    secret = "hidden phrase of erin"
    body = {
        "identity": PLANTED,
        "verified": True,
        "tell_not": [{"answer": [secret]}],
        "scope": {"kind": "records", "records": [f"{PLANTED}-row"]},
    }
    told = house.post("operator", "/v1/requests", json=body, headers={"Idempotency-Key": PLANTED}).json()
    for path in ("", "/history", "/layers", "/exposure", "/estimate", "/certificates"):
        assert "planted" not in house.get("auditor", f"/v1/requests/{told['id']}{path}").text
    house.post("operator", "/v1/keys", json={"role": "subject", "name": "portal", "identity": PLANTED})
    house.post("operator", "/v1/suppression/check", json={"identities": [PLANTED]})
    for method, path, wrong in WRONG:
        house.call("operator", method, path, **({"json": wrong} if wrong is not None else {}))
        house.call(None, method, path, **({"json": wrong} if wrong is not None else {}))
    for path in ("/v1/requests?verified=any", "/v1/requests/export?form=json", "/v1/audit", "/metrics"):
        who = "operator" if "audit" not in path else "auditor"
        assert "planted" not in house.get(who, path).text.lower()
    house.close()
    kept = b"".join(path.read_bytes() for path in house.service.home.rglob("*") if path.is_file())
    for planted in (b"planted", secret.encode(), PLANTED.encode("utf-16-le")):
        assert planted not in kept.lower()
    ours = "\n".join(r.getMessage() for r in caplog.records if r.name.startswith(("expunge", "uvicorn", "sqlalchemy")))
    assert "planted" not in ours.lower()
    assert "file_request 201" in ours


def test_a_fault_tells_where_it_is_and_not_what_was_sent(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    def faulty(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError(PLANTED)

    monkeypatch.setattr(house.service.desk, "file", faulty, raising=False)
    object.__setattr__(house.service.desk, "file", faulty)
    reply = house.post("operator", "/v1/requests", json={"identity": PLANTED})
    is_problem(reply, 500, "failed")
    assert "ZeroDivisionError" in caplog.text
    assert "test_problems.py" in caplog.text
    out, err = capfd.readouterr()
    for text in (caplog.text, reply.text, out, err):
        assert PLANTED not in text


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=30), st.text(min_size=1, max_size=12))
def test_whatever_was_sent_is_cut_out(words: str, sent: str) -> None:
    assume(sent not in OURS)
    told = without(f"{words}{sent!r}{words}", [sent])
    assert repr(sent) not in told or sent == "…"
    if len(sent) >= 3 and sent not in ("…",):
        assert sent not in told.replace("…", "") or sent in words.replace(sent, "")


def test_our_own_words_stay() -> None:
    error = Conflict("the request is denied, and 'denied' is final", "Look at 'status'")
    told = problem_of(error, ["denied", "status", "jane"], frozenset({"status"}))
    assert told.detail == "the request is denied, and 'denied' is final. Look at 'status'."
    assert problem_of(error, ["final"]).detail == "the request is denied, and 'denied' is …. Look at 'status'."


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (RequestError("a", "b"), 422, "request-error"),
        (Conflict("a", "b"), 409, "conflict"),
        (TooMany("a", "b"), 429, "too-many"),
        (TooOften(0.2), 429, "too-many"),
        (RunError("/secret/path", "b"), 503, "not-available"),
        (TamperedEvidence("/secret/path", "b"), 500, "failed"),
        (DataError("/secret/path", "b"), 500, "failed"),
    ],
)
def test_each_error_has_its_status(error: Any, status: int, kind: str) -> None:
    told = problem_of(error)
    assert (told.status, told.kind) == (status, kind)
    assert "secret" not in told.body().decode()
    assert ("Retry-After" in told.headers) == isinstance(error, TooOften)


def test_every_text_in_a_value_is_found() -> None:
    assert set(texts({"a": ["b", {"c": "d"}, 1, None], "e": True})) == {"a", "b", "c", "d", "e"}


# --- bodies -----------------------------------------------------------------------------------------------------------


def send(house: House, content: bytes, **headers: str) -> Any:
    return house.post(
        "operator", "/v1/requests", content=content, headers={"content-type": "application/json", **headers}
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"1",
        b'"x"',
        b"\xff\xfe",
        b'{"identity": "\xff"}',
        b'{"identity": "\\ud800"}',
        b'{"identity": "a\\u0000b"}',
        b'{"identity": "a\x00b"}',
        b'{"scope": {"records": ["\\uDFFF"]}, "identity": "x"}',
        b'{"\\ud800": 1}',
        b'{"identity": "x", "identity": 7}',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"identity": NaN}',
        b'{"identity": 1e999}',
        b'{"identity": ' + b"9" * 10_000 + b"}",
        b"identity=x",
    ],
    ids=range(20),
)
def test_a_malformed_body_is_refused(house: House, content: bytes) -> None:
    reply = send(house, content)
    assert reply.status_code in (400, 422)
    is_problem(reply, reply.status_code)


def test_half_of_a_pair_is_refused_wherever_it_stands(house: House) -> None:
    target = json.dumps({**TARGET, "options": {"a": ["half"]}}).replace("half", "\\ud800").encode()
    headers = {"content-type": "application/json"}
    is_problem(house.post("operator", "/v1/targets", content=target, headers=headers), 422, "invalid-request")
    whole = target.replace(b"\\ud800", b"\\ud83d\\ude00")
    reply = house.post("operator", "/v1/targets", content=whole, headers=headers)
    assert reply.json()["options"] == {"a": ["\U0001f600"]}


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "", "multipart/form-data"]
)
def test_another_kind_of_body_is_refused(house: House, kind: str) -> None:
    reply = send(house, json.dumps({"identity": SUBJECT}).encode(), **{"content-type": kind})
    is_problem(reply, 422)


def test_a_body_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    part = ApiPart(access=AccessPart(limits=LimitsPart(body_bytes=2000), secure=False))
    house = House(tmp_path / "service", part=part, own=True)
    is_problem(send(house, b"x" * 2001), 413, "too-large")
    assert send(house, json.dumps({"identity": "x" * 900}).encode()).status_code == 201

    def pieces() -> Any:  # without a length told before
        for _ in range(10):
            yield b"x" * 500

    is_problem(house.post("operator", "/v1/requests", content=pieces()), 413, "too-large")
    house.close()


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "99999999999999999999", "１"])
def test_a_length_that_is_none_is_refused(house: House, length: str) -> None:
    headers = [(b"content-length", length.encode()), (b"authorization", b"Bearer x")]
    told: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}"}

    async def sent(message: dict[str, Any]) -> None:
        told.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/requests", "headers": headers, "query_string": b""}
    asyncio.run(house.app(scope, receive, sent))
    assert told[0]["status"] == 413


def test_a_client_that_goes_away_or_is_slow_is_let_go(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    async def gone() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def slow() -> dict[str, Any]:
        await asyncio.sleep(5)
        return {}

    async def sent(message: dict[str, Any]) -> None:
        told.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/requests", "headers": [], "query_string": b""}
    asyncio.run(house.app(dict(scope), gone, sent))
    assert told == []
    monkeypatch.setattr("expunge.service.api.shell.BODY_SECONDS", 0.05)
    asyncio.run(house.app(dict(scope), slow, sent))
    assert told[0]["status"] == 408


NAMES = ["identity", "reason", "scope", "kind", "records", "tell_not", "answer", "verified", "external_id"]
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
BODIES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=60)
@given(BODIES, st.sampled_from([o for o in OPERATIONS if o.method == "POST" and o.permission]))
def test_any_json_is_answered(shared: House, body: Any, operation: Any) -> None:
    path = operation.path.format(request_id="req_" + "a" * 26, target_id="x", webhook_id="wh_" + "a" * 26)
    reply = shared.post(
        "operator", path, content=json.dumps(body).encode(), headers={"content-type": "application/json"}
    )
    assert reply.status_code < 500
    if reply.status_code >= 400:
        is_problem(reply, reply.status_code)


# --- addresses, methods, headers --------------------------------------------------------------------------------------


def test_addresses_that_are_not_there(shared: House) -> None:
    for path in (
        "/v1/",
        "/v1/none",
        "/v1/requests/",
        "//v1/requests",
        "/v1/../etc/passwd",
        "/docs",
        "/redoc",
        "/opendsr/x",
    ):
        is_problem(shared.get("operator", path), 404, "not-found")


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.id)
def test_other_methods_are_refused_with_those_that_are_not(shared: House, operation: Any) -> None:
    ids = {"request_id": "req_" + "a" * 26, "webhook_id": "wh_" + "a" * 26, "key_id": "key_" + "a" * 26}
    path = operation.path.format(**ids, target_id="x", stage="exact", subject_request_id="x")
    for method in ("PUT", "PATCH", "TRACE"):
        reply = shared.call("operator", method, path)
        is_problem(reply, 405, "not-this-method")
        assert operation.method in reply.headers["allow"]


def test_browsers_are_kept_careful(shared: House) -> None:
    for reply in (shared.get("auditor", "/v1/policy"), shared.get(None, "/v1/none"), shared.get(None, "/healthz")):
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["content-security-policy"].startswith("default-src 'none'")
        assert "access-control-allow-origin" not in reply.headers
        assert "set-cookie" not in reply.headers


def test_a_database_that_does_not_answer_is_told(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def away(*_: Any) -> Any:
        raise OperationalError("select planted", {}, Exception("planted"))
        yield

    monkeypatch.setattr(type(house.service.database), "read", away)
    reply = house.get(None, "/readyz")
    is_problem(reply, 503, "not-available")
    assert "planted" not in reply.text
    assert reply.headers["retry-after"] == "5"
    assert house.get(None, "/healthz").status_code == 200


def test_other_kinds_of_connection_go_through(house: House) -> None:
    seen: list[str] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    asyncio.run(Shell(inner, 10, house.context.meter)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert seen == ["lifespan"]


def test_a_problem_has_the_form_of_rfc_9457() -> None:
    told = json.loads(Problem(409, "wrong-state", "d").body())
    assert told == {
        "type": "urn:expunge:problem:wrong-state",
        "title": "Wrong state",
        "status": 409,
        "detail": "d",
        "errors": [],
    }
