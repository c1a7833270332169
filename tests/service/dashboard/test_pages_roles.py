"""Who may see and do what, page by page."""

from __future__ import annotations

from pathlib import Path

import pytest
from desk_tools import SECOND
from office import PEOPLE, SUBJECT, Office, open_office
from starlette.testclient import TestClient

from expunge.service.dashboard.app import PAGES
from expunge.service.dashboard.frame import PageOf
from expunge.service.permissions import ALLOWED
from expunge.service.words import ROLES

GUARDED = [page for page in PAGES if page.permission is not None]
FIT = {"verify": "received", "approve": "verified", "release": "paused", "retry": "failed", "finalise": "planned"}


def address(office: Office, page: PageOf) -> str:
    """A page's path with ids that are there."""
    request_id = office.ids["fulfilled"]
    return (
        page.path.replace("{request_id}", request_id)
        .replace("{target_id}", "nothing-such")
        .replace("{target}", "orders")
        .replace("{stage}", "exact")
        .replace("{form}", "csv")
    )


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("page", GUARDED, ids=lambda page: f"{page.method} {page.path}")
def test_each_role_meets_each_page_as_the_table_says(shared: Office, page: PageOf, role: str) -> None:
    visitor = shared.known(role, PEOPLE[1])  # whose request is the fulfilled one
    path = address(shared, page)
    answer = visitor.get(path) if page.method == "GET" else visitor.post(path)
    if role in ALLOWED[str(page.permission)]:
        # forms that are sent empty are refused for what is missing, and never for the role
        assert answer.status_code in (200, 404, 409, 422), answer.text
        assert "may not do this" not in answer.text
    else:
        assert answer.status_code == 403
        assert f"the role {role} may not do this" in answer.text.lower()


@pytest.mark.parametrize("page", GUARDED, ids=lambda page: f"{page.method} {page.path}")
def test_whoever_is_not_signed_in_sees_nothing(shared: Office, page: PageOf) -> None:
    client = TestClient(shared.app, follow_redirects=False)
    answer = client.request(page.method, address(shared, page))
    if page.method == "GET":
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/sign-in")
    else:
        assert answer.status_code == 401
    assert "req_" not in answer.text


def test_a_subject_sees_their_own_requests_and_of_others_nothing(office: Office) -> None:
    mine, others = office.file(SUBJECT), office.file(PEOPLE[1], external_id="others-ticket")
    subject = office.visitor("subject", SUBJECT)
    listed = subject.get("/requests?show=all").text
    assert mine in listed
    assert others not in listed
    assert subject.get(f"/requests/{mine}").status_code == 200
    unknown = subject.get(f"/requests/req_{'a' * 26}")
    for path in (f"/requests/{others}", f"/requests/{others}/live", f"/requests/{others}/certificates/orders/exact"):
        hidden = subject.get(path)
        assert hidden.status_code == 404
        assert hidden.text == unknown.text or "certificates" in path  # nothing tells the two apart
    assert subject.post(f"/requests/{others}/cancel", {"version": "2"}).status_code == 404
    assert office.bench.status(others) == "verified"
    # neither their id nor their reference finds them
    assert "No request matches" in subject.get("/requests", params={"q": others}).text
    assert "No request matches" in subject.get("/requests", params={"verified": "any", "q": "others-ticket"}).text


def test_a_subject_is_not_told_what_staff_wrote_for_each_other(office: Office) -> None:
    request_id = office.file(SUBJECT)
    office.desk.hold(SECOND, request_id, "a lawyer has asked for it")
    assert "a lawyer" in office.visitor("operator").get(f"/requests/{request_id}").text
    text = office.visitor("subject", SUBJECT).get(f"/requests/{request_id}").text
    assert "On hold" in text
    for secret in ("a lawyer", "key_second", "Plan and cost"):
        assert secret not in text


def test_forms_without_their_token_are_refused_and_do_nothing(shared: Office) -> None:
    before = shared.desk.counts(SECOND)
    stranger = shared.visitor("operator").csrf()
    for page in GUARDED:
        if page.method != "POST":
            continue
        role = sorted(ALLOWED[str(page.permission)] - {"subject"})[0]
        visitor = shared.known(role)
        path = address(shared, page).replace(
            shared.ids["fulfilled"], shared.ids[FIT.get(page.path.split("/")[-1], "verified")]
        )
        for token in ({}, {"csrf": ""}, {"csrf": "x" * 43}, {"csrf": stranger}):
            answer = visitor.post(path, {"version": "2", "why": "other", "note": "n", **token}, csrf=False)
            assert answer.status_code == 403, (path, token)
            assert "not of this session" in answer.text
    assert shared.desk.counts(SECOND) == before


