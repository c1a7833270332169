"""What an attack on a language model is: an access, a scene, and a curve of the attacker's cost against what is found.

The same attack with the same scene and seed is run on the unlearned model, on retrained ones and on the original, so
that what the attack itself brings along (facts in its prompts, lines it trains on, lucky guesses) can be taken out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

import numpy as np

from expunge.data.benchmarks.text_benchmark import TextBenchmark, no_texts
from expunge.data.records import Records
from expunge.errors import DataError, MissingEvidence, NoAccess
from expunge.evaluation.attacks.access import ACCESSES, Access
from expunge.evaluation.metrics.checks import Floats
from expunge.models.chat import ChatModel, Conversation, weights_of
from expunge.models.language import LanguageModel

__all__ = ["ACCESSES", "Access", "Attack", "Point", "Scene", "Target", "Trial", "answer_room", "answered", "tries"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """What the attacker knows and asks.

    Args:
        questions: about what was forgotten, in the words of training: columns ``prompt`` and ``answer``.
        forget, retain: training texts. holdout: texts like those of `forget` that nobody trained on; may be empty.
        relearn: the part of `forget` that the attacker happens to have; it tells nothing of `unheard`.
        unheard: questions about the other part. probes: other questions by name (``paraphrase``, ``alias``,
            ``multi_hop``, …), each about what was forgotten.
        kept: questions about what was kept, with known answers: an attacker's examples and controls.
    """

    questions: Records
    forget: Records
    retain: Records
    holdout: Records
    relearn: Records
    unheard: Records
    probes: Mapping[str, Records]
    kept: Records

    @classmethod
    def of(cls, benchmark: TextBenchmark) -> Scene:
        """The scene of a benchmark; parts that it lacks are empty, and attacks that need them say so.

        Raises:
            DataError: there are no questions about what was forgotten.
        """
        probes = benchmark.probes
        if "forget" not in probes or not len(probes["forget"]):
            raise DataError(f"{benchmark.name} has no questions about what is forgotten", "Give probes named forget")
        nothing = no_texts()
        return cls(
            questions=probes["forget"],
            forget=benchmark.forget,
            retain=benchmark.retain,
            holdout=probes.get("holdout", nothing),
            relearn=probes.get("relearn", nothing),
            unheard=probes.get("unheard", nothing),
            probes={k: r for k, r in probes.items() if k in ("paraphrase", "alias", "multi_hop", "reversal", "trivia")},
            kept=probes.get("retain", nothing),
        )

    def need(self, attack: str, *parts: str) -> None:
        """Raise `MissingEvidence` where a part (``relearn``, ``probes/alias``) holds nothing."""
        for part in parts:
            kind, _, name = part.partition("/")
            records = self.probes.get(name, no_texts()) if kind == "probes" else getattr(self, kind)
            if not len(records):
                raise MissingEvidence(
                    f"{attack} needs {part}, and this benchmark has none", "Give them, or leave the attack out"
                )


@dataclass(frozen=True, kw_only=True)
class Target:
    """A model under attack.

    Args:
        model: what answers. before: the original, for whom both are within reach.
    """

    model: ChatModel
    before: LanguageModel | None = None

    def logits(self, attack: str) -> LanguageModel:
        """The model as somebody sees it who is given probabilities.

        Raises:
            NoAccess: it gives none: a prompted, guarded, boxed or remote model answers in words.
        """
        if not isinstance(self.model, LanguageModel):
            raise NoAccess(
                f"{attack} reads probabilities, and this model answers in words only",
                "What such an attacker would find is not known",
            )
        return self.model

    def weights(self, attack: str) -> LanguageModel:
        """A copy of what somebody holds who has the weights: of a prompted or boxed model, the one inside.

        Raises:
            NoAccess: there are none here (a remote endpoint).
        """
        inside = weights_of(self.model)
        if inside is None:
            raise NoAccess(
                f"{attack} changes weights, and nobody here has them", "What their owner could find is not known"
            )
        return inside.copy()


@dataclass(frozen=True, kw_only=True, eq=False)
class Point:
    """Args:
    cost: what the attacker has spent so far, in the trial's unit.
    found: ``(items,)`` how far each item was found, from 0 to 1.
    """

    cost: float
    found: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """One attack on one model: a curve. The same items and costs whatever model is attacked.

    Args:
        items: ids. points: by growing cost. unit: of the cost, in words (``prompts an item``).
        shown: what is worth reading, JSON-able (the best prompt, an extracted text).

    Raises:
        DataError: no points, costs that do not grow, or what was found is not in [0, 1] for each item.
    """

    items: tuple[str, ...]
    points: tuple[Point, ...]
    unit: str
    shown: Mapping[str, Any]

    def __post_init__(self) -> None:
        costs = [p.cost for p in self.points]
        if not costs or any(b <= a for a, b in pairwise(costs)):
            raise DataError(f"a trial has the costs {costs}", "Give points by growing cost")
        for point in self.points:
            found = point.found
            if found.shape != (len(self.items),) or not np.all((found >= 0) & (found <= 1)):
                raise DataError(f"what was found at cost {point.cost} is no share for each item", "Correct the attack")


class Attack(ABC):
    """An attack: a frozen keyword-only dataclass of its settings that writes `attempt`.

    Class attributes:
        name: key in `LANGUAGE_ATTACKS`. summary: one line. paper: arXiv id or citation.
        access: what the attacker has. ``black_box``: sends messages, reads answers. ``logits``: probabilities too.
            ``weights``: the weights. ``pair``: the model before and after.
        needs: parts of the scene it cannot do without. unit: of its cost, in words.
        headline: the point that is quoted: ``last`` where more effort cannot hurt the attacker, ``best`` where the
            points are alternatives (4 or 8 bits), of which an attacker tries all.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str]
    access: ClassVar[Access]
    unit: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    headline: ClassVar[Literal["last", "best"]] = "last"

    @abstractmethod
    def attempt(self, target: Target, scene: Scene, seed: int) -> Trial:
        """Attack; a function of target, scene, settings and seed. The target's model is never written to."""

    def run(self, target: Target, scene: Scene, *, seed: int) -> Trial:
        """The curve.

        Raises:
            MissingEvidence: the scene lacks a part that the attack needs. NoAccess: the target does not give it.
        """
        scene.need(self.name, *self.needs)
        if self.access == "pair" and target.before is None:
            raise NoAccess(f"{self.name} compares with the model before, which is not here", "Keep it to measure this")
        return self.attempt(target, scene, seed)

    def settings(self) -> dict[str, Any]:
        return asdict(self) if is_dataclass(self) else {}

    def trial(self, items: Records | Sequence[str], points: Sequence[tuple[float, Any]], **shown: Any) -> Trial:
        """A trial of this attack from (cost, found) pairs."""
        ids = items.ids.tolist() if isinstance(items, Records) else list(items)
        return Trial(
            items=tuple(ids),
            points=tuple(Point(cost=float(c), found=np.asarray(f, dtype=np.float64)) for c, f in points),
            unit=self.unit,
            shown=shown,
        )


