"""The forecast: expected cost, speed-up, and every price of it, in one value."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from expunge.errors import RequestError
from expunge.forecast import formulas, price
from expunge.forecast.layout import Layout, Placing, check_count, spread_evenly

if TYPE_CHECKING:
    from expunge.forecast.accuracy import Accuracy

NOT_MEASURED = "not measured: accuracy depends on the data; give --data"


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What forgetting K rows will cost a sharded learner, and what being able to costs.

    Args:
        layout: N, S, R, e'. requests: K rows, drawn uniformly. batch: all at once.
        expected_cost, retrain_cost: example gradients (rows × epochs). speedup: their quotient; infinite where nothing
            is left to be trained again. published_cost: by the paper's formula for sharding alone.
        training_cost: expected, of the first training. storage_bytes: of all models kept.
        bytes_per_model_from: where that number comes from: ``given``, ``measured`` or the default, in words.
        accuracy: as measured on the user's records, or None.
        least_speedup, least_rows, most_drop: what "it pays" means. largest_batch: see `price.largest_batch_that_pays`;
            one_retraining: `price.requests_worth_one_retraining`; most_shards_by_rows: `price.most_shards_by_rows`.
        whole_steps: the same forecast counted in whole steps of `batch_size` rows: batch_size, expected_cost,
            retrain_cost, speedup; None without a batch size.
    """

    layout: Layout
    requests: int
    batch: bool
    expected_cost: float
    retrain_cost: float
    speedup: float
    published_cost: float
    training_cost: float
    bytes_per_model: int
    bytes_per_model_from: str
    storage_bytes: int
    accuracy: Accuracy | None
    least_speedup: float
    least_rows: int
    most_drop: float
    largest_batch: int
    one_retraining: int | None
    most_shards_by_rows: int
    expected_empty_shards: float
    whole_steps: dict[str, float | int | None] | None

    @property
    def batch_limit(self) -> int | None:
        """The smallest batch whose speed-up is below `least_speedup`; None where even all rows but one still pay."""
        return self.largest_batch + 1 if self.largest_batch + 1 < self.layout.rows else None

    @property
    def most_shards_by_accuracy(self) -> int | None:
        return None if self.accuracy is None else self.accuracy.most_shards(self.most_drop)

    def as_dict(self) -> dict[str, Any]:
        """JSON values; an infinite speed-up is null."""
        layout = self.layout
        return {
            "rows": layout.rows,
            "shards": layout.shards,
            "slices": layout.slices,
            "requests": self.requests,
            "batch": self.batch,
            "epochs": layout.epochs,
            "placing": layout.placing,
            "kept": list(layout.kept) if layout.kept else list(range(1, layout.slices + 1)),
            "epochs_per_slice": list(layout.stage_epochs),
            "unit": "example gradients: rows times epochs",
            "expected_cost": self.expected_cost,
            "retrain_cost": self.retrain_cost,
            "speedup": _finite(self.speedup),
            "published_cost": self.published_cost,
            "training_cost": self.training_cost,
            "whole_steps": self.whole_steps,
            "checkpoints": layout.checkpoints,
            "bytes_per_model": self.bytes_per_model,
            "bytes_per_model_from": self.bytes_per_model_from,
            "storage_bytes": self.storage_bytes,
            "accuracy": None if self.accuracy is None else self.accuracy.as_dict(),
            "accuracy_reason": NOT_MEASURED if self.accuracy is None else None,
            "stops_paying": {
                "least_speedup": self.least_speedup,
                "batch_requests": self.batch_limit,
                "requests_worth_one_retraining": self.one_retraining,
                "least_rows": self.least_rows,
                "rows_per_shard": layout.rows / layout.shards,
                "most_shards_by_rows": self.most_shards_by_rows,
                "expected_empty_shards": self.expected_empty_shards,
                "most_accuracy_drop": self.most_drop,
                "most_shards_by_accuracy": self.most_shards_by_accuracy,
                "most_shards_by_accuracy_reason": NOT_MEASURED if self.accuracy is None else None,
            },
        }


