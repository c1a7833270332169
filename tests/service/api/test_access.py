"""Keys, sessions and limits."""

from __future__ import annotations

import base64
import itertools
from datetime import timedelta

import pytest
from house import SUBJECT, House
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from expunge.errors import NotAllowed, NotFound, NotSignedIn, RequestError
from expunge.service import tables
from expunge.service.access.gate import Access, AccessPart
from expunge.service.access.limits import Buckets, LimitsPart, TooOften
from expunge.service.access.sessions import COOKIE, SECURE_COOKIE, check_csrf
from expunge.service.entities import SYSTEM


def test_a_key_opens_as_what_it_was_made_for(house: House) -> None:
    key, text = house.access.keys.make(SYSTEM, "subject", "portal", identity=SUBJECT)
    actor = house.access.authenticate(f"Bearer {text}")
    assert (actor.id, actor.role) == (key.id, "subject")
    assert actor.subject_token == house.service.identities.token(SUBJECT)
    assert key.bound


def test_a_secret_has_256_bits_and_is_kept_nowhere(house: House) -> None:
    texts = [house.access.keys.make(SYSTEM, "auditor", "x")[1] for _ in range(5)]
    secrets = {text.split("_", 2)[2] for text in texts}
    assert len(secrets) == 5
    assert all(len(base64.urlsafe_b64decode(s + "=")) == 32 for s in secrets)
    kept = b"".join(path.read_bytes() for path in house.service.home.rglob("*") if path.is_file())
    assert not any(secret.encode() in kept for secret in secrets)
    with house.service.database.read() as connection:
        salts = connection.execute(select(tables.api_key.c.salt)).scalars().all()
    assert len(set(salts)) == len(salts)


@pytest.mark.parametrize("change", ["", "x", "exk_", "lower", "upper", "swap", "space", "tail", "id"])
def test_anything_else_opens_nothing(house: House, change: str) -> None:
    text = house.texts["operator"]
    other = house.texts["auditor"]
    changed = {
        "": "",
        "x": "x",
        "exk_": "exk_",
        "lower": text.lower() if text != text.lower() else text + "x",
        "upper": text.upper(),
        "swap": "_".join((*other.split("_", 2)[:2], text.split("_", 2)[2])),
        "space": text.replace("_", " "),
        "tail": text + "A",
        "id": text.split("_", 2)[1],
    }[change]
    with pytest.raises(NotSignedIn):
        house.access.authenticate(f"Bearer {changed}")


@pytest.mark.parametrize("header", [None, "", "Bearer", "Basic abc", "exk", "Bearer \ud800", "Bearer ключ"])
def test_a_header_of_another_form_opens_nothing(house: House, header: str | None) -> None:
    with pytest.raises(NotSignedIn):
        house.access.authenticate(header)


def test_the_scheme_is_read_in_any_case(house: House) -> None:
    assert house.access.authenticate(f"bEARER   {house.texts['auditor']} ").role == "auditor"


def test_an_expired_key_opens_nothing(house: House) -> None:
    _, text = house.access.keys.make(SYSTEM, "auditor", "x", days=1)
    house.later(hours=23, minutes=59)
    assert house.access.authenticate(f"Bearer {text}").role == "auditor"
    house.later(minutes=1)
    with pytest.raises(NotSignedIn):
        house.access.authenticate(f"Bearer {text}")


def test_a_revoked_key_opens_nothing_and_ends_its_sessions(house: House) -> None:
    key, text = house.access.keys.make(SYSTEM, "auditor", "x")
    cookie, session = house.access.sign_in(text)
    assert house.access.session(cookie).actor == session.actor
    house.access.keys.revoke(house.actor("operator"), key.id)
    for attempt in (lambda: house.access.authenticate(f"Bearer {text}"), lambda: house.access.session(cookie)):
        with pytest.raises(NotSignedIn):
            attempt()
    revoked_at = next(k.revoked_at for k in house.access.keys.list(SYSTEM) if k.id == key.id)
    house.later(hours=1)
    house.access.keys.revoke(house.actor("operator"), key.id)
    assert next(k.revoked_at for k in house.access.keys.list(SYSTEM) if k.id == key.id) == revoked_at
    with pytest.raises(NotFound):
        house.access.keys.revoke(house.actor("operator"), "key_" + "a" * 26)


