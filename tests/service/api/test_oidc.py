"""Single sign-on, against an issuer on this machine that signs real tokens."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import http.server
import json
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from house import House
from joserfc import jwt
from joserfc.jwk import KeySet, OctKey, RSAKey
from pydantic import ValidationError

from expunge.errors import NotSignedIn, RequestError, RunError
from expunge.service.access.oidc import COOKIE, Oidc, OidcPart

CLIENT = "expunge-service"
BACK = "http://service.test/oidc/back"


KEYS = {kid: RSAKey.generate_key(2048, parameters={"kid": kid}) for kid in ("one", "two")}
# another key under the same name
FORGED = RSAKey.generate_key(2048, parameters={"kid": "one"})


class Issuer:
    """Discovery, keys and tokens; what it does wrong is set from outside."""

    def __init__(self) -> None:
        self.key = KEYS["one"]
        self.shown = [self.key]
        self.codes: dict[str, dict[str, Any]] = {}
        self.claims: dict[str, Any] = {"sub": "248289761001", "groups": ["privacy-team"]}
        self.wrong: dict[str, Any] = {}
        self.asked: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                if self.path == "/.well-known/openid-configuration":
                    self.tell(outer.metadata())
                else:
                    self.tell(KeySet(outer.shown).as_dict(private=False))

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
                told = outer.token(
                    {name: values[0] for name, values in form.items()}, self.headers.get("authorization")
                )
                self.tell(told, 400 if "error" in told else 200)

            def tell(self, value: Any, status: int = 200) -> None:
                body = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.wrong.get("issuer", self.url),
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
        }

    def visit(self, url: str) -> dict[str, str]:
        """What a browser does at the page of the issuer: it comes back with a code."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        code = f"code-{len(self.codes)}"
        self.codes[code] = asked
        return {"code": code, "state": asked["state"], "iss": self.url}

    def token(self, form: dict[str, str], authorization: str | None) -> dict[str, Any]:
        asked = self.codes.pop(form.get("code", ""), None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if asked is None or challenge.rstrip(b"=").decode() != asked["code_challenge"]:
            return {"error": "invalid_grant"}
        if form["redirect_uri"] != asked["redirect_uri"]:
            return {"error": "invalid_grant"}
        self.authorization = authorization
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": CLIENT,
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
            **self.claims,
            **self.wrong.get("claims", {}),
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        key, algorithm = self.wrong.get("key", self.key), self.wrong.get("alg", "RS256")
        header = {"alg": algorithm, "kid": self.wrong.get("kid", key.kid)}
        token = jwt.encode(header, claims, key, algorithms=[algorithm])
        return {"access_token": "opaque", "token_type": "Bearer", "id_token": self.wrong.get("token", token)}

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    yield made
    made.close()


def part_of(at: Issuer, **changed: Any) -> OidcPart:
    told = {
        "issuer": at.url,
        "client_id": CLIENT,
        "redirect_uri": BACK,
        "roles": {"privacy-team": "operator", "privacy-leads": "approver", "customers": "subject"},
        "development": True,
        **changed,
    }
    return OidcPart.model_validate(told)


def made(house: House, issuer: Issuer, **changed: Any) -> Oidc:
    house.clock.at = dt.datetime.now(dt.UTC)
    return Oidc(part_of(issuer, **changed), house.service.identities, house.clock)


def test_somebody_signs_in(house: House, issuer: Issuer) -> None:
    oidc = made(house, issuer)
    url, cookie = oidc.begin()
    asked = parse_qs(urlsplit(url).query)
    assert url.startswith(f"{issuer.url}/authorize?")
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["response_type"] == ["code"]
    assert asked["redirect_uri"] == [BACK]
    for secret in (asked["state"][0], asked["nonce"][0]):
        assert secret not in cookie
    actor = oidc.finish(issuer.visit(url), cookie)
    assert actor.role == "operator"
    assert actor.subject_token is None
    assert actor.id.startswith("oidc_")
    assert issuer.authorization is None


def test_who_somebody_is_at_the_issuer_is_written_nowhere(house: House, issuer: Issuer) -> None:
    issuer.claims |= {"email": "planted@example.org", "name": "Planted Name", "sub": "planted-subject"}
    oidc = made(house, issuer)
    url, cookie = oidc.begin()
    actor = oidc.finish(issuer.visit(url), cookie)
    value, _ = house.access.sessions.start(actor)
    assert house.access.session(value).actor == actor
    kept = b"".join(path.read_bytes() for path in house.service.home.rglob("*") if path.is_file())
    for planted in (b"planted@example.org", b"Planted Name", b"planted-subject"):
        assert planted not in kept
    assert hashlib.sha256(b"planted-subject").hexdigest() not in actor.id


def test_the_same_person_is_the_same_actor_after_the_keys_are_rotated(house: House, issuer: Issuer) -> None:
    oidc = made(house, issuer)
    found = []
    for _ in range(2):
        url, cookie = oidc.begin()
        found.append(oidc.finish(issuer.visit(url), cookie).id)
        house.service.identities.rotate()
    issuer.claims["sub"] = "another"
    url, cookie = oidc.begin()
    assert found[0] == found[1] != oidc.finish(issuer.visit(url), cookie).id


def test_a_subject_sees_what_is_theirs(house: House, issuer: Issuer) -> None:
    issuer.claims = {"sub": "1", "groups": "customers", "email": "erin@example.org", "email_verified": True}
    oidc = made(house, issuer, identity_claim="email")
    url, cookie = oidc.begin()
    actor = oidc.finish(issuer.visit(url), cookie)
    assert actor.role == "subject"
    assert actor.subject_token == house.service.identities.token("erin@example.org")
    for claims in ({"email_verified": False}, {"email_verified": "true"}, {"email": None}, {"email": ["x"]}):
        issuer.wrong = {"claims": claims}
        url, cookie = oidc.begin()
        with pytest.raises(NotSignedIn):
            oidc.finish(issuer.visit(url), cookie)


def test_of_several_roles_the_least_counts(house: House, issuer: Issuer) -> None:
    issuer.claims["groups"] = ["privacy-leads", "privacy-team", 7, None]
    oidc = made(house, issuer)
    url, cookie = oidc.begin()
    assert oidc.finish(issuer.visit(url), cookie).role == "operator"


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://other.example.com"},
        {"iss": None},
        {"aud": "another-client"},
        {"aud": None},
        {"aud": [CLIENT, "another-client"]},
        {"aud": ["another-client"], "azp": CLIENT},
        {"azp": "another-client"},
        {"exp": 1},
        {"exp": None},
        {"iat": None},
        {"iat": int(time.time()) + 3600},
        {"nbf": int(time.time()) + 3600},
        {"nonce": "another"},
        {"nonce": None},
        {"sub": None},
        {"at_hash": "wrong"},
        {"groups": []},
        {"groups": None},
        {"groups": ["strangers"]},
        {"groups": {"privacy-team": True}},
    ],
    ids=lambda told: " ".join(told),
)
def test_a_token_that_is_not_for_us_opens_nothing(house: House, issuer: Issuer, claims: dict[str, Any]) -> None:
    issuer.wrong = {"claims": claims}
    oidc = made(house, issuer)
    url, cookie = oidc.begin()
    with pytest.raises(NotSignedIn):
        oidc.finish(issuer.visit(url), cookie)


