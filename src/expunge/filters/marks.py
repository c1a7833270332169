"""Phrases that must not be said, as keyed digests: they can be found in a text and not be read from the marks."""

from __future__ import annotations

import codecs
import hmac
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from expunge.errors import RequestError, TamperedEvidence
from expunge.filters.encoded import LEAST_LETTERS, decoded, open_run
from expunge.filters.lookalikes import CAPITALS
from expunge.filters.matcher import CONTEXT, Span
from expunge.filters.normal import LEET, Word, undisguised, words

VERSION = 1  # of normal form and digests: marks of another version would silently find nothing
LEAST_KEY = 16  # bytes


@dataclass(frozen=True, kw_only=True)
class Marks:
    """HMAC-SHA256 digests of phrases in their normal form; make them with `Marks.of`.

    A phrase is found as its words in a row, whatever stands between them that is no letter or digit. A phrase of six
    letters or more is found in disguise too: with spaces or punctuation between its letters or none between its words,
    in leet, base64, hex, rot13, with the letters of each word or of the whole reversed.

    Without the key nobody can test a guess against the digests; with it anybody can, so keep it apart from them. What
    the marks tell without it: how many they are, and how many letters they have.

    Args:
        digests: of phrases and of their disguises. lengths: how many letters the phrases have. count: of phrases.
        key: at least 16 bytes; never in `as_dict`.
    """

    digests: frozenset[bytes] = field(repr=False)
    lengths: frozenset[int] = field(repr=False)
    count: int
    key: bytes = field(repr=False)

    @classmethod
    def of(cls, phrases: Iterable[str], *, key: bytes, words: int | None = None) -> Marks:
        """Marks of phrases.

        Args:
            phrases: as anybody writes them. key: secret, at least 16 bytes.
            words: mark every run of so many words of a phrase instead of the whole; shorter phrases stay whole.

        Raises:
            RequestError: a short key, fewer than one word, no phrases, or one of fewer than two letters or digits.
        """
        _check_key(key)
        if words is not None and words < 1:
            raise RequestError(f"phrases in runs of {words} words", "Give 1 or more, or None for whole phrases")
        marked: dict[tuple[str, ...], str] = {}
        for number, phrase in enumerate(phrases):
            marked |= _runs_of(phrase, words, number)
        if not marked:
            raise RequestError("there are no phrases to mark", "Give at least one")
        digests = frozenset(_digest(key, kind, form) for run, raw in marked.items() for kind, form in _forms(run, raw))
        return cls(digests=digests, lengths=frozenset(sum(map(len, r)) for r in marked), count=len(marked), key=key)

    def __len__(self) -> int:
        return self.count

    @property
    def longest(self) -> int:
        """Most characters a find has: six for each letter of the longest phrase (``0x4a, ``), and 64 more."""
        return 6 * max(self.lengths) + 64

    def find(self, text: str) -> tuple[Span, ...]:
        """Where phrases stand in the text, in any reading: characters of the text as given; they may overlap."""
        return tuple(sorted(set(self._finds(text))))

    def holds(self, text: str) -> bool:
        """Whether any phrase stands in the text."""
        return next(self._finds(text), None) is not None

    def open_from(self, text: str) -> int:
        """See `expunge.filters.matcher.Matcher`."""
        most, at = max(self.lengths), len(text)
        while at and (text[at - 1] in "@$!|+" or "\ud800" <= text[at - 1] <= "\udbff"):
            at -= 1
        for form in (text, *undisguised(text)):
            at = min(at, last_letters(words(form), most, len(text)))
        at = min(at, open_run(text, self.longest + CONTEXT // 2))
        return max(at, len(text) - self.longest - CONTEXT // 2, 0)

    def as_dict(self) -> dict[str, Any]:
        """As JSON values: digests, never a phrase, never the key."""
        return {
            "version": VERSION,
            "key": _digest(self.key, "key", "").hex(),
            "count": self.count,
            "lengths": sorted(self.lengths),
            "digests": sorted(d.hex() for d in self.digests),
        }

    @classmethod
    def from_dict(cls, told: Mapping[str, Any], *, key: bytes) -> Marks:
        """The inverse of `as_dict`, for whoever has the key.

        Raises:
            TamperedEvidence: made with another key, by another version, or damaged.
        """
        _check_key(key)
        remedy = "Mark the phrases again with the key that is in use"
        try:
            version, check = told["version"], str(told["key"])
            digests = frozenset(bytes.fromhex(d) for d in told["digests"])
            lengths = frozenset(int(n) for n in told["lengths"])
            count = int(told["count"])
        except (KeyError, TypeError, ValueError) as error:
            raise TamperedEvidence("these are no marks, or damaged ones", remedy) from error
        if version != VERSION:
            raise TamperedEvidence(f"the marks are of version {version!r}, this is {VERSION}", remedy)
        if not hmac.compare_digest(check, _digest(key, "key", "").hex()):
            raise TamperedEvidence("the marks were made with another key and would find nothing", remedy)
        if not digests or not lengths or min(lengths) < 1 or count < 1 or {len(d) for d in digests} != {32}:
            raise TamperedEvidence("these are no marks, or damaged ones", remedy)
        return cls(digests=digests, lengths=lengths, count=count, key=key)

    # --- finding ---------------------------------------------------------------------------------------------------

    def _finds(self, text: str) -> Iterator[Span]:
        yield from self._within(text)
        if max(self.lengths) >= LEAST_LETTERS:
            for part in decoded(text):
                for start, end in self._within(part.text, LEAST_LETTERS):
                    span = Span(part.starts[start], part.ends[end - 1])
                    if span.end - span.start <= self.longest:
                        yield span

    def _within(self, text: str, least: int = 1) -> Iterator[Span]:
        yield from self._runs(words(text), least)
        if not CAPITALS.keys().isdisjoint(text):
            yield from self._runs(words(text, capitals=True), least)
        for form in undisguised(text):
            for first, run in self._candidates(words(form), LEAST_LETTERS):
                start, end = first.start, run[-1].end
                if _disguised(text[start:end]) and self._has("leet", "".join(w.letters for w in run).translate(LEET)):
                    yield Span(start, end)

    def _runs(self, found: list[Word], least: int) -> Iterator[Span]:
        for first, run in self._candidates(found, least):
            letters = "".join(w.letters for w in run)
            if len(letters) >= LEAST_LETTERS:
                hit = self._has("loose", letters)
            else:
                spelled = len(run) > 2 and all(len(w.letters) == 1 for w in run)
                hit = self._has("plain", " ".join(w.letters for w in run)) or (spelled and self._has("plain", letters))
            if hit:
                yield Span(first.start, run[-1].end)

    def _candidates(self, found: list[Word], least: int) -> Iterator[tuple[Word, list[Word]]]:
        """Runs of words with as many letters as a phrase has."""
        most, longest = max(self.lengths), self.longest
        for k, first in enumerate(found):
            size = 0
            for end in range(k, len(found)):
                size += len(found[end].letters)
                if size > most or found[end].end - first.start > longest:
                    break
                if size >= least and size in self.lengths:
                    yield first, found[k : end + 1]

    def _has(self, kind: str, form: str) -> bool:
        return _digest(self.key, kind, form) in self.digests


def _runs_of(phrase: str, size: int | None, number: int) -> dict[tuple[str, ...], str]:
    """Runs of words, folded, each with its characters in the phrase."""
    found = words(phrase)
    if sum(len(w.letters) for w in found) < 2:
        raise RequestError(f"phrase {number} has fewer than two letters or digits", "Leave it out: it is everywhere")
    size = len(found) if size is None else min(size, len(found))
    runs = [found[k : k + size] for k in range(len(found) - size + 1)]
    told = {tuple(w.letters for w in run): phrase[run[0].start : run[-1].end] for run in runs}
    return {run: raw for run, raw in told.items() if sum(map(len, run)) > 1}


def _forms(run: tuple[str, ...], raw: str) -> Iterator[tuple[str, str]]:
    """What is looked up for a phrase: itself, and from six letters on its disguises that need no key to undo."""
    letters = "".join(run)
    if len(letters) < LEAST_LETTERS:
        yield "plain", " ".join(run)
        return
    yield "loose", letters
    yield "loose", letters[::-1]
    yield "loose", "".join(word[::-1] for word in run)
    yield "loose", "".join(_letters(word)[::-1] for word in raw.split())  # Al-Kuwaiti as one word
    yield "loose", codecs.encode(letters, "rot13")
    yield "loose", _letters(codecs.encode(raw, "rot13"))  # which leaves é as it is
    yield "leet", letters.translate(LEET)


def _letters(text: str) -> str:
    return "".join(w.letters for w in words(text))


def _disguised(raw: str) -> bool:
    """Letters, with a digit or a symbol that stands for one among them."""
    return any(c in "@$!|+0123456789" for c in raw) and any(c.isalpha() for c in raw)


def last_letters(found: list[Word], most: int, end: int) -> int:
    """Beginning of the earliest word from which on there are at most so many letters."""
    total = 0
    for word in reversed(found):
        total += len(word.letters)
        if total > most:
            break
        end = word.start
    return end


def _digest(key: bytes, kind: str, form: str) -> bytes:
    return hmac.digest(key, f"{VERSION}\0{kind}\0{form}".encode("utf-8", "surrogatepass"), "sha256")


def _check_key(key: bytes) -> None:
    if not isinstance(key, bytes) or len(key) < LEAST_KEY:
        raise RequestError(f"a key for marks needs {LEAST_KEY} bytes or more", "Use secrets.token_bytes(32)")
