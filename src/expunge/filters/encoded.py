"""Texts inside texts: what runs of base64 and of hexadecimal digits spell, with the places they stand at."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import NamedTuple

# A shorter run holds no phrase that is looked for in disguise: eight characters of base64 are six bytes.
LEAST_LETTERS = 6
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{8,}")
_HEX = re.compile(r"[0-9A-Fa-f]+(?:[xXuU\\%,:;\s-]{1,4}[0-9A-Fa-f]+)*")
_DIGITS = re.compile(r"[0-9A-Fa-f]+")
_BASE64_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_-")
_HEX_CHARACTERS = frozenset("0123456789ABCDEFabcdefxXuU\\%,:;- \t\n\r\v\f")


class Decoded(NamedTuple):
    """What a run spells.

    Args:
        text: bytes that are no UTF-8 are lone surrogates. starts, ends: per character of it, its place in the original.
    """

    text: str
    starts: list[int]
    ends: list[int]


def decoded(text: str) -> Iterator[Decoded]:
    """What runs in the text spell: in base64 (standard or for addresses, with any letters before) and in hex digits,
    alone or as ``\\x4a``, ``0x4a``, ``%4a``, ``4a:6f``."""
    for run in _BASE64.finditer(text):
        for shift in range(4):
            yield from _base64(run[0][shift:], run.start() + shift)
    for run in _HEX.finditer(text):
        if run.end() - run.start() >= 2 * LEAST_LETTERS:
            for odd in (0, 1):
                yield from _hex(run[0], run.start(), odd)


def open_run(text: str, longest: int) -> int:
    """Where a run that reaches to the end of the text begins, at most `longest` characters back."""
    least = max(len(text) - longest, 0)
    places = []
    for characters in (_BASE64_CHARACTERS, _HEX_CHARACTERS):
        at = len(text)
        while at > least and text[at - 1] in characters:
            at -= 1
        places.append(at)
    return min(places)


def _base64(run: str, start: int) -> Iterator[Decoded]:
    run = run[: len(run) - (len(run) % 4 == 1)]
    found = base64.urlsafe_b64decode(run.replace("+", "-").replace("/", "_") + "=" * (-len(run) % 4))
    # Byte k of each three spans the characters k and k + 1 of its four.
    places = [start + 4 * (k // 3) + k % 3 for k in range(len(found))]
    yield from _text(found, places, [p + 2 for p in places])


def _hex(run: str, start: int, odd: int) -> Iterator[Decoded]:
    """Pairs are counted from the end of each group, so that what stands before a text changes nothing in it."""
    found, starts, ends = bytearray(), [], []
    for group in _DIGITS.finditer(run):
        for at in range(group.start() + (len(group[0]) - odd) % 2, group.end() - odd - 1, 2):
            found.append(int(run[at : at + 2], 16))
            starts.append(start + at)
            ends.append(start + at + 2)
    yield from _text(bytes(found), starts, ends)


def _text(found: bytes, starts: list[int], ends: list[int]) -> Iterator[Decoded]:
    if sum(byte >= 128 or chr(byte).isalnum() for byte in found) < LEAST_LETTERS:
        return
    text = found.decode("utf-8", "surrogateescape")
    if len(text) == len(found):
        yield Decoded(text, starts, ends)
        return
    first, last, at = [], [], 0
    for character in text:
        size = len(character.encode("utf-8", "surrogateescape"))
        first.append(starts[at])
        last.append(ends[at + size - 1])
        at += size
    yield Decoded(text, first, last)
