"""How a sharded and sliced learner is laid out: the numbers that its cost depends on, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from expunge.errors import RequestError

Placing = Literal["hashed", "equal"]
"""``hashed``: every row finds its shard and its slice by itself, uniformly. ``equal``: sizes differ by one at most."""


def equal_budget_epochs(epochs: float, slices: int) -> float:
    """Epochs a slice, e = 2e'/(R + 1), with which a sliced shard works through as many gradients as e' plain epochs.

    Stage r trains on slices 1..r, that is on r/R of the rows, so that all stages together are e(R + 1)/2 passes. The
    number is seldom whole; whoever rounds it should give the epochs used as `Layout.slice_epochs`, since rounding up
    makes everything dearer than plain training. Source: Bourtoule et al. 1912.03817, with equal slices.
    """
    return 2 * epochs / (slices + 1)


def spread_evenly(slices: int, kept: int) -> tuple[int, ...]:
    """After which of R slices to keep a checkpoint, if `kept` of them may be kept; the last one is the model itself.

    >>> spread_evenly(6, 3)
    (2, 4, 6)

    Raises:
        RequestError: fewer than one or more than there are slices.
    """
    if not 1 <= kept <= slices:
        raise RequestError(
            f"{kept} checkpoints a shard cannot be kept of {slices} slices", f"Keep between 1 and {slices}"
        )
    return tuple(round(slices * m / kept) for m in range(1, kept + 1))


@dataclass(frozen=True, kw_only=True)
class Layout:
    """N rows in S shards of R slices.

    Args:
        rows: N. shards: S. slices: R of a shard. epochs: e', of the plain training that sliced training replaces.
        placing: how rows come into shards and slices.
        slice_epochs: (R,) epochs of each stage; None for 2e'/(R + 1) in each.
        kept: slices after which a checkpoint is kept, rising, the last being R; None for all. Forgetting goes back to
            the last checkpoint kept before the slice of the row.
        batch_size: rows a step of training, where a stage ends with a whole step; None counts e_i passes to the row.
            Few rows a slice make the difference: a tenth of an epoch is still one step.

    Raises:
        RequestError: a number is out of its range, or the rows do not fill the slices.
    """

    rows: int
    shards: int = 1
    slices: int = 1
    epochs: float = 1.0
    placing: Placing = "hashed"
    slice_epochs: tuple[float, ...] | None = None
    kept: tuple[int, ...] | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        for name in ("rows", "shards", "slices"):
            check_count(name, getattr(self, name))
        _positive("epochs", (self.epochs,))
        if self.placing not in get_args(Placing):
            raise RequestError(
                f"rows are placed {' or '.join(get_args(Placing))}, not {self.placing!r}", "Correct the placing"
            )
        if self.shards > self.rows:
            raise RequestError(
                f"{self.shards} shards are more than the {self.rows} rows: some would hold nothing",
                f"Use at most {self.rows} shards",
            )
        if self.shards * self.slices > self.rows:
            raise RequestError(
                f"{self.shards} shards of {self.slices} slices are {self.shards * self.slices} slices and there are "
                f"{self.rows} rows: some would hold nothing",
                f"Use at most {self.rows // self.shards} slices, or fewer shards",
            )
        if self.batch_size is not None:
            check_count("batch_size", self.batch_size)
            if self.placing != "hashed":
                raise RequestError(
                    f"whole steps of {self.batch_size} rows are counted for hashed rows only",
                    "Leave the batch size out, or place rows by hash",
                )
        if self.slice_epochs is not None:
            if len(self.slice_epochs) != self.slices:
                raise RequestError(
                    f"epochs are given for {len(self.slice_epochs)} slices and there are {self.slices}",
                    "Give one number a slice",
                )
            _positive("epochs of a slice", self.slice_epochs)
        if self.kept is not None:
            rising = all(a < b for a, b in pairwise((0, *self.kept)))
            if not self.kept or not rising or self.kept[-1] != self.slices:
                raise RequestError(
                    f"checkpoints are kept after slices {list(self.kept)} of {self.slices}",
                    f"Name slices from 1 on in rising order, the last being {self.slices}: that one is the model",
                )

    @property
    def stage_epochs(self) -> tuple[float, ...]:
        """(R,) epochs of the stage that ends with each slice."""
        return self.slice_epochs or (equal_budget_epochs(self.epochs, self.slices),) * self.slices

    @property
    def reach(self) -> tuple[int, ...]:
        """(R,) for stage i the last slice u(i) ≥ i from which a removed row makes stage i run again.

        A row of slice r sends its shard back to the last checkpoint kept before r. So stage i runs again unless a
        checkpoint is kept at or after i and before r; with all of them kept, u(i) = i.
        """
        kept = self.kept or tuple(range(1, self.slices + 1))
        return tuple(next(t for t in kept if t >= i) for i in range(1, self.slices + 1))

    @property
    def checkpoints(self) -> int:
        """Models stored, over all shards; those in use (the last slice of each) are among them."""
        return self.shards * (self.slices if self.kept is None else len(self.kept))

    def sizes(self) -> list[tuple[int, list[int]]]:
        """For equal placing: (number of such shards, [rows of slices 1..i for each i]), with at most two kinds."""
        small, larger = divmod(self.rows, self.shards)
        kinds = ((self.shards - larger, small), (larger, small + 1))
        return [(count, _running(size, self.slices)) for count, size in kinds if count]


def _running(size: int, slices: int) -> list[int]:
    """Rows of the first i of `slices` parts of `size` rows, earlier parts being the larger ones."""
    small, larger = divmod(size, slices)
    return [small * i + min(i, larger) for i in range(1, slices + 1)]


def check_count(name: str, value: int) -> None:
    """Refuse what is no whole number from 1 on.

    Raises:
        RequestError.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RequestError(f"{name} must be a whole number from 1 on, got {value!r}", f"Correct {name}")


def _positive(name: str, values: Iterable[float]) -> None:
    for value in values:
        if not (math.isfinite(value) and value > 0):
            raise RequestError(f"{name} must be positive and finite, got {value!r}", f"Correct the {name}")
