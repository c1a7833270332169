"""The accuracy price of sharding, measured on the user's own records: it cannot be had by a formula."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from expunge.errors import DataError, RequestError, UnknownName
from expunge.forecast.layout import Layout

if TYPE_CHECKING:
    from expunge.data.records import Records
    from expunge.recipe import Recipe

ARCHITECTURES = ("small_cnn", "mlp", "softmax_regression")
FRACTIONS = {"train": 0.7, "test": 0.3}
SALT = "forecast"


@dataclass(frozen=True, kw_only=True)
class Level:
    """Test accuracy of one layout, in [0, 1], over seeds.

    Args:
        accuracy: its mean and 95% Student's t interval, as value, low and high.
        drop: the same of plain training's accuracy less this one, paired by seed; positive is worse.
    """

    shards: int
    slices: int
    accuracy: dict[str, float]
    drop: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """The accuracy price as measured.

    Args:
        rows: trained on. test: rows tested on. seeds: trainings a layout. bytes_per_model: weights and buffers.
        levels: plain training (one shard, one slice) first, then one a number of shards, rising.
    """

    rows: int
    test: int
    seeds: int
    architecture: str
    epochs: int
    batch_size: int
    bytes_per_model: int
    levels: tuple[Level, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def most_shards(self, most_drop: float) -> int:
        """The largest measured number of shards up to which no mean drop exceeds `most_drop`; 0 if already one's does.

        It says nothing about numbers that were not measured.
        """
        most = 0
        for level in self.levels:
            if level.drop["value"] > most_drop:
                break
            most = level.shards
        return most


def recipe_for(records: Records, architecture: str | None = None, epochs: int | None = None) -> Recipe:
    """A recipe of a shipped architecture for these records; by default `small_cnn` for images, `mlp` for tables.

    Raises:
        UnknownName: the architecture. DataError: a convolutional network for records that are no images.
    """
    from expunge.recipe import Recipe, Trainer

    images = records.x.ndim == 4
    name = architecture or ("small_cnn" if images else "mlp")
    if name not in ARCHITECTURES:
        raise UnknownName("architecture", name, ARCHITECTURES)
    if name == "small_cnn" and not images:
        raise DataError(
            f"records of shape {records.x.shape[1:]} are no images", "Use --architecture mlp or softmax_regression"
        )
    return Recipe(
        factory=f"expunge.models.architectures:{name}",
        kwargs={"features": list(records.x.shape[1:]), "classes": max(len(records.classes), int(records.y.max()) + 1)},
        trainer=Trainer() if epochs is None else Trainer(epochs=epochs),
    )


def shards_to_measure(rows: int, shards: int, slices: int) -> tuple[int, ...]:
    """One, the number asked for, its half, double and fourfold, as far as `rows` fill their slices."""
    near = {1, shards, -(-shards // 2), 2 * shards, 4 * shards}
    return tuple(sorted(s for s in near if s * slices <= rows))


def measure_accuracy(
    train: Records,
    test: Records,
    recipe: Recipe,
    *,
    shards: Sequence[int],
    slices: int = 1,
    seeds: int = 3,
    first_seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Accuracy:
    """Train plainly, then by SISA for every number of shards, with every seed, and test all of them.

    The interval is over seeds (placing of rows, initial weights, order of rows) on one split; it does not hold the
    spread over other test records.

    Raises:
        RequestError: fewer than two seeds, or more slices than rows. Whatever training refuses with.
    """
    import numpy as np

    from expunge.methods.exact.sisa import Sisa
    from expunge.training.stack import Stack

    if seeds < 2:
        raise RequestError(f"an interval over {seeds} seeds has no width", "Ask for at least two seeds")
    layouts = [(1, 1), *((s, slices) for s in sorted(set(shards)) if (s, slices) != (1, 1))]
    for s, r in layouts:
        Layout(rows=len(train), shards=s, slices=r)
    reached = np.empty((len(layouts), seeds))
    for i, (s, r) in enumerate(layouts):
        learner = Sisa(recipe=recipe, shards=s, slices=r)
        for k in range(seeds):
            if progress:
                progress("measuring accuracy", i * seeds + k, reached.size)
            state = learner.fit(train, seed=first_seed + k)
            reached[i, k] = np.mean(learner.predict(state, test.x) == test.y)
    if progress:
        progress("measuring accuracy", reached.size, reached.size)

    return Accuracy(
        rows=len(train),
        test=len(test),
        seeds=seeds,
        architecture=recipe.factory.rpartition(":")[2],
        epochs=recipe.trainer.epochs,
        batch_size=recipe.trainer.batch_size,
        bytes_per_model=Stack.initialised(recipe, [0]).bytes_per_model,
        levels=tuple(
            Level(shards=s, slices=r, accuracy=_interval(reached[i]), drop=_interval(reached[0] - reached[i]))
            for i, (s, r) in enumerate(layouts)
        ),
    )


def _interval(values: Any) -> dict[str, float]:
    """Mean of (seeds,) values and its 95% Student's t interval; of equal values it has no width."""
    from scipy.special import stdtrit

    n, mean = len(values), float(values.mean())
    # Summation would give equal values a spread.
    spread = float(values.std(ddof=1)) if values.min() < values.max() else 0.0
    half = float(stdtrit(n - 1, 0.975)) * spread / n**0.5
    return {"value": mean, "low": mean - half, "high": mean + half}
