"""A request that gives a concept instead of texts: a name, a description, a few exemplars."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from expunge.errors import RequestError
from expunge.language_request import LanguageRequest, TextPart, from_folder
from expunge.models.endpoint import fault_of_address
from expunge.request import Strict, explain, known_fields, read_document
from expunge.scope.words import words

SEE = "docs/concept-requests.md shows an example"


class Exemplar(Strict):
    """A text that is about the concept; a string alone will do. With a prompt it is a question and its answer."""

    prompt: str = ""
    answer: str = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"answer": value} if isinstance(value, str) else value

    @property
    def text(self) -> str:
        return f"{self.prompt} {self.answer}".strip()


class Concept(Strict):
    """What must go, in words.

    Args:
        name: as texts write it. aliases: other names. description: a sentence or two, for the search. exemplars: texts
            about it, whether or not they stand in the corpus. must_stay: names and phrases of what is near and must
            stay.
    """

    name: str
    description: str = ""
    aliases: tuple[str, ...] = ()
    exemplars: tuple[Exemplar, ...] = ()
    must_stay: tuple[str, ...] = ()

    @field_validator("aliases", "must_stay", "exemplars", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _speakable(self) -> Concept:
        for text in (self.name, *self.aliases, *self.must_stay):
            if not words(text):
                raise ValueError(f"{text!r} holds no word to look for")
        both = {tuple(words(n)) for n in self.names} & {tuple(words(n)) for n in self.must_stay}
        if both:
            raise ValueError(f"{' '.join(min(both))!r} must go and must stay at once")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The name and the aliases."""
        return (self.name, *self.aliases)


class WriterPart(Strict):
    """Who writes further questions; ``templates`` alone will do.

    Args:
        by: ``templates``, a local ``model``, or an OpenAI-compatible ``endpoint``: only the last sends anything away.
        model: folder or hub name of the local model; by default the request's own.
        url: of the endpoint, up to and with ``/v1``. name: of the model there. key_variable: environment variable that
            holds the key. timeout_seconds: for each answer.
        passages: most passages that the model is shown. questions: asked for from each. tokens: most in an answer.
    """

    by: Literal["templates", "model", "endpoint"] = "templates"
    model: str | None = None
    url: str | None = None
    name: str | None = None
    key_variable: str | None = None
    timeout_seconds: float = Field(60.0, gt=0)
    passages: int = Field(20, ge=1)
    questions: int = Field(3, ge=1)
    tokens: int = Field(200, ge=8)

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"by": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _whole(self) -> WriterPart:
        if self.by != "endpoint":
            if self.url or self.name or self.key_variable:
                raise ValueError("url, name and key_variable belong to by: endpoint")
            return self
        if not self.url or not self.name:
            raise ValueError("an endpoint needs url and name")
        fault = fault_of_address(self.url)
        if fault is not None:
            raise ValueError(fault)
        return self


class ScopePart(Strict):
    """Where to look, and how far.

    Args:
        corpus: the texts the model was trained on, as `expunge.data.texts.load_texts` reads them. words: cut plain
            texts into passages of so many words.
        related: most passages that are shown only because they answer to the description. neighbours: most passages
            listed as what must stay. follows: most consequences listed.
        encoder: ``model`` (the request's own) or the folder of another local model, for similarity of meaning.
        multilingual: the encoder puts a text and its translation side by side; otherwise none are looked for.
        paraphrase_cosine: similarity of meaning from which a passage counts as a paraphrase. paraphrase_overlap: the
            same for weighted overlap of words. quotation_words: length of a shared run of words that is a quotation.
        common: a run of words in more passages than this is a turn of phrase, and no quotation.
        keep: train on the whole ``corpus`` but what goes as the retain set, or on the ``neighbours`` alone.
    """

    corpus: TextPart
    words: int | None = Field(None, ge=1)
    related: int = Field(20, ge=0)
    neighbours: int = Field(40, ge=0)
    follows: int = Field(40, ge=0)
    encoder: str | None = None
    multilingual: bool = False
    paraphrase_cosine: float = Field(0.8, gt=0, le=1)
    paraphrase_overlap: float = Field(0.6, gt=0, le=1)
    quotation_words: int = Field(8, ge=3)
    common: int = Field(20, ge=1)
    keep: Literal["corpus", "neighbours"] = "corpus"
    writer: WriterPart = Field(default_factory=WriterPart)

    @model_validator(mode="after")
    def _agree(self) -> ScopePart:
        if self.multilingual and self.encoder is None:
            raise ValueError("multilingual describes the encoder, and none is named")
        if self.keep == "neighbours" and not self.neighbours:
            raise ValueError("keep: neighbours needs neighbours above 0")
        return self


