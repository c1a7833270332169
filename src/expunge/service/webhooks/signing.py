"""Signatures of Standard Webhooks 1.0 (standardwebhooks.com), for who sends and for who receives.

webhook-id: msg_…            the same at each attempt, so that a receiver can tell a repetition
webhook-timestamp: seconds   of this attempt
webhook-signature: v1,…      base64 of HMAC-SHA256(secret, id.timestamp.body); several, apart by a space, while a
                             secret is being changed
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from expunge.audit.encoding import from_base64, to_base64
from expunge.errors import Conflict, RequestError, TamperedEvidence, TooMany
from expunge.service.clock import Clock, system_clock

PREFIX = "whsec_"
SECRET_BYTES = 32
LEAST_BYTES, MOST_BYTES = 24, 64
TOLERANCE_SECONDS = 300
MOST_SEEN = 100_000
REMEDY = "Compare the secret and the clock with the sender's, and pass the body as it came, before it is parsed"


def new_secret() -> str:
    """``whsec_`` and 32 random bytes, base64."""
    return PREFIX + to_base64(secrets.token_bytes(SECRET_BYTES))


def key_of(secret: str) -> bytes:
    """The bytes of a secret.

    Raises:
        RequestError: it is not ``whsec_`` and base64 of 24 to 64 bytes.
    """
    raw = from_base64(secret.removeprefix(PREFIX)) if secret.startswith(PREFIX) else None
    if raw is None or not LEAST_BYTES <= len(raw) <= MOST_BYTES:
        raise RequestError("this is no secret of a webhook", "Give whsec_ and base64 of 24 to 64 bytes")
    return raw


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """``v1,`` and the signature; timestamp: seconds since 1970."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return f"v1,{to_base64(hmac.digest(key_of(secret), signed, 'sha256'))}"


def headers(known: Sequence[str], message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """What is sent beside the body, signed with each of the secrets."""
    timestamp = int(at.timestamp())
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(sign(secret, message_id, timestamp, body) for secret in known),
    }


def verify(
    secret: str, given: Mapping[str, str], body: bytes, now: datetime, *, tolerance_seconds: float = TOLERANCE_SECONDS
) -> str:
    """The id of a message that was signed with the secret, not long ago.

    Args:
        given: the headers, in any case. body: as it came, unparsed.

    Raises:
        TamperedEvidence: a header is missing, the time is too far from now, or no signature fits.
    """
    lowered = {name.lower(): value for name, value in given.items()}
    message_id, timestamp, signatures = (
        lowered.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature")
    )
    # one form of a number alone: int() would also take "+1", " 1" and "1_0"
    if not message_id or not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise TamperedEvidence("the message has no id, or no time", REMEDY)
    wanted = sign(secret, message_id, int(timestamp), body).encode()
    fits = [hmac.compare_digest(wanted, one.encode()) for one in signatures.split(" ")]
    if not any(fits) or timestamp != str(int(timestamp)):
        raise TamperedEvidence("no signature fits the message", REMEDY)
    if abs(now.timestamp() - int(timestamp)) > tolerance_seconds:
        raise TamperedEvidence("the message was signed too long ago, or in the future", REMEDY)
    return message_id


class Receiver:
    """For who receives: takes every message once.

        with receiver.accept(headers, body) as message:
            ...                      # what fails in here may be sent again

    Args:
        secret: ``whsec_…`` as it was shown when the webhook was made. tolerance_seconds: most between sender and now.
        most_seen: ids held at once; beyond, messages are refused until the first of them are too old to be replayed.
    """

    def __init__(
        self,
        secret: str,
        *,
        tolerance_seconds: float = TOLERANCE_SECONDS,
        clock: Clock = system_clock,
        most_seen: int = MOST_SEEN,
    ) -> None:
        key_of(secret)
        self._secret, self._tolerance, self._clock, self._most = secret, tolerance_seconds, clock, most_seen
        self._seen: dict[str, float] = {}

    @contextmanager
    def accept(self, given: Mapping[str, str], body: bytes) -> Iterator[dict[str, Any]]:
        """
        Raises:
            TamperedEvidence: not signed with the secret, too old, or no JSON. Conflict: received before (answer 2xx).
            TooMany: more messages at once than can be told apart.
        """
        now = self._clock()
        message_id = verify(self._secret, given, body, now, tolerance_seconds=self._tolerance)
        # an id may be forgotten when its newest signature is out of the window on both sides
        self._seen = {name: until for name, until in self._seen.items() if until >= now.timestamp()}
        if message_id in self._seen:
            raise Conflict("this message was received before", "Answer with 200: it is sent again until then")
        if len(self._seen) >= self._most:
            raise TooMany("too many messages at once", "Answer with 503: they are sent again")
        try:
            message = json.loads(body)
        except ValueError:
            raise TamperedEvidence("the message is no JSON", REMEDY) from None
        if not isinstance(message, dict):
            raise TamperedEvidence("the message is no JSON object", REMEDY)
        self._seen[message_id] = now.timestamp() + 2 * self._tolerance
        try:
            yield message
        except BaseException:
            self._seen.pop(message_id, None)
            raise
