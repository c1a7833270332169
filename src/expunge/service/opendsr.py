"""OpenDSR 2.0 as a profile: how its requests and states are ours.

A privacy platform (the controller) sends one request with several identities of a person; here each identity is a
request of its own under one id of the controller's, and the whole is completed when all of them are closed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from expunge.service.words import FINAL

VERSION = "2.0"
SEPARATOR = ":"
PREFIX = "opendsr"
MOST_IDENTITIES = 10
REGULATIONS = ("gdpr", "ccpa")
OpenDsrStatus = Literal["pending", "in_progress", "completed", "cancelled"]


def external_ids(subject_request_id: str) -> list[str]:
    """Under which ids the parts of a request are kept."""
    return [SEPARATOR.join((PREFIX, subject_request_id, str(number))) for number in range(MOST_IDENTITIES)]


def is_opendsr(external_id: str | None) -> bool:
    return external_id is not None and external_id.startswith(PREFIX + SEPARATOR)


def status_of(statuses: Sequence[str]) -> OpenDsrStatus:
    """The specification's word (section 8) for the states of a request's parts.

    OpenDSR has no word for a refusal: a denied part counts as cancelled, and its reason stands in our own API. Nothing
    is completed while a part is open, or has failed.
    """
    if all(status in FINAL for status in statuses):
        return "completed" if "fulfilled" in statuses else "cancelled"
    # `received` alone can still be taken back by the controller (section 9)
    waiting = {"received", "verified", "paused", *FINAL}
    return "pending" if set(statuses) <= waiting else "in_progress"
