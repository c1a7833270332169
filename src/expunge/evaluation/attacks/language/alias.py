"""Ask about the same by another name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.evaluation.attacks.language.asking import hunt, worded
from expunge.evaluation.attacks.language.contract import Access, Attack, Scene, Target, Trial


@dataclass(frozen=True, kw_only=True)
class Alias(Attack):
    """One prompt an item: whoever was forgotten is called by a nickname or a description.

    Who forgot the name and not the person still answers, and so does who guards the name. RWKU asks such questions
    (synonyms) among its adversarial ones.
    """

    name: ClassVar[str] = "alias"
    summary: ClassVar[str] = "asks about the forgotten by another name"
    paper: ClassVar[str] = "arXiv:2406.10890"
    access: ClassVar[Access] = "black_box"
    unit: ClassVar[str] = "prompts an item"
    needs: ClassVar[tuple[str, ...]] = ("probes/alias",)

    def attempt(self, target: Target, scene: Scene, seed: int) -> Trial:
        items = scene.probes["alias"]
        return hunt(self, target, items, {"alias": worded(items, "{question}")})
