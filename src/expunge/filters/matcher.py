"""What every matcher of phrases offers, so that a filter of streams can rest on any of them."""

from __future__ import annotations

from typing import NamedTuple, Protocol

# How far a find may depend on what stands before its beginning: invisible characters before a word, whole encoded
# letters. A stream keeps this many characters that it has released already.
CONTEXT = 128


class Span(NamedTuple):
    """Characters ``text[start:end]``."""

    start: int
    end: int


class Matcher(Protocol):
    """Finds phrases in texts.

    A find is local: whether ``text[start:end]`` is one depends on at most `CONTEXT` characters before it, and no find
    is longer than `longest`.
    """

    @property
    def longest(self) -> int:
        """Most characters a find has, and so about the most that a stream holds back."""
        ...

    def find(self, text: str) -> tuple[Span, ...]:
        """Finds in the text as given, by their beginning; they may overlap."""
        ...

    def holds(self, text: str) -> bool:
        """Whether there is any."""
        ...

    def open_from(self, text: str) -> int:
        """The first character at which a find may begin that is not settled yet, were the text to go on."""
        ...


def merged(spans: tuple[Span, ...]) -> tuple[Span, ...]:
    """The same characters in spans that do not overlap; spans that only touch stay two."""
    out: list[Span] = []
    for span in sorted(spans):
        if out and span.start < out[-1].end:
            out[-1] = Span(out[-1].start, max(out[-1].end, span.end))
        else:
            out.append(span)
    return tuple(out)
