"""Which step of a training run sees which row, decided by the row's id: taking rows out moves no other row.

A usual epoch is a permutation of n rows cut every so many; one row less and every later batch is another. Here each row
has a 64-bit key (from its id and the seed), which every epoch mixes anew; an epoch is the rows sorted by the mixed key
and cut at *fixed* values of it. A batch is then a function of the ids in it and of nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from expunge.errors import RequestError
from expunge.training.seeds import derive

Keys = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]


def row_keys(ids: Iterable[str], seed: int) -> Keys:
    """(n,) 64-bit keys of record ids, a function of each id and the seed."""
    prefix = f"{derive(seed, 'replay', 'key')}\x00".encode()
    digests = [hashlib.sha256(prefix + i.encode()).digest()[:8] for i in ids]
    return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64)


def mixed(keys: Keys, salt: int) -> Keys:
    """(n,) keys mixed with a 63-bit salt: splitmix64's finaliser, a bijection (Steele, Lea & Flood, OOPSLA 2014)."""
    z = (keys ^ np.uint64(salt)) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@dataclass(frozen=True, kw_only=True)
class HashedCourse:
    """The order of a training run: periods one after the other, each of `epochs` passes of `steps_per_epoch` steps.

    Args:
        seed: of the order. epochs: passes over the rows of a period. steps_per_epoch: fixed, however many rows there
            are. periods: how many; a row's period is given from outside (when it came in), 0 where there is but one.
    """

    seed: int
    epochs: int
    steps_per_epoch: int
    periods: int = 1

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return self.periods * self.epochs * self.steps_per_epoch

    def _hash(self, keys: Keys, epoch: int) -> Keys:
        return mixed(keys, derive(self.seed, "replay", "epoch", epoch))

    def _place(self, hashes: Keys) -> Numbers:
        """(n,) step within the epoch: floor(u·steps_per_epoch) for the hash's upper 32 bits as u in [0, 1)."""
        return ((hashes >> np.uint64(32)) * np.uint64(self.steps_per_epoch) >> np.uint64(32)).astype(np.int64)

    def first_steps(self, keys: Keys, periods: Numbers) -> Numbers:
        """(n,) the step at which each row is seen for the first time."""
        return periods * (self.epochs * self.steps_per_epoch) + self._place(self._hash(keys, 0))

    def block(self, number: int, keys: Keys, periods: Numbers) -> list[Numbers]:
        """The batches of one pass over one period: for each of its steps, positions in `keys`, in order."""
        period, epoch = divmod(number, self.epochs)
        rows = np.flatnonzero(periods == period) if self.periods > 1 else np.arange(len(keys))
        hashes = self._hash(keys[rows], epoch)
        # Sorted by the hash, the steps come one after the other. Equal hashes keep the order of the table, which no
        # deletion changes.
        order = np.argsort(hashes, kind="stable")
        cuts = np.searchsorted(self._place(hashes[order]), np.arange(1, self.steps_per_epoch))
        return np.split(rows[order], cuts)

    def useful(self, index: int) -> int:
        """The step of the `index`-th useful checkpoint place: places are the steps of each period's *first* pass.

        After its first pass every row of a period has been seen, so that no later place can spare it anything.
        """
        period, step = divmod(index, self.steps_per_epoch)
        return period * self.epochs * self.steps_per_epoch + step

    def checkpoint_steps(self, every: int, most: int | None = None) -> list[int]:
        """Before which steps to keep the state: every so many useful places, spread out until there are `most`.

        Step 0 is not among them: the state before it is made again from the seed.
        """
        places = self.periods * self.steps_per_epoch
        if most is not None and most < 1:
            return []
        spacing = every
        while most is not None and -(-places // spacing) - 1 > most:
            spacing += every
        return [self.useful(index) for index in range(spacing, places, spacing)]

    def expected_steps(self, checkpoints: Iterable[int], *, requests: int = 1, period: int = 0) -> float:
        """Mean number of steps replayed when `requests` random rows of one period go at once.

        With c checkpoint places, spaced evenly over a single pass of T steps, that is (T + T/(c+1))/2 for one request:

            T − Σ_j (t_j − t_{j−1})·P(first seen ≥ t_j),  P(first seen ≥ t) = (1 − (t − b)/s)^K  for b ≤ t < b + s,

        with t_j the checkpoints (t_0 = 0), b the period's first step and s the steps of an epoch; P is 1 before b and 0
        from b + s on.

        Raises:
            RequestError: no such period, or fewer than one request.
        """
        if not 0 <= period < self.periods or requests < 1:
            raise RequestError(
                f"period {period} and {requests} requests asked of {self.periods} periods",
                "Count periods from 0 and requests from 1",
            )
        begin, spared, before = period * self.epochs * self.steps_per_epoch, 0.0, 0
        for step in sorted(checkpoints):
            unseen = min(max(1 - (step - begin) / self.steps_per_epoch, 0.0), 1.0)
            spared += (step - before) * unseen**requests
            before = step
        return self.steps - spared
