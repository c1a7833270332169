"""When runs start that are ready in order and wait for one of c workers: exact, first come, first served."""

from __future__ import annotations

from heapq import heapify, heapreplace

import numpy as np

from expunge.service.simulate.times import Times

BLOCK = 1 << 18


def starts_in_order(ready: Times, durations: Times, workers: int) -> Times:
    """(runs,) moments at which runs start, each on the worker that is free first and no earlier than it is ready.

    For one worker by Lindley's recursion, end_i = max(ready_i, end_{i−1}) + d_i, which with D_i = d_1 + … + d_i is
    D_i + max over j ≤ i of (ready_j − D_{j−1}): a running sum and a running maximum, exact in whole microseconds. For
    more, Kiefer and Wolfowitz's recursion on the moments at which workers become free, in a heap.

    Args:
        ready: (runs,) rising. durations: (runs,) microseconds. workers: c ≥ 1.
    """
    if workers == 1:
        until = np.cumsum(durations)
        before = until - durations
        found: Times = before + np.maximum.accumulate(ready - before)
        return found
    if workers >= len(ready):
        return ready.copy()
    free = [int(ready[0])] * workers
    heapify(free)
    starts = np.empty(len(ready), dtype=np.int64)
    for a in range(0, len(ready), BLOCK):
        block = []
        for at, takes in zip(ready[a : a + BLOCK].tolist(), durations[a : a + BLOCK].tolist(), strict=True):
            start = free[0]
            if at > start:
                start = at
            heapreplace(free, start + takes)
            block.append(start)
        starts[a : a + BLOCK] = block
    return starts
