"""Batches without the deleted rows whose summed gradient is nearest to that of the batch with them.

A step depends on its batch through G = Σ_{i∈B} ∇ℓ_i(w) alone (and b = |B|): any other batch with the same G is as good.
Ways to look for one among M candidates, rows that are neither in B nor deleted:

``dropped``      B without the deleted rows and nothing in their place: what an honest replay would use; no search.
``batches``      M whole batches of b rows drawn at random from candidates and what is left of B: Thudi et al.'s search.
``closest``      B with each deleted row replaced by the candidate whose own gradient is closest.
``greedy``       from there, rows are exchanged one for one as long as ‖Σ − G‖ falls: a sum of several fake gradients.
``nonnegative``  what is left of B, and a sum Σ a_j·g_j, a ≥ 0, of candidates that is nearest to what the deleted rows
                 gave (non-negative least squares). Its rows have weights, which only some verifiers accept; it bounds
                 from below what repeating rows could reach.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from expunge.audit.forging.log import Batch, Floats, Numbers
from expunge.errors import DataError, RunError


@dataclass(frozen=True, kw_only=True, eq=False)
class Gap:
    """What a forger knows at one step.

    Args:
        batch: (b,) the rows that were used. gone: (b,) Boolean, which of them are to be hidden.
        used: (b, parameters) gradients of the batch. candidates: (m,) other rows, in the order in which they were
            drawn. offered: (m, parameters) their gradients. tries: random batches to draw. seed: of the drawing.
    """

    batch: Numbers
    gone: npt.NDArray[np.bool_]
    used: Floats
    candidates: Numbers
    offered: Floats
    tries: int
    seed: int

    def __post_init__(self) -> None:
        if len(self.candidates) < int(self.gone.sum()):
            raise DataError(
                f"{int(self.gone.sum())} rows are to be hidden in a batch of {len(self.batch)}, and "
                f"{len(self.candidates)} rows are outside it",
                "Forge runs whose batches leave rows over, or allow more candidates",
            )


def miss(gap: Gap, batch: Batch) -> float:
    """‖Σ' − G‖₂ of a batch of rows of the gap: how far its sum of gradients is from the true one."""
    at = {row: k for k, row in enumerate(gap.candidates.tolist())}
    mine = {row: k for k, row in enumerate(gap.batch.tolist())}
    known = [gap.offered[at[row]] if row in at else gap.used[mine[row]] for row in batch.rows.tolist()]
    weights = np.ones(len(known)) if batch.weights is None else batch.weights
    return float(np.linalg.norm(weights @ np.array(known) - gap.used.sum(0)))


def dropped(gap: Gap) -> Batch:
    """What is left of the batch.

    Raises:
        DataError: nothing is.
    """
    if gap.gone.all():
        raise DataError(
            f"all {len(gap.batch)} rows of a batch are to be hidden: without them the step would not have happened",
            "Leave out the search `dropped`, or hide fewer rows together",
        )
    return Batch.of(gap.batch[~gap.gone])


def closest(gap: Gap) -> Batch:
    """Each deleted row's place is taken by the closest candidate that is not taken yet."""
    rows, free = gap.batch.copy(), np.ones(len(gap.candidates), bool)
    for place in np.flatnonzero(gap.gone).tolist():
        far = np.linalg.norm(gap.offered - gap.used[place], axis=1)
        taken = int(np.where(free, far, np.inf).argmin())
        rows[place], free[taken] = gap.candidates[taken], False
    return Batch.of(rows)


def random_batches(gap: Gap) -> Batch:
    """The best of `Gap.tries` batches drawn without repetition."""
    pool, gradients = _pool(gap)
    rng = np.random.Generator(np.random.Philox(key=gap.seed))
    target, size = gap.used.sum(0), len(gap.batch)
    best, least = pool[:0], np.inf
    for _ in range(gap.tries):
        drawn = rng.choice(len(pool), size, replace=False)
        far = float(np.linalg.norm(gradients[drawn].sum(0) - target))
        if far < least:
            best, least = pool[drawn], far
    return Batch.of(best)


def greedy(gap: Gap) -> Batch:
    """`closest`, then the best single exchange again and again, at most as often as the batch has rows."""
    pool, gradients = _pool(gap)
    position = {row: k for k, row in enumerate(pool.tolist())}
    inside = np.array([position[row] for row in closest(gap).rows.tolist()])
    target = gap.used.sum(0)
    products = gradients @ gradients.T
    squares = np.diagonal(products)
    least = float(np.linalg.norm(gradients[inside].sum(0) - target))
    for _ in range(len(gap.batch)):
        outside = np.setdiff1d(np.arange(len(pool)), inside)
        if not least or not len(outside):
            break
        along = gradients @ (gradients[inside].sum(0) - target)
        # ‖Σ − G − g_i + g_j‖² without what all pairs (i inside, j outside) share
        change = (squares[inside] - 2 * along[inside])[:, None] + (squares[outside] + 2 * along[outside])[None]
        change -= 2 * products[np.ix_(inside, outside)]
        out, into = np.unravel_index(int(change.argmin()), change.shape)
        changed = inside.copy()
        changed[out] = outside[into]
        far = float(np.linalg.norm(gradients[changed].sum(0) - target))
        if not far < least:
            break
        inside, least = changed, far
    return Batch.of(pool[inside])


def nonnegative(gap: Gap) -> Batch:
    """What is left of the batch, and the non-negative combination of candidates nearest to what is missing.

    Raises:
        RunError: the combination could not be found.
    """
    from scipy.optimize import nnls

    plain = closest(gap)
    if miss(gap, plain) == 0.0:
        return plain  # a copy as it is; in a weighted sum it would be as good only up to rounding
    missing = gap.used[gap.gone].sum(0)
    # Only the span of the candidates matters: the problem shrinks from parameters × m to m × m.
    basis, corner = np.linalg.qr(gap.offered.T)
    try:
        weights, _ = nnls(corner, basis.T @ missing, maxiter=30 * len(gap.candidates))
    except RuntimeError as error:
        raise RunError(f"non-negative least squares did not end ({error})", "Allow fewer candidates") from error
    chosen = weights > 0
    kept = gap.batch[~gap.gone]
    return Batch(
        rows=np.concatenate([kept, gap.candidates[chosen]]),
        weights=np.concatenate([np.ones(len(kept)), weights[chosen]]),
        size=len(gap.batch),
    )


def _pool(gap: Gap) -> tuple[Numbers, Floats]:
    """All rows that a forged batch may hold, and their gradients."""
    kept = ~gap.gone
    return np.concatenate([gap.batch[kept], gap.candidates]), np.concatenate([gap.used[kept], gap.offered])


SEARCHES: dict[str, Callable[[Gap], Batch]] = {
    "dropped": dropped,
    "batches": random_batches,
    "closest": closest,
    "greedy": greedy,
    "nonnegative": nonnegative,
}
