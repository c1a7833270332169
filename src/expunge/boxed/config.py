"""The box as one YAML file declares it: models, router, workers, composer, output filter, limits."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError, field_validator

from expunge.boxed.composer import COMPOSERS, RuleComposer
from expunge.boxed.output import FILTERS, RuleFilter
from expunge.boxed.parts import Composer, OutputFilter, Part, Router, Worker
from expunge.boxed.router import ROUTERS
from expunge.boxed.worker import WORKERS
from expunge.errors import RequestError, UnknownName
from expunge.language_request import TemplatePart
from expunge.models.endpoint import fault_of_address
from expunge.request import Strict, explain, known_fields, read_document

P = TypeVar("P", bound=Part)
PAGE = "See docs/boxed.md for every field"


class LocalPart(Strict):
    """A model on this machine.

    Args:
        folder: written by ``save_pretrained``, or a hub name. device: cpu, cuda, cuda:1, mps. dtype: of weights.
    """

    folder: str
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    template: TemplatePart | None = None


class RemotePart(Strict):
    """A model behind an OpenAI-compatible address; see `expunge.models.endpoint.Endpoint`.

    Args:
        url: up to and with ``/v1``. name: of the model there. key_variable: environment variable that holds the key.
    """

    url: str
    name: str = Field(min_length=1)
    key_variable: str | None = None
    timeout_seconds: float = Field(60.0, gt=0, le=3600)

    @field_validator("url")
    @classmethod
    def _address(cls, value: str) -> str:
        fault = fault_of_address(value)
        if fault is not None:
            raise ValueError(fault)
        return value


class LimitsPart(Strict):
    """What one client may ask for, and all of them together.

    Args:
        body_bytes: of a request. messages, characters: of a conversation, or of the texts to be embedded.
        max_tokens: of an answer at most; `usual_tokens` where a client names none. choices: answers to one question.
        texts: to be embedded at once. concurrent: answers under way. waiting: beyond those, before clients are sent
            away.
        seconds: for one answer, waiting included. look_ahead: tokens that the filter may read beyond the end of an
            answer that is cut off, so that cutting never lets half a phrase through.
    """

    body_bytes: int = Field(2**20, ge=1024, le=2**28)
    messages: int = Field(200, ge=1)
    characters: int = Field(100_000, ge=16)
    max_tokens: int = Field(1024, ge=1)
    usual_tokens: int = Field(256, ge=1)
    choices: int = Field(4, ge=1, le=64)
    texts: int = Field(256, ge=1)
    concurrent: int = Field(16, ge=1)
    waiting: int = Field(256, ge=0)
    seconds: float = Field(120.0, gt=0)
    look_ahead: int = Field(32, ge=0, le=256)


class Outline(Strict):
    """The fields of the file; parts are read by kind, one by one.

    Args:
        name: of the model, as clients know it. requests: file or folder of requests. check_seconds: how often it is
            looked at. key_variable: environment variable that holds the key of the digests (16 bytes or more); without
            it a random one is drawn at each start, which is as good as digests never leave the process.
        models: name -> where it is. main: the one that counts as the model inside; the first by default.
        embeddings: model that embeds; none, no such route. client_key_variable: environment variable that holds the key
            which clients must send; without it anybody who reaches the port may ask.
        ask_anyway: let the main model begin an answer also where a rule replies, so that a missing error does not tell
            a reply.
    """

    name: str = Field(pattern=r"^[\w./:@+-]{1,100}$")
    requests: str
    check_seconds: float = Field(1.0, gt=0, le=3600)
    key_variable: str | None = None
    models: dict[str, RemotePart | LocalPart] = Field(min_length=1)
    main: str | None = None
    router: dict[str, Any]
    workers: dict[str, dict[str, Any]] = Field(min_length=1)
    composer: dict[str, Any] = Field(default_factory=lambda: {"kind": "rule"})
    output_filter: list[dict[str, Any]]
    embeddings: str | None = None
    client_key_variable: str | None = None
    ask_anyway: bool = True
    limits: LimitsPart = Field(default_factory=LimitsPart)

    @field_validator("models", mode="before")
    @classmethod
    def _by_their_fields(cls, value: Any) -> Any:
        """Which of the two a model is, so that a fault is told of that one alone."""
        if not isinstance(value, Mapping):
            return value
        made = {}
        for name, part in value.items():
            if isinstance(part, str):
                part = {"folder": part}
            if isinstance(part, Mapping) and ("url" in part) == ("folder" in part):
                raise ValueError(f"{name}: give a folder (on this machine) or a url (of a server), not both")
            kind = RemotePart if isinstance(part, Mapping) and "url" in part else LocalPart
            try:
                made[name] = kind.model_validate(part)
            except ValidationError as error:
                raise ValueError(f"{name}: {explain(error, known_fields(kind))}") from None
        return made

    @field_validator("output_filter", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, Mapping) else value


@dataclass(frozen=True, kw_only=True)
class BoxSettings:
    """A box as declared, every part read and every name resolved.

    Args:
        outline: all fields that are no parts. router, workers, composer, filters: the parts. folder: of the file.
    """

    outline: Outline
    router: Router
    workers: Mapping[str, Worker]
    composer: Composer
    filters: tuple[OutputFilter, ...]
    folder: Path

    @property
    def main(self) -> str:
        return self.outline.main or next(iter(self.outline.models))

    @property
    def requests(self) -> Path:
        return self.path(self.outline.requests)

    def path(self, given: str) -> Path:
        """A path of the file, meant from its own folder."""
        return self.folder / given

    def parts(self) -> Iterator[tuple[str, Part]]:
        """Every part with its place in the file."""
        yield "router", self.router
        yield from ((f"workers.{name}", worker) for name, worker in self.workers.items())
        yield "composer", self.composer
        yield from ((f"output_filter.{k}", f) for k, f in enumerate(self.filters))

    @classmethod
    def parse(cls, value: Any, *, folder: Path, source: str = "the box") -> BoxSettings:
        """Validate a parsed document.

        Raises:
            RequestError: names every field that is wrong. UnknownName: a kind, model or worker that there is not.
        """
        if not isinstance(value, Mapping):
            raise RequestError(f"{source} holds {type(value).__name__}, expected a mapping", PAGE)
        try:
            outline = Outline.model_validate(value)
        except ValidationError as error:
            told = explain(error, known_fields(Outline, LimitsPart, LocalPart, RemotePart))
            raise RequestError(f"{source} declares no valid box: {told}", PAGE) from None
        settings = cls(
            outline=outline,
            router=_part(outline.router, ROUTERS, Router, f"{source}: router"),
            workers={
                name: _part(spec, WORKERS, Worker, f"{source}: workers.{name}")
                for name, spec in outline.workers.items()
            },
            composer=_part(outline.composer, COMPOSERS, Composer, f"{source}: composer")
            if outline.composer != {"kind": "rule"}
            else RuleComposer(),
            filters=tuple(
                _part(spec, FILTERS, OutputFilter, f"{source}: output_filter.{k}")
                for k, spec in enumerate(outline.output_filter)
            ),
            folder=folder,
        )
        settings._check(source)
        return settings

    @classmethod
    def read(cls, path: str | Path) -> BoxSettings:
        """Read a box's YAML; relative paths in it are meant from its own folder."""
        path = Path(path)
        return cls.parse(read_document(path), folder=path.resolve().parent, source=str(path))

    def _check(self, source: str) -> None:
        """Every name that a part uses is there."""
        for where, name in (("main", self.main), ("embeddings", self.outline.embeddings)):
            if name is not None and name not in self.outline.models:
                raise UnknownName(f"model (at {where} in {source})", name, self.outline.models)
        for where, part in self.parts():
            for kind, fields, known in (
                ("model", part.model_fields_named, self.outline.models),
                ("worker", part.worker_fields_named, self.workers),
            ):
                for name in (n for f in fields for n in _names(getattr(part, f))):
                    if name not in known:
                        raise UnknownName(f"{kind} (at {where} in {source})", name, list(known))
        if not any(isinstance(f, RuleFilter) for f in self.filters):
            raise RequestError(
                f"{source} has no output filter of the kind rule: nothing would keep answers back",
                "Add `output_filter: {kind: rule}`; others may stand beside it",
            )


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    else:
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _names(item)


def _part(spec: Mapping[str, Any], table: Mapping[str, type[P]], base: Any, where: str) -> P:
    """A part from its entry: a kind of the table, or ``package.module:Class`` of somebody's own."""
    kind = spec.get("kind")
    if not isinstance(kind, str):
        raise RequestError(f"{where} has no kind", f"Choose one of {', '.join(table)}")
    found: type[P] | None = _own(kind, base, where) if ":" in kind else table.get(kind)
    if found is None:
        raise UnknownName(f"kind (at {where})", kind, table)
    try:
        return found.model_validate(spec)
    except ValidationError as error:
        raise RequestError(f"{where} is not valid: {explain(error, known_fields(found))}", PAGE) from None


def _own(kind: str, base: Any, where: str) -> Any:
    module, _, name = kind.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise RequestError(
            f"{where}: cannot import {kind} ({type(error).__name__})", "Install it, or correct the name"
        ) from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise RequestError(
            f"{where}: {kind} is no {base.__name__}", f"Derive it from expunge.boxed.parts.{base.__name__}"
        )
    return found


__all__ = ["BoxSettings", "LimitsPart", "LocalPart", "Outline", "RemotePart"]
