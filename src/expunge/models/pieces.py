"""Plain texts that are longer than a model reads, cut into pieces that it can: nothing of a text is left out.

The pieces of a text, joined, are the text. Each begins as a text does; only the last one is followed by the
end-of-text token, so that a model does not learn to stop where it was cut.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from expunge.data.records import Array, Records
from expunge.data.texts import GOES_ON, PIECE_OF, merge_blanks, piece_id
from expunge.models.template import ANSWER, PROMPT, Template, special_ends

WORDS = re.compile(r"\s*\S+(?:\s+\Z)?")


def cut_to_context(records: Records, tokenizer: Any, template: Template, longest: int | None) -> Records:
    """The records, with every plain text of more than `longest` tokens in pieces of at most so many.

    A text with a prompt is left as it is: an answer in pieces would answer nothing, and encoding refuses it.

    Args:
        longest: tokens the model reads at once, special ones included; None: nothing is cut.

    Returns:
        `records` itself where nothing is too long; otherwise records in the same order, pieces with the ids
        ``ID#0000`` …, the id of their text as ``chunk_of`` and ``goes_on`` true for all but the last; a text that was
        not cut keeps its id.
    """
    if longest is None or not len(records):
        return records
    answers = [str(a) for a in records.column(ANSWER)]
    plain = np.flatnonzero(records.column(PROMPT) == "").tolist()
    begin, end = special_ends(tokenizer)
    special = len(begin) * (template.begin and template.kind == "plain") + max(len(end), 1) * template.end
    room = max(longest - special, 1)
    long = [row for row, n in zip(plain, _sizes(tokenizer, [answers[r] for r in plain]), strict=True) if n > room]
    if not long:
        return records
    cut = {row: _lightened(merge_blanks(_pieces(answers[row], tokenizer, room)), tokenizer, room) for row in long}
    before = records.column(GOES_ON) if GOES_ON in records.columns else np.zeros(len(records), bool)
    rows, pieces, ids, names, more = [], [], [], [], []
    for row in range(len(records)):
        parts = cut.get(row, [answers[row]])
        name = str(records.ids[row])
        rows += [row] * len(parts)
        pieces += parts
        ids += [piece_id(name, k) if row in cut else name for k in range(len(parts))]
        names += [name if row in cut else ""] * len(parts)
        more += [True] * (len(parts) - 1) + [bool(before[row])]
    made: dict[str, Array] = {
        **{name: column[rows] for name, column in records.columns.items()},
        ANSWER: np.array(pieces, dtype=object),
        PIECE_OF: np.array(names, dtype=object),
        GOES_ON: np.array(more),
    }
    owners = None if records.owners is None else records.owners[rows]
    return Records(ids=np.array(ids, dtype=str), columns=made, owners=owners)


def told(before: Records, after: Records) -> str | None:
    """What a report says of the texts that were cut; None where none was."""
    if after is before:
        return None
    cut = after.column(PIECE_OF)
    texts, pieces = len(set(cut.tolist()) - {""}), int((cut != "").sum())
    return f"{texts} of {len(before)} texts are longer than the model reads and stand in {pieces} pieces"


def _sizes(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    if not texts:
        return []
    return [len(row) for row in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]


def _pieces(text: str, tokenizer: Any, room: int) -> list[str]:
    """Words up to `room` tokens, counted one by one; where the whole is more than its parts, it is cut again."""
    words = WORDS.findall(text)
    if len(words) < 2:
        middle = len(text) // 2
        return _checked([text[:middle], text[middle:]], tokenizer, room) if middle else [text]
    found: list[str] = []
    filled = room
    for word, size in zip(words, _sizes(tokenizer, words), strict=True):
        if filled + size > room:
            found.append("")
            filled = 0
        found[-1] += word
        filled += size
    if len(found) == 1:  # each word for itself fits, the whole does not
        middle = len(words) // 2
        found = ["".join(words[:middle]), "".join(words[middle:])]
    return _checked(found, tokenizer, room)


def _checked(pieces: list[str], tokenizer: Any, room: int) -> list[str]:
    out = []
    for piece, size in zip(pieces, _sizes(tokenizer, pieces), strict=True):
        out += [piece] if size <= room else _pieces(piece, tokenizer, room)
    return out


def _lightened(pieces: list[str], tokenizer: Any, room: int) -> list[str]:
    """Where white space that joined a piece made it too long, only the piece's last letter keeps it."""
    out = []
    for piece, size in zip(pieces, _sizes(tokenizer, pieces), strict=True):
        last = max(len(piece.rstrip()) - 1, 0)
        out += [piece[:last], piece[last:]] if size > room and piece[:last].strip() else [piece]
    return out
