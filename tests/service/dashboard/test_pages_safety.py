"""What no page may hold: scripts of others, names, tokens; and what each must."""

from __future__ import annotations

import base64
import hashlib
import re
from itertools import pairwise

import pytest
from html_tools import Page
from office import PEOPLE, Office
from sqlalchemy import insert, update
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient

from expunge.errors import RunError
from expunge.service import tables
from expunge.service.access.gate import AccessPart
from expunge.service.access.limits import LimitsPart
from expunge.service.clock import stamp
from expunge.service.dashboard.app import PAGES
from expunge.service.dashboard.flash import COOKIE, Flash, pack, unpack
from expunge.service.words import ROLES

EVILS = ('"><script>alert(1)</script><img src=x onerror=alert(1)>', "javascript:alert(1) {{ 7 * 7 }}")
POLICY = "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'self'; frame-ancestors 'none'"


def paths(office: Office) -> list[str]:
    """Every page that is looked at, one of a request for each state, and errors."""
    fixed = [
        page.path for page in PAGES if page.method == "GET" and "{" not in page.path and "sign-in" not in page.path
    ]
    single = [f"/requests/{request_id}" for request_id in office.ids.values()]
    more = ["/requests?status=denied&status=failed", "/requests?show=all&verified=any", "/requests/none", "/nothing"]
    many = [f"/requests/many?pick=all&action={a}" for a in ("approve", "deny", "hold", "cancel")]
    return [path for path in [*fixed, *single, *more, *many] if path != "/"]


@pytest.fixture(scope="module")
def every_page(shared: Office) -> dict[tuple[str, str], str]:
    """(role, path) -> text."""
    told = {}
    for role in ROLES:
        visitor = shared.known(role, PEOPLE[1])
        for path in paths(shared):
            answer = visitor.get(path)
            if answer.status_code != 403:
                told[role, path] = answer.text
    told["nobody", "/sign-in"] = TestClient(shared.app).get("/sign-in").text
    assert len(told) > 80
    return told


def test_no_page_holds_a_script_a_style_or_a_handler(every_page: dict) -> None:
    for where, text in every_page.items():
        page = Page(text)
        scripts = page.every("script")
        assert [s.get("src").split("?")[0] for s in scripts] == ["/static/htmx.min.js"], where
        assert not any(s.words for s in scripts)
        assert not page.every("style")
        for element in page.elements:
            names = [n for n in element.attributes if n.startswith(("on", "hx-on")) or n == "style"]
            assert not names, (where, element)
            for name in ("href", "src", "action", "hx-get"):
                assert re.match(r"/|#|$", element.attributes.get(name, "")), (where, element)
                assert not element.attributes.get(name, "").startswith("//")


def test_no_page_names_anybody_or_holds_a_token(shared: Office, every_page: dict) -> None:
    tokens = {t.split(":")[1] for person in PEOPLE for t in shared.service.identities.tokens(person)}
    for where, text in every_page.items():
        assert not re.search(r"k\d{4}:[0-9a-f]{64}", text), where
        for person in PEOPLE:
            assert not re.search(rf"{person}(?!\d)", text), (where, person)
        assert not any(token in text for token in tokens)


