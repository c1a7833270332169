"""A request to Descent-to-Delete and to Langevin unlearning against fitting again, 20,000 rows of 50 features.

Langevin's accountant is inverted once beforehand (a fifth of a second for each (ε, δ) of a process). One thread,
processor time; the whole of `forget`, clipping the rows included. A request must cost less than a fit.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from expunge.accounting.concentrated import largest_rho
from expunge.data.records import Records
from expunge.methods.certified.descent_to_delete import DescentToDelete
from expunge.methods.certified.langevin import Langevin

ROWS, TEST, FEATURES, REQUESTS = 20_000, 4_000, 50, 3
BAR = 1.0


def table() -> tuple[Records, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    w = rng.normal(size=FEATURES)
    x = rng.normal(size=(ROWS + TEST, FEATURES))
    y = (x @ w / np.sqrt(FEATURES) + rng.normal(size=len(x)) * 0.3 > 0).astype(np.int64)
    ids = np.array([f"row-{k}" for k in range(ROWS)])
    records = Records(ids=ids, columns={"x": x[:ROWS], "y": y[:ROWS]}, classes=("no", "yes"))
    return records, x[ROWS:], y[ROWS:]


def timed(run: Callable[..., Any], *given: Any, **named: Any) -> tuple[float, Any]:
    started = time.process_time()
    result = run(*given, **named)
    return time.process_time() - started, result


def main() -> None:
    records, x, y = table()
    print(f"{'learner':44} {'fit, ms':>9} {'request':>9} {'ratio':>7} {'steps':>6} {'accuracy':>9}")
    worst = float("inf")
    largest_rho(1.0, 1e-5)
    for learner in (
        DescentToDelete(),
        DescentToDelete(variant="perfect"),
        DescentToDelete(regularisation=1e-3, steps=300),
        Langevin(noise=0.03),
        Langevin(noise=0.01),
    ):
        fit, state = timed(learner.fit, records, seed=1)
        request = 0.0
        for k in range(REQUESTS):
            seconds, (state, unlearned) = timed(learner.forget, state, [f"row-{k}"])
            request += seconds / REQUESTS
        told = {k: v for k, v in learner.parameters().items() if k in ("variant", "regularisation", "noise")}
        name = f"{learner.name} " + " ".join(str(v) for v in told.values())
        accuracy = float((learner.predict(state, x) == y).mean())
        steps = unlearned.trace[0]["steps"]
        ratio = fit / request
        worst = min(worst, ratio)
        print(f"{name:44} {fit * 1e3:9.0f} {request * 1e3:9.0f} {ratio:7.1f} {steps:6} {accuracy:9.3f}")
    assert worst > BAR, f"a request costs more than a fit: {worst:.2f}"


if __name__ == "__main__":
    main()
