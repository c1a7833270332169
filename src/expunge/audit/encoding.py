"""One way to write each value as bytes, so that digests and signatures mean one thing."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from typing import Any


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces, UTF-8; refuses NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def blinded(nonce: bytes, *words: str) -> str:
    """HMAC-SHA256 of `words` under `nonce`, hexadecimal: nothing to whoever does not hold the nonce."""
    return hmac.digest(nonce, canonical(list(words)), "sha256").hex()


def from_hex(text: str) -> bytes:
    """The bytes of hexadecimal digits in their one form, lower case.

    Raises:
        ValueError: anything else.
    """
    raw = bytes.fromhex(text)
    if raw.hex() != text:
        raise ValueError(f"{text[:20]!r} is not written in lower-case hexadecimal digits")
    return raw


def whole(value: Any) -> int:
    """A whole number of JSON.

    Raises:
        TypeError: anything else, 2.0, "2" and true included.
    """
    if type(value) is not int:
        raise TypeError(f"{value!r} is no whole number")
    return value


def to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def from_base64(text: str) -> bytes | None:
    """Base64 in its one canonical form, or None."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if to_base64(raw) == text else None
