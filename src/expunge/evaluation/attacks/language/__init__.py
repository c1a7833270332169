"""Attacks on language models: a table, name -> class. Adding one touches its file, a line here, a test and a page."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from expunge.errors import RequestError, UnknownName
from expunge.evaluation.attacks.language.ablate_direction import AblateDirection
from expunge.evaluation.attacks.language.alias import Alias
from expunge.evaluation.attacks.language.before_after import BeforeAfter
from expunge.evaluation.attacks.language.before_after_extraction import BeforeAfterExtraction
from expunge.evaluation.attacks.language.contract import Attack
from expunge.evaluation.attacks.language.embedding_space import EmbeddingSpace
from expunge.evaluation.attacks.language.encoding import Encoding
from expunge.evaluation.attacks.language.few_shot import FewShot
from expunge.evaluation.attacks.language.filter_evasion import FilterEvasion
from expunge.evaluation.attacks.language.instruction_override import InstructionOverride
from expunge.evaluation.attacks.language.loss_membership import LossMembership
from expunge.evaluation.attacks.language.many_shot import ManyShot
from expunge.evaluation.attacks.language.min_k import MinK
from expunge.evaluation.attacks.language.min_k_plus_plus import MinKPlusPlus
from expunge.evaluation.attacks.language.multi_hop import MultiHop
from expunge.evaluation.attacks.language.multi_turn import MultiTurn
from expunge.evaluation.attacks.language.multiple_choice import MultipleChoice
from expunge.evaluation.attacks.language.paraphrase import Paraphrase
from expunge.evaluation.attacks.language.prefix import Prefix
from expunge.evaluation.attacks.language.prompt_extraction import PromptExtraction
from expunge.evaluation.attacks.language.prune import Prune
from expunge.evaluation.attacks.language.quantise import Quantise
from expunge.evaluation.attacks.language.reference_membership import ReferenceMembership
from expunge.evaluation.attacks.language.regrow_neurons import RegrowNeurons
from expunge.evaluation.attacks.language.relearn_benign import RelearnBenign
from expunge.evaluation.attacks.language.relearn_half import RelearnHalf
from expunge.evaluation.attacks.language.relearn_retain import RelearnRetain
from expunge.evaluation.attacks.language.role_play import RolePlay
from expunge.evaluation.attacks.language.sampling import Sampling
from expunge.evaluation.attacks.language.translation import Translation
from expunge.evaluation.attacks.language.zlib_membership import ZlibMembership

LANGUAGE_ATTACKS: dict[str, type[Attack]] = {
    Paraphrase.name: Paraphrase,
    Alias.name: Alias,
    MultiHop.name: MultiHop,
    Prefix.name: Prefix,
    FewShot.name: FewShot,
    ManyShot.name: ManyShot,
    RolePlay.name: RolePlay,
    InstructionOverride.name: InstructionOverride,
    Translation.name: Translation,
    Encoding.name: Encoding,
    FilterEvasion.name: FilterEvasion,
    MultiTurn.name: MultiTurn,
    Sampling.name: Sampling,
    PromptExtraction.name: PromptExtraction,
    LossMembership.name: LossMembership,
    MinK.name: MinK,
    MinKPlusPlus.name: MinKPlusPlus,
    MultipleChoice.name: MultipleChoice,
    ReferenceMembership.name: ReferenceMembership,
    ZlibMembership.name: ZlibMembership,
    RelearnHalf.name: RelearnHalf,
    RelearnBenign.name: RelearnBenign,
    RelearnRetain.name: RelearnRetain,
    Quantise.name: Quantise,
    Prune.name: Prune,
    AblateDirection.name: AblateDirection,
    RegrowNeurons.name: RegrowNeurons,
    EmbeddingSpace.name: EmbeddingSpace,
    BeforeAfter.name: BeforeAfter,
    BeforeAfterExtraction.name: BeforeAfterExtraction,
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
