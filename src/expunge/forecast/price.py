"""What sharding costs besides time, storage and rows a shard, and where it stops paying."""

from __future__ import annotations

from collections.abc import Callable

from expunge.errors import RequestError
from expunge.forecast.formulas import expected_cost, retrain_cost, speedup
from expunge.forecast.layout import Layout, check_count

# Weights of `small_cnn` on 8x8 digits, 1,898 numbers of 4 bytes: the network of `expunge bench`.
DEFAULT_BYTES = 7592


def storage_bytes(layout: Layout, bytes_per_model: int) -> int:
    """Bytes of every model kept: S × R of them, or S × kept, the S in use among them.

    Raises:
        RequestError: a model of no bytes.
    """
    check_count("bytes_per_model", bytes_per_model)
    return layout.checkpoints * bytes_per_model


def most_shards_by_rows(layout: Layout, least_rows: int) -> int:
    """The most shards that leave at least `least_rows` rows in each on average; 0 if even one does not.

    Raises:
        RequestError: `least_rows` is below 1.
    """
    check_count("least_rows", least_rows)
    return layout.rows // least_rows


def expected_empty_shards(layout: Layout) -> float:
    """Shards that get no row: S(1 − 1/S)^N on average if rows are hashed, none if shards are equal."""
    if layout.placing == "equal":
        return 0.0
    return float(layout.shards * (1 - 1 / layout.shards) ** layout.rows)


def largest_batch_that_pays(layout: Layout, least_speedup: float) -> int:
    """The largest batch, in rows, that is at least `least_speedup` times as fast as retraining; 0 if none is.

    The speed-up of a batch falls as it grows, towards 1: in the end every shard is hit in its first slice.

    Raises:
        RequestError: `least_speedup` is not above 1.
    """
    if not least_speedup > 1:
        raise RequestError(
            f"the least speed-up must be above 1, got {least_speedup:g}", "1.1 asks for a tenth more, for example"
        )
    return _last(layout.rows - 1, lambda k: speedup(layout, k, batch=True) >= least_speedup)


def requests_worth_one_retraining(layout: Layout) -> int | None:
    """The number of requests that, each carried out at once, cost as much as one plain retraining after all of them.

    Whoever may wait for so many is better served by periodic retraining. None where it never comes to that.
    """
    count = 1 + _last(layout.rows - 1, lambda k: expected_cost(layout, k) < retrain_cost(layout, k, batch=True))
    return count if count < layout.rows else None


def _last(most: int, pays: Callable[[int], bool]) -> int:
    """The largest number in 1..most for which `pays`, which holds up to somewhere and never again; 0 if for none."""
    low, high = 0, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if pays(middle) else (low, middle)
    return low
