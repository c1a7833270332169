"""Tell forgotten texts from unseen ones by how much better the model predicts them than one that never saw them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.data.records import Records
from expunge.errors import MissingEvidence, RequestError
from expunge.evaluation.attacks.language.contract import Scene, Target, Trial
from expunge.evaluation.attacks.language.membership import MembershipAttack, read
from expunge.evaluation.metrics.checks import Floats
from expunge.evaluation.metrics.language.membership import reference_scores
from expunge.models.language import LanguageModel


@dataclass(frozen=True, kw_only=True)
class ReferenceMembership(MembershipAttack):
    """Score: ℓ_reference - ℓ, mean NLLs of one text; what every model finds easy is taken out.

    Paper: Carlini et al. 2021, Extracting training data (2012.07805); as a test, Ye et al. 2022 (2111.09679).

    Who has such a model? Of a fine-tuned model everybody who can get the public one it was fine-tuned from. Without a
    public base the attacker needs texts of the kind it was trained on, and trains one: at best on those that are kept,
    which is a retrained model. `expunge attack` takes the base if the study knows it, and else the last retrained
    model, which then is no reference for this attack (it would score itself). That attacker is stronger than most.

    Args:
        reference: folder or hub name of the model, which must not have seen the forgotten texts; it reads texts in the
            template of the model under attack.
    """

    name: ClassVar[str] = "reference_membership"
    summary: ClassVar[str] = "tells them by the loss less that of a model that never saw them"
    paper: ClassVar[str] = "arXiv:2012.07805"
    passes: ClassVar[int] = 2

    reference: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.reference, str):
            raise RequestError(f"reference is {self.reference!r}", "Give the folder or the hub name of a model")

    def attempt(self, target: Target, scene: Scene, seed: int) -> Trial:
        target.logits(self.name)
        if not self.reference:
            raise MissingEvidence(
                f"{self.name} compares with a model that never saw the texts, and this attacker has none",
                "Give one: --settings reference=FOLDER (the public base, or one trained on like texts)",
            )
        return super().attempt(target, scene, seed)

    def scores(self, model: LanguageModel, records: Records) -> Floats:
        other = LanguageModel.load(self.reference, template=model.template, device=str(model.device))
        return reference_scores(read(model, records), read(other, records))
