"""Phrases with a few letters wrong: added, left out, exchanged. They are compared, so they must be readable: in memory.

Digests cannot be compared for nearness, and a digest that could be would tell what it stands for. So there is no way to
write this matcher down: it is made from the operator's own request each time, and shows no phrase when printed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np
from rapidfuzz.distance import OSA
from rapidfuzz.process import cdist

from expunge.errors import RequestError
from expunge.filters.marks import last_letters
from expunge.filters.matcher import CONTEXT, Span
from expunge.filters.normal import Word, words

LEAST_NEAR = 6  # letters: of anything shorter, a letter more or less is another word


class NearMarks:
    """Finds phrases whose letters differ by a few edits, whatever stands between them.

    An edit is a letter added, left out, replaced, or exchanged with its neighbour (optimal string alignment). A run of
    words is found where it lies within the edits allowed, and neither its first nor its last word can be left out
    without coming further from the phrase. Phrases of fewer than six letters must be met exactly.

    Args:
        phrases: as anybody writes them. share: edits allowed for each letter of a phrase, rounded down, but at least
            one; in (0, 0.5). edits: allowed in any phrase, instead of a share; at most half of its letters are.

    Raises:
        RequestError: no phrases, one of fewer than two letters or digits, a share outside of (0, 0.5), no edits.
    """

    def __init__(self, phrases: Iterable[str], *, share: float = 0.12, edits: int | None = None) -> None:
        if not 0 < share < 0.5:
            raise RequestError(f"near matches may differ in a share of {share:g} of their letters", "Give 0 to 0.5")
        if edits is not None and edits < 1:
            raise RequestError(f"near matches with {edits} edits", "Give 1 or more; `Marks` finds exact ones")
        found: dict[str, None] = {}
        for number, phrase in enumerate(phrases):
            letters = "".join(w.letters for w in words(phrase))
            if len(letters) < 2:
                raise RequestError(
                    f"phrase {number} has fewer than two letters or digits", "Leave it out: it is everywhere"
                )
            found[letters] = None
        if not found:
            raise RequestError("there are no phrases to look for", "Give at least one")
        self._phrases = list(found)
        allowed = [max(int(share * len(p)), 1) if edits is None else min(edits, len(p) // 2) for p in found]
        self._edits = np.array([n if len(p) >= LEAST_NEAR else 0 for p, n in zip(found, allowed, strict=True)])

    def __repr__(self) -> str:
        return f"NearMarks({len(self)} phrases)"

    def __len__(self) -> int:
        return len(self._phrases)

    def __reduce__(self) -> str:
        raise TypeError("near marks hold readable phrases and are never written down")

    def digest(self) -> str:
        """SHA-256 of phrases and edits, hexadecimal; guesses can be tested against it, so it goes into others only."""
        told = "\0".join(f"{p} {e}" for p, e in zip(self._phrases, self._edits.tolist(), strict=True))
        return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()

    @cached_property
    def _most(self) -> int:
        return max(len(p) + int(e) for p, e in zip(self._phrases, self._edits, strict=True))

    @cached_property
    def _sizes(self) -> frozenset[int]:
        pairs = zip(self._phrases, self._edits, strict=True)
        return frozenset(n for p, e in pairs for n in range(len(p) - int(e), len(p) + int(e) + 1))

    @property
    def longest(self) -> int:
        """Most characters a find has: six for each letter, and 64 more."""
        return 6 * self._most + 64

    def find(self, text: str) -> tuple[Span, ...]:
        """Where phrases nearly stand in the text: characters of the text as given; they may overlap."""
        runs = list(self._candidates(words(text)))
        if not runs:
            return ()
        whole = self._distances(["".join(w.letters for w in run) for run in runs])
        # Only runs that are near to anything are compared without their first and last words.
        near = np.flatnonzero((whole <= self._edits).any(axis=1))
        kept = []
        for k in near.tolist():
            run = runs[k]
            good = whole[k] <= self._edits
            if len(run) > 1:
                parts = ["".join(w.letters for w in part) for part in (run[1:], run[:-1])]
                good &= (self._distances(parts) > whole[k]).all(axis=0)
            if good.any():
                kept.append(Span(run[0].start, run[-1].end))
        return tuple(sorted(set(kept)))

    def holds(self, text: str) -> bool:
        """Whether any phrase nearly stands in the text."""
        return bool(self.find(text))

    def open_from(self, text: str) -> int:
        """See `expunge.filters.matcher.Matcher`."""
        at = len(text)
        while at and "\ud800" <= text[at - 1] <= "\udbff":
            at -= 1
        at = min(at, last_letters(words(text), self._most, len(text)))
        return max(at, len(text) - self.longest - CONTEXT // 2, 0)

    def _distances(self, runs: list[str]) -> np.ndarray:
        """(runs, phrases) edits; those that are too many for any phrase are only told to be too many."""
        return np.asarray(
            cdist(runs, self._phrases, scorer=OSA.distance, score_cutoff=int(self._edits.max()) + 1, workers=1)
        )

    def _candidates(self, found: list[Word]) -> Iterator[list[Word]]:
        for k, first in enumerate(found):
            size = 0
            for end in range(k, len(found)):
                size += len(found[end].letters)
                if size > self._most or found[end].end - first.start > self.longest:
                    break
                if size in self._sizes:
                    yield found[k : end + 1]
