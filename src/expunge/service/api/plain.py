"""Texts that can be written down, and times in one form."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from expunge.service.api.problems import FieldProblem, Problem, texts

# Half of a surrogate pair may stand in a JSON text by its number alone, and cannot be written to a file or a database.
_ODD = re.compile(rb"\\u[dD][89a-fA-F]")
_HALF = re.compile("[\ud800-\udfff]")
# RFC 3339, from 1970 to 2999: text of one width orders times, and a year of another width would not
TIME = r"^(19[7-9]\d|2\d{3})-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)$"
_TIME = re.compile(TIME, re.ASCII)


def refuse_odd_text(body: bytes) -> None:
    """
    Raises:
        Problem: a text in the JSON holds half of a surrogate pair.
    """
    if not _ODD.search(body):
        return
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return  # no JSON: that is told elsewhere
    if any(_HALF.search(text) for text in texts(found)):
        wrong = [FieldProblem(pointer="/body", detail="a text holds half of a surrogate pair")]
        raise Problem(422, "invalid-request", "The request is not as the document says.", errors=wrong)


def _time(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        raise ValueError("a time is written as RFC 3339 says, with its zone (2026-01-31T09:00:00Z), from 1970 to 2999")
    try:
        at = datetime.fromisoformat(value.upper())
    except ValueError:
        raise ValueError("there is no such time") from None
    return at


def _truth(value: Any) -> bool:
    if value not in ("true", "false", True, False):
        raise ValueError("true or false")
    return value in ("true", True)


# no control characters
Line = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Time = Annotated[
    datetime, BeforeValidator(_time), WithJsonSchema({"type": "string", "format": "date-time", "pattern": TIME})
]
Truth = Annotated[bool, BeforeValidator(_truth), WithJsonSchema({"type": "boolean"})]
