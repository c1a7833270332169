"""What an attack on a classifier is: as on language models, a curve of the attacker's cost against what is found.

The same attack with the same scene and seed is run on the unlearned model, on retrained ones and on the original.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from expunge.data.records import Records
from expunge.errors import MissingEvidence, NoAccess
from expunge.evaluation.attacks.language.contract import Access, Point, Trial
from expunge.evaluation.metrics.checks import Floats
from expunge.evaluation.metrics.scores import logit_margin
from expunge.models.classifier import Classifier
from expunge.training.seeds import permutation

__all__ = ["ClassifierAttack", "ClassifierScene", "ClassifierTarget", "halves", "margins"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassifierScene:
    """What the attacker knows.

    Args:
        forget: the records that were forgotten; he asks whether they, or what they taught, are still there.
        holdout: records of the same kind that no model was trained on: his own. retain: what was kept, for attackers
            who have some of it; may be empty.
        shadows: models of his own that never saw the forgotten records. holders: models that hold them. Neither is
            ever attacked; either may be empty.
    """

    forget: Records
    holdout: Records
    retain: Records
    shadows: Sequence[Classifier] = ()
    holders: Sequence[Classifier] = ()

    def need(self, attack: str, *parts: str) -> None:
        """Raise `MissingEvidence` where a part holds nothing."""
        for part in parts:
            if not len(getattr(self, part)):
                raise MissingEvidence(f"{attack} needs {part}, and there are none here", "Give them, or leave it out")


@dataclass(frozen=True, kw_only=True)
class ClassifierTarget:
    """A classifier under attack. before: the original, for whom both are within reach."""

    model: Classifier
    before: Classifier | None = None


class ClassifierAttack(ABC):
    """An attack: a frozen keyword-only dataclass of its settings that writes `attempt`.

    Class attributes: see `expunge.evaluation.attacks.language.contract.Attack`. unscored: why there is no recovery,
        where a retrained model is no floor because the attack lives on what exact forgetting changes; else empty.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str]
    access: ClassVar[Access]
    unit: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    headline: ClassVar[Literal["last", "best"]] = "last"
    unscored: ClassVar[str] = ""

    @abstractmethod
    def attempt(self, target: ClassifierTarget, scene: ClassifierScene, seed: int) -> Trial:
        """Attack; a function of target, scene, settings and seed. The target's model is never written to."""

    def run(self, target: ClassifierTarget, scene: ClassifierScene, *, seed: int) -> Trial:
        """The curve.

        Raises:
            MissingEvidence: the scene lacks a part that the attack needs. NoAccess: the target does not give it.
        """
        scene.need(self.name, "forget", *self.needs)
        if self.access == "pair" and target.before is None:
            raise NoAccess(f"{self.name} compares with the model before, which is not here", "Keep it to measure this")
        return self.attempt(target, scene, seed)

    def settings(self) -> dict[str, Any]:
        return asdict(self) if is_dataclass(self) else {}

    def trial(self, items: Records, points: Sequence[tuple[float, Any]], **shown: Any) -> Trial:
        """A trial of this attack from (cost, found) pairs."""
        return Trial(
            items=tuple(items.ids.tolist()),
            points=tuple(Point(cost=float(c), found=np.asarray(f, dtype=np.float64)) for c, f in points),
            unit=self.unit,
            shown=shown,
        )


def margins(model: Classifier, records: Records) -> Floats:
    """``(records,)`` φ = log p_y - log Σ_{j≠y} p_j, nats."""
    return logit_margin(model.logits(records), records.y)


def halves(records: Records, share: float, seed: int) -> tuple[Records, Records]:
    """(some, the others): a random `share` of the records, at least one and not all, the same for every model."""
    count = min(max(1, round(share * len(records))), len(records) - 1)
    order = permutation(len(records), seed, "halves")
    return records.take(np.sort(order[:count])), records.take(np.sort(order[count:]))
