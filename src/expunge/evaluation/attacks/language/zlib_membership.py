"""Tell forgotten texts from unseen ones by the loss over how far the text compresses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.data.records import Records
from expunge.evaluation.attacks.language.membership import MembershipAttack, read
from expunge.evaluation.metrics.checks import Floats
from expunge.evaluation.metrics.language.membership import zlib_scores
from expunge.models.language import LanguageModel


@dataclass(frozen=True, kw_only=True)
class ZlibMembership(MembershipAttack):
    """Score: minus the mean NLL over the bytes that zlib needs for the answer, whose commonness it takes out.

    No second model is needed for that. Of answers of a word or two it takes out little but their length: the header of
    zlib alone is eight bytes. Paper: Carlini et al. 2021, Extracting training data (2012.07805).
    """

    name: ClassVar[str] = "zlib_membership"
    summary: ClassVar[str] = "tells them by the loss over the bytes of the compressed text"
    paper: ClassVar[str] = "arXiv:2012.07805"

    def scores(self, model: LanguageModel, records: Records) -> Floats:
        return zlib_scores(read(model, records))