def test_every_page_can_be_read_by_anybody(every_page: dict) -> None:
    """What a checker can see without eyes: language, title, one heading, labels, names, order of headings, tables."""
    for where, text in every_page.items():
        page = Page(text)
        assert page.every("html")[0].get("lang") == "en"
        assert page.every("title")[0].words.endswith("· expunge")
        assert len(page.every("h1")) == 1, where
        assert page.every("main")[0].get("id") == "content"
        assert page.every("a")[0].get("href") == "#content"  # the way past the navigation comes first
        ids = [e.get("id") for e in page.elements if e.get("id")]
        assert len(ids) == len(set(ids)), (where, [i for i in ids if ids.count(i) > 1])
        labelled = {e.get("for") for e in page.every("label")}
        for element in page.elements:
            if element.tag in ("input", "select", "textarea") and element.get("type") != "hidden":
                assert element.get("id") in labelled or "label" in element.inside, (where, element)
            if element.tag in ("a", "button", "summary", "th", "legend", "label"):
                assert element.words or element.get("aria-label"), (where, element)
            for name in ("aria-labelledby", "aria-describedby"):
                for target in (element.get(name) or "").split():
                    assert target in ids, (where, name, target)
            if element.tag == "th":
                assert element.get("scope") in ("col", "row"), (where, element)
            if element.get("role") == "region":
                assert element.get("tabindex") == "0", (where, element)  # what scrolls can be scrolled by keys
        for form in page.forms:
            if form.method == "post" and not form.action.endswith("/sign-in"):
                assert "csrf" in dict(form.fields), (where, form.action)
            assert any(e.tag == "button" for e in form.elements), (where, form.action)
        levels = [int(e.tag[1]) for e in page.elements if re.fullmatch("h[1-6]", e.tag)]
        assert all(b <= a + 1 for a, b in pairwise(levels)), (where, levels)


def test_every_form_and_link_leads_to_a_page_that_is_there(shared: Office, every_page: dict) -> None:
    known = [
        (
            page.method,
            re.compile(re.sub(r"\{\w+\}", "[^/]+", re.escape(page.path).replace(r"\{", "{").replace(r"\}", "}"))),
        )
        for page in PAGES
    ]
    for where, text in every_page.items():
        page = Page(text)
        wanted = [(form.method.upper(), form.action) for form in page.forms]
        wanted += [("GET", e.get("href")) for e in page.every("a") if not e.get("href").startswith("#")]
        for method, target in wanted:
            path = re.split(r"[?#]", target)[0]
            assert any(m == method and pattern.fullmatch(path) for m, pattern in known), (where, method, target)


@pytest.mark.parametrize("evil", EVILS)
def test_what_somebody_smuggles_in_is_shown_as_text(office: Office, evil: str) -> None:
    request_id = office.file(PEOPLE[3])
    held, denied, extended = (office.file(PEOPLE[n]) for n in (4, 5, 6))
    visitor = office.visitor("operator")
    assert visitor.decide(held, "hold", why=evil).status_code == 200
    assert visitor.decide(denied, "deny", why="other", note=evil).status_code == 200
    assert visitor.decide(extended, "extend", why=evil).status_code == 200
    with office.service.database.write() as connection:
        connection.execute(update(tables.request).where(tables.request.c.id == request_id).values(external_id=evil))
        connection.execute(
            update(tables.target).where(tables.target.c.id == "distilled").values(name=evil, version=evil)
        )
        connection.execute(
            insert(tables.batch).values(
                id="b",
                target=evil,
                stage="exact",
                status="failed",
                size=1,
                created_at=stamp(office.service.clock()),
                reason=evil,
            )
        )
        connection.execute(update(tables.audit_trail).values(object=evil))
    wanted = ["/requests", f"/requests/{held}", f"/requests/{denied}", f"/requests/{extended}", "/models", "/system"]
    texts = [visitor.get(path).text for path in wanted]
    texts.append(visitor.get("/requests", params={"q": evil}).text)
    texts.append(office.visitor("auditor").get("/audit").text)
    form = visitor.page("/requests/new").form("/requests/new")
    texts.append(visitor.submit(form, external_id=evil, about=evil).text)
    texts.append(visitor.submit(visitor.page("/models/new").form("/models/new"), id=evil, name=evil, options=evil).text)
    texts.append(visitor.submit(visitor.page("/certificates").form("/certificates"), pasted=evil).text)
    for text in texts:
        page = Page(text)
        assert len(page.every("script")) == 1
        assert not page.every("img")
        assert evil not in text or evil.startswith("javascript")
        assert all(not (e.get("href") or "").startswith("javascript") for e in page.elements)
        assert "49" not in re.findall(r"<dd>(\d+)</dd>", text)
    assert sum("alert(1)" in Page(text).words for text in texts) >= 5


