"""Whom or what a question is about, for attackers who talk about it."""

from __future__ import annotations

import re

from expunge.data.records import Records

SUBJECT = "subject"
_NAME = re.compile(r"\b[^\W\d_a-z]\w*(?: [^\W\d_a-z]\w*)*")


def named_subjects(items: Records) -> list[str]:
    """The column ``subject``; empty texts where the questions have none."""
    if SUBJECT not in items.columns:
        return [""] * len(items)
    return [str(s) for s in items.column(SUBJECT)]


def subjects(items: Records) -> list[str]:
    """The column ``subject``, else the longest run of capitalised words in the question, else the question itself."""
    rows = zip(named_subjects(items), items.column("prompt"), strict=True)
    return [given or _guessed(str(question)) for given, question in rows]


def _guessed(question: str) -> str:
    # The first word of a sentence is capitalised whatever it is.
    names = [m.group() for m in _NAME.finditer(question) if m.start() > 0]
    return max(names, key=len) if names else question
