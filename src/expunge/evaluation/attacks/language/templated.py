"""Attacks that put a question into other words, one prompt a wording: how their settings are checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from expunge.data.records import Records
from expunge.errors import RequestError, UnknownName
from expunge.evaluation.attacks.language.asking import worded
from expunge.models.chat import Conversation


def check_names(kind: str, names: Sequence[str], known: Mapping[str, object]) -> None:
    """Raise unless these are some of the known names, each once.

    Raises:
        RequestError: none, or one twice. UnknownName.
    """
    if isinstance(names, str) or not names or len(set(names)) < len(names):
        raise RequestError(f"{kind}s are {names!r}", "Give a list of one at least, each once")
    for name in names:
        if name not in known:
            raise UnknownName(kind, name, known)


def waves_of(items: Records, templates: Mapping[str, str], names: Sequence[str]) -> dict[str, list[Conversation]]:
    """Every question in every one of these wordings."""
    return {name: worded(items, templates[name]) for name in names}
