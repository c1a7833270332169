"""Forge a log: every batch that held a deleted row is replaced, and every replaced step is repeated as a verifier does.

The forger's log claims the states of the true run, so that each step stands for itself: an error at one step is not
carried to the next, and the steps in which the row was not seen are true as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from expunge.audit.forging.log import Batch, ClaimedLog, Distance, Run, honest_log, repeat
from expunge.audit.forging.search import SEARCHES, Gap
from expunge.errors import EmptyForgetSet, EmptyRetainSet, RequestError, UnknownIds, UnknownName
from expunge.methods.hashed_course import mixed
from expunge.training.seeds import derive

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class ForgedStep:
    """A step with a batch of the forger's.

    Args:
        distance: of what it leads to from what was logged. moved: how far the true step
            went, measured in the same way.
    """

    step: int
    batch: Batch
    distance: Distance
    moved: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Forgery:
    """A log from which `gone` has been taken out.

    Args:
        gone: ids of the hidden rows. search: how batches were looked for. steps: those in which a hidden row was seen.
    """

    gone: tuple[str, ...]
    search: str
    steps: tuple[ForgedStep, ...]

    @property
    def distance(self) -> float:
        """Of the worst step: the smallest tolerance at which the whole log passes."""
        return max((step.distance.largest for step in self.steps), default=0.0)

    def log(self, run: Run) -> ClaimedLog:
        """The log to show to a verifier."""
        members = np.array([i not in set(self.gone) for i in run.ids])
        batches = dict(honest_log(run).batches)
        batches.update({step.step: step.batch for step in self.steps})
        return ClaimedLog(members=members, batches=batches)

    def as_dict(self) -> dict[str, Any]:
        return {
            "gone": list(self.gone),
            "search": self.search,
            "distance": self.distance,
            "steps": [
                {
                    "step": s.step,
                    "weights": s.distance.weights,
                    "rest": s.distance.rest,
                    "moved": s.moved,
                    "rows": len(s.batch.rows),
                }
                for s in self.steps
            ],
        }


def forge(
    run: Run,
    groups: Sequence[str | Sequence[str]],
    *,
    searches: Sequence[str] = tuple(SEARCHES),
    candidates: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Forgery, ...]:
    """A forgery for each group of rows (hidden together) and each search, in that order; the run is repeated once.

    Args:
        searches: of `SEARCHES`. candidates: M, rows offered at a step and batches drawn at random.
        seed: which rows are offered, by a hash of (seed, step, id).

    Raises:
        EmptyForgetSet, UnknownIds, EmptyRetainSet, UnknownName, RequestError: before anything is computed. DataError:
            a batch holds nearly all rows, so that there is nothing to put in a hidden row's place.
    """
    for name in searches:
        if name not in SEARCHES:
            raise UnknownName("search", name, SEARCHES)
    if not isinstance(candidates, int) or candidates < 1:
        raise RequestError(f"{candidates!r} candidates", "Give a whole number from 1")
    if not searches:
        raise RequestError("no searches", f"Name some of {', '.join(SEARCHES)}")
    named = [(group,) if isinstance(group, str) else tuple(group) for group in groups]
    hidden = [_mask(run, group) for group in named]
    if not hidden:
        raise EmptyForgetSet
    found: dict[tuple[int, str], list[ForgedStep]] = {(g, s): [] for g in range(len(hidden)) for s in searches}
    most = candidates + max(int(mask.sum()) for mask in hidden)
    for step in repeat(run):
        hit = [g for g, mask in enumerate(hidden) if mask[step.rows].any()]
        if hit:
            drawn = _drawn(run, step.number, step.rows, most, seed)
            gradients = run.gradients(step.number, step.before, np.concatenate([step.rows, drawn]))
            used, offered = gradients[: len(step.rows)], gradients[len(step.rows) :]
            moved = run.distance(step.before, step.after).largest
        for g in hit:
            free = np.flatnonzero(~hidden[g][drawn])[:candidates]
            gap = Gap(
                batch=step.rows,
                gone=hidden[g][step.rows],
                used=used,
                candidates=drawn[free],
                offered=offered[free],
                tries=candidates,
                seed=derive(seed, "forge", "batches", step.number, *sorted(set(named[g]))),
            )
            for name in searches:
                batch = SEARCHES[name](gap)
                distance = run.distance(step.after, run.advance(step.number, step.before, batch))
                found[g, name].append(ForgedStep(step=step.number, batch=batch, distance=distance, moved=moved))
        if progress:
            progress("forging", step.number + 1, run.steps)
    return tuple(Forgery(gone=named[g], search=name, steps=tuple(steps)) for (g, name), steps in found.items())


def forgeability(distances: Sequence[float], tolerances: Sequence[float]) -> list[float]:
    """Share of `distances` that are at most each tolerance: what passes a verifier who allows that much."""
    ordered = np.sort(np.asarray(distances, np.float64))
    return [float(np.searchsorted(ordered, t, side="right") / max(len(ordered), 1)) for t in tolerances]


def _mask(run: Run, group: Sequence[str]) -> npt.NDArray[np.bool_]:
    wanted = set(group)
    if not wanted:
        raise EmptyForgetSet
    missing = sorted(wanted - set(run.ids))
    if missing:
        raise UnknownIds("record ids", missing, "the rows of the run")
    if len(wanted) == len(run.ids):
        raise EmptyRetainSet("forging")
    return np.array([i in wanted for i in run.ids])


def _drawn(run: Run, step: int, batch: npt.NDArray[np.int64], most: int, seed: int) -> npt.NDArray[np.int64]:
    """Up to `most` rows outside the batch, in an order that is a function of (seed, step) and of each row's id."""
    outside = np.ones(len(run.ids), bool)
    outside[batch] = False
    rows = np.flatnonzero(outside)
    hashes = mixed(run.keys[rows], derive(seed, "forge", "candidates", step))
    return rows[np.argsort(hashes, kind="stable")[:most]]
