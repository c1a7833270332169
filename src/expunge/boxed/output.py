"""The last look at an answer: by the requests' rules, by a classifier, or by asking a model."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from expunge.boxed.parts import Ask, OutputFilter, Sieve, Steps, Texts, Turn, no_steps
from expunge.boxed.worker import DONT_KNOW, RuleWorker
from expunge.filters.stream import StreamFilter
from expunge.models.chat import system, user


class Open:
    """Lets everything through."""

    blocked = False

    def push(self, text: str) -> str:
        return text

    def finish(self) -> str:
        return ""


def _reply(turn: Turn, replies: tuple[str, ...]) -> str:
    text = RuleWorker(replies=replies).answer(turn)
    assert isinstance(text, str)
    return text


class RuleFilter(OutputFilter):
    """Finds what the requests' rules forbid, in any disguise that `expunge.filters` undoes.

    Args:
        on_find: ``replace`` puts `replacement` in its place, and the answer streams; ``refuse`` gives one of `replies`
            instead of the whole answer, which therefore is complete before any of it is sent.
        reads: which messages may call up rules with a question: the ``conversation``, or only the ``last``.
    """

    kind: Literal["rule"] = "rule"
    on_find: Literal["replace", "refuse"] = "replace"
    replacement: Annotated[str, Field(max_length=200)] = "[withheld]"
    replies: Texts = DONT_KNOW
    reads: Literal["conversation", "last"] = "conversation"

    def whole(self, turn: Turn, answer: str) -> Steps[str]:
        sieve = self._sieve(turn)
        kept = sieve.push(answer) + sieve.finish()
        return no_steps(_reply(turn, self.replies) if sieve.blocked and self.on_find == "refuse" else kept)

    def sieve(self, turn: Turn) -> Sieve | None:
        return self._sieve(turn) if self.on_find == "replace" else None

    def _sieve(self, turn: Turn) -> Sieve:
        found = (turn.called_last if self.reads == "last" else turn.called).forbidden
        return StreamFilter(found, self.replacement) if found else Open()


class ClassifierFilter(OutputFilter):
    """Gives a reply instead of an answer that a small classifier, fitted on the requests' examples, takes for one.

    Args:
        ordinary: file of answers that may be given.
    """

    learns: ClassVar[str | None] = "answer"

    kind: Literal["classifier"] = "classifier"
    ordinary: str
    threshold: float = Field(0.5, gt=0, lt=1)
    replies: Texts = DONT_KNOW

    def whole(self, turn: Turn, answer: str) -> Steps[str]:
        blocked = turn.rules.classifier("answer").score(answer) >= self.threshold
        return no_steps(_reply(turn, self.replies) if blocked else answer)


class ModelFilter(OutputFilter):
    """Gives a reply instead of an answer that a model objects to.

    Args:
        instruction: what the model is told, in general words; question and answer follow as one message.
        objects: the word by which it objects.
    """

    model_fields_named: ClassVar[tuple[str, ...]] = ("model",)

    kind: Literal["model"] = "model"
    model: str
    instruction: Annotated[str, Field(min_length=1, max_length=20_000)]
    objects: str = "no"
    replies: Texts = DONT_KNOW
    max_new_tokens: int = Field(8, ge=1, le=256)

    def whole(self, turn: Turn, answer: str) -> Steps[str]:
        said = yield Ask(
            model=self.model,
            conversation=(
                system(turn.rules.without_answers(self.instruction)),
                user(f"Question: {turn.question}\nAnswer: {turn.rules.without_answers(answer)}"),
            ),
            sampling=turn.sampling.greedy(self.max_new_tokens),
        )
        blocked = self.objects.lower() in re.findall(r"\w+", said.lower())
        return _reply(turn, self.replies) if blocked else answer

    def instructions(self) -> tuple[str, ...]:
        return (self.instruction,)


FILTERS: dict[str, type[OutputFilter]] = {"rule": RuleFilter, "classifier": ClassifierFilter, "model": ModelFilter}
