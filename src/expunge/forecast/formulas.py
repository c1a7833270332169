"""Expected cost of forgetting with shards and slices, in example gradients (rows × epochs).

Source of the idea and of the functions called ``published_…``: Bourtoule et al., *Machine Unlearning*, 1912.03817.
They are kept as written, to be compared with; `expected_cost` is derived here and exact.

The derivation. Stage i of a shard trains for e_i epochs on the rows of its slices 1..i. Forgetting runs it again if a
row of slices 1..u(i) of that shard was removed (`Layout.reach`; u(i) = i where every checkpoint is kept), on the rows
of slices 1..i that remain. So

    cost = Σ_shards Σ_i e_i · |remaining rows of slices 1..i| · 1[a row of slices 1..u(i) is removed]

and the expectation is taken term by term, for requests that name rows uniformly at random and without repetition. A
row's place does not depend on when it is asked for, so the K removed and the N − K remaining rows are exchangeable.

Hashed rows. Each row's place is its own: a remaining row lies in the i-block of a given shard with probability i/(SR),
and K removed rows all miss the u-block with probability (1 − u/(SR))^K, independently of it. With S shards,

    batch of K:        (N − K) Σ_i e_i (i/R) [1 − (1 − u(i)/(SR))^K]
    request k alone:   (N − k) Σ_i e_i (i/R) u(i)/(SR),   summed over k = 1..K with Σ(N − k) = K(2N − K − 1)/2

Equal shards. The i-block of a shard holds c_i rows, exactly; the removed rows in it are hypergeometric, and
P0(c) = C(N − c, K)/C(N, K) is the chance that all of them miss c rows:

    batch of K:        Σ_shards Σ_i e_i c_i [1 − K/N − P0(c_u(i))]
    request k alone:   (N − k) Σ_shards Σ_i e_i c_i (c_u(i) − 1) / (N(N − 1))

Whole steps. With `Layout.batch_size` a stage of m rows costs `expunge.forecast.steps.gradients` of m in place of e_i m.
The m remaining rows of a hashed i-block are binomial and independent of which block is hit, so (N − K) i/(SR) e_i above
becomes the mean of that function over Bin(N − K, i/(SR)).
"""

from __future__ import annotations

import math

from expunge.errors import RequestError
from expunge.forecast.layout import Layout, check_count, equal_budget_epochs
from expunge.forecast.steps import total_gradients

# Above so many factors a product of them gives way to the gamma function, whose rounding no longer matters there.
MOST_FACTORS = 10_000


def expected_cost(layout: Layout, requests: int, *, batch: bool = False) -> float:
    """Expected example gradients of forgetting `requests` uniformly drawn rows, exact for both placings.

    Args:
        requests: K rows. batch: all at once; otherwise one after the other, each seeing what the earlier ones left.

    Raises:
        RequestError: no request, or as many as there are rows.
    """
    check_requests(layout, requests)
    N, K = layout.rows, requests
    blocks = zip(layout.stage_epochs, range(1, layout.slices + 1), layout.reach, strict=True)
    if layout.placing == "hashed":
        parts = layout.shards * layout.slices
        if layout.batch_size is not None:
            left = range(N - K, N - K + 1) if batch else range(N - K, N)
            return layout.shards * math.fsum(
                hit_hashed(u / parts, K if batch else 1) * total_gradients(left, i / parts, e, layout.batch_size)
                for e, i, u in blocks
            )
        if batch:
            return (N - K) * math.fsum(e * (i / layout.slices) * hit_hashed(u / parts, K) for e, i, u in blocks)
        return _remaining(N, K) * math.fsum(e * (i / layout.slices) * (u / parts) for e, i, u in blocks)
    terms = []
    stages = list(blocks)
    for count, running in layout.sizes():
        for e, i, u in stages:
            rows, reach = running[i - 1], running[u - 1]
            if batch:
                terms.append(count * e * rows * _hit_equal_less(N, reach, K))
            else:
                terms.append(count * e * _remaining(N, K) * (rows / N) * ((reach - 1) / (N - 1)))
    return math.fsum(terms)


def retrain_cost(layout: Layout, requests: int, *, batch: bool = False) -> float:
    """Example gradients of the alternative: one model on all remaining rows for e' epochs, at once or at each request.

    Raises:
        RequestError: no request, or as many as there are rows.
    """
    check_requests(layout, requests)
    if layout.batch_size is not None:
        left = range(layout.rows - requests, layout.rows - requests + 1 if batch else layout.rows)
        return total_gradients(left, 1.0, layout.epochs, layout.batch_size)
    return (layout.rows - requests if batch else _remaining(layout.rows, requests)) * layout.epochs


def speedup(layout: Layout, requests: int, *, batch: bool = False) -> float:
    """`retrain_cost` over `expected_cost`, > 0; infinite where shards of one row leave nothing to be trained again."""
    cost = expected_cost(layout, requests, batch=batch)
    return retrain_cost(layout, requests, batch=batch) / cost if cost else math.inf


