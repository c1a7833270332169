"""``expunge scope``: from a concept to a scope to be confirmed, as a folder with a page and a file of decisions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from expunge.environment import environment
from expunge.errors import RunError
from expunge.models.chat import ask as ask_model
from expunge.scope.corpus import Corpus
from expunge.scope.decisions import decisions_yaml
from expunge.scope.document import CorpusFacts, Found, Probe, Scope
from expunge.scope.encoder import Encoder, load_encoder, of_model
from expunge.scope.endpoint import endpoint_of
from expunge.scope.find import search
from expunge.scope.follows import follows
from expunge.scope.neighbours import neighbours
from expunge.scope.page import scope_html
from expunge.scope.questions import probes_of
from expunge.scope.request import ConceptRequest
from expunge.scope.writer import write_probes
from expunge.training.files import write_atomically, write_json

DOCUMENT, PAGE, DECISIONS = "scope.json", "scope.html", "decisions.yaml"
NOTHING_SENT = "nothing left this machine"


class _Models:
    """The local models of a request, each loaded once and only when needed."""

    def __init__(self, request: ConceptRequest) -> None:
        self.request = request

    @cached_property
    def own(self) -> Any:
        return self._load(self.request.checked.model.name, own=True)

    def writer(self) -> Any:
        named = self.request.scope.writer.model
        return self.own if named is None else self._load(named, own=False)

    def encoder(self) -> Encoder | None:
        named = self.request.scope.encoder
        if named is None:
            return None
        device = self.request.checked.model.device
        if named == "model":
            return of_model(self.own, self.request.checked.model.name)
        return load_encoder(named, device=device)

    def _load(self, name: str, *, own: bool) -> Any:
        from expunge.models.language import LanguageModel
        from expunge.models.template import Template

        part = self.request.checked.model
        template = Template(**part.template.model_dump()) if own and part.template is not None else None
        return LanguageModel.load(name, template=template, device=part.device, dtype=part.dtype)


def make_scope(request: ConceptRequest) -> Scope:
    """Everything proposed for a concept. A function of the request, the corpus and the models alone.

    Raises:
        RequestError: nothing is found. DataError, ModelError, RunError: a corpus, model or endpoint that fails.
    """
    corpus, models, part = Corpus.load(request.scope), _Models(request), request.scope
    if len(corpus) == 0:
        raise RunError(f"{part.corpus.source} holds no texts", "Give the texts the model was trained on")
    looked = search(corpus, request.concept, part, models.encoder())
    kept = neighbours(corpus, request.concept, looked.found, part.neighbours)
    consequences, notes = follows(corpus, request.concept, looked.found, part.follows)
    probes = probes_of(corpus, request.concept, looked.found, tuple(kept))
    written, sent, told = _written(request, models, looked.found)
    have = {p.id for p in probes}
    return Scope(
        schema="expunge/scope/1",
        request=request.id,
        request_digest=request.digest(),
        concept=request.concept.model_dump(mode="json"),
        corpus=CorpusFacts(source=part.corpus.source, passages=len(corpus), digest=corpus.digest()),
        looked_for=looked.looked_for,
        sent=sent,
        must_go=looked.found,
        must_stay=tuple(kept),
        follows=tuple(consequences),
        probes=(*probes, *(p for p in written if p.id not in have)),
        notes=(*notes, *told),
        environment=environment(),
    )


def _written(
    request: ConceptRequest, models: _Models, found: tuple[Found, ...]
) -> tuple[list[Probe], str, tuple[str, ...]]:
    """Probes by a model, what was sent, and notes."""
    part = request.scope.writer
    if part.by == "templates":
        return [], NOTHING_SENT, ()
    ask: Callable[[Sequence[str]], Sequence[str]]
    if part.by == "model":
        writer = models.writer()

        def ask(prompts: Sequence[str]) -> Sequence[str]:
            replies: list[str] = writer.generate(prompts, max_new_tokens=part.tokens)
            return replies

        written = write_probes(ask, "model", request.concept, found, part)
        sent = NOTHING_SENT
    else:
        endpoint = endpoint_of(part)

        def ask(prompts: Sequence[str]) -> Sequence[str]:
            return ask_model(endpoint, prompts, max_new_tokens=part.tokens)

        written = write_probes(ask, "endpoint", request.concept, found, part)
        sent = (
            f"{endpoint.asked - 1} passages and the concept's name and description were sent to {endpoint.host} "
            f"({part.name})"
        )
    return written.probes, sent, (f"{written.usable} questions were read from {written.answers} replies",)


def write_scope(request: ConceptRequest, folder: Path, command: str) -> Scope:
    """Propose a scope into `folder`; what is there already of the same request and corpus is not made again.

    Raises:
        RunError: the folder holds another scope, which a reader may have worked on.
    """
    path = folder / DOCUMENT
    if path.exists():
        scope = Scope.read(path)
        same_corpus = scope.corpus.digest == Corpus.load(request.scope).digest()
        if scope.request_digest != request.digest() or not same_corpus:
            changed = "an earlier state of the corpus" if not same_corpus else "another request"
            raise RunError(f"{folder} holds the scope of {changed}", "Choose another --out, or remove that folder")
    else:
        scope = make_scope(request)
        write_json(path, scope.as_dict())
    target = folder / DECISIONS
    if not target.exists():  # it may have been edited
        write_text(target, decisions_yaml(scope))
    write_text(folder / PAGE, scope_html(scope, command))
    return scope


def write_text(path: Path, text: str) -> None:
    """Text, whole or not at all."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
