"""The log of a training run: enough to run it again, and nothing that tells what was taken out of it."""

from __future__ import annotations

import hashlib

import numpy as np

from expunge.data.records import Array
from expunge.methods.hashed_course import Keys
from expunge.methods.learner import Part
from expunge.training.seeds import derive


class TrainingLog:
    """What each step did: the record of Abdullah X (2508.12220), an array a field.

    ``ids``: 64-bit hash of the ordered row keys. ``rows``: how many. ``updates``: the optimiser's counter after the
    step. ``seeds``: of its dropout. ``learning_rates``: of the step, used or left out.

    Args:
        steps: of the run. before: a log whose first `start` steps are kept.
    """

    def __init__(self, steps: int, seed: int, before: Part | None = None, start: int = 0) -> None:
        self.ids = np.zeros(steps, np.uint64)
        self.rows, self.updates = np.zeros(steps, np.int64), np.zeros(steps, np.int64)
        self.seeds = np.array([derive(seed, "step", step) for step in range(steps)], np.int64)
        if before is not None:
            for name in ("ids", "rows", "updates"):
                getattr(self, name)[:start] = before[name][:start]

    def write(self, step: int, keys: Keys, runs: bool) -> None:
        """Note the batch of a step, in its order, and whether the optimiser moved."""
        digest = hashlib.sha256(keys.astype("<u8").tobytes()).digest()
        self.ids[step], self.rows[step] = int.from_bytes(digest[:8], "big"), len(keys)
        self.updates[step] = (self.updates[step - 1] if step else 0) + runs

    def part(self, learning_rates: Array) -> dict[str, Array]:
        return {
            "ids": self.ids,
            "rows": self.rows,
            "updates": self.updates,
            "seeds": self.seeds,
            "learning_rates": learning_rates,
        }