class _Parts(Strict):
    concept: Concept
    scope: ScopePart


@dataclass(frozen=True, kw_only=True)
class ConceptRequest:
    """A request on a language model before its forget set is known.

    Args:
        rest: the fields of a `LanguageRequest` but for ``forget``, as the document gives them.
        checked: the same with the corpus in place of the forget set: everything but the texts is valid.
    """

    concept: Concept
    scope: ScopePart
    rest: Mapping[str, Any]
    checked: LanguageRequest

    @classmethod
    def read(cls, path: str | Path) -> ConceptRequest:
        """Read YAML or JSON; relative paths inside it are meant from its own folder.

        Raises:
            RequestError: missing file, malformed YAML, no concept, or invalid fields.
        """
        return cls.parse(_paths(read_document(path), Path(path).parent), str(path))

    @classmethod
    def parse(cls, value: Any, source: str = "the request") -> ConceptRequest:
        """Validate a parsed document.

        Raises:
            RequestError: names every field that is wrong and the nearest known one.
        """
        if not isinstance(value, Mapping) or "concept" not in value:
            raise RequestError(f"{source} names no concept", f"Give concept and scope, or use `expunge run`; {SEE}")
        if "scope" not in value:
            raise RequestError(f"{source} names a concept and no scope", f"Say scope: {{corpus: PATH}}; {SEE}")
        if "forget" in value:
            raise RequestError(f"{source} gives a concept and a forget set", "Give one of the two")
        rest = {k: v for k, v in value.items() if k not in ("concept", "scope")}
        try:
            parts = _Parts.model_validate({"concept": value["concept"], "scope": value["scope"]})
        except ValidationError as error:
            names = known_fields(Concept, Exemplar, ScopePart, WriterPart, TextPart)
            raise RequestError(
                f"{source} is not a valid request on a concept: {explain(error, names)}", f"Correct those fields; {SEE}"
            ) from error
        checked = LanguageRequest.parse({**rest, "forget": parts.scope.corpus.model_dump()}, source)
        return cls(concept=parts.concept, scope=parts.scope, rest=rest, checked=checked)

    @property
    def id(self) -> str:
        return self.checked.id

    def digest(self) -> str:
        """SHA-256 over what the scope depends on: concept, scope and model, hexadecimal."""
        told = {
            "concept": self.concept.model_dump(mode="json"),
            "scope": self.scope.model_dump(mode="json"),
            "model": self.checked.model.model_dump(mode="json"),
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _paths(value: Any, folder: Path) -> Any:
    """Paths that exist beside the request, made absolute."""
    if not isinstance(value, Mapping):
        return value
    value = dict(from_folder(value, folder))
    part = value.get("scope")
    if not isinstance(part, Mapping):
        return value
    part = dict(part)

    def there(text: Any) -> Any:
        if isinstance(text, str) and not os.path.isabs(text) and (folder / text).exists():
            return str((folder / text).resolve())
        return text

    corpus = part.get("corpus")
    part["corpus"] = {**corpus, "source": there(corpus.get("source"))} if isinstance(corpus, Mapping) else there(corpus)
    part["encoder"] = there(part["encoder"]) if part.get("encoder") not in (None, "model") else part.get("encoder")
    if isinstance(part.get("writer"), Mapping) and "model" in part["writer"]:
        part["writer"] = {**part["writer"], "model": there(part["writer"]["model"])}
    value["scope"] = part
    return value
