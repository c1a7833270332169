"""A training log as prover and verifier see it: states, batches, and the step that leads from one state to the next.

A log (w_0, B_0, w_1, B_1, …, w_T) is valid at tolerance τ if every step can be repeated from it:

    ‖w_{t+1} − step_t(w_t, B_t)‖₂ ≤ τ    for all t                                       (Thudi et al., 2110.11891)

Nothing in that says that the batches B_t are those that were used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from expunge.methods.hashed_course import Keys

Numbers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """What one step is said to have used.

    Args:
        rows: (b,) positions in the run's table, in the order in which they are summed.
        weights: (b,) ≥ 0, one a row; None: an ordinary batch, each row counts once.
        size: what the weighted sum of the rows' gradients is divided by; of an ordinary batch its number of rows.
    """

    rows: Numbers
    weights: Floats | None = None
    size: int

    @classmethod
    def of(cls, rows: Numbers) -> Batch:
        return cls(rows=rows, size=len(rows))


class Distance(NamedTuple):
    """How far a repeated step ends from the logged state.

    ``weights``: ‖w_{t+1} − w'_{t+1}‖₂. ``rest``: the same of what else the log carries from step to step (momentum,
    Adam's moments, batch statistics); 0 where there is nothing else.
    """

    weights: float
    rest: float

    @property
    def largest(self) -> float:
        """What is held against a tolerance: a state that was logged must be right in all its parts."""
        return max(self.weights, self.rest)


class Run(Protocol):
    """A deterministic training run that can be repeated step by step; ``expunge.audit.forging.linear`` is one.

    Attributes:
        ids: of the rows. keys: (n,) 64-bit hashes of the ids, by which candidates are drawn. steps: of the run.
        passes: (steps,) in which pass over the rows each step lies.
    """

    ids: tuple[str, ...]
    keys: Keys
    steps: int
    passes: Numbers

    def batch(self, step: int) -> Numbers:
        """(b,) rows of the step; empty if it was left out."""

    def start(self) -> Any:
        """The state before step 0."""

    def advance(self, step: int, state: Any, batch: Batch) -> Any:
        """The state after a step; `state` stays as it is."""

    def gradients(self, step: int, state: Any, rows: Numbers) -> Floats:
        """(m, parameters) the gradient of each row's own loss at `state`, without regularisers."""

    def distance(self, one: Any, other: Any) -> Distance:
        """Of two states."""

    def finish(self, state: Any) -> None:
        """Check the state after the last step.

        Raises:
            RunError, TamperedEvidence: the run that was repeated is not the one that was logged.
        """


class Step(NamedTuple):
    """A step of a run: its number, its rows, and the states on both sides."""

    number: int
    rows: Numbers
    before: Any
    after: Any


def repeat(run: Run) -> Iterator[Step]:
    """The steps of a run, those that were left out excepted, one state in memory at a time."""
    state = run.start()
    for number in range(run.steps):
        rows = run.batch(number)
        if len(rows):
            after = run.advance(number, state, Batch.of(rows))
            yield Step(number, rows, state, after)
            state = after
    run.finish(state)


@dataclass(frozen=True, kw_only=True, eq=False)
class ClaimedLog:
    """What somebody says a run was: the same states, with batches of their choice.

    Args:
        members: (n,) Boolean, which rows are said to have been learned from. batches: step -> batch, for every step
            that is said to have moved the weights.
    """

    members: npt.NDArray[np.bool_]
    batches: Mapping[int, Batch]


def honest_log(run: Run) -> ClaimedLog:
    """What the run really was."""
    rows = {step: run.batch(step) for step in range(run.steps)}
    return ClaimedLog(
        members=np.ones(len(run.ids), bool), batches={t: Batch.of(rows) for t, rows in rows.items() if len(rows)}
    )
