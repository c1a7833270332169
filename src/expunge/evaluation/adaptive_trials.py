"""The two experiments of Gupta et al. 2021 (arXiv:2106.04378) in small: who looks before asking breaks SISA.

**Shards in view** (their figure 1). The models of all shards are public. Records that half of the shards are surest of
are deleted; afterwards, are those shards less accurate than the others? The defence is differentially private training
of the shards, and `noise` is its noise multiplier: the published .92 -> .55 at noise .3 is of this experiment.

**Votes in view** (their appendix C.2). Only the label that the ensemble votes for is public. Records that are answered
right are deleted; afterwards, is the ensemble less accurate on what remains than one retrained from scratch? The
defence is noise on the published votes (`expunge.methods.aggregate.noisy_vote`), and `noise` is its scale in votes.

In both, each trial assigns records to shards anew, independently of each other, as SISA's hash of the ids does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from expunge.errors import DataError, RequestError
from expunge.evaluation.attacks.adaptive_deletion import Ints, answered_right, guess_shards, seen_in
from expunge.evaluation.metrics.checks import Bools, Floats
from expunge.methods.aggregate import majority_vote, noisy_vote

BLOCK = 50
Floats32 = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Trials:
    """What the trials of one experiment at one level of noise showed, each ``(trials,)``.

    Args:
        attacked, control: the statistic aimed at and its control (see `adaptive_deletion`).
        fresh, fresh_control: the same after the same deletions, retrained from scratch with other shards.
        blind, blind_control: the same when as many records were deleted at random.
        accuracy: published test accuracy before the deletions. accuracy_after: after them.
        deleted: how many records. guessed: share of the deleted whose shard was guessed (NaN where none is guessed).
    """

    attacked: Floats
    control: Floats
    fresh: Floats
    fresh_control: Floats
    blind: Floats
    blind_control: Floats
    accuracy: Floats
    accuracy_after: Floats
    deleted: Floats
    guessed: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """Training and test rows: ``x`` (n, d) features and ``y`` (n,) class numbers.

    Raises:
        DataError: shapes do not fit.
    """

    x: Floats
    y: Ints
    x_test: Floats
    y_test: Ints

    def __post_init__(self) -> None:
        for x, y in ((self.x, self.y), (self.x_test, self.y_test)):
            if x.ndim != 2 or y.shape != (len(x),) or not len(x) or x.shape[1] != self.x.shape[1]:
                raise DataError(f"features {x.shape} and labels {y.shape}", "Give (n, d) features and a label a row")

    @property
    def classes(self) -> int:
        return int(max(self.y.max(), self.y_test.max())) + 1


@dataclass(frozen=True, kw_only=True)
class ShardsInView:
    """Softmax regression on random Fourier features, trained by DP-SGD, one model a shard.

    Args:
        shards: S ≥ 2, of which the first half is targeted. features: how many random features (Rahimi & Recht 2007).
        width: how far the phases of two typical rows lie apart, in radians: the larger, the more a model knows its
            own rows by heart. steps, batch_size, learning_rate: of SGD, drawn with replacement.
        max_grad_norm: clip of each row's gradient; noise has the standard deviation noise · clip on a batch's sum.

    This differs from the authors' code in: the models (theirs are convolutional networks) and the data; records are
    assigned independently, not in equal pieces; equal accuracies are decided by a coin.
    """

    shards: int = 6
    features: int = 120
    width: float = 2.6
    steps: int = 300
    batch_size: int = 16
    learning_rate: float = 16.0
    max_grad_norm: float = 0.1

    def __post_init__(self) -> None:
        whole = (self.shards - 1, self.features, self.steps, self.batch_size)
        if min(*whole, self.width, self.learning_rate, self.max_grad_norm) <= 0:
            raise RequestError(f"{self} has a number that is not positive, or one shard", "Correct it")

    def run(self, table: Table, *, noise: float, trials: int, seed: int) -> Trials:
        """See `Trials`: accuracies of the targeted shards against those of the others."""
        _checked(noise, trials)
        rng = np.random.default_rng([seed, 1])
        train, test = self._embed(table, rng)
        blocks = [
            self._block(table, train, test, noise, min(BLOCK, trials - start), rng) for start in range(0, trials, BLOCK)
        ]
        return joined(blocks)

    def _embed(self, table: Table, rng: np.random.Generator) -> tuple[Floats32, Floats32]:
        directions = rng.normal(size=(table.x.shape[1], self.features)) * self.width / _median_distance(table.x, rng)
        phases = rng.uniform(0, 2 * np.pi, self.features)

        def embed(x: Floats) -> Floats32:
            waves = np.sqrt(2 / self.features) * np.cos(x @ directions + phases)
            return np.hstack([waves, np.ones((len(x), 1))]).astype(np.float32)

        return embed(table.x), embed(table.x_test)

    def _block(
        self, table: Table, train: Floats32, test: Floats32, noise: float, trials: int, rng: np.random.Generator
    ) -> dict[str, Floats]:
        n, half = len(train), self.shards // 2
        shard = rng.integers(self.shards, size=(trials, n))

        def fit(where: Ints, kept: Bools) -> Floats32:
            member = (where[:, None] == np.arange(self.shards)[:, None]) & kept[:, None]
            return self._train(table, train, member.reshape(-1, n), noise, rng).reshape(trials, self.shards, -1)

        def sides(models: Floats32) -> tuple[Floats, Floats]:
            right = self._labels(models, test) == table.y_test
            each = right.mean(axis=2)
            return each[:, :half].mean(axis=1), each[:, half:].mean(axis=1)

        whole = np.ones((trials, n), dtype=bool)
        before = fit(shard, whole)
        sure = self._confidence(before, train, table.y)
        gone = np.stack([seen_in(c, range(half)) for c in sure])
        hit = np.stack([guess_shards(c) for c in sure]) == shard
        as_many = np.argsort(rng.random((trials, n)), axis=1).argsort(axis=1) < gone.sum(axis=1, keepdims=True)
        after = fit(shard, ~gone)
        found = dict(zip(("attacked", "control"), sides(after), strict=True))
        other = rng.integers(self.shards, size=(trials, n))
        found |= dict(zip(("fresh", "fresh_control"), sides(fit(other, ~gone)), strict=True))
        found |= dict(zip(("blind", "blind_control"), sides(fit(shard, ~as_many)), strict=True))
        return found | {
            "accuracy": self._voted(before, test, table.y_test),
            "accuracy_after": self._voted(after, test, table.y_test),
            "deleted": gone.sum(axis=1).astype(np.float64),
            "guessed": (hit & gone).sum(axis=1) / np.maximum(gone.sum(axis=1), 1),
        }

    def _train(self, table: Table, train: Floats32, member: Bools, noise: float, rng: np.random.Generator) -> Floats32:
        """Weights (models, features + 1, classes) of models whose rows are `member` (models, n)."""
        sizes = member.sum(axis=1)
        rows = np.argsort(~member, axis=1, kind="stable")
        wanted = np.eye(table.classes, dtype=np.float32)[table.y]
        lengths = np.linalg.norm(train, axis=1)
        weights = np.zeros((len(member), train.shape[1], table.classes), dtype=np.float32)
        has_rows = (sizes > 0).astype(np.float32)[:, None, None]
        for _ in range(self.steps):
            place = (rng.random((len(member), self.batch_size)) * sizes[:, None]).astype(np.int64)
            drawn = np.take_along_axis(rows, place, axis=1)
            x = train[drawn]
            off = _softmax(x @ weights) - wanted[drawn]
            norm = np.linalg.norm(off, axis=-1) * lengths[drawn]
            off *= np.minimum(1.0, self.max_grad_norm / np.maximum(norm, 1e-12))[..., None]
            step = np.swapaxes(x, 1, 2) @ off
            if noise:
                step += noise * self.max_grad_norm * rng.standard_normal(step.shape, dtype=np.float32)
            weights -= self.learning_rate / self.batch_size * has_rows * step
        return weights

    def _logits(self, models: Floats32, rows: Floats32) -> Floats32:
        """(trials, shards, rows, classes)."""
        return rows @ models.reshape(*models.shape[:2], rows.shape[1], -1)

    def _labels(self, models: Floats32, rows: Floats32) -> Ints:
        return np.asarray(self._logits(models, rows).argmax(axis=-1))

    def _confidence(self, models: Floats32, rows: Floats32, labels: Ints) -> list[Floats32]:
        """Probability of each row's label (shards, rows), of each trial."""
        return [_softmax(self._logits(m[None], rows)[0])[:, np.arange(len(rows)), labels] for m in models]

    def _voted(self, models: Floats32, rows: Floats32, labels: Ints) -> Floats:
        """Accuracy of the majority vote in each trial."""
        one_each = np.ones(self.shards)
        return np.array(
            [np.mean(majority_vote(self._logits(m[None], rows)[0], one_each).labels == labels) for m in models]
        )