def training_cost(layout: Layout) -> float:
    """Expected example gradients of the first training of all shards; N e' where the budgets are equal.

    Equal placing of rows that the slices do not divide costs a little more, for earlier slices are the larger ones;
    whole epochs a slice (`Layout.slice_epochs`) may cost more or less.
    """
    stages = layout.stage_epochs
    if layout.batch_size is not None:
        every = range(layout.rows, layout.rows + 1)
        parts = layout.shards * layout.slices
        return layout.shards * math.fsum(
            total_gradients(every, i / parts, e, layout.batch_size) for i, e in enumerate(stages, 1)
        )
    if layout.placing == "hashed":
        return layout.rows * math.fsum(e * (i / layout.slices) for i, e in enumerate(stages, 1))
    return math.fsum(
        count * e * rows for count, running in layout.sizes() for e, rows in zip(stages, running, strict=True)
    )


def check_requests(layout: Layout, requests: int) -> None:
    """Refuse a number of requests that leaves nothing to forget or nothing to keep.

    Raises:
        RequestError.
    """
    check_count("requests", requests)
    if requests >= layout.rows:
        raise RequestError(
            f"{requests} requests would remove all {layout.rows} rows",
            f"Ask for at most {layout.rows - 1}: a model of nothing needs no unlearning",
        )


def hit_hashed(share: float, requests: int) -> float:
    """1 − (1 − share)^K: the chance that one of K independent rows falls into `share` of the places."""
    return 1.0 if share >= 1 else -math.expm1(requests * math.log1p(-share))


def log_missed(rows: int, block: int, requests: int) -> float:
    """log of C(N − c, K)/C(N, K): that K distinct rows of N all miss a block of c; −inf where they cannot."""
    few, many = sorted((block, requests))
    if block + requests > rows:
        return -math.inf
    if few <= MOST_FACTORS:
        return math.fsum(math.log1p(-many / (rows - t)) for t in range(few))
    lg = math.lgamma
    return lg(rows - block + 1) - lg(rows - block - requests + 1) - lg(rows + 1) + lg(rows - requests + 1)


def _hit_equal_less(rows: int, block: int, requests: int) -> float:
    """1 − K/N − P0: the chance that a given row remains and one of its block of c is removed, over that of being it."""
    hit = -math.expm1(log_missed(rows, block, requests))
    return max(0.0, (rows - requests) / rows if hit == 1 else hit - requests / rows)


def _remaining(rows: int, requests: int) -> float:
    """Σ_{k=1..K} (N − k)."""
    return requests * (2 * rows - requests - 1) / 2


# --- as published ----------------------------------------------------------------------------------------------------


def published_sequential(rows: int, shards: int, requests: int) -> float:
    """Rows trained again by K requests, one after the other: (N/S + 1/(2S) − 1)K − K²/(2S). Slices are not in it.

    Approximate. It takes each request to hit every shard alike and a shard to have lost (k − 1)/S rows before: step k
    costs N/S − 1 − (k − 1)/S. A row that is drawn uniformly lies in a larger shard more often, so hashed shards cost
    (N − k)/S, which is 1 − 1/S more, and equal ones (N − k)(N/S − 1)/(N − 1). It falls below 0 for shards of less than
    a row, and the difference is 1% where a shard holds a hundred.
    """
    return (rows / shards + 1 / (2 * shards) - 1) * requests - requests**2 / (2 * shards)


def published_batch(rows: int, shards: int, requests: int) -> float:
    """Rows trained again by a batch of K: N(1 − (1 − 1/S)^K) − K. Slices are not in it.

    Approximate. It takes K independent draws of a shard and N/S rows in each. Of hashed shards (N − K)(1 − (1 − 1/S)^K)
    rows remain, which is K(1 − 1/S)^K more; with equal shards the chance of a miss is hypergeometric, not
    (1 − 1/S)^K. It falls below 0 when nearly all rows go.
    """
    return rows * hit_hashed(1 / shards, requests) - requests


def published_slicing(slices: int) -> float:
    """Share of a shard's training that one request costs, 2/3 + 1/(3R), with e = 2e'/(R + 1) epochs a slice.

    Exact for a shard so large that the removed row itself does not count.
    """
    return 2 / 3 + 1 / (3 * slices)


def published_slicing_many(slices: int, requests: int) -> float:
    """The same for K requests in one shard, forgotten at once.

    The earliest slice that is hit has P(min = r) = ((R − r + 1)^K − (R − r)^K)/R^K, and from r on
    e Σ_{i ≥ r} iD/R is trained. Exact for hashed slices up to the K rows that are gone; for equal ones it draws with
    repetition.
    """
    R, K = slices, requests
    e = equal_budget_epochs(1, R)
    terms = []
    for r in range(1, R + 1):
        chance = ((R - r + 1) / R) ** K - ((R - r) / R) ** K
        terms.append(chance * e * (R * (R + 1) - r * (r - 1)) / (2 * R))
    return math.fsum(terms)
