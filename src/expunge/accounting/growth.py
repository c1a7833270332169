"""How ε grows with the number of requests k, at one δ: a table, and the slope of each column in log–log.

- composition: k releases with fresh noise, accounted tightly. μ grows as √k, and ε with it: slope about ½.
- naive composition: k times ε at δ/k. Slope about 1.
- group: k records that leave at once from one release. μ grows as k: slope about 1.
- group, naive: (kε, δ(e^{kε}-1)/(e^ε-1)): slope 1, and its δ grows exponentially.

The slopes are those of small ε (below about 1). ε of μ-GDP is μ√(2 ln(1/δ)) + μ²/2 roughly, so where μ²/2 leads, the
slopes tend to 1 and 2. Gradient residuals under one draw of noise add up, so their composition has slope about 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from expunge.accounting import gaussian, groups, loss
from expunge.accounting.charges import Residual
from expunge.accounting.ledger import Ledger
from expunge.errors import RequestError

REQUESTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
MOST_MIXED = 32  # a mixture of more Gaussians takes minutes to lay on a grid


@dataclass(frozen=True, kw_only=True)
class GrowthRow:
    """ε for ``requests`` by each account, nats, at the table's δ; None where there is no (finite) bound.

    ``composition`` and ``group`` are by the notion of the ledger (PLD if it has one); groups of more than 32 under
    Poisson sampling are left out, since their mixtures take minutes. ``group_published`` is kε of the one pair
    published for a request, and holds at ``group_published_delta`` only.
    """

    requests: int
    composition: float | None
    composition_rdp: float | None
    naive: float | None
    group: float | None
    group_published: float | None
    group_published_delta: float | None

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True)
class Growth:
    """The table. ``slopes`` maps a column to its least-squares slope of log ε over log k; absent below two points."""

    delta: float
    notion: str
    rows: tuple[GrowthRow, ...]
    slopes: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "rows": [row.as_dict() for row in self.rows]}


COLUMNS = ("composition", "composition_rdp", "naive", "group", "group_published")


def growth(one: Ledger, requests: Sequence[int] = REQUESTS, delta: float | None = None) -> Growth:
    """The growth of what one request costs.

    Args:
        one: a ledger charged with one request (or, for ``group``, with the release that k records leave from).
        requests: rising numbers k ≥ 1. delta: the budget's by default.

    Raises:
        RequestError: an empty ledger, requests that do not rise, or a value out of range.
    """
    delta = gaussian.check_delta(one.budget_delta if delta is None else delta)
    ks = [groups.whole_group(k) for k in requests]
    if not one.charges:
        raise RequestError("the ledger is empty: requests that cost nothing do not grow", "Charge one request to it")
    if not ks or any(a >= b for a, b in pairwise(ks)):
        raise RequestError(f"the numbers of requests must rise, got {ks}", "Give for example 1, 10, 100")
    single = one.epsilon(delta, one.notion)
    if not math.isfinite(single):
        raise RequestError("one request has no finite ε already", "Give it noise")
    rows = tuple(_row(one, k, delta, single) for k in ks)
    slopes = {name: slope(ks, [getattr(row, name) for row in rows]) for name in COLUMNS}
    found = {name: value for name, value in slopes.items() if value is not None}
    return Growth(delta=delta, notion=one.notion, rows=rows, slopes=found)


def repeated(one: Ledger, requests: int) -> Ledger:
    """The ledger after `requests` of the same cost: fresh noise each, or a sum of residuals under one draw."""
    groups.whole_group(requests)
    charges = tuple(
        replace(c, beta=c.beta * requests, count=c.count * requests)
        if isinstance(c, Residual)
        else replace(c, count=c.count * requests)
        for c in one.charges
    )
    return replace(one, charges=charges)


def slope(requests: Sequence[int], values: Sequence[float | None]) -> float | None:
    """Least-squares slope of log ε over log k, over finite ε > 0; None of fewer than two."""
    points = [(math.log(k), math.log(v)) for k, v in zip(requests, values, strict=True) if v and math.isfinite(v)]
    if len(points) < 2:
        return None
    x, y = np.array(points).T
    return float(np.polyfit(x, y, 1)[0])


def _row(one: Ledger, k: int, delta: float, single: float) -> GrowthRow:
    notion = one.notion
    many = repeated(one, k)
    mixed = loss.gaussian_mu(one.charges) is None
    # Residuals under one draw are no separate mechanisms, so nothing composes naively, and they know no groups.
    residuals = any(isinstance(c, Residual) for c in one.charges)
    resolved = not mixed or notion == "rdp" or delta / k >= loss.LEAST_DELTA
    slow = mixed and notion == "pld" and k > MOST_MIXED
    grown, grown_delta = (math.inf, 1.0) if residuals else groups.naive(single, delta, k)
    bounded = math.isfinite(grown) and grown_delta < 1
    return GrowthRow(
        requests=k,
        composition=_finite(many.epsilon(delta, notion)),
        composition_rdp=_finite(many.epsilon(delta, "rdp")),
        naive=_finite(k * one.epsilon(delta / k, notion)) if resolved and not residuals else None,
        group=None if residuals or slow else _finite(one.epsilon(delta, notion, k)),
        group_published=grown if bounded else None,
        group_published_delta=grown_delta if bounded else None,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
