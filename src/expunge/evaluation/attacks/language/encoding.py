"""Ask for the answer in a code, and decode what comes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.evaluation.attacks.language.asking import TALK, hunt
from expunge.evaluation.attacks.language.ciphers import deciphers
from expunge.evaluation.attacks.language.contract import Access, Attack, Scene, Target, Trial
from expunge.evaluation.attacks.language.prompts import ENCODING
from expunge.evaluation.attacks.language.templated import check_names, waves_of

LETTERS = 2  # tokens that a letter may take when it is spelled


@dataclass(frozen=True, kw_only=True)
class Encoding(Attack):
    """One prompt an item and code. Whatever comes is read in every way (`ciphers.deciphers`), also as plain text.

    Who compares answers with a list, letter by letter, lets codes through. Only a model that can write a code leaks in
    it: small ones hardly can. Wei et al. 2023, *Jailbroken: How Does LLM Safety Training Fail?*

    Args:
        codes: keys of `prompts.ENCODING`, in the order in which they are tried.

    Raises:
        RequestError, UnknownName: no codes, or one that there is not.
    """

    name: ClassVar[str] = "encoding"
    summary: ClassVar[str] = "asks for the answer in a code and decodes it"
    paper: ClassVar[str] = "arXiv:2307.02483"
    access: ClassVar[Access] = "black_box"
    unit: ClassVar[str] = "prompts an item"

    codes: tuple[str, ...] = tuple(ENCODING)

    def __post_init__(self) -> None:
        check_names("code", self.codes, ENCODING)

    def attempt(self, target: Target, scene: Scene, seed: int) -> Trial:
        items = scene.questions
        talk = TALK + LETTERS * max(len(str(a)) for a in items.column("answer"))
        return hunt(self, target, items, waves_of(items, ENCODING, self.codes), talk=talk, read=deciphers)