def unsigned(issuer: Issuer) -> str:
    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    now = int(time.time())
    claims = {"iss": issuer.url, "aud": CLIENT, "sub": "1", "iat": now, "exp": now + 300, "groups": ["privacy-team"]}
    return f"{part({'alg': 'none', 'kid': 'one'})}.{part(claims)}."


@pytest.mark.parametrize("case", ["other key", "shared secret", "unsigned", "no token", "no text", "three dots"])
def test_a_token_that_the_issuer_did_not_sign_opens_nothing(house: House, issuer: Issuer, case: str) -> None:
    public = json.dumps(issuer.key.as_dict(private=False)).encode()
    issuer.wrong = {
        "other key": {"key": FORGED},
        "shared secret": {"key": OctKey.import_key(public), "alg": "HS256", "kid": "one"},
        "unsigned": {"token": unsigned(issuer)},
        "no token": {"token": None},
        "no text": {"token": 7},
        "three dots": {"token": "a.b.c"},
    }[case]
    oidc = made(house, issuer)
    url, cookie = oidc.begin()
    with pytest.raises(NotSignedIn):
        oidc.finish(issuer.visit(url), cookie)


def test_a_code_of_somebody_elses_browser_opens_nothing(house: House, issuer: Issuer) -> None:
    oidc = made(house, issuer)
    url, cookie = oidc.begin()
    _, other = oidc.begin()
    back = issuer.visit(url)
    for query, brought in (
        (back, other),
        (back, None),
        (back, ""),
        (back, cookie[:-4] + "AAAA"),
        ({**back, "state": "x"}, cookie),
        ({**back, "state": "\ud800"}, cookie),
        ({"state": back["state"], "error": "access_denied"}, cookie),
        ({**back, "iss": "https://other.example.com"}, cookie),
        ({**back, "code": "made-up"}, cookie),
    ):
        with pytest.raises(NotSignedIn):
            oidc.finish(query, brought)
    assert oidc.finish(back, cookie).role == "operator"


