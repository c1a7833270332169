"""One answer out of several workers': by a rule, by a classifier, or by asking a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from expunge.boxed.parts import Ask, Composer, Steps, Texts, Turn, no_steps
from expunge.boxed.worker import DONT_KNOW, RuleWorker
from expunge.filters.normal import words
from expunge.models.chat import system, user


class RuleComposer(Composer):
    """Passes a single answer on; of several it takes one, or puts them together.

    Args:
        take: ``first``; ``joined``: all of them, a paragraph each, repetitions once; ``agreed``: the first, where every
            other shares at least `share` of its words with it, and a reply that tells nothing where one does not: what
            only one instance says is what the others pretend not to know.
    """

    kind: Literal["rule"] = "rule"
    take: Literal["first", "joined", "agreed"] = "first"
    share: float = Field(0.5, gt=0, le=1)
    replies: Texts = DONT_KNOW

    def compose(self, turn: Turn, answers: Sequence[str]) -> Steps[str]:
        if self.take == "joined":
            return no_steps("\n\n".join(dict.fromkeys(answers)))
        if self.take == "agreed" and any(overlap(answers[0], other) < self.share for other in answers[1:]):
            text = RuleWorker(replies=self.replies).answer(turn)
            assert isinstance(text, str)
            return no_steps(text)
        return no_steps(answers[0])


class ClassifierComposer(Composer):
    """Takes the answer that looks least like the requests' examples of answers.

    Args:
        ordinary: file of answers that may be given.
    """

    learns: ClassVar[str | None] = "answer"

    kind: Literal["classifier"] = "classifier"
    ordinary: str

    def compose(self, turn: Turn, answers: Sequence[str]) -> Steps[str]:
        judge = turn.rules.classifier("answer")
        return no_steps(min(answers, key=judge.score))


class ModelComposer(Composer):
    """Lets a model write one answer out of several; what must not be told is taken out of them before it reads them.

    Args:
        instruction: what it is told; the question and the answers, numbered, follow as one message.
    """

    model_fields_named: ClassVar[tuple[str, ...]] = ("model",)

    kind: Literal["model"] = "model"
    model: str
    instruction: Annotated[str, Field(min_length=1, max_length=20_000)] = (
        "Several assistants answered a question. Write one answer from what they agree on, and nothing else."
    )

    def compose(self, turn: Turn, answers: Sequence[str]) -> Steps[str]:
        numbered = "\n".join(f"Answer {k}: {turn.rules.without_answers(a)}" for k, a in enumerate(answers, 1))
        told = turn.rules.without_answers(self.instruction)
        said = yield Ask(
            model=self.model,
            conversation=(system(told), user(f"Question: {turn.question}\n{numbered}")),
            sampling=turn.sampling,
        )
        return said

    def instructions(self) -> tuple[str, ...]:
        return (self.instruction,)


def overlap(first: str, second: str) -> float:
    """Share of the different words of the shorter text that the other holds too; two empty texts agree."""
    one, other = ({w.letters for w in words(t)} for t in (first, second))
    least = min(len(one), len(other))
    return len(one & other) / least if least else float(one == other)


COMPOSERS: dict[str, type[Composer]] = {"rule": RuleComposer, "classifier": ClassifierComposer, "model": ModelComposer}
