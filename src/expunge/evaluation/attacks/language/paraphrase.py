"""Ask in other words than those of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.evaluation.attacks.language.contract import Access, Attack, Scene, Target, Trial, answer_room, tries
from expunge.models.chat import user


@dataclass(frozen=True, kw_only=True)
class Paraphrase(Attack):
    """One prompt an item: the same fact in a phrasing that no training text has.

    Who forgot the words and not the fact still answers.
    """

    name: ClassVar[str] = "paraphrase"
    summary: ClassVar[str] = "asks in words that no training text has"
    paper: ClassVar[str] = "arXiv:2402.16835"
    access: ClassVar[Access] = "black_box"
    unit: ClassVar[str] = "prompts an item"
    needs: ClassVar[tuple[str, ...]] = ("probes/paraphrase",)

    def attempt(self, target: Target, scene: Scene, seed: int) -> Trial:
        items = scene.probes["paraphrase"]
        wave = [[user(str(p))] for p in items.column("prompt")]
        return tries(self, target, items, [wave], max_new_tokens=answer_room(target, items))
