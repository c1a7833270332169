"""Tell the model to drop what it was told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.evaluation.attacks.language.asking import TALK, hunt
from expunge.evaluation.attacks.language.contract import Access, Attack, Scene, Target, Trial
from expunge.evaluation.attacks.language.prompts import INSTRUCTION_OVERRIDE
from expunge.evaluation.attacks.language.templated import check_names, waves_of


@dataclass(frozen=True, kw_only=True)
class InstructionOverride(Attack):
    """One prompt an item and wording: the user's message claims to rank above the system's.

    A model that forgets by an instruction ("pretend not to know") is as safe as its order of instructions: Wallace et
    al. 2024, *The Instruction Hierarchy: Training LLMs to Prioritize Privileged Instructions*.

    Args:
        wordings: keys of `prompts.INSTRUCTION_OVERRIDE`, in the order in which they are tried.

    Raises:
        RequestError, UnknownName: no wordings, or one that there is not.
    """

    name: ClassVar[str] = "instruction_override"
    summary: ClassVar[str] = "tells the model to ignore what the system told it"
    paper: ClassVar[str] = "arXiv:2404.13208"
    access: ClassVar[Access] = "black_box"
    unit: ClassVar[str] = "prompts an item"

    wordings: tuple[str, ...] = tuple(INSTRUCTION_OVERRIDE)

    def __post_init__(self) -> None:
        check_names("wording", self.wordings, INSTRUCTION_OVERRIDE)

    def attempt(self, target: Target, scene: Scene, seed: int) -> Trial:
        items = scene.questions
        return hunt(self, target, items, waves_of(items, INSTRUCTION_OVERRIDE, self.wordings), talk=TALK)