def test_nobody_makes_themselves_four_eyes(house: House) -> None:
    with pytest.raises(NotAllowed):
        house.access.keys.make(house.actor("operator"), "approver", "x")
    for role in ("operator", "auditor"):
        with pytest.raises(NotAllowed):
            house.access.keys.make(house.actor("approver"), role, "x")
    for who in ("subject", "auditor"):
        with pytest.raises(NotAllowed):
            house.access.keys.make(house.actor(who), "auditor", "x")
    assert house.access.keys.make(house.actor("approver"), "approver", "x")[0].role == "approver"
    assert house.access.keys.make(house.actor("operator"), "operator", "x")[0].role == "operator"


def test_keys_are_checked_at_the_edge(house: House) -> None:
    make = house.access.keys.make
    for arguments in (
        {"role": "king", "name": "x"},
        {"role": "auditor", "name": "erin@example.org"},
        {"role": "auditor", "name": ""},
        {"role": "auditor", "name": "x", "identity": SUBJECT},
        {"role": "subject", "name": "x"},
        {"role": "auditor", "name": "x", "days": 0},
        {"role": "auditor", "name": "x", "days": 4000},
    ):
        with pytest.raises(RequestError):
            make(SYSTEM, **arguments)  # type: ignore[arg-type]


def test_the_last_use_is_noted_now_and_then(house: House) -> None:
    def last() -> object:
        return next(k for k in house.access.keys.list(SYSTEM) if k.name == "auditor").last_used_at

    first = last()
    house.later(minutes=9)
    house.get("auditor", "/v1/policy")
    assert last() == first
    house.later(minutes=2)
    house.get("auditor", "/v1/policy")
    assert last() == house.clock()


def test_keys_in_force_are_counted(house: House) -> None:
    assert house.access.keys.count("approver") == 2
    house.access.keys.revoke(SYSTEM, house.actor("second").id)
    house.access.keys.make(SYSTEM, "approver", "short", days=1)
    assert house.access.keys.count("approver") == 2
    house.later(days=2)
    assert house.access.keys.count("approver") == 1


def test_a_sealed_hash_that_was_changed_opens_nothing(house: House) -> None:
    with house.service.database.write() as connection:
        connection.execute(update(tables.api_key).values(hash="0" * 64))
    with pytest.raises(NotSignedIn):
        house.access.authenticate(f"Bearer {house.texts['operator']}")


# --- sessions ---------------------------------------------------------------------------------------------------------


def test_a_session_is_found_by_its_cookie_alone_until_it_is_over(house: House) -> None:
    cookie, session = house.access.sign_in(house.texts["operator"])
    assert house.access.session(cookie) == session
    for other in (None, "", cookie[:-1], cookie + "x", cookie.swapcase(), "\ud800"):
        with pytest.raises(NotSignedIn):
            house.access.session(other)
    house.clock.advance(timedelta(hours=8) - timedelta(seconds=1))
    assert house.access.session(cookie).csrf == session.csrf
    house.later(seconds=1)
    with pytest.raises(NotSignedIn):
        house.access.session(cookie)


def test_the_cookie_is_kept_as_a_hash(house: House) -> None:
    cookie, _ = house.access.sign_in(house.texts["operator"])
    kept = b"".join(path.read_bytes() for path in house.service.home.rglob("*") if path.is_file())
    assert cookie.encode() not in kept


def test_signing_out_ends_one_session(house: House) -> None:
    first, _ = house.access.sign_in(house.texts["operator"])
    second, _ = house.access.sign_in(house.texts["operator"])
    house.access.sessions.end(first)
    house.access.sessions.end("nothing")
    assert house.access.session(second)
    with pytest.raises(NotSignedIn):
        house.access.session(first)


def test_old_sessions_are_removed(house: House) -> None:
    house.access.sign_in(house.texts["operator"])
    house.later(hours=9)
    house.access.sign_in(house.texts["operator"])
    with house.service.database.read() as connection:
        assert len(connection.execute(select(tables.session)).all()) == 1


def test_forms_of_other_sites_are_refused(house: House) -> None:
    _, session = house.access.sign_in(house.texts["operator"])
    _, other = house.access.sign_in(house.texts["operator"])
    check_csrf(session, session.csrf)
    for given_ in (None, "", other.csrf, session.csrf[:-1], "\ud800"):
        with pytest.raises(NotAllowed):
            check_csrf(session, given_)


