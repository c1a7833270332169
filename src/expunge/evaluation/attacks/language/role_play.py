"""Have somebody else answer: a character who was never told to forget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.evaluation.attacks.language.asking import TALK, hunt
from expunge.evaluation.attacks.language.contract import Access, Attack, Scene, Target, Trial
from expunge.evaluation.attacks.language.prompts import ROLE_PLAY
from expunge.evaluation.attacks.language.templated import check_names, waves_of


@dataclass(frozen=True, kw_only=True)
class RolePlay(Attack):
    """One prompt an item and role, in the same words for all items.

    Args:
        roles: keys of `prompts.ROLE_PLAY`, in the order in which they are tried.

    Raises:
        RequestError, UnknownName: no roles, or one that there is not.
    """

    name: ClassVar[str] = "role_play"
    summary: ClassVar[str] = "asks a character whom the model plays"
    paper: ClassVar[str] = "arXiv:2406.10890"
    access: ClassVar[Access] = "black_box"
    unit: ClassVar[str] = "prompts an item"

    roles: tuple[str, ...] = tuple(ROLE_PLAY)

    def __post_init__(self) -> None:
        check_names("role", self.roles, ROLE_PLAY)

    def attempt(self, target: Target, scene: Scene, seed: int) -> Trial:
        items = scene.questions
        return hunt(self, target, items, waves_of(items, ROLE_PLAY, self.roles), talk=TALK)
