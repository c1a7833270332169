"""Attacks on language models: explicit table, name -> class. Adding one touches its file, a line here, test and page."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from expunge.errors import RequestError, UnknownName
from expunge.evaluation.attacks.language.contract import Attack
from expunge.evaluation.attacks.language.paraphrase import Paraphrase

LANGUAGE_ATTACKS: dict[str, type[Attack]] = {
    Paraphrase.name: Paraphrase,
}
# Attacks of others, from the entry-point group `expunge.attacks`, under the same contract.
LANGUAGE_ATTACKS |= {
    point.name: point.load() for point in entry_points(group="expunge.attacks") if point.name not in LANGUAGE_ATTACKS
}


def make_attack(name: str, settings: Mapping[str, Any] | None = None) -> Attack:
    """An attack with some settings.

    Raises:
        UnknownName: no such attack. RequestError: a setting it does not have, or out of range.
    """
    if name not in LANGUAGE_ATTACKS:
        raise UnknownName("attack on language models", name, LANGUAGE_ATTACKS)
    try:
        return LANGUAGE_ATTACKS[name](**(settings or {}))
    except TypeError as error:
        raise RequestError(f"{name} does not take these settings ({error})", "Correct them") from error
