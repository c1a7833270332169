"""Write the question so that a filter does not know it again, and have the answer written so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.data.records import Records
from expunge.evaluation.attacks.language.asking import TALK, hunt, questions
from expunge.evaluation.attacks.language.ciphers import DISGUISES, deciphers, homoglyphs
from expunge.evaluation.attacks.language.contract import Access, Attack, Scene, Target, Trial
from expunge.evaluation.attacks.language.prompts import BASE64_QUESTION, DISGUISED_ANSWER
from expunge.evaluation.attacks.language.templated import check_names
from expunge.models.chat import Conversation, user

KNOWN = {**DISGUISES, **DISGUISED_ANSWER}


@dataclass(frozen=True, kw_only=True)
class FilterEvasion(Attack):
    """One prompt an item and disguise: first of the question alone, then of the question and the answer.

    A filter that compares strings lets a disguised question in, or a disguised answer out. A model that cannot read the
    disguise answers nothing either, so that what is found is the smaller of the two. Hackett et al. 2025, *Bypassing
    LLM Guardrails* (characters injected into prompts); Ippolito et al. 2022 (arXiv:2210.17546) for answers.

    Args:
        disguises: keys of `ciphers.DISGUISES` (of the question) and `prompts.DISGUISED_ANSWER` (of the answer, the
            question standing in look-alike letters), in the order in which they are tried.

    Raises:
        RequestError, UnknownName: no disguises, or one that there is not.
    """

    name: ClassVar[str] = "filter_evasion"
    summary: ClassVar[str] = "disguises question and answer from a filter"
    paper: ClassVar[str] = "arXiv:2504.11168"
    access: ClassVar[Access] = "black_box"
    unit: ClassVar[str] = "disguises tried"

    disguises: tuple[str, ...] = tuple(KNOWN)

    def __post_init__(self) -> None:
        check_names("disguise", self.disguises, KNOWN)

    def attempt(self, target: Target, scene: Scene, seed: int) -> Trial:
        waves = {name: disguised(scene.questions, name) for name in self.disguises}
        return hunt(self, target, scene.questions, waves, talk=TALK, read=deciphers)


def disguised(items: Records, name: str) -> list[Conversation]:
    """Every question under one disguise."""
    if name in DISGUISED_ANSWER:
        template = DISGUISED_ANSWER[name]
        return [[user(template.replace("{question}", homoglyphs(q)))] for q in questions(items)]
    around = BASE64_QUESTION if name == "base64" else "{question}"
    return [[user(around.replace("{question}", DISGUISES[name](q)))] for q in questions(items)]
