"""What became of the requests: which run served each of them, and when each stage was reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from expunge.service.simulate.times import Times


@dataclass(frozen=True)
class Runs:
    """Runs of one stage: (runs,) moments of start and end, (runs,) requests served."""

    start: Times
    end: Times
    size: npt.NDArray[np.int64]

    @classmethod
    def of(cls, start: Sequence[int], end: Sequence[int], size: Sequence[int]) -> Runs:
        return cls(*(np.asarray(values, dtype=np.int64) for values in (start, end, size)))

    def __len__(self) -> int:
        return len(self.start)

    @property
    def busy(self) -> float:
        """Microseconds of all workers together."""
        return float((self.end - self.start).sum())


@dataclass(frozen=True, kw_only=True)
class Served:
    """How one rule served the traffic.

    Args:
        runs: of the exact stage. run_of: (n,) which of them served each request. approximate: runs of the middle stage,
            if there is one. approximate_of: (n,) which of those served each request, −1 where its exact window came
            no later. suppress_after: microseconds from the receipt until the data is hidden; None: it never is.
    """

    runs: Runs
    run_of: npt.NDArray[np.int64]
    approximate: Runs | None = None
    approximate_of: npt.NDArray[np.int64] | None = None
    suppress_after: int | None = None

    @property
    def fulfilled(self) -> Times:
        """(n,) moments from which on the data is gone."""
        found: Times = self.runs.end[self.run_of]
        return found

    def stages(self, received: Times) -> dict[str, tuple[Times, Times]]:
        """From when until when each request's data is in force at each stage, (n,) each; they follow on each other.

        ``unsuppressed`` (in the model, and shown), ``suppressed`` (in the model, hidden by the box), ``approximated``
        (removed without proof). Rules that do not escalate know the first one only.
        """
        gone = self.fulfilled
        if self.suppress_after is None:
            return {"unsuppressed": (received, gone)}
        softened = gone
        if self.approximate is not None and self.approximate_of is not None:
            ends = np.append(self.approximate.end, np.iinfo(np.int64).max)  # place −1
            softened = np.minimum(ends[self.approximate_of], gone)
        hidden = np.minimum(received + self.suppress_after, softened)
        return {
            "unsuppressed": (received, hidden),
            "suppressed": (hidden, softened),
            "approximated": (softened, gone),
        }
