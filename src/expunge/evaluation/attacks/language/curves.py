"""From trials to a document: recovery at every cost, normalised between retrained models and the original.

R(cost) = (found in the unlearned model - found in retrained ones) / (found in the original - found in retrained ones)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from expunge.errors import DataError
from expunge.evaluation.attacks.language.contract import Trial
from expunge.evaluation.metrics.language.recovery import attack_recovery
from expunge.result import Measurement, Unscored


class Quoted(Protocol):
    """Of an attack, on language models or on classifiers: which point of its curve is quoted."""

    headline: ClassVar[Literal["last", "best"]]


def recovery_curve(
    attack: Quoted, trials: Sequence[Trial], references: Sequence[Trial], original: Trial | None, *, seed: int = 0
) -> dict[str, Any]:
    """One attack on one row of a table.

    Args:
        trials: of the unlearned model, one a seed; items are pooled. references: the same attack on retrained models,
            none where there are none. original: on the original.

    Returns:
        JSON-able: ``curve``, a list of ``{cost, found, retrained, original, recovery}``, and ``headline``, the recovery
        that is quoted (`Attack.headline`), scored or unscored.

    Raises:
        DataError: the trials are of other items or costs.
    """
    _same(trials, references, original)
    curve = []
    for place, point in enumerate(trials[0].points):
        found = np.mean([t.points[place].found for t in trials], axis=0)
        base = np.array([t.points[place].found for t in references])
        full = None if original is None else original.points[place].found
        curve.append(
            {
                "cost": point.cost,
                "found": float(found.mean()),
                "found_by_seed": [float(t.points[place].found.mean()) for t in trials],
                "retrained": [float(b.mean()) for b in base],
                "original": None if full is None else float(full.mean()),
                "recovery": _recovery(found, base, full, seed).as_dict(),
            }
        )
    return {"status": "ok", "unit": trials[0].unit, "curve": curve, "headline": _headline(attack, curve)}


def withheld(reason: str) -> dict[str, Any]:
    """Of an attack whose access nobody has, or whose scene is not there."""
    return {"status": "withheld", "reason": reason, "curve": [], "headline": None}


def _recovery(found: Any, base: Any, full: Any, seed: int) -> Measurement | Unscored:
    if not len(base) or full is None:
        return Unscored(name="attack_recovery", reason="it needs a retrained model and the original, attacked alike")
    return attack_recovery(found, base, full, seed=seed)


def _headline(attack: Quoted, curve: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The quoted point: the last one, or the one that finds most beyond retrained models."""
    if attack.headline == "last":
        return curve[-1]

    def gain(point: dict[str, Any]) -> float:
        return float(point["found"] - (np.mean(point["retrained"]) if point["retrained"] else 0.0))

    return max(curve, key=gain)


def _same(trials: Sequence[Trial], references: Sequence[Trial], original: Trial | None) -> None:
    everyone = [*trials, *references, *([] if original is None else [original])]
    if not trials:
        raise DataError("there are no trials of the unlearned model", "Attack it under one seed at least")
    shapes = {(t.items, tuple(p.cost for p in t.points)) for t in everyone}
    if len(shapes) > 1:
        raise DataError("the models were not attacked alike: items or costs differ", "Use one scene and one seed")
