"""Texts for language models: rows of prompt and answer, or plain texts, with ids and owners.

Two columns of strings: ``prompt`` and ``answer``. A plain text has the prompt ``""`` and is all answer.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from expunge.data.records import Array, Records
from expunge.data.text_rows import Rows, read_rows, text_of
from expunge.errors import DataError, RequestError

PROMPTS = ("prompt", "question", "input", "instruction", "query")
ANSWERS = ("answer", "response", "output", "completion")
TEXTS = ("text", "content")
PIECE_OF = "chunk_of"  # id of the text that a piece is of
GOES_ON = "goes_on"  # true: the next record goes on where this one stops, so that its end is no end
_USUAL = {"prompt": PROMPTS, "answer": ANSWERS, "text": TEXTS, "id": ("id", "ids"), "owner": ("owner", "owners")}


def load_texts(
    source: str | os.PathLike[str],
    *,
    prompt: str | None = None,
    answer: str | None = None,
    text: str | None = None,
    id: str | None = None,
    owner: str | None = None,
    split: str | None = None,
    config: str | None = None,
) -> Records:
    """Load texts as records with the columns ``prompt`` and ``answer`` (object arrays of strings).

    Args:
        source: a ``.jsonl`` file (also with JSON lines or a JSON list under ``.json``), a ``.parquet`` or ``.txt``
            file, a folder of ``.txt`` files (a record a file, its id the path inside the folder), of JSON files (a
            split a file) or of Parquet files, a folder that ``datasets`` saved, or ``hub:owner/name``.
        prompt, answer: columns of a prompt and its answer; by default the one with a usual name (question, input, …;
            response, output, completion). text: column of plain texts, instead of those two; by default ``text``.
        id: column of ids, strings or whole numbers; by default ``id`` where there is one, otherwise the id is a hash of
            prompt and answer, and texts that occur several times are numbered.
        owner: column of owners; by default ``owner`` where there is one.
        split, config: of a folder or hub data set that has several.

    Raises:
        DataError: the source is missing, empty or damaged (with the line), a column is missing, ambiguous or holds
            anything but text, an answer is empty, an id occurs twice. RequestError: options that contradict.
    """
    rows = read_rows(source, split=split, config=config)
    if rows.is_text and any(name is not None for name in (prompt, answer, text, id, owner)):
        raise RequestError(f"{rows.where} holds .txt files, which have no columns", "Leave the columns out")
    columns = _columns(rows, {"prompt": prompt, "answer": answer, "text": text, "id": id, "owner": owner})
    return make_texts(rows, columns)


def make_texts(rows: Rows, columns: Mapping[str, str | None], *, prefix: str = "text") -> Records:
    """Records of `rows`, where `columns` says which column is the prompt, answer, text, id and owner (or none)."""
    body, front = columns.get("text") or columns.get("answer"), columns.get("prompt")
    if body is None:
        raise RequestError("neither a text nor an answer column is named", "Name one")
    answers = [text_of(row, body, place, rows.where) for row, place in zip(rows.rows, rows.places, strict=True)]
    for place, words in zip(rows.places, answers, strict=True):
        if not words.strip():
            raise DataError(f"column {body!r} of {rows.where} is empty at {place}", "Fill it, or remove that row")
    prompts = [""] * len(answers)
    if front is not None:
        prompts = [text_of(row, front, place, rows.where) for row, place in zip(rows.rows, rows.places, strict=True)]
    named = columns.get("id")
    ids = content_ids(prompts, answers, prefix=prefix) if named is None else _ids(rows, named)
    by = columns.get("owner")
    return text_records(
        ids, prompts, answers, owners=None if by is None else [_key(rows, k, by) for k in range(len(rows.rows))]
    )


def text_records(
    ids: Sequence[str],
    prompts: Sequence[str],
    answers: Sequence[str],
    *,
    owners: Sequence[str] | None = None,
    **columns: Sequence[str],
) -> Records:
    """Records with object columns ``prompt``, ``answer`` and any further ones."""
    return Records(
        ids=np.array(list(ids), dtype=str),
        columns={
            name: np.array(list(values), dtype=object)
            for name, values in {"prompt": prompts, "answer": answers, **columns}.items()
        },
        owners=None if owners is None else np.array(list(owners), dtype=str),
    )


def content_ids(prompts: Sequence[str], answers: Sequence[str], *, prefix: str = "text") -> list[str]:
    """``text-`` and a hash of prompt and answer; the second of two equal records gets ``-2``, and so on.

    An id does not depend on the other records unless they are equal to it.
    """
    seen: Counter[str] = Counter()
    ids = []
    for prompt, answer in zip(prompts, answers, strict=True):
        digest = hashlib.sha256(f"{len(prompt)}:{prompt}{answer}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
        seen[digest] += 1
        ids.append(f"{prefix}-{digest}" + (f"-{seen[digest]}" if seen[digest] > 1 else ""))
    return ids


def chunk_texts(records: Records, *, words: int | None = None, characters: int | None = None) -> Records:
    """Cut plain texts into pieces that, joined, are the text again.

    Args:
        records: with the prompt ``""`` throughout. words: most words in a piece. characters: most characters; a piece
            of nothing but white space goes to the piece before. Give exactly one of the two.

    Returns:
        Records with ids ``ID#0000`` …, the owners and other columns of the text, its id as ``chunk_of``, and
        ``goes_on``, true for all but the last piece of a text.

    Raises:
        RequestError: both or neither, or below 1. DataError: a record with a prompt.
    """
    size = words if words is not None else characters
    if (words is None) == (characters is None) or size is None or size < 1:
        raise RequestError(
            f"chunks are of so many words or of so many characters, got words={words}, characters={characters}",
            "Give one of the two, at least 1",
        )
    asked = np.flatnonzero(records.column("prompt") != "")
    if len(asked):
        raise DataError(
            f"the record {str(records.ids[asked[0]])!r} has a prompt, and an answer in pieces would answer nothing",
            "Chunk plain texts only",
        )
    rows, pieces, ids, more = [], [], [], []
    for row, text in enumerate(records.column("answer").tolist()):
        units = re.findall(r"\s*\S+(?:\s+\Z)?", text) if words is not None else list(text)
        found = ["".join(units[k : k + size]) for k in range(0, len(units), size)]
        parts = merge_blanks(found)
        rows += [row] * len(parts)
        pieces += parts
        ids += [piece_id(str(records.ids[row]), number) for number in range(len(parts))]
        more += [True] * (len(parts) - 1) + [False] * bool(parts)
    made: dict[str, Array] = {
        **{name: column[rows] for name, column in records.columns.items()},
        "answer": np.array(pieces, dtype=object),
        PIECE_OF: np.array(records.ids[rows].tolist(), dtype=object),
        GOES_ON: np.array(more, dtype=bool),
    }
    owners = None if records.owners is None else records.owners[rows]
    return Records(ids=np.array(ids, dtype=str), columns=made, owners=owners)


def piece_id(text: str, number: int) -> str:
    """Id of a piece of a text."""
    return f"{text}#{number:04d}"


def merge_blanks(pieces: list[str]) -> list[str]:
    """The pieces, those of nothing but white space joined to the one before, or to the first."""
    kept: list[str] = []
    held = ""
    for piece in pieces:
        if piece.strip():
            kept.append(held + piece)
            held = ""
        elif kept:
            kept[-1] += piece
        else:
            held += piece
    return kept


def _columns(rows: Rows, named: Mapping[str, str | None]) -> dict[str, str | None]:
    """Which column is what: those named, and usual names for the rest."""
    if named["text"] is not None and (named["prompt"] is not None or named["answer"] is not None):
        raise RequestError("text names a column of plain texts, prompt and answer one of each", "Name one or the other")
    there = rows.columns
    for role, name in named.items():
        if name is not None and name not in there:
            near = difflib.get_close_matches(name, there, n=1)
            raise DataError(
                f"{rows.where} has no column {name!r} for {role}; it has {', '.join(map(repr, there))}",
                f"Did you mean {near[0]}" if near else "Name one of those",
            )
    found = {role: name if name is not None else _usual(role, there, rows.where) for role, name in named.items()}
    if named["text"] is not None:
        return {**found, "prompt": None, "answer": None}
    if named["prompt"] is None and named["answer"] is None:
        if found["text"] is not None and (found["prompt"] is not None or found["answer"] is not None):
            raise _ambiguous(rows.where, [str(n) for n in (found["prompt"], found["answer"], found["text"]) if n])
        if found["text"] is not None:
            return found
    for role in ("prompt", "answer"):
        if found[role] is None:
            raise DataError(
                f"{rows.where} has no column that is called like a {role} ({', '.join(_USUAL[role])}); it has "
                f"{', '.join(map(repr, there))}",
                f"Name it with {role}=COLUMN, or plain texts with text=COLUMN",
            )
    return {**found, "text": None}


def _usual(role: str, there: Sequence[str], where: str) -> str | None:
    matches = [name for name in there if name.lower() in _USUAL[role]]
    if len(matches) > 1:
        raise _ambiguous(where, matches, role)
    return matches[0] if matches else None


def _ambiguous(where: str, names: Sequence[str], role: str = "text") -> DataError:
    kind = f"the {role}" if role != "text" else "the text, or prompt and answer"
    return DataError(
        f"{where} has the columns {', '.join(map(repr, names))}, and which one is {kind} is not clear",
        "Name them: prompt=COLUMN and answer=COLUMN, or text=COLUMN" if role in ("prompt", "answer", "text")
        else f"Name it with {role}=COLUMN",
    )  # fmt: skip


def _ids(rows: Rows, column: str) -> list[str]:
    ids = [_key(rows, k, column) for k in range(len(rows.rows))]
    first: dict[str, str] = {}
    for name, place in zip(ids, rows.places, strict=True):
        if name in first:
            raise DataError(
                f"the id {name!r} occurs twice in {rows.where} ({first[name]} and {place})",
                "Give every record an id of its own; texts of one person share an owner, not an id",
            )
        first[name] = place
    return ids


def _key(rows: Rows, row: int, column: str) -> str:
    value: Any = rows.rows[row].get(column)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and value:
        return value
    raise DataError(
        f"column {column!r} of {rows.where} holds {value!r} at {rows.places[row]}; ids and owners are strings or whole "
        "numbers",
        "Fill it in every row, or name another column",
    )
