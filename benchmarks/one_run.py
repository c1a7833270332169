"""The one-run bound for every possible number of right guesses at once, against one value at a time.

The plain way reads like Theorem 5.2: for one v the binomial terms are added one by one and ε is found by halving an
interval. It is timed on a few values and scaled by their number. Both are checked to agree. One thread, processor time.
"""

from __future__ import annotations

import math
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy import stats

from expunge.audit.epsilon.one_run import CAP, STEPS, lower_bound

COINS, GUESSES, DELTA = 1_000, 500, 1e-5
TRIED = (300, 400, 450)


def plain(right: int) -> float:
    def p_value(epsilon: float) -> float:
        q = 1.0 / (1.0 + math.exp(-epsilon))
        steepest = total = 0.0
        for i in range(1, right + 1):
            total += float(stats.binom.pmf(right - i, GUESSES, q))
            steepest = max(steepest, total / i)
        return float(stats.binom.sf(right - 1, GUESSES, q)) + 2 * COINS * DELTA * steepest

    low, high = 0.0, CAP
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if p_value(middle) < 0.05 else (low, middle)
    return low


def main() -> None:
    started = time.process_time()
    ours = lower_bound(np.arange(GUESSES + 1), GUESSES, delta=DELTA, coins=COINS)
    of_ours = time.process_time() - started
    started = time.process_time()
    found = [plain(right) for right in TRIED]
    of_plain = (time.process_time() - started) / len(TRIED) * (GUESSES + 1)
    np.testing.assert_allclose(ours[list(TRIED)], found, atol=1e-9)
    print(
        f"{GUESSES + 1} bounds: {of_ours:.2f} s at once, {of_plain:.0f} s one at a time: {of_plain / of_ours:.0f} times"
    )


if __name__ == "__main__":
    main()
