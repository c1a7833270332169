"""Tell forgotten texts from unseen ones by their least probable tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.data.records import Records
from expunge.evaluation.attacks.language.membership import MembershipAttack, check_share, read
from expunge.evaluation.metrics.checks import Floats
from expunge.evaluation.metrics.language.membership import min_k_scores
from expunge.models.language import LanguageModel


@dataclass(frozen=True, kw_only=True)
class MinK(MembershipAttack):
    """Score: mean of the lowest share k of log p(x_t | x_<t); an unseen text has some token that surprises.

    Paper: Shi et al. 2024, Detecting pretraining data from large language models (2310.16789).

    Args:
        k: share of a text's tokens, in (0, 1]; one token at least. 1 is `loss_membership`.
    """

    name: ClassVar[str] = "min_k"
    summary: ClassVar[str] = "tells them by the least probable tokens of a text"
    paper: ClassVar[str] = "arXiv:2310.16789"

    k: float = 0.2

    def __post_init__(self) -> None:
        check_share(self.k)

    def scores(self, model: LanguageModel, records: Records) -> Floats:
        return min_k_scores(read(model, records), self.k)
