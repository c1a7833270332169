"""Tell forgotten texts from unseen ones by how well the model predicts them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.data.records import Records
from expunge.evaluation.attacks.language.membership import MembershipAttack, read
from expunge.evaluation.metrics.checks import Floats
from expunge.evaluation.metrics.language.membership import loss_scores
from expunge.models.language import LanguageModel


@dataclass(frozen=True, kw_only=True)
class LossMembership(MembershipAttack):
    """Score: minus the mean NLL over the tokens, ℓ = -(1/T) Σ log p(x_t | x_<t).

    Paper: Yeom et al. 2018, Privacy risk in machine learning (1709.01604), as a whole ROC curve and not one threshold.
    """

    name: ClassVar[str] = "loss_membership"
    summary: ClassVar[str] = "tells forgotten texts from unseen ones by their loss"
    paper: ClassVar[str] = "arXiv:1709.01604"

    def scores(self, model: LanguageModel, records: Records) -> Floats:
        return loss_scores(read(model, records))