def test_cookies_are_closed_to_scripts_and_other_sites(house: House) -> None:
    open_ = house.access.sessions
    assert open_.cookie == COOKIE
    assert open_.set_cookie("v").split("; ") == [f"{COOKIE}=v", "Path=/", "Max-Age=28800", "HttpOnly", "SameSite=Lax"]
    service = house.service
    closed = Access(service.database, service.identities, service.clock, AccessPart(session_hours=1)).sessions
    assert closed.cookie == SECURE_COOKIE
    assert closed.set_cookie("v").endswith("; HttpOnly; SameSite=Lax; Secure")
    for made in (open_.clear_cookie(), closed.clear_cookie()):
        assert "Max-Age=0" in made


# --- limits -----------------------------------------------------------------------------------------------------------


class Tick:
    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    tick = Tick()
    buckets = Buckets(2.0, 5, remembered=10, tick=tick)
    for _ in range(5):
        buckets.take("a")
    with pytest.raises(TooOften) as refused:
        buckets.take("a")
    assert refused.value.seconds == 1
    buckets.take("b")
    tick.at += 0.5
    buckets.take("a")
    with pytest.raises(TooOften):
        buckets.take("a")
    tick.at += 1000
    for _ in range(5):
        buckets.take("a")
    with pytest.raises(TooOften):
        buckets.take("a")


def test_how_long_to_wait_is_told_in_whole_seconds() -> None:
    buckets = Buckets(0.1, 1, remembered=10, tick=Tick())
    buckets.take("a")
    with pytest.raises(TooOften) as refused:
        buckets.take("a")
    assert refused.value.seconds == 10


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 3)), max_size=60))
def test_never_more_than_burst_and_rate(steps: list[tuple[str, float]]) -> None:
    tick, taken = Tick(), {"a": 0, "b": 0, "c": 0}
    buckets = Buckets(1.5, 4, remembered=10, tick=tick)
    for name, wait in steps:
        tick.at += wait
        try:
            buckets.take(name)
            taken[name] += 1
        except TooOften:
            pass
        assert all(count <= 4 + 1.5 * (tick.at - 100) + 1e-6 for count in taken.values())


def test_memory_is_bounded_and_the_latest_are_remembered() -> None:
    tick = Tick()
    buckets = Buckets(0.001, 1, remembered=100, tick=tick)
    for number in range(1000):
        buckets.take(str(number))
    assert len(buckets) == 100
    for number in (901, 999):
        with pytest.raises(TooOften):
            buckets.take(str(number))


def few(house: House, **limits: float) -> Access:
    part = AccessPart(limits=LimitsPart(**limits), secure=False)
    return Access(house.service.database, house.service.identities, house.service.clock, part)


def test_a_key_has_a_limit_wherever_it_comes_from(house: House) -> None:
    access = few(house, key_per_second=0.001, key_burst=3)
    for number in range(3):
        access.authenticate(f"Bearer {house.texts['operator']}", f"10.0.0.{number}")
    with pytest.raises(TooOften):
        access.authenticate(f"Bearer {house.texts['operator']}", "10.0.0.9")
    access.authenticate(f"Bearer {house.texts['auditor']}", "10.0.0.9")


def test_an_address_has_a_limit_whatever_keys_it_has(house: House) -> None:
    access = few(house, address_per_second=0.001, address_burst=3)
    for who in ("operator", "auditor", "approver"):
        access.authenticate(f"Bearer {house.texts[who]}", "10.0.0.1")
    with pytest.raises(TooOften):
        access.authenticate(f"Bearer {house.texts['subject']}", "10.0.0.1")
    with pytest.raises(TooOften):
        access.session("x", "10.0.0.1")
    access.authenticate(f"Bearer {house.texts['subject']}", "10.0.0.2")


def test_guessing_is_slowed_down_and_shuts_out_nobody_with_a_key(house: House) -> None:
    access = few(house, failures_per_minute=5)
    errors = []
    for number in range(8):
        with pytest.raises((NotSignedIn, TooOften)) as refused:
            access.authenticate(f"Bearer exk_{number}", "10.0.0.1")
        errors.append(refused.type)
    assert errors == [NotSignedIn] * 5 + [TooOften] * 3
    assert access.authenticate(f"Bearer {house.texts['operator']}", "10.0.0.1")


def test_limits_are_told_by_the_api(house: House) -> None:
    house.access.limits = few(house, key_per_second=0.001, key_burst=2).limits
    replies = [house.get("auditor", "/v1/policy") for _ in range(3)]
    assert [reply.status_code for reply in replies] == [200, 200, 429]
    assert replies[2].headers["retry-after"] == "1000"
    assert replies[2].json()["type"] == "urn:expunge:problem:too-many"


def test_every_pair_of_actors_differs(house: House) -> None:
    for one, other in itertools.combinations(house.actors.values(), 2):
        assert one.id != other.id
