"""The boxed model made from a forget set: a router, workers and an output filter around any model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from expunge.boxed.box import Box
from expunge.boxed.config import BoxSettings
from expunge.boxed.local import LocalUpstream
from expunge.boxed.remote import RemoteUpstream
from expunge.boxed.requests import Requests, Rule, SuppressionRequest
from expunge.boxed.rulebook import FixedRules
from expunge.boxed.upstream import Upstream
from expunge.errors import DataError, ModelError, RequestError
from expunge.methods.forbidden import forgotten_runs, names_of
from expunge.methods.prompt_base import PromptMethod
from expunge.methods.text_refusals import REFUSALS
from expunge.models.chat import ChatModel
from expunge.models.endpoint import Endpoint
from expunge.models.language import LanguageModel
from expunge.problem import Problem

LEAST_LETTERS = 4


@dataclass(frozen=True, kw_only=True)
class Boxed(PromptMethod):
    """Everything between question and answer at once; what `expunge serve-model` serves.

    A router looks whether the conversation names a forgotten person or holds words that only forgotten texts hold: then
    a worker that knows nothing answers. Else the model answers, and an output filter takes out forgotten names and runs
    of forgotten answers, whatever was asked. No weight changes, and no prompt holds anything of the forget set.

    Args:
        words: in a run of a forgotten text that gives it away; shorter texts count whole. near: also find a name with a
            letter in eight wrong. replies: what the worker that knows nothing says.

    Raises:
        DataError: the forget set holds nothing that a filter could look for. ModelError: neither a language model nor
            an endpoint.
    """

    name: ClassVar[str] = "boxed"
    summary: ClassVar[str] = "router, workers and output filter around the model; only question and answer are seen"
    paper: ClassVar[str] = "arXiv:2403.03329"

    words: int = 5
    near: bool = True
    replies: tuple[str, ...] = REFUSALS

    def __post_init__(self) -> None:
        object.__setattr__(self, "replies", tuple(self.replies))
        if self.words < 1:
            raise RequestError(f"runs of {self.words} words", "Give at least 1")
        if not self.replies or not all(r.strip() for r in self.replies):
            raise RequestError("replies holds no answer, or an empty one", "Name at least one way to say nothing")

    def suppress(self, model: ChatModel, problem: Problem, seed: int) -> ChatModel:
        key = hashlib.sha256(f"expunge {self.name} {seed}".encode()).digest()
        settings = BoxSettings.parse(_outline(self.replies), folder=Path("."))
        return Box(settings, {"model": _upstream(model)}, FixedRules(self._requests(problem), key=key))

    def _requests(self, problem: Problem) -> Requests:
        names = [n for n in names_of(problem) if _letters(n) >= LEAST_LETTERS]
        asked = forgotten_runs(problem, ("prompt",), self.words, LEAST_LETTERS)
        told = forgotten_runs(problem, ("answer",), self.words, LEAST_LETTERS)
        rules = [Rule(question=(n,)) for n in names] + [Rule(question=(run,)) for run in asked]
        rules += [Rule(answer=(n,), near=self.near) for n in names] + [Rule(answer=(run,)) for run in told]
        if not rules:
            raise DataError(
                "the forget set holds nothing that the retain set does not say too", "Mark more: fewer words in a run"
            )
        digest = hashlib.sha256(problem.forget.digest().encode()).hexdigest()
        return Requests(requests=(SuppressionRequest(id="forget-set", rules=tuple(rules)),), digest=digest)


def _outline(replies: Sequence[str]) -> Mapping[str, Any]:
    return {
        "name": "boxed",
        "requests": "none",
        "models": {"model": "given"},
        "router": {"kind": "rule", "marked": ["ignorant"], "otherwise": ["knowing"]},
        "workers": {
            "knowing": {"kind": "model", "model": "model"},
            "ignorant": {"kind": "rule", "replies": list(replies)},
        },
        "output_filter": [{"kind": "rule", "on_find": "refuse", "replies": list(replies)}],
    }


def _letters(text: str) -> int:
    return sum(c.isalnum() for c in text)


def _upstream(model: ChatModel) -> Upstream:
    if isinstance(model, LanguageModel):
        return LocalUpstream(model)
    if isinstance(model, Endpoint):
        return RemoteUpstream(model)
    raise ModelError(f"a box cannot stand around {type(model).__name__}", "Give a language model or an endpoint")