def test_headers_keep_a_browser_careful(shared: Office) -> None:
    visitor = shared.known("operator")
    for path in ("/requests", "/sign-in", "/nothing", "/audit", "/requests/none", "/requests/export/csv"):
        answer = visitor.client.get(path, follow_redirects=False)
        assert answer.headers["content-security-policy"] == POLICY, path
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"


def test_files_are_kept_for_long_under_their_digest_and_no_other(shared: Office) -> None:
    page = Page(TestClient(shared.app).get("/sign-in").text)
    client = TestClient(shared.app)
    found = [e for e in page.elements if e.get("integrity")]
    assert {e.tag for e in found} == {"link", "script"}
    for element in found:
        path = element.get("src") or element.get("href") or ""
        answer = client.get(path)
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert (
            element.get("integrity") == f"sha384-{base64.b64encode(hashlib.sha384(answer.content).digest()).decode()}"
        )
        assert client.get(path.split("?")[0]).headers["cache-control"] == "no-cache"
        assert client.get(path.split("?")[0] + "?v=0").headers["cache-control"] == "no-cache"
    for name in ("../app.py", "..%2fapp.py", "htmx.LICENSE.txt", "none.css"):
        assert client.get(f"/static/{name}").status_code == 404


def test_errors_are_pages_with_a_cause_and_a_remedy(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    visitor = office.visitor("operator")
    small = office.visitor("operator")

    def words(answer: object, status: int) -> str:
        assert answer.status_code == status, answer.text  # type: ignore[attr-defined]
        page = Page(answer.text)  # type: ignore[attr-defined]
        assert [e.words for e in page.every("dt")] == ["Cause", "What to do"]
        assert all(e.words.endswith(".") for e in page.every("dd"))
        return page.words

    assert "no such request" in words(visitor.get("/requests/req_none"), 404)
    assert "no such request" in words(visitor.get("/requests/%ff%fe"), 404)
    assert "no such page" in words(visitor.get("/nothing"), 404)
    assert "role operator" in words(visitor.get("/audit"), 403)
    for query in ("sla=late", "status=done", "due_from=tomorrow", "due_to=0001-01-01", "show=none", "q=" + "a" * 300):
        words(visitor.get(f"/requests?{query}"), 422)
    words(visitor.get("/requests?after=nonsense"), 422)
    words(visitor.get("/requests?after=" + "a" * 300), 422)
    words(visitor.get("/calendar?month=2026-13"), 422)
    words(visitor.get("/requests/many?pick=all&action=finalise"), 422)
    words(visitor.get("/requests/many?pick=ticked&action=hold"), 422)
    words(visitor.get("/requests?q=%00"), 422)
    words(visitor.post("/certificates", {"pasted": "a\x00b"}), 422)
    words(visitor.client.post("/certificates", content=b"x" * 1_100_000, headers={"content-type": "text/plain"}), 403)
    large = b"csrf=x&pasted=" + b"y" * 1_100_000
    form = {"content-type": "application/x-www-form-urlencoded"}
    words(visitor.client.post("/certificates", content=large, headers=form), 413)
    for broken in (b"--x\r\n", b""):
        head = {"content-type": "multipart/form-data; boundary=x"}
        assert visitor.client.post("/certificates", content=broken, headers=head).status_code in (403, 422)

    def full(*_: object) -> None:
        raise RunError("the disk at /srv/secret is full", "Make room")

    monkeypatch.setattr(office.desk, "calendar", full)
    monkeypatch.setattr(office.desk, "due_moments", full)
    assert "/srv/secret" in words(visitor.get("/calendar"), 503)
    assert "/srv/secret" not in words(office.visitor("subject").get("/calendar"), 503)

    def away(*_: object) -> None:
        raise OperationalError("select person-1", {}, Exception("gone"))

    monkeypatch.setattr(office.desk, "due_moments", away)
    assert "database does not answer" in words(small.get("/calendar"), 503)

    def wrong(*_: object) -> None:
        raise KeyError("person-1")

    monkeypatch.setattr(office.desk, "due_moments", wrong)
    assert "person-1" not in words(small.get("/calendar"), 500)


def test_a_script_gets_an_error_as_a_part(shared: Office) -> None:
    visitor = shared.known("operator")
    answer = visitor.client.get("/requests?sla=late", headers={"hx-request-type": "partial"})
    assert answer.status_code == 422
    assert "<html" not in answer.text
    assert 'role="alert"' in answer.text


def test_whoever_comes_too_often_is_told_when_to_come_again(tmp_path: object) -> None:
    from office import open_office

    limits = LimitsPart(address_per_second=0.01, address_burst=3)
    with open_office(tmp_path / "home", part=AccessPart(secure=False, limits=limits)) as office:  # type: ignore[operator]
        client = TestClient(office.app)
        told = [client.get("/sign-in").status_code for _ in range(5)]
        assert told == [200, 200, 200, 429, 429]
        assert int(client.get("/sign-in").headers["retry-after"]) > 1


def test_what_was_told_is_told_once_and_nobody_else_can_say_it() -> None:
    flash = Flash(text="3 done", tone="mixed", more=("a", "b"))
    value = pack(flash, "secret")
    assert unpack(value, "secret") == flash
    assert unpack(value, "other") is None
    assert unpack("A" + value[1:], "secret") is None
    for nonsense in (None, "", ".", "a.b", "é.ü", value.split(".")[0]):
        assert unpack(nonsense, "secret") is None
    long = pack(Flash(text="x", more=tuple("y" * 200 for _ in range(50))), "secret")
    assert len(long) <= 3500
    shown = unpack(long, "secret")
    assert shown is not None
    assert shown.more[-1] == f"and {50 - (len(shown.more) - 1)} more"


def test_a_forged_message_is_not_shown(office: Office) -> None:
    visitor = office.visitor("operator")
    visitor.client.cookies.set(COOKIE, pack(Flash(text="Send your key to evil.test"), "guess"))
    assert "evil.test" not in visitor.get("/requests").text


def test_mounted_elsewhere_every_link_follows(office: Office) -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    client = TestClient(Starlette(routes=[Mount("/erase", app=office.app)]))
    answer = client.post("/erase/sign-in", data={"key": office.key("operator")})
    assert answer.url.path == "/erase/requests"
    page = Page(answer.text)
    for element in page.elements:
        for name in ("href", "src", "action", "hx-get"):
            value = element.attributes.get(name, "")
            assert not value.startswith("/") or value.startswith("/erase/"), element
    assert client.get("/erase/system").status_code == 200
    assert client.get("/erase/static/icon.svg").status_code == 200
    client.cookies.clear()
    away = client.get("/erase/calendar?month=2026-04", follow_redirects=False)
    assert away.headers["location"] == "/erase/sign-in?next=/calendar%3Fmonth%3D2026-04"


def test_beside_the_api_one_key_opens_both_and_neither_takes_the_others_addresses(office: Office) -> None:
    from expunge.service.api.app import create_api
    from expunge.service.api.settings import ApiPart
    from expunge.service.dashboard import mount_pages

    app = create_api(office.service, ApiPart(access=AccessPart(secure=False)))
    mount_pages(app, office.service)
    client, key = TestClient(app), office.key("operator")
    bearer = {"authorization": f"Bearer {key}"}
    assert client.get("/v1/requests", headers=bearer).json()["total"] == 0
    signed = client.post("/sign-in", data={"key": key})
    assert signed.url.path == "/requests"
    assert signed.headers["content-security-policy"] == POLICY
    assert client.get("/v1/requests", headers={}).status_code == 401  # a session opens no API: nothing to forge there
    assert (
        client.get("/v1/requests", headers=bearer).headers["content-security-policy"].startswith("default-src 'none'")
    )
    assert client.get("/nothing").headers["content-type"].startswith("text/html")
    assert client.get("/static/dashboard.css").headers["cache-control"] == "no-cache"
    assert client.get("/", follow_redirects=False).headers["location"] == "/requests"
    large = b"csrf=x&pasted=" + b"y" * 1_100_000
    assert client.post("/certificates", content=large).status_code == 413
