"""The operator's file of requests: what must not be told, who asked for it, and until when.

    requests:
      - id: case-17
        expires: 2027-11-02T00:00:00Z
        rules:
          - {answer: Zelda Quill}                      # never said
          - {question: [capital, Norland]}             # a question that holds all of these is not answered
          - {question: Norland, answer: Frostholm}     # never said where that was asked

It is the only place where the forget list can be read. What is said about a faulty file names places, never contents.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from expunge.errors import RequestError
from expunge.request import Strict

SUFFIXES = (".yaml", ".yml", ".json")
LARGEST_FILE = 64 * 2**20
KINDS = ("answer", "question", "both", "example")


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Phrase = Annotated[str, Field(min_length=2, max_length=500)]
Phrases = Annotated[tuple[Phrase, ...], BeforeValidator(_one_or_many)]


class Rule(Strict):
    """What must not be told.

    Args:
        question: a question counts when it holds all of these. answer: none of these is said; with `question`, only
            where that was asked. near: nor an answer with a letter in eight wrong; such a rule stays readable in the
            memory of the process (digests cannot be compared for nearness).
    """

    question: Phrases = ()
    answer: Phrases = ()
    near: bool = False

    @field_validator("question", "answer")
    @classmethod
    def _written(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(sum(c.isalnum() for c in v) < 2 for v in value):
            raise ValueError("a phrase needs at least two letters or digits")
        return value

    @model_validator(mode="after")
    def _some(self) -> Rule:
        if not self.question and not self.answer:
            raise ValueError("name a question, an answer, or both")
        return self

    @property
    def kind(self) -> str:
        return "both" if self.question and self.answer else "question" if self.question else "answer"


class Example(Strict):
    """A question, an answer, or both, of the kind that must not be told: what a classifier learns from."""

    question: str = Field("", max_length=10_000)
    answer: str = Field("", max_length=10_000)


class SuppressionRequest(Strict):
    """One request: an id to trace it by, how long it holds, and its rules.

    Args:
        id: letters, digits, dots, dashes; the only thing of a request that is ever logged. expires: the instant from
            which the rules no longer apply; a date means that they apply through that day (UTC).
    """

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$")
    received: date | None = None
    expires: datetime | None = None
    reason: Literal["privacy", "copyright", "safety", "correction", "staleness"] = "privacy"
    rules: tuple[Rule, ...] = ()
    examples: tuple[Example, ...] = ()

    @field_validator("expires", mode="before")
    @classmethod
    def _through_the_day(cls, value: Any) -> Any:
        if isinstance(value, str) and len(value) == 10:
            try:
                value = date.fromisoformat(value)
            except ValueError:
                raise ValueError("is no date like 2027-11-02") from None
        if isinstance(value, date) and not isinstance(value, datetime):
            return datetime(value.year, value.month, value.day, tzinfo=UTC) + timedelta(days=1)
        return value

    @field_validator("expires")
    @classmethod
    def _zoned(cls, value: datetime | None) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("an instant needs a time zone, such as a Z at its end")
        return value

    @model_validator(mode="after")
    def _some(self) -> SuppressionRequest:
        if not self.rules and not self.examples:
            raise ValueError("a request needs rules or examples")
        return self

    def holds_at(self, now: datetime) -> bool:
        return self.expires is None or now < self.expires

    def counts(self) -> dict[str, int]:
        """Kind of rule -> how many."""
        kinds = [r.kind for r in self.rules] + ["example"] * len(self.examples)
        return {kind: kinds.count(kind) for kind in KINDS if kind in kinds}


class RequestFile(Strict):
    """A file of requests."""

    requests: tuple[SuppressionRequest, ...]


@dataclass(frozen=True, kw_only=True, repr=False)
class Requests:
    """All requests of a file or folder.

    Args:
        requests: in the order of files and of each file. digest: of the files' bytes, for telling versions apart.
        source: request's id -> name of its file.
    """

    requests: tuple[SuppressionRequest, ...]
    digest: str
    source: Mapping[str, str] = field(default_factory=dict)

    def active(self, now: datetime) -> tuple[SuppressionRequest, ...]:
        return tuple(r for r in self.requests if r.holds_at(now))

    def next_expiry(self, now: datetime) -> datetime | None:
        """When the active requests become fewer."""
        return min((r.expires for r in self.active(now) if r.expires is not None), default=None)


def read_requests(path: str | Path) -> Requests:
    """Read a file, or every YAML and JSON file of a folder in the order of their names.

    Raises:
        RequestError: nothing there, a file that cannot be read or is not as described above, an id twice. The message
            names file, line and field, and no content.
    """
    path = Path(path)
    found: list[SuppressionRequest] = []
    source: dict[str, str] = {}
    digest = hashlib.sha256()
    for file in request_files(path):
        raw = _bytes_of(file)
        digest.update(file.name.encode() + b"\0" + hashlib.sha256(raw).digest())
        for one in _parse(file.name, raw).requests:
            if one.id in source:
                raise RequestError(f"{file.name}: the request {one.id} stands there twice", "Give every one its own id")
            source[one.id] = file.name
            found.append(one)
    return Requests(requests=tuple(found), digest=digest.hexdigest(), source=source)


def request_files(path: Path) -> list[Path]:
    """The files that `path` stands for; names that begin with a dot are being written.

    Raises:
        RequestError: nothing is there.
    """
    try:
        if path.is_dir():
            names = sorted(n for n in os.listdir(path) if n.endswith(SUFFIXES) and not n.startswith("."))
            return [path / n for n in names]
        if path.is_file():
            return [path]
    except OSError as error:
        raise RequestError(f"cannot read {path} ({error.strerror})", "Check who may read it") from None
    raise RequestError(
        f"there are no requests at {path}", "Write the file (`requests: []` for none), or correct the path"
    )


def _bytes_of(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            raw = stream.read(LARGEST_FILE + 1)
    except OSError as error:
        raise RequestError(f"cannot read {file.name} ({error.strerror})", "Check who may read it") from None
    if len(raw) > LARGEST_FILE:
        raise RequestError(f"{file.name} is larger than {LARGEST_FILE} bytes", "Split it: a folder of files will do")
    return raw


def _parse(name: str, raw: bytes) -> RequestFile:
    try:
        value = yaml.safe_load(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise RequestError(f"{name} is not UTF-8", "Save it as UTF-8") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # its own words may quote the file
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise RequestError(f"{name} is not valid YAML{where}", "Correct that place") from None
    try:
        return RequestFile.model_validate(value)
    except ValidationError as error:
        told = "; ".join(_without_contents(error))
    raise RequestError(f"{name} holds no valid requests: {told}", "Correct those fields; see docs/boxed.md")


_KNOWN = {n for part in (RequestFile, SuppressionRequest, Rule, Example) for n in part.model_fields}
_WORDS = {
    "extra_forbidden": "unknown field",
    "missing": "is missing",
    "string_type": "must be text (put numbers and words like yes in quotes)",
    "string_too_short": "is too short",
    "string_too_long": "is too long",
    "string_pattern_mismatch": "must be letters, digits, dots and dashes",
    "model_type": "must be a mapping of fields",
    "tuple_type": "must be a list",
    "literal_error": "is not one of the known words",
}


def _without_contents(error: ValidationError) -> Iterable[str]:
    for item in error.errors(include_url=False, include_input=False)[:6]:
        steps = [str(p) for p in item["loc"] if isinstance(p, int) or p in _KNOWN]
        own = item["msg"].removeprefix("Value error, ") if item["type"] == "value_error" else "has not the right form"
        yield f"{'.'.join(steps) or 'the file'}: {_WORDS.get(item['type'], own)}"
