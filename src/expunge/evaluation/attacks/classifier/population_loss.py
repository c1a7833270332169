"""One threshold on the loss, for a single model: forgotten records against records that nobody trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.evaluation.attacks.classifier.contract import ClassifierAttack, ClassifierScene, ClassifierTarget, margins
from expunge.evaluation.attacks.language.contract import Access, Trial
from expunge.evaluation.metrics.roc import placements


@dataclass(frozen=True, kw_only=True)
class PopulationLoss(ClassifierAttack):
    """Found is the share of unseen records that the model answers worse; the mean over records is the AUC.

    Paper: Yeom et al. 2018 (1709.01604), as a whole ROC curve. Over many models: `population_loss` of the report.
    """

    name: ClassVar[str] = "population_loss"
    summary: ClassVar[str] = "tells forgotten records from unseen ones by one threshold on the loss"
    paper: ClassVar[str] = "arXiv:1709.01604"
    access: ClassVar[Access] = "logits"
    unit: ClassVar[str] = "models asked a record"
    needs: ClassVar[tuple[str, ...]] = ("holdout",)

    def attempt(self, target: ClassifierTarget, scene: ClassifierScene, seed: int) -> Trial:
        found = placements(margins(target.model, scene.forget), margins(target.model, scene.holdout))[0]
        return self.trial(scene.forget, [(1, found)], holdout=len(scene.holdout))
