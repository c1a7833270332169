"""What rules match with: the filters' marks, and near matches where a rule allows edits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from expunge.filters.marks import Marks
from expunge.filters.matcher import Matcher
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

    def asked(self, text: str) -> bool:
        return all(p.holds(text) for p in self.parts)


class Tree:
    """Finds which of many rules a conversation calls up, without trying every one.

    Each node marks the first phrase of all rules below it, so that most conversations end at the root, and one that
    names k of n rules looks at about k log n nodes.

    Args:
        rules: (first phrase, rule). key: of the digests.
    """

    LEAF = 4

    def __init__(self, rules: Sequence[tuple[str, Conjunction]], *, key: bytes) -> None:
        self._marks = matchers_of([phrase for phrase, _ in rules], key=key)
        middle = len(rules) // 2
        leaf = len(rules) <= self.LEAF
        self._below = () if leaf else (Tree(rules[:middle], key=key), Tree(rules[middle:], key=key))
        self._rules = tuple(rule for _, rule in rules) if leaf else ()

    def asked(self, text: str) -> list[Conjunction]:
        """The rules whose question this is, in their order."""
        if not holds(self._marks, text):
            return []
        if not self._below:
            return [rule for rule in self._rules if rule.asked(text)]
        return [rule for tree in self._below for rule in tree.asked(text)]
