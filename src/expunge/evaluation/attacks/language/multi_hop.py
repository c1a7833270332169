"""Ask for what follows from the forgotten facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.evaluation.attacks.language.asking import TALK, hunt, worded
from expunge.evaluation.attacks.language.contract import Access, Attack, Scene, Target, Trial
from expunge.evaluation.attacks.language.prompts import STEP_BY_STEP


@dataclass(frozen=True, kw_only=True)
class MultiHop(Attack):
    """Two prompts an item: a question whose answer rests on a forgotten fact, and the same with "step by step".

    The answer itself may be something that is kept (the town of a forgotten employer): only who still has the fact in
    between gets there. Choi et al. 2024, *Breaking Chains: Unraveling the Links in Multi-Hop Knowledge Unlearning*.
    """

    name: ClassVar[str] = "multi_hop"
    summary: ClassVar[str] = "asks for what follows from a forgotten fact"
    paper: ClassVar[str] = "arXiv:2410.13274"
    access: ClassVar[Access] = "black_box"
    unit: ClassVar[str] = "prompts an item"
    needs: ClassVar[tuple[str, ...]] = ("probes/multi_hop",)

    def attempt(self, target: Target, scene: Scene, seed: int) -> Trial:
        items = scene.probes["multi_hop"]
        waves = {"plain": worded(items, "{question}"), "step_by_step": worded(items, STEP_BY_STEP)}
        return hunt(self, target, items, waves, talk=TALK)
