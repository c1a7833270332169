"""What may be said of one row: that it holds, that it fails and at which attack, or that nothing may be claimed.

A claim is made for an access that attackers have. It fails when an attack within that access recovers more than
retrained models would give, or when the model is less useful than a retrained one; it is withheld when an attack within
that access could not be made, or when none told the original from retrained models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from expunge.evaluation.attacks.access import ACCESSES, Access

Word = Literal["holds", "fails", "withheld"]
# A tenth of what the original holds, beyond retraining; and points of accuracy lost on what is kept.
TOLERATED_RECOVERY = 0.1
TOLERATED_LOSS = 0.1
USEFUL = ("retain", "neighbour", "foundational")


def judge(row: Mapping[str, Any], floor: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The verdict for each access, the weaker ones included in the stronger.

    Args:
        row: ``attacks``: name -> what `recovery_curve` gives. ``measurements``: probe -> share of right answers.
        floor: the measurements of retrained models.

    Returns:
        access -> ``{word, because}``; `because` names the rows that fail, or why nothing is said.
    """
    useless = _useless(row["measurements"], floor)
    known = _answers(row["measurements"], floor)
    found = {}
    for access in ACCESSES:
        within = [n for n in row["attacks"] if within_access(n, access)]
        found[access] = _verdict([(n, row["attacks"][n]) for n in within], [*useless, *known])
    return found


def within_access(attack: str, access: Access) -> bool:
    """Who holds the weights reads probabilities and asks; who holds the pair has all of it."""
    from expunge.evaluation.attacks.language import LANGUAGE_ATTACKS

    return ACCESSES.index(LANGUAGE_ATTACKS[attack].access) <= ACCESSES.index(access)


def _verdict(attacks: Sequence[tuple[str, Mapping[str, Any]]], failing: Sequence[str]) -> dict[str, Any]:
    broken, missing, told = list(failing), [], 0
    for name, curve in attacks:
        if curve["status"] != "ok":
            missing.append(f"{name}: {curve['reason']}")
            continue
        recovery = curve["headline"]["recovery"]
        if recovery["status"] != "scored":
            continue
        told += 1
        if recovery["low"] > TOLERATED_RECOVERY:
            broken.append(
                f"{name}: recovers {recovery['value']:.0%} [{recovery['low']:.0%}, {recovery['high']:.0%}] of what "
                "the original holds beyond retrained models"
            )
    if broken:
        return {"word": "fails", "because": broken}
    if missing:
        return {"word": "withheld", "because": missing}
    if not told:
        return {"word": "withheld", "because": ["no attack here tells the original from retrained models"]}
    return {"word": "holds", "because": [f"none of {told} attacks recovers more than {TOLERATED_RECOVERY:.0%}"]}


def _useless(mine: Mapping[str, Any], floor: Mapping[str, Any]) -> list[str]:
    found = []
    for probe in USEFUL:
        own, base = mine.get(probe), floor.get(probe)
        if own is None or base is None or "scored" not in (own["status"], base["status"]):
            continue
        if own["high"] < base["value"] - TOLERATED_LOSS:
            found.append(f"utility: answers {own['value']:.0%} of {probe}, retrained models {base['value']:.0%}")
    return found


def _answers(mine: Mapping[str, Any], floor: Mapping[str, Any]) -> list[str]:
    """Asked outright, it still answers."""
    own, base = mine.get("forget"), floor.get("forget")
    if own is None or base is None or own["low"] <= base["value"] + TOLERATED_RECOVERY:
        return []
    return [f"forget: answers {own['value']:.0%} of forgotten questions, retrained models {base['value']:.0%}"]
