"""What was done, told once on the page that a form leads to.

It travels in a cookie, signed under the session's own secret: any process can show it, and nobody else can write it.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

COOKIE = "expunge_told"
LONGEST = 3500  # browsers keep cookies of up to four kilobytes


@dataclass(frozen=True, kw_only=True)
class Flash:
    """
    Args:
        tone: ``done``, or ``mixed`` where something was refused. more: further lines.
    """

    text: str
    tone: Literal["done", "mixed"] = "done"
    more: tuple[str, ...] = ()


def pack(flash: Flash, secret: str) -> str:
    """The cookie's value; lines that do not fit are left out, and their number told."""
    for count in range(len(flash.more), -1, -1):
        value = _sign(Flash(text=flash.text, tone=flash.tone, more=_first(flash.more, count)), secret)
        if len(value) <= LONGEST:
            return value
    return _sign(Flash(text=flash.text[:500], tone=flash.tone), secret)


def unpack(value: str | None, secret: str) -> Flash | None:
    """What `pack` was given; None where there is nothing, or not of this session."""
    body, _, mark = (value or "").partition(".")
    if not hmac.compare_digest(_mark(body, secret).encode(), mark.encode("utf-8", "surrogateescape")):
        return None
    told = json.loads(base64.urlsafe_b64decode(body))
    return Flash(text=told["text"], tone=told["tone"], more=tuple(told["more"]))


def _first(lines: Sequence[str], count: int) -> tuple[str, ...]:
    left = len(lines) - count
    return (*lines[:count], *([f"and {left} more"] if left else []))


def _sign(flash: Flash, secret: str) -> str:
    body = base64.urlsafe_b64encode(json.dumps(asdict(flash)).encode()).decode()
    return f"{body}.{_mark(body, secret)}"


def _mark(body: str, secret: str) -> str:
    return hmac.digest(secret.encode(), body.encode("utf-8", "surrogateescape"), "sha256").hex()