def test_a_code_is_used_once(house: House, issuer: Issuer) -> None:
    oidc = made(house, issuer)
    url, cookie = oidc.begin()
    back = issuer.visit(url)
    oidc.finish(back, cookie)
    with pytest.raises(NotSignedIn):
        oidc.finish(back, cookie)


def test_a_code_from_another_visit_does_not_fit_the_verifier(house: House, issuer: Issuer) -> None:
    oidc = made(house, issuer)
    victim, _ = oidc.begin()
    url, cookie = oidc.begin()
    stolen = issuer.visit(victim)["code"]
    with pytest.raises(NotSignedIn):
        oidc.finish({**issuer.visit(url), "code": stolen}, cookie)


def test_a_visit_has_ten_minutes(house: House, issuer: Issuer) -> None:
    oidc = made(house, issuer)
    url, cookie = oidc.begin()
    issuer.claims["exp"] = int(time.time()) + 3600  # the token would still do
    house.later(minutes=9, seconds=59)
    assert oidc.finish(issuer.visit(url), cookie).role == "operator"
    house.later(seconds=2)
    with pytest.raises(NotSignedIn):
        oidc.finish(issuer.visit(url), cookie)


def test_a_new_key_of_the_issuer_is_found_and_unknown_ones_are_not_asked_for_each_time(
    house: House, issuer: Issuer
) -> None:
    ticks = iter(range(0, 100_000, 31))
    house.clock.at = dt.datetime.now(dt.UTC)
    oidc = Oidc(part_of(issuer), house.service.identities, house.clock, tick=lambda: float(next(ticks)))
    url, cookie = oidc.begin()
    oidc.finish(issuer.visit(url), cookie)
    issuer.key = KEYS["two"]
    issuer.shown = [issuer.key]
    url, cookie = oidc.begin()
    assert oidc.finish(issuer.visit(url), cookie).role == "operator"
    oidc._tick = lambda: 0.0
    asked = issuer.asked.count("/keys")
    issuer.wrong = {"kid": "made-up"}
    for _ in range(3):
        url, cookie = oidc.begin()
        with pytest.raises(NotSignedIn):
            oidc.finish(issuer.visit(url), cookie)
    assert issuer.asked.count("/keys") == asked


def test_a_confidential_client_shows_its_secret(house: House, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    oidc = made(house, issuer, client_secret_variable="EXPUNGE_TEST_SECRET")
    with pytest.raises(RequestError):
        oidc.begin()
    monkeypatch.setenv("EXPUNGE_TEST_SECRET", "s3cret")
    url, cookie = oidc.begin()
    assert "s3cret" not in url
    oidc.finish(issuer.visit(url), cookie)
    assert issuer.authorization == "Basic " + base64.b64encode(f"{CLIENT}:s3cret".encode()).decode()


def test_an_issuer_that_is_another_or_away_is_told(house: House, issuer: Issuer) -> None:
    issuer.wrong = {"issuer": "https://other.example.com"}
    with pytest.raises(RunError):
        made(house, issuer).begin()
    away = Oidc(part_of(issuer, issuer="http://127.0.0.1:9"), house.service.identities, house.clock)
    with pytest.raises(RunError):
        away.begin()


def test_settings_are_checked(issuer: Issuer) -> None:
    for changed in (
        {"development": False},
        {"scopes": ("profile",)},
        {"roles": {}},
        {"roles": {"x": "king"}},
        {"unknown": 1},
    ):
        with pytest.raises(ValidationError):
            part_of(issuer, **changed)


def test_the_cookie_of_the_way_is_closed(house: House, issuer: Issuer) -> None:
    oidc = made(house, issuer)
    assert oidc.set_cookie("v") == f"{COOKIE}=v; Path=/; Max-Age=600; HttpOnly; SameSite=Lax"
    assert "Max-Age=0" in oidc.clear_cookie()
    strict = Oidc(part_of(issuer, development=False, issuer="https://i.example.com", redirect_uri="https://s.example.com/"),
                  house.service.identities, house.clock)  # fmt: skip
    assert strict.set_cookie("v").endswith("; Secure")
