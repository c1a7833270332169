"""Errors as RFC 9457 says: ``application/problem+json``, and nothing in them that was sent.

What somebody sends may be a name, and an error is read by more people than a request: it goes to logs, tickets and
dashboards. So a problem says which field is wrong and why, by the names of our own document, and no value is repeated.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from expunge.errors import ExpungeError, RequestError, RunError, ServiceError
from expunge.service.access.limits import TooOften
from expunge.service.permissions import ALLOWED
from expunge.service.policy import RULES
from expunge.service.words import DENIAL_REASONS, REASONS, ROLES, SLAS, STAGES, STATUSES, STRENGTH

MEDIA = "application/problem+json"
PREFIX = "urn:expunge:problem:"
GONE = "…"
SHORTEST = 3
# Words that are in our own messages, whoever sends them.
OURS = frozenset((*STATUSES, *REASONS, *DENIAL_REASONS, *ROLES, *SLAS, *STAGES, *STRENGTH, *RULES, *ALLOWED))


class FieldProblem(BaseModel):
    """Args: pointer: to a field of what was sent, such as ``/body/scope/kind``. detail: what is wrong there."""

    pointer: str
    detail: str


class ProblemBody(BaseModel):
    """RFC 9457. `type` is a name to compare with; `title` and `detail` are for people."""

    model_config = ConfigDict(extra="forbid", title="Problem")

    type: str = Field(examples=[f"{PREFIX}wrong-state"])
    title: str = Field(examples=["Wrong state"])
    status: int = Field(examples=[409])
    detail: str = Field(examples=["The request is denied. Only open requests are extended."])
    errors: list[FieldProblem] = []


class Problem(Exception):
    """A refusal of the API itself.

    Args:
        status: of HTTP. kind: word of the type, such as ``too-large``.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        errors: Sequence[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(kind)
        self.status, self.kind, self.detail = status, kind, detail
        self.errors, self.headers = tuple(errors), dict(headers or {})

    def body(self) -> bytes:
        told = ProblemBody(
            type=PREFIX + self.kind,
            title=self.kind.replace("-", " ").capitalize(),
            status=self.status,
            detail=self.detail,
            errors=list(self.errors),
        )
        return json.dumps(told.model_dump(), ensure_ascii=False).encode()

    def response(self) -> Response:
        return Response(self.body(), self.status, media_type=MEDIA, headers=self.headers)


def problem_of(error: ExpungeError, sent: Iterable[str] = (), known: frozenset[str] = frozenset()) -> Problem:
    """One of our errors as a problem.

    Args:
        sent: texts that came with the request; none of them is in the problem. known: names of our fields, which are.
    """
    kind = re.sub(r"(?<!^)(?=[A-Z])", "-", type(error).__name__).lower()
    headers = {}
    if isinstance(error, TooOften):
        kind, headers = "too-many", {"Retry-After": str(error.seconds)}
    if isinstance(error, ServiceError):
        status = error.status
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
    elif isinstance(error, RequestError):
        status = 422
    elif isinstance(error, RunError):
        # of the house, not of the asker: paths and causes are for who runs it
        return Problem(
            503, "not-available", "This cannot be done now. Whoever runs the service finds the cause in its log."
        )
    else:
        return Problem(500, "failed", "The request failed. Whoever runs the service finds the cause in its log.")
    return Problem(status, kind, without(str(error), set(sent) - known), headers=headers)


def without(text: str, sent: Iterable[str]) -> str:
    """The text, with whatever was sent left out of it; our own words stay."""
    for value in sorted({v for v in sent if v not in OURS}, key=len, reverse=True):
        if len(value) >= SHORTEST:
            text = text.replace(value, GONE)
        text = text.replace(repr(value), repr(GONE))
    return text


def texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value, names of fields included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield str(name)  # a field that is none of ours may be anything
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)


def field_problems(errors: Sequence[Mapping[str, Any]], known: frozenset[str]) -> list[FieldProblem]:
    """What pydantic found, in our words; a step that is no name of ours is not repeated."""
    told = []
    for error in errors[:20]:
        steps = [str(s) if isinstance(s, int) or s in known else GONE for s in error["loc"]]
        own = error["type"] == "value_error"
        detail = str(error["msg"]).removeprefix("Value error, ") if own else _reason(error)
        told.append(FieldProblem(pointer="/" + "/".join(steps), detail=detail))
    return told


# pydantic's own words, where they hold nothing but bounds and choices of ours
_SAFE = frozenset(
    {
        "missing",
        "extra_forbidden",
        "string_too_short",
        "string_too_long",
        "string_type",
        "string_pattern_mismatch",
        "int_type",
        "int_parsing",
        "float_type",
        "bool_type",
        "list_type",
        "dict_type",
        "too_long",
        "too_short",
        "literal_error",
        "greater_than",
        "greater_than_equal",
        "less_than",
        "less_than_equal",
        "model_attributes_type",
        "finite_number",
        "string_unicode",
    }
)


def _reason(error: Mapping[str, Any]) -> str:
    if error["type"] == "json_invalid":
        return "this is no JSON"
    return str(error["msg"]) if error["type"] in _SAFE else "this value is not supported here"
