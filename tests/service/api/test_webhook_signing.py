"""Signatures, held against the reference library of Standard Webhooks."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
import standardwebhooks
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.audit.encoding import to_base64
from expunge.errors import Conflict, RequestError, TamperedEvidence, TooMany
from expunge.service.clock import FixedClock, system_clock
from expunge.service.webhooks.signing import Receiver, headers, key_of, new_secret, sign, verify

# of the specification's own examples
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"test": 2432232314}'
NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)


def test_a_published_example_has_its_signature() -> None:
    assert sign(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, BODY) == (
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


@settings(deadline=None, max_examples=30)
@given(st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=20), max_size=4))
def test_the_reference_library_takes_ours(message: dict[str, object]) -> None:
    secret, body, now = new_secret(), json.dumps(message).encode(), system_clock()
    sent = headers([secret], "msg_1", now, body)
    assert standardwebhooks.Webhook(secret).verify(body, sent) == message


@settings(deadline=None, max_examples=30)
@given(st.text(alphabet="abc_123", min_size=1, max_size=20), st.text(max_size=50))
def test_we_take_the_reference_librarys(message_id: str, text: str) -> None:
    body = json.dumps({"text": text})
    at = NOW
    signature = standardwebhooks.Webhook(SECRET).sign(message_id, at, body)
    given_ = {"Webhook-Id": message_id, "WEBHOOK-TIMESTAMP": str(int(at.timestamp())), "webhook-signature": signature}
    assert verify(SECRET, given_, body.encode(), at) == message_id


def sent(body: bytes = BODY, **changed: str) -> dict[str, str]:
    return {**headers([SECRET], "msg_1", NOW, body), **{f"webhook-{k}": v for k, v in changed.items()}}


@pytest.mark.parametrize(
    "changed",
    [
        {"id": "msg_2"},
        {"id": ""},
        {"timestamp": str(int(NOW.timestamp()) + 1)},
        {"timestamp": ""},
        {"timestamp": "now"},
        {"timestamp": f"+{int(NOW.timestamp())}"},
        {"timestamp": f"0{int(NOW.timestamp())}"},
        {"timestamp": "９"},
        {"signature": ""},
        {"signature": "v1,"},
        {"signature": "v1,AAAA"},
        {"signature": sign(SECRET, "msg_1", int(NOW.timestamp()), BODY).replace("v1,", "v1a,")},
        {"signature": sign(SECRET, "msg_1", int(NOW.timestamp()), BODY).replace("v1,", "v2,")},
        {"signature": sign(new_secret(), "msg_1", int(NOW.timestamp()), BODY)},
        {"signature": "ä v1,x"},
    ],
)
def test_a_changed_header_is_noticed(changed: dict[str, str]) -> None:
    with pytest.raises(TamperedEvidence):
        verify(SECRET, sent(**changed), BODY, NOW)


def test_a_changed_body_is_noticed() -> None:
    with pytest.raises(TamperedEvidence):
        verify(SECRET, sent(), BODY + b" ", NOW)


@pytest.mark.parametrize(("seconds", "taken"), [(300, True), (301, False), (-300, True), (-301, False)])
def test_only_what_is_new_is_taken(seconds: int, taken: bool) -> None:
    now = NOW + timedelta(seconds=seconds)
    if taken:
        assert verify(SECRET, sent(), BODY, now) == "msg_1"
    else:
        with pytest.raises(TamperedEvidence):
            verify(SECRET, sent(), BODY, now)


def test_one_signature_of_several_is_enough() -> None:
    old = new_secret()
    both = headers([SECRET, old], "msg_1", NOW, BODY)
    assert both["webhook-signature"].count("v1,") == 2
    for secret in (SECRET, old):
        assert verify(secret, both, BODY, NOW) == "msg_1"
    with pytest.raises(TamperedEvidence):
        verify(new_secret(), both, BODY, NOW)


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_%%%",
        "whsec_" + to_base64(bytes(23)),
        "whsec_" + to_base64(bytes(65)),
    ],
)
def test_what_is_no_secret_is_refused(secret: str) -> None:
    with pytest.raises(RequestError) as refused:
        key_of(secret)
    assert len(secret) < 10 or secret not in str(refused.value)


def test_new_secrets_differ_and_have_32_bytes() -> None:
    assert len({new_secret() for _ in range(10)}) == 10
    assert len(key_of(new_secret())) == 32


def test_a_replayed_message_is_refused() -> None:
    clock = FixedClock(NOW)
    receiver = Receiver(SECRET, clock=clock)
    with receiver.accept(sent(), BODY) as message:
        assert message == {"test": 2432232314}
    for minutes in (0, 1, 3):
        clock.advance(timedelta(minutes=minutes))
        with pytest.raises(Conflict), receiver.accept(sent(), BODY):
            pass
    clock.advance(timedelta(minutes=2))
    with pytest.raises(TamperedEvidence), receiver.accept(sent(), BODY):
        pass


def test_a_message_of_the_future_cannot_be_replayed_when_its_time_comes() -> None:
    clock = FixedClock(NOW - timedelta(seconds=300))
    receiver = Receiver(SECRET, clock=clock)
    with receiver.accept(sent(), BODY):
        pass
    clock.advance(timedelta(seconds=600))
    with pytest.raises(Conflict), receiver.accept(sent(), BODY):
        pass


def test_what_failed_may_come_again() -> None:
    receiver = Receiver(SECRET, clock=FixedClock(NOW))
    with pytest.raises(KeyError), receiver.accept(sent(), BODY):
        raise KeyError
    with receiver.accept(sent(), BODY):
        pass


def test_a_receiver_remembers_a_bounded_number_and_forgets_none_too_early() -> None:
    clock = FixedClock(NOW)
    receiver = Receiver(SECRET, clock=clock, most_seen=2)
    for name in ("a", "b"):
        with receiver.accept(headers([SECRET], name, NOW, BODY), BODY):
            pass
    with pytest.raises(TooMany), receiver.accept(headers([SECRET], "c", NOW, BODY), BODY):
        pass
    with pytest.raises(Conflict), receiver.accept(headers([SECRET], "a", NOW, BODY), BODY):
        pass
    clock.advance(timedelta(seconds=601))
    with receiver.accept(headers([SECRET], "c", clock(), BODY), BODY):
        pass


@pytest.mark.parametrize("body", [b"no json", b"[]", b"\xff"])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(TamperedEvidence), Receiver(SECRET, clock=FixedClock(NOW)).accept(sent(body), body):
        pass
