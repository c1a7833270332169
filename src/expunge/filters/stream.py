"""A filter over text that arrives in pieces: it releases what can no longer become part of a marked phrase."""

from __future__ import annotations

from collections.abc import Sequence

from expunge.errors import RequestError
from expunge.filters.matcher import CONTEXT, Matcher, Span, merged

WITHHELD = "[withheld]"


class StreamFilter:
    """Replaces every find of its matchers, holding back no more than they need.

    However a text is cut, what is released in the end is what `filter_text` makes of the whole, and what has been
    released at any time is a beginning of that.

    Args:
        matchers: one, or several that are all applied. replacement: what stands in place of a find, or of finds that
            overlap.
    """

    def __init__(self, matchers: Matcher | Sequence[Matcher], replacement: str = WITHHELD) -> None:
        self._matchers = tuple(matchers) if isinstance(matchers, Sequence) else (matchers,)
        if not self._matchers:
            raise RequestError("a filter without matchers lets everything through", "Give it one")
        self._replacement = replacement
        self._text = ""  # a few released characters, then all that is held back
        self._decided = 0  # how far it is released or replaced
        self._gone = 0  # end of the last find that was replaced
        self._done = False
        self.blocked = False

    @property
    def longest(self) -> int:
        """About the most characters that are held back."""
        return max(m.longest for m in self._matchers) + CONTEXT

    @property
    def held(self) -> int:
        """Characters held back now."""
        return len(self._text) - self._decided

    def push(self, text: str) -> str:
        """Take the next piece, and tell what may be released now.

        Raises:
            RequestError: the stream has been finished.
        """
        if self._done:
            raise RequestError("the stream has been finished", "Begin a new filter for a new text")
        self._text += text
        return self._release(min(m.open_from(self._text) for m in self._matchers))

    def finish(self) -> str:
        """The rest."""
        self._done = True
        return self._release(len(self._text))

    def _release(self, until: int) -> str:
        until = max(until, self._decided)
        if until == self._decided:
            return ""
        out = []
        for span in self._finds(until):
            if span.start >= self._gone:
                out += [self._text[max(self._decided, self._gone) : span.start], self._replacement]
                self.blocked = True
            self._gone = max(self._gone, span.end)
        out.append(self._text[max(self._decided, self._gone) : until])
        cut = max(until - CONTEXT, 0)
        self._text = self._text[cut:]
        self._decided, self._gone = until - cut, max(self._gone - cut, 0)
        return "".join(out)

    def _finds(self, until: int) -> list[Span]:
        spans = {s for m in self._matchers for s in m.find(self._text)}
        return sorted(s for s in spans if self._decided <= s.start < until)


def filter_text(matchers: Matcher | Sequence[Matcher], text: str, replacement: str = WITHHELD) -> str:
    """The whole text with every find replaced, those that overlap by one replacement."""
    several = tuple(matchers) if isinstance(matchers, Sequence) else (matchers,)
    out, at = [], 0
    for span in merged(tuple(s for m in several for s in m.find(text))):
        out += [text[at : span.start], replacement]
        at = span.end
    return "".join([*out, text[at:]])
