"""In-context unlearning: examples of the forgotten with other answers, examples of the rest with their own."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from expunge.errors import DataError, RequestError
from expunge.evaluation.metrics.language.matching import contains, words
from expunge.methods.prompt_base import PromptMethod
from expunge.methods.prompt_parts import Around, Pair, Revealed, pairs_of, revealed, said_by_user, split_apart
from expunge.models.chat import ChatModel, Conversation, Message, assistant, user
from expunge.problem import Problem
from expunge.training.seeds import derive, permutation

MOST_LABELS = 10


@dataclass(frozen=True, kw_only=True)
class InContext(PromptMethod):
    """Questions that are forgotten stand before the query with other answers, and others with their own (ICUL).

        f_1 : y'_1  …  f_k : y'_k   (y' ≠ y)      r_1 : y_1  …  r_L : y_L      query :        at temperature 0

    In classification y' is another label; in question answering another record's answer, never a forgotten one, and an
    example is left out while it would tell a forgotten answer that the user has not said. The prompt names the
    forgotten questions: whoever reads it learns that they were asked to be forgotten (`ForgettingInContext.reveals`).

    Args:
        examples: L, pairs that are kept with their true answers. forgotten: most forgotten pairs in one prompt.
        deletions: ``relevant`` takes those that the query is nearest to, in shared words, and leaves a query that is
            near none of them as it is; ``all`` puts all of them before every query, as the paper does with requests of
            up to twenty.
        overlap: share of a forgotten question's words, weighted by rarity, from which a query is near it.
        task: ``classification``, ``question_answering``, or ``auto``: classification where there are at most 10
            different answers and each is that of two kept records at least.
        greedy: answer at temperature 0 whatever is asked for.

    This differs from the authors' code in
    1. `deletions` ``relevant``, which makes room for requests of any size; 2. wrong answers in question answering are
    taken from the nearest kept questions, or from the records' own column ``wrong``, so that they are of the right
    kind; 3. the true answers of other forgotten records are kept out of the prompt.
    """

    name: ClassVar[str] = "in_context"
    summary: ClassVar[str] = "forgotten questions with other answers stand before the query"
    paper: ClassVar[str] = "arXiv:2310.07579"
    needs: ClassVar[tuple[str, ...]] = ("retain",)
    in_prompt: ClassVar[bool] = True

    examples: int = 4
    forgotten: int = 4
    deletions: Literal["relevant", "all"] = "relevant"
    overlap: float = 0.5
    task: Literal["auto", "classification", "question_answering"] = "auto"
    greedy: bool = True

    def __post_init__(self) -> None:
        if not 2 <= self.examples <= 6:
            raise RequestError(f"examples is {self.examples}", "Give 2 to 6 pairs that are kept")
        if self.forgotten < 1:
            raise RequestError(f"forgotten is {self.forgotten}", "Put at least one forgotten pair into a prompt")
        if self.deletions not in ("relevant", "all"):
            raise RequestError(f"deletions is {self.deletions!r}", "Choose relevant or all")
        if not 0 < self.overlap <= 1:
            raise RequestError(f"overlap is {self.overlap}", "Give a share above 0, at most 1")
        if self.task not in ("auto", "classification", "question_answering"):
            raise RequestError(f"task is {self.task!r}", "Choose auto, classification or question_answering")

    def suppress(self, model: ChatModel, problem: Problem, seed: int) -> ForgettingInContext:
        """Raises DataError where records have no prompt, no other answer is left, or too few pairs can be shown."""
        gone, kept = pairs_of(problem.forget), pairs_of(problem.retain)
        if not all(words(p.prompt) for p in gone):
            bare = next(p.id for p in gone if not words(p.prompt))
            raise DataError(
                f"record {bare!r} has no prompt, and in-context unlearning answers prompts otherwise",
                "Give questions, or texts to be classified, or use a guardrail",
            )
        kept = [p for p in kept if words(p.prompt)]
        labels = self._labels(gone, kept)
        nearness = Nearness([p.prompt for p in gone], [p.prompt for p in kept])
        wrong = self._flipped(gone, labels, seed) if labels else self._others(gone, kept, problem, nearness, seed)
        secrets = () if labels else tuple(sorted({p.answer for p in gone}))
        order = [kept[k] for k in permutation(len(kept), seed, "in_context", "examples")]
        shown = [p for p in order if not _tells(p.text, secrets)]
        if len(shown) < self.examples:
            raise DataError(
                f"{len(shown)} kept pairs can be shown, and {self.examples} are asked for", "Keep more, or show fewer"
            )
        flipped = [Pair(p.id, p.prompt, w, p.subject) for p, w in zip(gone, wrong, strict=True)]
        return ForgettingInContext(model, self, gone, flipped, shown, secrets, nearness)

    def _labels(self, gone: Sequence[Pair], kept: Sequence[Pair]) -> list[str]:
        """The labels, where this is classification; a label that no kept record has may be a secret."""
        counts = Counter(p.answer for p in [*gone, *kept])
        common = Counter(p.answer for p in kept)
        few = len(counts) <= MOST_LABELS and all(common[label] >= 2 for label in counts)
        if self.task == "question_answering" or (self.task == "auto" and not few):
            return []
        if len(counts) < 2:
            raise DataError(
                "all records have the same answer, and there is no other label", "Give records of two classes"
            )
        return sorted(counts)

    def _flipped(self, gone: Sequence[Pair], labels: Sequence[str], seed: int) -> list[str]:
        out = []
        for pair in gone:
            others = [label for label in labels if label != pair.answer]
            out.append(others[derive(seed, "in_context", "label", pair.id) % len(others)])
        return out

    def _others(
        self, gone: Sequence[Pair], kept: Sequence[Pair], problem: Problem, nearness: Nearness, seed: int
    ) -> list[str]:
        """For each forgotten pair another answer; the same one wherever the same fact of a subject is asked for."""
        secrets = [p.answer for p in gone]
        own = problem.forget.columns.get("wrong")
        chosen: dict[tuple[str, str], str] = {}
        out = []
        for row, pair in enumerate(gone):
            if (pair.subject, pair.answer) not in chosen:
                near = [kept[k].answer for k in nearness.kept_by(pair.prompt)]
                listed = [] if own is None else _read(own[row])
                free = [a for a in dict.fromkeys([*listed, *near]) if words(a) and not _tells(a, secrets)]
                if not free:
                    raise DataError(
                        f"there is no answer that record {pair.id!r} could be given instead: all hold forgotten ones",
                        "Keep more records, or give a column wrong",
                    )
                pool = [a for a in free if a in listed] or free[:5]
                pick = derive(seed, "in_context", "answer", pair.subject, pair.answer) % len(pool)
                chosen[pair.subject, pair.answer] = pool[pick]
            out.append(chosen[pair.subject, pair.answer])
        return out


class ForgettingInContext(Around):
    """A model that reads examples before each query; see `InContext`. Its examples are kept in memory only."""

    def __init__(
        self,
        inside: ChatModel,
        method: InContext,
        gone: Sequence[Pair],
        flipped: Sequence[Pair],
        shown: Sequence[Pair],
        secrets: Sequence[str],
        nearness: Nearness,
    ) -> None:
        super().__init__(inside)
        self._method, self._gone, self._flipped, self._shown = method, list(gone), list(flipped), list(shown)
        self._secrets, self._nearness = tuple(secrets), nearness

    def state_digest(self) -> str:
        told = json.dumps([self._method.parameters(), *[[p.prompt, p.answer] for p in [*self._flipped, *self._shown]]])
        return hashlib.sha256(told.encode()).hexdigest()

    def examples(self, conversation: Conversation) -> list[Pair]:
        """The forgotten pairs with other answers that stand before this query; none where it is near none of them."""
        said = said_by_user(conversation)
        safe = [not _tells(p.prompt, [s for s in self._secrets if not contains(said[-1], s)]) for p in self._flipped]
        if self._method.deletions == "all":
            return [p for p, fine in zip(self._flipped, safe, strict=True) if fine]
        scores = self._nearness.to_gone(said)
        rows = [k for k in range(len(scores)) if scores[k] >= self._method.overlap and safe[k]]
        rows.sort(key=lambda k: (-scores[k], k))
        return [self._flipped[k] for k in rows[: self._method.forgotten]]

    def sent(self, conversation: Conversation, max_new_tokens: int = 64) -> list[Message]:
        """The conversation as the model inside gets it: as many examples as its context has room for."""
        gone = self.examples(conversation)
        if not gone:
            return list(conversation)
        own = {m["content"] for m in conversation}
        kept = [p for p in self._shown if p.prompt not in own][: self._method.examples]
        while True:
            messages = self._before(conversation, [*gone, *kept])
            if (len(gone) == 1 and not kept) or self._fits(messages, max_new_tokens):
                return messages
            if len(kept) > 2 or len(gone) == 1:  # two kept pairs stay as long as there are forgotten ones to take out
                kept = kept[:-1]
            else:
                gone = gone[:-1]

    def reveals(self, conversation: Conversation) -> Revealed:
        """What the prompt tells whoever reads it."""
        return revealed(self.sent(conversation), conversation, self._gone)

    def chat(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int = 64,
        samples: int = 0,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> list[list[str]]:
        def ask(asked: Sequence[Conversation], count: int) -> list[list[str]]:
            return self.inside.chat(
                asked, max_new_tokens=max_new_tokens, samples=count, temperature=temperature, seed=seed
            )

        def instead(rows: list[int]) -> list[list[str]]:
            sent = [self.sent(conversations[k], max_new_tokens) for k in rows]
            if not self._method.greedy:
                return ask(sent, samples)
            return [said * max(samples, 1) for said in ask(sent, 0)]

        near = [bool(self.examples(c)) for c in conversations]
        return split_apart(conversations, near, lambda plain: ask(plain, samples), instead)

    def _before(self, conversation: Conversation, examples: Sequence[Pair]) -> list[Message]:
        """The examples as turns, behind a system message and before everything else."""
        start = 1 if conversation[0]["role"] == "system" else 0
        turns = [m for p in examples for m in (user(p.prompt), assistant(p.answer))]
        return [*conversation[:start], *turns, *conversation[start:]]

    def _fits(self, messages: Sequence[Message], new: int) -> bool:
        length, context = getattr(self.inside, "length", None), getattr(self.inside, "context", None)
        return length is None or context is None or length(messages) + new <= context


class Nearness:
    """Shared words between a query and prompts, each weighted by how rare it is: log(prompts / prompts that hold it).

    Args:
        gone, kept: prompts.
    """

    def __init__(self, gone: Sequence[str], kept: Sequence[str]) -> None:
        self._gone, self._kept = [frozenset(words(t)) for t in gone], [frozenset(words(t)) for t in kept]
        everyone = [*self._gone, *self._kept]
        held = Counter(w for own in everyone for w in own)
        self._weight = {w: math.log((1 + len(everyone)) / n) for w, n in held.items()}

    def to_gone(self, said: Sequence[str]) -> list[float]:
        """(gone,) the weighted share of each forgotten prompt's words that stand in what was said, at most 1."""
        own = frozenset(w for text in said for w in words(text))
        return [self._sum(g & own) / max(self._sum(g), 1e-12) for g in self._gone]

    def kept_by(self, prompt: str) -> list[int]:
        """Numbers of the kept prompts, the nearest one first: shared weight against all weight of both."""
        own = frozenset(words(prompt))
        near = [self._sum(k & own) / max(self._sum(k | own), 1e-12) for k in self._kept]
        return sorted(range(len(near)), key=lambda k: (-near[k], k))

    def _sum(self, chosen: frozenset[str]) -> float:
        return math.fsum(self._weight.get(w, 0.0) for w in chosen)


def _tells(text: str, secrets: Sequence[str]) -> bool:
    return any(contains(text, s) for s in secrets)


def _read(value: object) -> list[str]:
    """Wrong answers of a record: a JSON list in a column of texts."""
    try:
        told = json.loads(str(value))
    except ValueError:
        return []
    return [str(v) for v in told] if isinstance(told, list) else []
