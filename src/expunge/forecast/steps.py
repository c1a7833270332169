"""Training in whole steps: what e passes over m rows cost when the last one is rounded up to a step.

This is how `expunge.training.loop` counts: a pass has ⌈m/B⌉ steps, the last of them smaller, and e passes are
⌈e⌈m/B⌉⌉ steps.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

# Sums over more sizes than this are read off at so many of them, with straight lines between.
MOST_SIZES = 512
# Standard deviations of the binomial that are summed over: beyond, less than 1e-20 of it is left.
WIDTH = 10.0


def gradients(rows: npt.NDArray[np.int64], epochs: float, batch_size: int) -> npt.NDArray[np.float64]:
    """(n,) example gradients of `epochs` passes over (n,) numbers of rows, in whole steps of `batch_size` rows.

    >>> gradients(np.array([0, 10, 100]), 0.25, 32)
    array([ 0., 10., 32.])
    """
    each = -(-rows // batch_size)
    # Rounding of e must not add a step: 2/21 of 21 steps are 2.
    steps = np.ceil(np.round(each * epochs, 9)).astype(np.int64)
    passes, rest = np.divmod(steps, np.maximum(each, 1))
    worked: npt.NDArray[np.float64] = (passes * rows + rest * batch_size).astype(np.float64)
    return worked


def total_gradients(sizes: range, share: float, epochs: float, batch_size: int) -> float:
    """Σ over n in `sizes` of the mean of `gradients` over Bin(n, share), for consecutive n ≥ 0.

    Exact up to `MOST_SIZES` sizes; beyond, the mean is interpolated between so many.
    """
    if share >= 1 and len(sizes) <= MOST_SIZES:
        return float(gradients(np.array(sizes), epochs, batch_size).sum())
    if len(sizes) <= MOST_SIZES:
        return math.fsum(_mean(n, share, epochs, batch_size) for n in sizes)
    nodes = np.unique(np.linspace(sizes[0], sizes[-1], MOST_SIZES).astype(np.int64))
    values = [_mean(int(n), share, epochs, batch_size) for n in nodes]
    return float(np.interp(np.array(sizes), nodes, values).sum())


def _mean(n: int, share: float, epochs: float, batch_size: int) -> float:
    from scipy.stats import binom  # not for whoever asks without a batch size

    half = WIDTH * math.sqrt(n * share * (1 - share)) + WIDTH
    low, high = max(0, math.floor(n * share - half)), min(n, math.ceil(n * share + half))
    rows = np.arange(low, high + 1)
    return float(binom.pmf(rows, n, share) @ gradients(rows, epochs, batch_size))
