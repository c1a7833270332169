"""Requests as CSV or JSON, in pieces, without anything that leads to a person."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping

from expunge.service.clock import stamp
from expunge.service.entities import Request

COLUMNS = (
    "id",
    "external_id",
    "status",
    "sla",
    "reason",
    "least_guarantee",
    "regime",
    "scope",
    "verified",
    "received_at",
    "due_at",
    "extended_at",
    "closed_at",
    "denial_reason",
    "duplicate_of",
)
# What a spreadsheet would take for a formula is written as text.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def cells(request: Request) -> dict[str, str]:
    told = {}
    for name in COLUMNS:
        value = request.scope["kind"] if name == "scope" else getattr(request, name)
        text = "" if value is None else stamp(value) if hasattr(value, "tzinfo") else str(value)
        told[name] = f"'{text}" if text.startswith(FORMULA) else text
    return told


def as_csv(requests: Iterable[Request]) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    for request in requests:
        writer.writerow(cells(request))
        if buffer.tell() > 60_000:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def as_json(requests: Iterable[Request]) -> Iterator[str]:
    yield "["
    for number, request in enumerate(requests):
        yield ("," if number else "") + "\n" + json.dumps(request.public(), ensure_ascii=False)
    yield "\n]\n"


FORMS: Mapping[str, Callable[[Iterable[Request]], Iterator[str]]] = {"csv": as_csv, "json": as_json}