def tries(
    attack: Attack,
    target: Target,
    items: Records,
    waves: Sequence[Sequence[Conversation]],
    *,
    max_new_tokens: int,
    read: Any = None,
) -> Trial:
    """Ask one conversation an item in each wave; an item is found from the first wave on whose answer holds its answer.

    Args:
        waves: ``(waves, items)`` conversations. read: (answer of the model, item's number) -> text that is searched,
            e.g. a decoder; by default the answer as it is.
    """
    from expunge.evaluation.metrics.language.matching import contains

    answers = [str(a) for a in items.column("answer")]
    found = np.zeros(len(items))
    points = []
    for number, wave in enumerate(waves, 1):
        said = target.model.chat(wave, max_new_tokens=max_new_tokens)
        texts = [s[0] if read is None else read(s[0], k) for k, s in enumerate(said)]
        found = np.maximum(found, [float(contains(t, a)) for t, a in zip(texts, answers, strict=True)])
        points.append((number, found))
    return attack.trial(items, points)


def answer_room(target: Target, items: Records) -> int:
    """New tokens an answer may take: half as long again as the longest true one, in tokens of the model inside."""
    answers = [str(a) for a in items.column("answer")]
    inside = weights_of(target.model)
    if inside is None:
        return max(len(a) for a in answers) // 2 + 8  # a token is at least two characters of English, as a rule
    longest = max(map(len, inside.tokenizer(answers, add_special_tokens=False)["input_ids"]))
    return int(longest + longest // 2 + 4)


def answered(model: LanguageModel, items: Records) -> Floats:
    """``(items,)`` 1 where the model's greedy answer holds the true one."""
    from expunge.evaluation.metrics.language.matching import contains

    answers = [str(a) for a in items.column("answer")]
    room = answer_room(Target(model=model), items)
    said = model.generate([str(p) for p in items.column("prompt")], max_new_tokens=room, batch_size=256)
    return np.array([float(contains(str(s), a)) for s, a in zip(said, answers, strict=True)])
