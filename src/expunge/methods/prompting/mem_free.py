"""MemFree decoding: a token that would complete a forbidden run of words is passed over for the next best."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from expunge.errors import RequestError, RunError
from expunge.filters.marks import Marks
from expunge.methods.forbidden import forgotten_runs, load_marks, marks_in_memory, save_marks
from expunge.methods.prompt_base import PromptMethod
from expunge.methods.prompt_parts import Around
from expunge.models.chat import ChatModel, Conversation, checked
from expunge.models.language import LanguageModel
from expunge.problem import Problem


@dataclass(frozen=True, kw_only=True)
class MemFree(PromptMethod):
    """Ippolito et al. 2022, *Preventing Generation of Verbatim Memorization in Language Models Gives a False Sense of
    Privacy* (arXiv:2210.17546).

    With $D$ the forbidden runs of words and $x$ the prompt and what has been said so far, the next token is
    $\\arg\\max_t p(t \\mid x)$ over the tokens $t$ for which the text of $xt$ has no run of $D$ that ends in $t$; draws
    are made from $p$ over the same tokens, normalised.

    Of a model that is asked from afar no token can be exchanged: there the answer ends before the first forbidden run.

    This differs from the authors' code in:
        1. Runs are of words in normal form and in the disguises that `Marks` undoes, not of tokens as they stand.
        2. Only the forget set is forbidden, not all training texts, and no run that a retained text holds.
        3. A set of keyed digests stands in place of a Bloom filter: no false alarms of its own.
        4. A text of fewer words than a run is one run; otherwise short answers would pass.

    Args:
        words: in a run. least: letters that a run must have to be forbidden.

    Raises:
        RequestError: below 1 word or 2 letters. DataError: nothing is left to forbid.
    """

    name: ClassVar[str] = "mem_free"
    summary: ClassVar[str] = "decoding that passes over tokens which would complete forgotten text"
    paper: ClassVar[str] = "arXiv:2210.17546"

    words: int = 5
    least: int = 4

    def __post_init__(self) -> None:
        if self.words < 1 or self.least < 2:
            raise RequestError(
                f"runs of {self.words} words and {self.least} letters", "Give at least 1 word and 2 letters"
            )

    def suppress(self, model: ChatModel, problem: Problem, seed: int) -> MemFreeModel:
        runs = forgotten_runs(problem, ("answer",), self.words, self.least)
        return MemFreeModel(model, marks_in_memory(runs, seed, self.name), seed)

    @classmethod
    def load(cls, folder: str | Path, inside: ChatModel) -> MemFreeModel:
        return MemFreeModel.load(folder, inside)


class MemFreeModel(Around):
    """A model that never completes a marked phrase; see `MemFree`."""

    savable = True

    def __init__(self, inside: ChatModel, marks: Marks, seed: int) -> None:
        super().__init__(inside)
        self._marks, self._seed = marks, seed

    def save(self, folder: str | Path) -> None:
        """Digests as JSON, no phrase; see `expunge.methods.forbidden.save_marks`."""
        save_marks(Path(folder), {"told": self._marks}, self._seed)

    @classmethod
    def load(cls, folder: str | Path, inside: ChatModel) -> Self:
        """The same around a model.

        Raises:
            RunError, TamperedEvidence: nothing usable is there.
        """
        marks, seed = load_marks(Path(folder), MemFree.name)
        told = marks.get("told")
        if told is None:
            raise RunError(f"{folder} holds no forbidden runs", "Give a folder that save wrote")
        return cls(inside, told, seed)

    @property
    def stored(self) -> int:
        """Bytes of digests that are kept beside the model."""
        return 32 * len(self._marks.digests)

    def state_digest(self) -> str:
        return hashlib.sha256(json.dumps(self._marks.as_dict(), sort_keys=True).encode()).hexdigest()

    def chat(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int = 64,
        samples: int = 0,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> list[list[str]]:
        for conversation in conversations:
            checked(conversation)
        model = self.inside
        if isinstance(model, LanguageModel):
            model = copy.copy(model)
            model.module = _Watched(model.module, model.tokenizer, self._marks)
        said = model.chat(
            conversations, max_new_tokens=max_new_tokens, samples=samples, temperature=temperature, seed=seed
        )
        return [[self._cut(one) for one in answers] for answers in said]

    def _cut(self, answer: str) -> str:
        """The answer up to its first forbidden run; a model that was watched has one only where its first word, read
        with the end of the prompt, was another."""
        found = self._marks.find(answer)
        return answer[: found[0].start].rstrip() if found else answer


class _Watched:
    """A module whose `generate` passes forbidden tokens over; in everything else it is the module."""

    def __init__(self, module: Any, tokenizer: Any, marks: Marks) -> None:
        self._module, self._tokenizer, self._marks = module, tokenizer, marks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def generate(self, *, input_ids: Tensor, generation_config: Any, **rest: Any) -> Any:
        from transformers import LogitsProcessorList

        draws = generation_config.temperature if generation_config.do_sample else None
        watch = PassOver(self._marks, self._tokenizer, draws)
        return self._module.generate(
            input_ids=input_ids,
            generation_config=generation_config,
            logits_processor=LogitsProcessorList([watch]),
            **rest,
        )


class PassOver:
    """A logits processor: chooses the next token itself and leaves nothing else to choose.

    A draw cannot be left to `transformers`: which tokens are forbidden is found one by one, from the text each would
    make, and testing the whole vocabulary at every step would take longer than the model does.

    Args:
        temperature: of draws, from torch's global generator; None: the best token.
    """

    def __init__(self, marks: Marks, tokenizer: Any, temperature: float | None) -> None:
        self._marks, self._tokenizer, self._temperature = marks, tokenizer, temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(rows, length) tokens so far and (rows, vocabulary) logits to logits with one finite number a row."""
        out = torch.full_like(scores, float("-inf"))
        for row, (tokens, own) in enumerate(zip(input_ids.tolist(), scores.float(), strict=True)):
            out[row, self._next(tokens[-self._marks.longest :], own.clone())] = 0.0
        return out

    def _next(self, tokens: list[int], scores: Tensor) -> int:
        before = self._text(tokens)
        while True:
            if self._temperature is None:
                token = int(scores.argmax())
            else:
                token = int(torch.multinomial(torch.softmax(scores / self._temperature, -1).cpu(), 1))
            if not self._completes(before, self._text([*tokens, token])):
                return token
            scores[token] = float("-inf")

    def _completes(self, before: str, after: str) -> bool:
        # What the user wrote into the prompt is no forbidden word of the model's.
        return any(span.end > len(before) for span in self._marks.find(after))

    def _text(self, tokens: list[int]) -> str:
        # Half a character decodes to a replacement mark, which is no letter and would be counted as text before.
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True)).rstrip("\ufffd")
