"""One way of writing for texts that mean to be read alike, and the words they are made of.

Folding goes character by character, so that a find can be told in places of the original text, and a text in pieces
folds as the whole does.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from expunge.filters.lookalikes import CAPITALS, LOOKALIKES

INVISIBLE_RUN = 32  # more invisible characters than this in a row part words, so that a find has an end

_FILLERS = frozenset("\u115f\u1160\u3164\uffa0")  # letters by category that show nothing
_SELECTORS = frozenset(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
# Written without spaces, or with endings glued on: every character is a word.
_OWN = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fff\u3005-\u3007\u3041-\u30ff\u31f0-\u31ff\u3400-\u9fff"
    "\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff]"
)
_PLAIN = re.compile(r"[\t\n\r -~]*")
_ASCII_WORD = re.compile(r"[0-9A-Za-z]+")
_SYMBOLS = {"@": "a", "$": "s", "!": "i", "|": "i", "+": "t"}
_SYMBOL = re.compile(r"[@$!|+](?=[@$!|+]{0,3}[^\W_])")
_SYMBOL_AFTER = re.compile(r"(?<=[^\W_])[@$!|+]{1,4}")
LEET = str.maketrans("0134567892l", "oieasgtbgzi")
_BY_LOOK = str.maketrans("".join(CAPITALS), "".join(CAPITALS.values()))
_LEET_AS = (str.maketrans("013456789", "oieasgtbg"), str.maketrans("013456789", "oleasgtbg"))


class Word(NamedTuple):
    """A run of letters and digits.

    Args:
        letters: folded. start, end: its characters in the original text, invisible ones between them included.
    """

    letters: str
    start: int
    end: int


def normal_form(text: str) -> str:
    """The text as it is compared.

    Compatibility forms (NFKC: full width, ligatures, circled and mathematical letters) and case are folded, accents,
    control and zero-width characters left out, letters that look like Latin ones (`expunge.filters.lookalikes`) and
    digits of other scripts replaced, and white space collapsed. Punctuation stays.
    """
    return " ".join("".join(fold(c) for c, _, _ in _characters(text)).split())


def readings(text: str) -> tuple[str, ...]:
    """What a text may say: its normal form first, then what it may be in disguise, each once and in a normal form.

    Letters with spaces or punctuation between them are joined, and leet, base64, hex, rot13 and reversed letters are
    undone. Most of these readings of an ordinary text are nonsense.
    """
    from expunge.filters.encoded import decoded

    first = normal_form(text)
    found = [first]
    found += [normal_form(text.translate(_BY_LOOK))]
    found += [re.sub(r"(?<![^\W_])[^\W_](?:[\W_]{1,3}[^\W_](?![^\W_])){2,}", _joined, first)]
    found += [normal_form(form).translate(table) for form in undisguised(text) for table in _LEET_AS]
    found += [normal_form(part.text) for part in decoded(text)]
    found += [codecs.encode(first, "rot13"), first[::-1]]
    return tuple(dict.fromkeys(r for r in found if r or r is first))


def words(text: str, *, capitals: bool = False) -> list[Word]:
    """The words of a text, folded, with their places.

    Scripts that put no spaces between words have a word a character.

    Args:
        capitals: read Greek capitals by their look.
    """
    if _PLAIN.fullmatch(text):
        return [Word(m[0].lower(), m.start(), m.end()) for m in _ASCII_WORD.finditer(text)]
    found: list[Word] = []
    letters, first, last, unseen = "", 0, 0, 0
    for character, start, end in _characters(text):
        folded = CAPITALS.get(character, "") if capitals else ""
        folded = folded or fold(character)
        if not folded:
            unseen += 1
            continue
        if letters and unseen > INVISIBLE_RUN:
            found.append(Word(letters, first, last))
            letters = ""
        unseen = 0
        for one in folded:
            own = _OWN.match(one) is not None
            if letters and (own or not _is_letter(one)):
                found.append(Word(letters, first, last))
                letters = ""
            if own:
                found.append(Word(one, start, end))
            elif _is_letter(one):
                first = first if letters else start
                letters, last = letters + one, end
    if letters:
        found.append(Word(letters, first, last))
    return found


def undisguised(text: str) -> tuple[str, ...]:
    """The text with symbols that may stand for letters replaced, character for character; digits stay.

    Symbols before a letter first; where there are others, symbols after a letter too: an exclamation mark at the end of
    a word may be one, or a letter.
    """
    before = _SYMBOL.sub(lambda m: _SYMBOLS[m[0]], text)
    after = _SYMBOL_AFTER.sub(lambda m: "".join(map(_SYMBOLS.__getitem__, m[0])), before)
    return (before,) if after == before else (before, after)


@lru_cache(maxsize=65536)
def fold(character: str) -> str:
    """What one character is compared as: nothing, or one or more characters.

    A lone surrogate is nothing; two that belong together are one character.
    """
    if character in LOOKALIKES:
        return LOOKALIKES[character]
    whole = unicodedata.normalize("NFKC", character).casefold()
    out = []
    for one in whole if _OWN.fullmatch(whole) else unicodedata.normalize("NFKD", whole):
        if _unseen(one):
            continue
        digit = unicodedata.digit(one, None)
        out.append(LOOKALIKES.get(one, one) if digit is None else str(digit))
    return "".join(out)


def _unseen(one: str) -> bool:
    kind = unicodedata.category(one)
    if kind == "Cc":
        return not one.isspace()
    if kind in ("Cf", "Cs", "Me") or one in _FILLERS or one in _SELECTORS:
        return True
    # Accents and points go; vowel signs of Indian scripts (class 0), their nukta (7) and virama (9) are letters.
    return kind == "Mn" and unicodedata.combining(one) > 9


def _is_letter(one: str) -> bool:
    return one.isalnum() or unicodedata.category(one) in ("Mn", "Mc")


def _characters(text: str) -> Iterator[tuple[str, int, int]]:
    """Characters with their places; two surrogates that belong together are one."""
    at = 0
    while at < len(text):
        end = at + 1
        character = text[at]
        if "\ud800" <= character <= "\udbff" and "\udc00" <= text[end : end + 1] <= "\udfff":
            end += 1
            character = text[at:end].encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        yield character, at, end
        at = end


def _joined(match: re.Match[str]) -> str:
    return re.sub(r"[\W_]+", "", match[0])