def forecast(
    *,
    rows: int,
    shards: int,
    slices: int = 1,
    requests: int = 1,
    batch: bool = False,
    epochs: float = 1,
    kept: int | None = None,
    placing: Placing = "hashed",
    batch_size: int | None = None,
    bytes_per_model: int | None = None,
    accuracy: Accuracy | None = None,
    least_speedup: float = 1.1,
    least_rows: int = 64,
    most_drop: float = 0.02,
) -> Forecast:
    """Forecast the cost of `requests` deletions from `shards` shards of `slices` slices.

    Args:
        rows: N. requests: K rows, drawn uniformly without repetition; one after the other unless `batch`.
        epochs: e' of plain training; the default counts in rows. kept: checkpoints kept a shard, evenly spaced, the
            model itself being one; None for all R. placing: see `layout.Placing`; our learners hash.
        batch_size: also count in whole steps of so many rows. bytes_per_model: of weights and buffers; by default
            those of `accuracy`, else those of a small network for digits, and said so.
        accuracy: what `measure_accuracy` found; it is never guessed.
        least_speedup, least_rows, most_drop: below which speed-up, rows a shard, and beyond which loss of accuracy (in
            [0, 1]) sharding is said not to pay. 64 rows are one batch of the default recipe.

    Raises:
        RequestError: a number is out of its range, there are more shards or slices than rows, or K ≥ N.
    """
    check_count("slices", slices)
    layout = Layout(
        rows=rows,
        shards=shards,
        slices=slices,
        epochs=epochs,
        placing=placing,
        kept=None if kept is None else spread_evenly(slices, kept),
    )
    formulas.check_requests(layout, requests)
    if not 0 <= most_drop < 1:
        raise RequestError(f"the loss of accuracy must lie in [0, 1), got {most_drop:g}", "0.02 is two points")
    if bytes_per_model is not None:
        size, whence = bytes_per_model, "given"
    elif accuracy is not None:
        size, whence = accuracy.bytes_per_model, "measured"
    else:
        size, whence = price.DEFAULT_BYTES, "default: small_cnn on 8x8 digits; give --bytes-per-model"
    published = formulas.published_batch if batch else formulas.published_sequential
    return Forecast(
        layout=layout,
        requests=requests,
        batch=batch,
        expected_cost=formulas.expected_cost(layout, requests, batch=batch),
        retrain_cost=formulas.retrain_cost(layout, requests, batch=batch),
        speedup=formulas.speedup(layout, requests, batch=batch),
        published_cost=published(rows, shards, requests) * epochs,
        training_cost=formulas.training_cost(layout),
        bytes_per_model=size,
        bytes_per_model_from=whence,
        storage_bytes=price.storage_bytes(layout, size),
        accuracy=accuracy,
        least_speedup=least_speedup,
        least_rows=least_rows,
        most_drop=most_drop,
        largest_batch=price.largest_batch_that_pays(layout, least_speedup),
        one_retraining=price.requests_worth_one_retraining(layout),
        most_shards_by_rows=price.most_shards_by_rows(layout, least_rows),
        expected_empty_shards=price.expected_empty_shards(layout),
        whole_steps=None if batch_size is None else _whole_steps(layout, requests, batch, batch_size),
    )


def _whole_steps(layout: Layout, requests: int, batch: bool, batch_size: int) -> dict[str, float | int | None]:
    whole = replace(layout, batch_size=batch_size)
    return {
        "batch_size": batch_size,
        "expected_cost": formulas.expected_cost(whole, requests, batch=batch),
        "retrain_cost": formulas.retrain_cost(whole, requests, batch=batch),
        "speedup": _finite(formulas.speedup(whole, requests, batch=batch)),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def counted(number: float, noun: str) -> str:
    """``1 row``, ``20 rows``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
