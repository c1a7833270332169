"""What rules match with: the filters' marks, and near matches where a rule allows edits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from expunge.filters.marks import Marks
from expunge.filters.matcher import CONTEXT, Matcher, Span, merged
from expunge.filters.near import NearMarks

Matchers = tuple[Matcher, ...]


def matchers_of(phrases: Sequence[str], *, key: bytes, near: Sequence[str] = ()) -> Matchers:
    """What finds phrases, and phrases with a few letters wrong; none for no phrases.

    Those for near matches stay readable, in memory only; see `expunge.filters.near`.
    """
    exact: Matchers = (Marks.of([*phrases, *near], key=key),) if phrases or near else ()
    return (*exact, NearMarks(near)) if near else exact


def holds(matchers: Matchers, text: str) -> bool:
    return any(m.holds(text) for m in matchers)


@dataclass(frozen=True, kw_only=True, repr=False)
class Conjunction:
    """A rule with a question: phrases that it must hold all of, and what is then not said: nothing where the question
    is not to be answered at all."""

    parts: Matchers
    answers: Matchers

    def asked(self, texts: Sequence[str]) -> bool:
        return all(any(p.holds(t) for t in texts) for p in self.parts)


class Questions:
    """Finds which of many rules a conversation calls up, without trying every one on all of it.

    A first look with the phrases of all rules leaves what stands around their finds; that alone is looked at again.

    Args:
        rules: (phrases of the question, rule). key: of the digests.
    """

    def __init__(self, rules: Sequence[tuple[Sequence[str], Conjunction]], *, key: bytes) -> None:
        self._all = matchers_of([phrase for phrases, _ in rules for phrase in phrases], key=key)
        self._tree = _Tree([(phrases[0], rule) for phrases, rule in rules], key=key)

    def asked(self, text: str) -> list[Conjunction]:
        """The rules whose question this is, in their order."""
        found = [span for m in self._all for span in m.find(text)]
        return self._tree.asked(_around(found, text)) if found else []


def _around(found: Sequence[Span], text: str) -> list[str]:
    """The finds with as much before each as a find may depend on."""
    wide = merged(tuple(Span(max(0, s.start - CONTEXT), s.end) for s in found))
    return list(dict.fromkeys(text[s.start : s.end] for s in wide))


class _Tree:
    """Each node marks the first phrase of all rules below it: a text that calls up k of n rules is looked at by about
    k log n nodes."""

    LEAF = 4

    def __init__(self, rules: Sequence[tuple[str, Conjunction]], *, key: bytes) -> None:
        self._marks = matchers_of([phrase for phrase, _ in rules], key=key)
        middle = len(rules) // 2
        leaf = len(rules) <= self.LEAF
        self._below = () if leaf else (_Tree(rules[:middle], key=key), _Tree(rules[middle:], key=key))
        self._rules = tuple(rule for _, rule in rules) if leaf else ()

    def asked(self, texts: Sequence[str]) -> list[Conjunction]:
        if not any(holds(self._marks, t) for t in texts):
            return []
        if not self._below:
            return [rule for rule in self._rules if rule.asked(texts)]
        return [rule for tree in self._below for rule in tree.asked(texts)]
