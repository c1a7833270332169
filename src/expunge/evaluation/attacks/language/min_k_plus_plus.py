"""Tell forgotten texts from unseen ones by their least probable tokens, measured against the rest of the vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.data.records import Records
from expunge.evaluation.attacks.language.membership import MembershipAttack, check_share, read
from expunge.evaluation.metrics.checks import Floats
from expunge.evaluation.metrics.language.membership import min_k_plus_plus_scores
from expunge.models.language import LanguageModel


@dataclass(frozen=True, kw_only=True)
class MinKPlusPlus(MembershipAttack):
    """Score: mean of the lowest share k of (log p_t - μ_t) / σ_t, mean and deviation over the vocabulary at that place.

    A trained token is a local maximum of the distribution, however sure the model is. Needs the whole distribution, not
    the probability of the text alone. Paper: Zhang et al. 2025, Min-K%++ (2404.02936).

    Args:
        k: share of a text's tokens, in (0, 1]; one token at least.
    """

    name: ClassVar[str] = "min_k_plus_plus"
    summary: ClassVar[str] = "the same, in deviations from the mean over the vocabulary"
    paper: ClassVar[str] = "arXiv:2404.02936"

    k: float = 0.2

    def __post_init__(self) -> None:
        check_share(self.k)

    def scores(self, model: LanguageModel, records: Records) -> Floats:
        return min_k_plus_plus_scores(read(model, records), self.k)
