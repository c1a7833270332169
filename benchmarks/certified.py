"""A certified removal with its bound against a refit, at 100,000 rows of 100 features.

A removal is the whole of `forget`: ids looked up, the kept inverse downdated (O(d²)), the Newton step, the residual
measured on the remaining rows (O(nd), rounding included), the ledger charged, the model published, the row erased. It
is set against the whole of `fit`, against the solve in it alone (clipped rows ready, started at zero and ended where
`fit` ends), and against the same solve started at the old minimiser. Sekhari's step, which reads no remaining row, is
timed as well. Medians of processor seconds, one thread; what is reached is compared with a fresh minimiser.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from expunge.accounting.ledger import Ledger
from expunge.data.records import Records
from expunge.methods.certified.newton_removal import NewtonRemoval
from expunge.methods.certified.sekhari import Sekhari
from expunge.methods.learner import Learner

ROWS, FEATURES = 100_000, 100
BAR = 10.0
FITS, REMOVALS = 3, 100


def seconds(repeats: int, work: Callable[[], Any]) -> float:
    """Median processor seconds of ``work()``."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return sorted(taken)[repeats // 2]


class Forgetting:
    """A learner whose state follows its deletions."""

    def __init__(self, learner: Learner, records: Records) -> None:
        self.learner, self.state = learner, learner.fit(records, seed=1)
        self.ids = np.random.default_rng(1).permutation(records.ids).tolist()
        self.traces: list[Any] = []

    def forget(self) -> None:
        self.state, outcome = self.learner.forget(self.state, [self.ids.pop()])
        self.traces += outcome.trace


def main() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, FEATURES)) / np.sqrt(FEATURES)
    y = (x @ rng.normal(size=FEATURES) * 3 + rng.logistic(size=ROWS) > 0).astype(np.int64)
    records = Records(ids=np.arange(ROWS).astype("U6"), columns={"x": x, "y": y})

    failed = False
    for residual, noise in (("measured", 0.1), ("bound", 3.0)):
        learner = NewtonRemoval(residual=residual, noise=noise)  # type: ignore[arg-type]
        subject = Forgetting(learner, records)
        first = seconds(1, subject.forget)  # clips the rows once
        one = seconds(REMOVALS, subject.forget)
        again = seconds(FITS, lambda learner=learner: learner.fit(records))
        objective, rest = learner.objective, subject.state.rows.records()
        z, t = objective.features(rest.x), objective.targets(rest.y, 2)
        weights = subject.state.parts["secret.iterate"]["weights"]
        solve = seconds(FITS, lambda o=objective, z=z, t=t: o.solve(z, t))
        warm = seconds(FITS, lambda o=objective, z=z, t=t, w=weights: o.solve(z, t, start=w))
        fresh = objective.solve(z, t).weights
        ledger = Ledger.from_dict(subject.state.facts["ledger"])
        beta = ledger.residual_spent(str(ledger.retrains))
        left = float(np.linalg.norm(objective.gradient(weights, z, t)))
        away = float(np.linalg.norm(weights - fresh)) * learner.regularisation * len(rest)
        sound = left <= beta <= learner.budget and away <= beta + 1e-3 and not ledger.retrains
        print(
            f"newton_removal, {residual}, {ROWS:,} x {FEATURES}: a removal {one * 1e3:.1f} ms (first {first * 1e3:.0f})"
        )
        print(
            f"  after {len(records) - len(rest)} removals: residual {left:.1e}, distance x lambda n {away:.1e}, "
            f"beta {beta:.1e}, budget {learner.budget:.1e}, retrains {ledger.retrains}; sound: {sound}"
        )
        for name, took in (("fit", again), ("its solve alone", solve), ("solve from the old minimiser", warm)):
            print(f"  {name}: {took * 1e3:,.0f} ms, {took / one:,.1f}x a removal")
        ratio = min(again, solve) / one
        failed |= not sound or ratio < BAR
        print(f"  a removal against a refit: {ratio:,.1f}x, bar {BAR:,.0f}x: {'met' if ratio >= BAR else 'MISSED'}")

    stored = Sekhari(deletions=REMOVALS + 1)
    subject = Forgetting(stored, records)
    subject.forget()
    one = seconds(REMOVALS, subject.forget)
    print(
        f"sekhari: a removal {one * 1e3:.2f} ms, {seconds(FITS, lambda: stored.fit(records)) / one:,.0f}x below a fit"
    )
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
