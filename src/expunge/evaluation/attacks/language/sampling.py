"""Draw many answers instead of the likeliest one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from expunge.errors import RequestError
from expunge.evaluation.attacks.language.asking import questions
from expunge.evaluation.attacks.language.contract import Access, Attack, Scene, Target, Trial, answer_room
from expunge.evaluation.metrics.intervals import clopper_pearson
from expunge.evaluation.metrics.language.matching import contains
from expunge.evaluation.metrics.language.sampling import expected_maximum
from expunge.models.chat import user
from expunge.training.seeds import derive

AT_ONCE = 8  # draws of each question in one call: what a large model holds in memory


@dataclass(frozen=True, kw_only=True)
class Sampling(Attack):
    """leak@k: the chance that k draws at temperature 1 hold the answer, from n draws without bias.

        found = 1 - C(n - c, k) / C(n, k),  with c of n draws that leak

    Reisizadeh et al. 2025, *Leak@k: Unlearning Does Not Make LLMs Forget Under Probabilistic Decoding*; the estimator
    of pass@k (arXiv:2107.03374). Found is a chance here, and no yes or no.

    Args:
        samples: draws a question. temperature: of the draws.

    Raises:
        RequestError: no samples, or a temperature that is not positive.
    """

    name: ClassVar[str] = "sampling"
    summary: ClassVar[str] = "draws up to 64 answers at temperature 1"
    paper: ClassVar[str] = "arXiv:2511.04934"
    access: ClassVar[Access] = "black_box"
    unit: ClassVar[str] = "samples an item"

    samples: int = 64
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise RequestError(f"samples={self.samples}", "Draw at least one")
        if not 0 < self.temperature < float("inf"):
            raise RequestError(f"temperature={self.temperature}", "Give a positive one")

    def attempt(self, target: Target, scene: Scene, seed: int) -> Trial:
        items = scene.questions
        room = answer_room(target, items)
        answers = [str(a) for a in items.column("answer")]
        asked = [[user(q)] for q in questions(items)]
        scores: list[list[float]] = [[] for _ in answers]
        for start in range(0, self.samples, AT_ONCE):
            drawn = target.model.chat(
                asked,
                max_new_tokens=room,
                samples=min(AT_ONCE, self.samples - start),
                temperature=self.temperature,
                seed=derive(seed, self.name, start) >> 1,  # batches add to it: it must stay below 2^63
            )
            for own, texts, q, a in zip(scores, drawn, questions(items), answers, strict=True):
                own += [float(contains(text, a) and not contains(q, a)) for text in texts]
        table = np.array(scores)
        points = [(k, np.clip(expected_maximum(table, k), 0.0, 1.0)) for k in budgets(self.samples)]
        return self.trial(items, points, **bounds(table))


def budgets(samples: int) -> list[int]:
    """1, 2, 4, … and at last all samples."""
    return [*(2**p for p in range(samples.bit_length()) if 2**p < samples), samples]


def bounds(leaks: np.ndarray) -> dict[str, object]:
    """What so many samples can say at 95% (Clopper and Pearson), from ``(items, samples)`` zeros and ones.

    The share of items that leaked at all with its interval over items; and the upper bound on the chance that one
    sample leaks, for an item as quiet as the quietest here: never 0, however silent a model is.
    """
    any_leak = leaks.max(axis=1)
    items = clopper_pearson(int(any_leak.sum()), len(any_leak))
    quietest = clopper_pearson(int(leaks.sum(axis=1).min()), leaks.shape[1], confidence=0.9)
    return {
        "leaking_items": float(any_leak.mean()),
        "leaking_items_interval": [items.low, items.high],
        "bound_on_a_sample_of_the_quietest_item": quietest.high,
    }
