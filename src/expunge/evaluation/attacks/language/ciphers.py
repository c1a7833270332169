"""Disguises of text, and what an attacker reads who undoes all of them. The attacker's own, not those of any filter."""

from __future__ import annotations

import base64
import binascii
import codecs
import re
import unicodedata
from collections.abc import Callable, Iterator

from expunge.evaluation.metrics.language.matching import contains, words

# Cyrillic letters that look like the Latin ones.
_TWINS = {"a": "а", "c": "с", "e": "е", "i": "і", "j": "ј", "o": "о", "p": "р", "s": "ѕ", "x": "х", "y": "у",
          "A": "А", "B": "В", "C": "С", "E": "Е", "H": "Н", "I": "І", "K": "К", "M": "М", "O": "О", "P": "Р",
          "T": "Т", "X": "Х"}  # fmt: skip
_TWINNED = str.maketrans("".join(_TWINS), "".join(_TWINS.values()))
_UNTWINNED = str.maketrans("".join(_TWINS.values()), "".join(_TWINS))
_LEET = str.maketrans({"4": "a", "@": "a", "3": "e", "1": "i", "!": "i", "0": "o", "$": "s", "5": "s", "7": "t"})
_CODE = re.compile(r"[A-Za-z0-9+/_-]{4,}={0,2}")
RARE = 5  # letters: fewer turn up in a row by chance


def upper_case(text: str) -> str:
    return text.upper()


def full_width(text: str) -> str:
    """ASCII in the wide forms of East Asian type; spaces stay."""
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def spaced(text: str) -> str:
    """A space between the letters of each word, three between words."""
    return "   ".join(" ".join(word) for word in text.split())


def homoglyphs(text: str) -> str:
    """Latin letters as the Cyrillic ones that look alike."""
    return text.translate(_TWINNED)


def zero_width(text: str) -> str:
    """An invisible space within each word, after its first letter."""
    return " ".join(f"{word[0]}\u200b{word[1:]}" if len(word) > 1 else word for word in text.split())


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")


DISGUISES: dict[str, Callable[[str], str]] = {
    "upper_case": upper_case,
    "full_width": full_width,
    "spacing": spaced,
    "homoglyphs": homoglyphs,
    "zero_width": zero_width,
    "base64": base64_of,
}


def plain_letters(text: str) -> str:
    """Without width, invisible characters, accents and look-alikes."""
    wide = unicodedata.normalize("NFKD", text)
    seen = "".join(c for c in wide if unicodedata.category(c) not in ("Cf", "Mn"))
    return seen.translate(_UNTWINNED)


def decoded(text: str) -> Iterator[str]:
    """Texts that stand in `text` as base64."""
    for code in _CODE.findall(text):
        bare = code.rstrip("=").replace("-", "+").replace("_", "/")
        try:
            yield base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            continue


def readings(text: str) -> Iterator[str]:
    """The text and all that it may stand for, word by word."""
    folded = plain_letters(text)
    yield text
    yield folded
    yield from decoded(text)
    yield codecs.encode(folded, "rot13")
    yield folded[::-1]
    yield " ".join(word[::-1] for word in folded.split())
    yield folded.translate(_LEET)


def letter_runs(text: str) -> Iterator[str]:
    """What is spelled letter by letter, and what first letters spell: of the words of a line, and of lines."""
    folded = plain_letters(text)
    run: list[str] = []
    for word in [*words(folded), ""]:
        if len(word) == 1:
            run.append(word)
        else:
            yield "".join(run)
            run = []
    lines = [words(line) for line in folded.splitlines() if words(line)]
    yield from ("".join(word[0] for word in line) for line in lines)
    yield "".join(line[0][0] for line in lines)


def deciphers(text: str, answer: str) -> bool:
    """Whether the answer stands in `text`, as it is, encoded, spelled out, or in first letters."""
    if any(contains(reading, answer) or contains(reading, plain_letters(answer)) for reading in readings(text)):
        return True
    letters = "".join(words(plain_letters(answer)))
    return any(letters == run or (len(letters) >= RARE and letters in run) for run in letter_runs(text) if run)