@dataclass(frozen=True, kw_only=True)
class VotesInView:
    """Lookup tables, one a shard: the label of the nearest row of the shard, or none if it lies too far.

    Args:
        shards: S ≥ 2. deletions: how many records are asked for. reach: how far is too far, as the quantile of the
            distances from each training row to its nearest other.

    This differs from the authors' code in: the data (theirs are 1,000 zeros and ones of MNIST) and so the distance;
    records are assigned independently, not in equal pieces; the indicator compares with a model that was retrained in
    the same trial instead of a threshold halfway between the mean accuracies of all trials.
    """

    shards: int = 3
    deletions: int = 200
    reach: float = 0.7

    def __post_init__(self) -> None:
        if self.shards < 2 or self.deletions < 1 or not 0 < self.reach < 1:
            raise RequestError(f"{self}", "Give two shards, a deletion, and a quantile within (0, 1)")

    def run(self, table: Table, *, noise: float, trials: int, seed: int) -> Trials:
        """See `Trials`: accuracies on what remains, without the noise, against those of a model retrained from scratch.

        Whether unlearning was exact is a matter of the models and not of what is published of them: an auditor who
        looks inside may not see a trace either.
        """
        _checked(noise, trials)
        rng = np.random.default_rng([seed, 2])
        between = _distances(table.x, table.x)
        np.fill_diagonal(between, np.inf)
        reach = float(np.quantile(between.min(axis=1), self.reach))
        np.fill_diagonal(between, 0.0)
        tests = _distances(table.x_test, table.x)
        return joined([self._trial(table, between, tests, reach, noise, rng) for _ in range(trials)])

    def _trial(
        self, table: Table, between: Floats, tests: Floats, reach: float, noise: float, rng: np.random.Generator
    ) -> dict[str, Floats]:
        n = len(table.x)
        key = int(rng.integers(2**62))
        shard = rng.integers(self.shards, size=n)

        def votes(distances: Floats, where: Ints, kept: Bools) -> Ints:
            """Counts (rows, classes + 1); column 0 is for no label, so that a tie with it is no answer."""
            counts = np.zeros((len(distances), table.classes + 1), dtype=np.int64)
            for s in range(self.shards):
                mine = np.flatnonzero((where == s) & kept)
                if not len(mine):
                    counts[:, 0] += 1
                    continue
                near = distances[:, mine]
                nearest = near.argmin(axis=1)
                found = near[np.arange(len(near)), nearest] <= reach
                counts[np.arange(len(near)), np.where(found, table.y[mine[nearest]] + 1, 0)] += 1
            return counts

        def published(counts: Ints, queries: Floats, release: str) -> Ints:
            if not noise:
                return np.asarray(counts.argmax(axis=1) - 1)
            return noisy_vote(counts, noise, key, queries, release=release).labels - 1

        def remaining(where: Ints, kept: Bools) -> float:
            return float(np.mean(votes(between[kept], where, kept).argmax(axis=1) - 1 == table.y[kept]))

        whole = np.ones(n, dtype=bool)
        said = published(votes(between, shard, whole), table.x, "before")
        gone = answered_right(said, table.y, most=min(self.deletions, n - 1), seed=key)
        as_many = rng.permutation(n) < gone.sum()
        after = published(votes(tests, shard, ~gone), table.x_test, "after")
        fresh = [rng.integers(self.shards, size=n) for _ in range(3)]
        retrained = remaining(fresh[0], ~gone)
        found = {
            "attacked": remaining(shard, ~gone),
            "control": retrained,
            "fresh": remaining(fresh[1], ~gone),
            "fresh_control": retrained,
            "blind": remaining(shard, ~as_many),
            "blind_control": remaining(fresh[2], ~as_many),
            "accuracy": np.mean(published(votes(tests, shard, whole), table.x_test, "before") == table.y_test),
            "accuracy_after": np.mean(after == table.y_test),
            "deleted": gone.sum(),
            "guessed": np.nan,
        }
        return {name: np.array([value], dtype=np.float64) for name, value in found.items()}


def _checked(noise: float, trials: int) -> None:
    if trials < 1 or not noise >= 0:
        raise RequestError(f"{trials} trials with noise {noise}", "Give at least one trial, and noise of at least 0")


def joined(blocks: list[dict[str, Floats]]) -> Trials:
    """Several trials, or blocks of them, as one."""
    return Trials(**{name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]})


def _softmax(logits: Floats32) -> Floats32:
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=-1, keepdims=True))


def _distances(one: Floats, two: Floats) -> Floats:
    """Euclidean, ``(rows of one, rows of two)``."""
    squares = (one**2).sum(axis=1)[:, None] + (two**2).sum(axis=1) - 2 * one @ two.T
    return np.asarray(np.sqrt(np.maximum(squares, 0.0)))


def _median_distance(x: Floats, rng: np.random.Generator) -> float:
    chosen = x[rng.permutation(len(x))[:300]]
    apart = _distances(chosen, chosen)[np.triu_indices(len(chosen), 1)]
    return float(np.median(apart)) or 1.0
