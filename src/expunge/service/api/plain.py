"""Texts that can be kept: no halves of surrogate pairs, no control characters; times and truths in one form each."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from expunge.service.api.problems import FieldProblem, Problem, texts

# Either may stand in a JSON text by its number alone, and neither can be written to a file or a database.
_ODD = re.compile(rb"\\u(?:[dD][89a-fA-F]|0000)")
_HALF = re.compile("[\ud800-\udfff\x00]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def refuse_odd_text(body: bytes) -> None:
    """
    Raises:
        Problem: a text in the JSON holds what no text holds.
    """
    if b"\x00" in body or _ODD.search(body):
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            return  # no JSON: that is told elsewhere
        if any(_HALF.search(text) for text in texts(found)):
            detail = "a text holds half of a surrogate pair, or NUL"
            raise Problem(
                422, "request-error", "The request is not valid.", errors=[FieldProblem(pointer="/body", detail=detail)]
            )


def _no_control(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("control characters are not supported here")
    return text


def _time(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        raise ValueError("a time is written as RFC 3339 says, with its zone: 2026-01-31T09:00:00Z")
    try:
        at = datetime.fromisoformat(value.upper())
    except ValueError:
        raise ValueError("there is no such time") from None
    if not 1970 <= at.year <= 2999:
        raise ValueError("a time is between 1970 and 2999")
    return at


def _truth(value: Any) -> bool:
    if value not in ("true", "false", True, False):
        raise ValueError("true or false")
    return value in ("true", True)


Line = Annotated[str, AfterValidator(_no_control)]
Time = Annotated[datetime, BeforeValidator(_time), WithJsonSchema({"type": "string", "format": "date-time"})]
Truth = Annotated[bool, BeforeValidator(_truth), WithJsonSchema({"type": "boolean"})]