@pytest.mark.parametrize(
    ("headers", "taken"),
    [
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site"}, False),
        ({"origin": "https://evil.test"}, False),
        ({"origin": "null"}, False),
        ({"sec-fetch-site": "same-origin", "origin": "http://testserver"}, True),
        ({"origin": "http://testserver"}, True),
        ({"sec-fetch-site": "none"}, True),
    ],
)
def test_forms_of_other_sites_are_refused_even_before_signing_in(shared: Office, headers: dict, taken: bool) -> None:
    client = TestClient(shared.app, follow_redirects=False)
    answer = client.post("/sign-in", data={"key": shared.key("operator")}, headers=headers)
    assert answer.status_code == (303 if taken else 403)
    assert ("expunge_session" in answer.headers.get("set-cookie", "")) == taken


def test_the_first_way_in_and_out(office: Office) -> None:
    client = TestClient(office.app)
    wrong = client.post("/sign-in", data={"key": "exk_nobody"})
    assert wrong.status_code == 401
    assert "not known, or no longer in force" in wrong.text
    visitor = office.visitor("auditor")
    page = visitor.page("/requests")
    assert [e.words for e in page.every("a") if e.get("href") == "/audit"] == ["Audit trail"]
    kept = dict(visitor.client.cookies)
    left = visitor.submit(page.form("/sign-out"))
    assert left.url.path == "/sign-in"
    assert visitor.get("/requests").url.path == "/sign-in"
    thief = TestClient(office.app, cookies=kept)  # the cookie is of no use any more, even to whoever kept it
    assert thief.get("/audit").url.path == "/sign-in"


def test_signing_out_needs_the_token_too(office: Office) -> None:
    visitor = office.visitor("operator")
    assert visitor.post("/sign-out", csrf=False).status_code == 403
    assert visitor.get("/requests").url.path == "/requests"


def test_a_revoked_key_ends_its_sessions(office: Office) -> None:
    visitor = office.visitor("approver")
    assert visitor.get("/system").status_code == 200
    key = next(one for one in office.access.keys.list(SECOND) if one.role == "approver")
    office.access.keys.revoke(SECOND, key.id)
    assert visitor.get("/system").url.path == "/sign-in"
    script = visitor.client.get("/requests", headers={"hx-request-type": "partial"})
    assert (script.status_code, script.headers["hx-redirect"]) == (401, "/sign-in")


@pytest.mark.parametrize(
    ("wanted", "reached"),
    [
        ("/calendar?month=2026-05", "/calendar?month=2026-05"),
        ("//evil.test/", "/requests"),
        ("/\\evil.test", "/requests"),
        ("https://evil.test/", "/requests"),
        ("javascript:alert(1)", "/requests"),
        ("/sign-in?next=/sign-in", "/requests"),
        ("/a\nb", "/requests"),
        ("", "/requests"),
    ],
)
def test_after_signing_in_one_goes_on_here_and_never_elsewhere(shared: Office, wanted: str, reached: str) -> None:
    client = TestClient(shared.app, follow_redirects=False)
    answer = client.post("/sign-in", data={"key": shared.key("operator"), "next": wanted})
    assert (answer.status_code, answer.headers["location"]) == (303, reached)


def test_cookies_are_for_this_site_and_no_script(tmp_path: Path) -> None:
    from expunge.service.access.gate import AccessPart

    with open_office(tmp_path / "home", part=AccessPart()) as office:
        client = TestClient(office.app, base_url="https://testserver", follow_redirects=False)
        cookie = client.post("/sign-in", data={"key": office.key("operator")}).headers["set-cookie"]
        for word in ("__Host-", "Secure", "HttpOnly", "SameSite=Lax", "Path=/"):
            assert word in cookie


def test_a_refusal_for_the_role_leaves_its_line_in_the_trail(office: Office) -> None:
    office.visitor("operator").get("/audit")
    text = office.visitor("auditor").get("/audit").text
    assert "Page see audit" in text
    assert "Refused: NotAllowed" in text
