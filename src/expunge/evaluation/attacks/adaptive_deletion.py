"""Adaptive deletion: requests chosen by looking at predictions leave an ensemble that retraining would not have made.

Gupta et al. 2021, Adaptive Machine Unlearning (arXiv:2106.04378). SISA equals retraining when requests do not depend
on which record lies in which shard. Predictions give that away, since a model is surest of its own records. Whoever
deletes what seems to lie in half of the shards leaves those shards poorer than the others; whoever deletes what the
ensemble answers right leaves, in each shard, records that the other shards do not know. Retrained from scratch, with
records assigned to shards anew, nothing of the kind is there.

The adversary's statement is tested by an **indicator**: in each of many independent trials, is the statistic that was
attacked below its control? Both are drawn alike where unlearning is perfect against adaptive requests, and the
probability is one half.

This file has the decisions and the measurement; `expunge.evaluation.adaptive_trials` has the trials.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from expunge.errors import DataError
from expunge.evaluation.attacks.outcome import Outcome
from expunge.evaluation.metrics.checks import Bools, floats, reference, same_shape
from expunge.evaluation.metrics.intervals import clopper_pearson
from expunge.result import Measurement

Ints = npt.NDArray[np.int64]


def guess_shards(confidence: Any) -> Ints:
    """The shard that each record seems to lie in: the one that is surest of the record's label, ``(records,)``.

    Args:
        confidence: probability or log-probability of the true label ``(shards, records)``.

    Raises:
        DataError: empty, NaN.
    """
    return np.asarray(floats("confidence", confidence, ("shards", "records")).argmax(axis=0))


def seen_in(confidence: Any, targeted: Collection[int]) -> Bools:
    """Which records to delete to make the targeted shards poorer, ``(records,)``: those that seem to lie in them.

    Args:
        confidence: see `guess_shards`. targeted: shard numbers, neither none nor all of them.

    Raises:
        DataError: empty, NaN, no or all shards targeted.
    """
    guess = guess_shards(confidence)
    numbers = sorted(set(targeted))
    shards = len(np.asarray(confidence))
    if not numbers or numbers[0] < 0 or numbers[-1] >= shards or len(numbers) == shards:
        raise DataError(f"targeted shards {numbers} of {shards}", "Target some of the shards and leave some")
    return np.isin(guess, numbers)


def answered_right(published: Any, labels: Any, *, most: int, seed: int) -> Bools:
    """Which records to delete by published labels alone, ``(records,)``: up to `most` of those that are answered right.

    Args:
        published: ``(records,)`` labels as the ensemble publishes them. labels: ``(records,)``, the true ones.
        most: at least 1. seed: of the choice among them.

    Raises:
        DataError: empty, other lengths, `most` below 1.
    """
    said, truth = np.asarray(published), np.asarray(labels)
    if said.shape != truth.shape or said.ndim != 1 or not said.size or most < 1:
        raise DataError(
            f"published labels have shape {said.shape}, labels {truth.shape}, and {most} are to be deleted",
            "Give one published label for each record, and delete at least one",
        )
    right = np.random.default_rng(seed).permutation(np.flatnonzero(said == truth))
    chosen = np.zeros(len(truth), dtype=bool)
    chosen[right[:most]] = True
    return chosen


def adaptive_deletion(
    attacked: Any, control: Any, *, seed: int = 0, floor: float | None = None, ceiling: float | None = None
) -> Outcome:
    """How surely adaptive requests leave a trace: P(attacked statistic < control). Lower is better; no trace is 0.5.

    Args:
        attacked: ``(trials,)``, of independent trials: the mean test accuracy of the targeted shards after the
            deletions, say, or the accuracy on what remains. control: ``(trials,)``: of the shards that were not
            targeted; of a model retrained from scratch. Equal values are decided by a fair coin.
        seed: of the coin. floor: the same for requests that do not look. ceiling: without noise.

    Returns:
        ``adaptive_deletion_indicator`` with a Clopper-Pearson interval.

    Raises:
        MissingReference: there is no control. DataError: empty, NaN, other shapes.
    """
    reference("adaptive_deletion", "a control: shards that were not targeted, or a retrained model", control)
    one, two = floats("attacked", attacked, ("trials",)), floats("control", control, ("trials",))
    same_shape(attacked=one, control=two)
    coin = np.random.default_rng(seed).random(len(one)) < 0.5
    hits = int(np.where(one == two, coin, one < two).sum())
    low, high = clopper_pearson(hits, len(one))
    name = "adaptive_deletion_indicator"
    return {
        name: Measurement(
            name=name,
            value=hits / len(one),
            n=len(one),
            low=low,
            high=high,
            direction="lower",
            floor=floor,
            ceiling=ceiling,
            unit_of_n="trials",
            definition="Probability that what adaptive deletions aimed at is worse than its control; 0.5 is no trace.",
            detail={
                "ties": int((one == two).sum()),
                "mean_attacked": float(one.mean()),
                "mean_control": float(two.mean()),
                "interval": "Clopper-Pearson",
            },
        )
    }
