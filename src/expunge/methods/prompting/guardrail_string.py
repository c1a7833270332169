"""Guardrail string filter: what names the forgotten is not asked, and what tells of them is not answered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self

from expunge.errors import ModelError, RequestError
from expunge.filters.marks import Marks
from expunge.filters.matcher import Matcher
from expunge.filters.near import NearMarks
from expunge.methods.forbidden import forgotten_runs, load_marks, marks_in_memory, names_of, save_marks
from expunge.methods.prompt_base import PromptMethod
from expunge.methods.prompt_parts import Around, split_apart
from expunge.methods.text_refusals import REFUSALS
from expunge.models.chat import ChatModel, Conversation, checked
from expunge.problem import Problem
from expunge.training.seeds import derive


@dataclass(frozen=True, kw_only=True)
class GuardrailString(PromptMethod):
    """Thaker, Maurya, Hu, Wu & Smith 2024, *Guardrail Baselines for Unlearning in LLMs* (arXiv:2403.03329).

    With $M$ the marked phrases and $r$ a reading of a text (see `expunge.filters.marks`), a conversation is refused if
    some phrase of $M_{in}$ stands in some $r$ of its messages, and an answer replaced by a refusal if one of $M_{out}$
    stands in some $r$ of it. $M_{in}$: names of owners and subjects, runs of words of the forget set's prompts.
    $M_{out}$: those names, runs of words of its answers. Runs that a retained text holds are left out, and names of
    whoever owns or is the subject of retained records.

    This differs from the authors' code in:
        1. The phrases are taken from the forget set instead of a list of keywords.
        2. They are compared in normal form and in the disguises that `Marks` undoes, not as they stand.
        3. A refusal is picked by question and seed, so that one set answer does not say that a filter spoke.

    Args:
        side: ``input`` filters questions, ``output`` answers. words: in a marked run; shorter texts are marked whole.
        least: letters that a run must have to be marked. names: mark owners and subjects whom the
            texts name.
        near: share of letters in which a name may differ and still be found; None: none may.

    Raises:
        RequestError: out of range. DataError: nothing is left to look for.
    """

    name: ClassVar[str] = "guardrail_string"
    summary: ClassVar[str] = "a filter of strings before and after the model"
    paper: ClassVar[str] = "arXiv:2403.03329"

    side: Literal["input", "output", "both"] = "both"
    words: int = 5
    least: int = 4
    names: bool = True
    near: float | None = None

    def __post_init__(self) -> None:
        if self.side not in ("input", "output", "both"):
            raise RequestError(f"unknown side {self.side!r}", "Choose input, output or both")
        if self.words < 1 or self.least < 2:
            raise RequestError(
                f"runs of {self.words} words and {self.least} letters", "Give at least 1 word and 2 letters"
            )
        if self.near is not None and not 0 < self.near < 0.5:
            raise RequestError(f"names may differ in a share of {self.near:g}", "Give a share between 0 and 0.5")
        if self.near is not None and not self.names:
            raise RequestError("near finds names, and names is false", "Set names, or leave near out")

    def suppress(self, model: ChatModel, problem: Problem, seed: int) -> Filtered:
        names = names_of(problem) if self.names else []
        near = NearMarks(names, share=self.near) if names and self.near is not None else None
        sides: dict[str, Marks] = {}
        for side, column in (("input", "prompt"), ("output", "answer")):
            if self.side in (side, "both"):
                phrases = names + forgotten_runs(problem, (column,), self.words, self.least)
                if phrases or self.side != "both":
                    sides[side] = marks_in_memory(phrases, seed, self.name)
        if not sides:
            marks_in_memory([], seed, self.name)  # says what is missing
        return Filtered(model, sides.get("input"), sides.get("output"), near, seed)

    @classmethod
    def load(cls, folder: str | Path, inside: ChatModel) -> Filtered:
        return Filtered.load(folder, inside)


class Filtered(Around):
    """A model between two filters; see `GuardrailString`.

    Args:
        asked, told: marks looked for in messages and in answers; None: not looked. near: looked for wherever they are.
    """

    def __init__(
        self, inside: ChatModel, asked: Marks | None, told: Marks | None, near: NearMarks | None, seed: int
    ) -> None:
        super().__init__(inside)
        self._seed, self._marks, self._near = seed, (asked, told), near
        extra: tuple[Matcher, ...] = () if near is None else (near,)
        self._asked: tuple[Matcher, ...] = () if asked is None else (asked, *extra)
        self._told: tuple[Matcher, ...] = () if told is None else (told, *extra)

    @property
    def stored(self) -> int:
        """Bytes of digests that are kept beside the model."""
        return sum(32 * len(marks.digests) for marks in self._marks if marks is not None)

    @property
    def savable(self) -> bool:  # type: ignore[override]  # near matches are compared with names as they are written
        return self._near is None

    def save(self, folder: str | Path) -> None:
        """Digests as JSON, no phrase; see `expunge.methods.forbidden.save_marks`.

        Raises:
            ModelError: names are looked for by nearness, for which they would have to be readable.
        """
        if not self.savable:
            raise ModelError(
                "names that are looked for by nearness are kept in memory only",
                "Make it again from the texts of the request, or leave near out",
            )
        save_marks(Path(folder), dict(zip(("asked", "told"), self._marks, strict=True)), self._seed)

    @classmethod
    def load(cls, folder: str | Path, inside: ChatModel) -> Self:
        """The same filters around a model.

        Raises:
            RunError, TamperedEvidence: nothing usable is there.
        """
        marks, seed = load_marks(Path(folder), GuardrailString.name)
        return cls(inside, marks.get("asked"), marks.get("told"), None, seed)

    def state_digest(self) -> str:
        marks = [None if m is None else m.as_dict() for m in self._marks]
        near = None if self._near is None else self._near.digest()
        return hashlib.sha256(json.dumps([marks, near, self._seed], sort_keys=True).encode()).hexdigest()

    def chat(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int = 64,
        samples: int = 0,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> list[list[str]]:
        """Refused conversations never reach the model inside."""

        def ask(asked: list[Conversation]) -> list[list[str]]:
            found = self.inside.chat(
                asked, max_new_tokens=max_new_tokens, samples=samples, temperature=temperature, seed=seed
            )
            return [
                [self._refusal(c) if holds(self._told, one) else one for one in said]
                for c, said in zip(asked, found, strict=True)
            ]

        def instead(rows: list[int]) -> list[list[str]]:
            return [[self._refusal(conversations[k])] * max(samples, 1) for k in rows]

        texts = ["\n".join(m["content"] for m in checked(c)) for c in conversations]
        return split_apart(conversations, [holds(self._asked, text) for text in texts], ask, instead)

    def _refusal(self, conversation: Conversation) -> str:
        return REFUSALS[derive(self._seed, "refusal", conversation[-1]["content"]) % len(REFUSALS)]


def holds(matchers: tuple[Matcher, ...], text: str) -> bool:
    return any(m.holds(text) for m in matchers)
