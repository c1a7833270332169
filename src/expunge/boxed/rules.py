"""The requests in force at one moment, made ready for matching: digests under a key, not readable phrases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from expunge.boxed.classifier import Classifier, Lesson, fit_classifier
from expunge.boxed.matching import Conjunction, Matchers, Questions, holds, matchers_of
from expunge.boxed.requests import Requests, Rule, SuppressionRequest
from expunge.errors import RequestError
from expunge.filters.stream import filter_text


@dataclass(frozen=True, kw_only=True, repr=False)
class Called:
    """Args:
    asked: whether some request wants the question left unanswered. forbidden: what finds all that an answer must not
        hold; empty where that is nothing.
    """

    asked: bool
    forbidden: Matchers


@dataclass(frozen=True, kw_only=True, repr=False)
class Rules:
    """Immutable: an answer in progress keeps the rules that it began with.

    Args:
        ids: of the requests in force. until: when they become fewer by expiry; None when they do not.
        digest: of the files that they come from.
    """

    ids: tuple[str, ...]
    until: datetime | None
    digest: str
    _answers: Matchers
    _questions: Questions
    _all_answers: Matchers
    _classifiers: Mapping[str, Classifier]

    def called(self, text: str) -> Called:
        """What a question (or a whole conversation) calls up."""
        rules = self._questions.asked(text)
        return Called(
            asked=any(not rule.answers for rule in rules),
            forbidden=(*self._answers, *(m for rule in rules for m in rule.answers)),
        )

    def told_in(self, text: str) -> bool:
        """Whether a text holds any answer that some request names, whatever was asked."""
        return holds(self._all_answers, text)

    def without_answers(self, text: str, replacement: str = "…") -> str:
        """The text with every answer that some request names taken out."""
        return filter_text(self._all_answers, text, replacement) if self._all_answers else text

    def classifier(self, column: str) -> Classifier:
        """What was learnt from the examples of the requests in force, on ``question`` or ``answer``.

        Raises:
            RequestError: no part of this box learns from them.
        """
        if column not in self._classifiers:
            raise RequestError(f"no part of this box learns from examples of {column}s", "Declare a classifier")
        return self._classifiers[column]


def make_rules(requests: Requests, now: datetime, *, key: bytes, lessons: Mapping[str, Lesson] | None = None) -> Rules:
    """The rules in force at `now`.

    Args:
        key: of the digests, at least 16 bytes. lessons: column -> ordinary texts, for the parts that learn.

    Raises:
        RequestError: a part learns, and there are too few ordinary texts.
    """
    active = requests.active(now)
    questions: list[tuple[Sequence[str], Conjunction]] = []
    rules = [rule for request in active for rule in request.rules]
    for rule in (r for r in rules if r.question):
        parts = tuple(m for q in rule.question for m in matchers_of([q], key=key))
        questions.append((rule.question, Conjunction(parts=parts, answers=_answers([rule], key))))
    return Rules(
        ids=tuple(r.id for r in active),
        until=requests.next_expiry(now),
        digest=requests.digest,
        _answers=_answers([r for r in rules if not r.question], key),
        _questions=Questions(questions, key=key),
        _all_answers=_answers(rules, key),
        _classifiers={c: fit_classifier(_examples(active, c), lesson) for c, lesson in (lessons or {}).items()},
    )


def _answers(rules: Sequence[Rule], key: bytes) -> Matchers:
    exact, near = ([a for r in rules if r.near is how for a in r.answer] for how in (False, True))
    return matchers_of(exact, key=key, near=near)


def _examples(active: Sequence[SuppressionRequest], column: str) -> list[str]:
    return [text for request in active for e in request.examples if (text := getattr(e, column))]
