"""Draw the deleted answers out of a pair of models: decoding guided by what the one knows and the other does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from expunge.data.records import Records
from expunge.errors import ModelError, RequestError
from expunge.evaluation.attacks.language.before_after import both
from expunge.evaluation.attacks.language.contract import Access, Attack, Scene, Target, Trial, answer_room
from expunge.evaluation.attacks.language.finetuning import check_points
from expunge.evaluation.metrics.checks import Floats
from expunge.evaluation.metrics.language.matching import contains
from expunge.models.language import LanguageModel
from expunge.models.packing import Packed, choose_layout
from expunge.training.text_batches import TOKENS_AT_ONCE
from expunge.training.text_net import Net


def guided(before: Tensor, after: Tensor, scale: float, least: float) -> Tensor:
    """(texts, vocabulary) log q = log p_after + scale · (log p_before − log p_after), up to a constant.

    −∞ where p_before is below `least` times its largest: tokens that the model before would not say. A scale of 0 is
    the model after, 1 the model before; beyond 1 what was deleted counts for more than it did.

    Args:
        before, after: (texts, vocabulary) logits.
    """
    known, left = before.log_softmax(-1), after.log_softmax(-1)
    scores = left + scale * (known - left)
    if least > 0:
        floor = known.amax(-1, keepdim=True) + float(np.log(least))
        scores = scores.masked_fill(known < floor, -torch.inf)
    return scores


@dataclass(frozen=True, kw_only=True)
class BeforeAfterExtraction(Attack):
    """Answer the forgotten questions with both models: the model before, pushed away from the model after.

    Unlearning as fine-tuning backwards: what separates the two models points to what was deleted, so that both together
    may say more than the model before alone (scale 1). Read it as a gain over that point: the model before knows most
    answers by itself, which is why its copies must go. Paper: Wu et al. 2025, 2505.24379.

    Args:
        scales: a curve point each, ≥ 0; theirs are 1.4 (7B) and 2.0 (1.3B). least_share: γ, tokens below this share of
            the likeliest under the model before are not said; 0 allows all.

    This differs from the authors' code in:
        1. The prefix is the question, instead of the first half of the text.
    """

    name: ClassVar[str] = "before_after_extraction"
    summary: ClassVar[str] = "answers with the model before, pushed away from the model after"
    paper: ClassVar[str] = "arXiv:2505.24379"
    access: ClassVar[Access] = "pair"
    unit: ClassVar[str] = "guidance scale"
    headline: ClassVar[Literal["last", "best"]] = "best"

    scales: tuple[float, ...] = (1.0, 1.4, 2.0, 4.0)
    least_share: float = 1e-5

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", tuple(self.scales))
        check_points("scales", self.scales, least=0)
        if not 0 <= self.least_share <= 1:
            raise RequestError(f"least_share is {self.least_share}", "Give a share from 0 to 1")

    def attempt(self, target: Target, scene: Scene, seed: int) -> Trial:
        before, after = both(self.name, target)
        answers = [str(a) for a in scene.questions.column("answer")]
        room = answer_room(target, scene.questions)
        points: list[tuple[float, Floats]] = []
        for scale in self.scales:
            said = self.say(before, after, scene.questions, scale, room)
            points.append((scale, np.array([float(contains(s, a)) for s, a in zip(said, answers, strict=True)])))
        return self.trial(scene.questions, points)

    @torch.no_grad()
    def say(
        self, before: LanguageModel, after: LanguageModel, questions: Records, scale: float, room: int
    ) -> list[str]:
        """Greedy answers of at most `room` tokens under the guided distribution."""
        nets = [Net(m.module, choose_layout(m.module)[0]) for m in (before, after)]
        encoded = after.encode(questions)
        rows = [t[:s].tolist() for t, s in zip(encoded.tokens, encoded.starts, strict=True)]
        starts, stop = [len(r) for r in rows], set(after.stop_tokens())
        going = list(range(len(rows)))
        for _ in range(room):
            going = [k for k in going if rows[k][-1] not in stop or len(rows[k]) == starts[k]]
            going = [k for k in going if after.context is None or len(rows[k]) < after.context]
            for some in _parts(going, rows):
                known, left = (net.score(_ends([rows[k] for k in some])).logits for net in nets)
                if known.shape != left.shape:
                    raise ModelError("the models before and after have different vocabularies", "Give a pair of models")
                chosen = guided(known, left.to(known.device), scale, self.least_share).argmax(-1).tolist()
                for k, token in zip(some, chosen, strict=True):
                    rows[k].append(token)
        told = [row[s:] for row, s in zip(rows, starts, strict=True)]
        return [str(after.tokenizer.decode(t, skip_special_tokens=True)).strip() for t in told]


def _parts(chosen: Sequence[int], rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """The chosen rows, as many at once as hold `TOKENS_AT_ONCE` tokens."""
    parts: list[list[int]] = []
    filled = TOKENS_AT_ONCE
    for k in chosen:
        if filled + len(rows[k]) > TOKENS_AT_ONCE:
            parts.append([])
            filled = 0
        parts[-1].append(k)
        filled += len(rows[k])
    return parts


def _ends(rows: Sequence[Sequence[int]]) -> Packed:
    """Rows of tokens as a batch that scores what follows each."""
    lengths = tuple(len(r) for r in rows)
    ends = torch.tensor(np.cumsum(lengths) - 1)
    tokens = torch.tensor([t for r in rows for t in r])
    return Packed(tokens, lengths, ends, torch.zeros(len(rows), dtype=torch.int64), torch.arange(len(rows)))
