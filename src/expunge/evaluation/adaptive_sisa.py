"""Adaptive deletions against a real SISA learner, whose shards' models are in view (Gupta et al. 2021, figure 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from expunge.data.records import Records
from expunge.errors import RequestError
from expunge.evaluation.adaptive_trials import Trials, joined
from expunge.evaluation.attacks.adaptive_deletion import guess_shards, seen_in
from expunge.evaluation.metrics.checks import Floats

if TYPE_CHECKING:
    from expunge.methods.exact.sisa import Sisa
    from expunge.methods.learner import State


def sisa_in_view(learner: Sisa, records: Records, test: Records, *, trials: int, seed: int) -> Trials:
    """Fit, look at the shards, delete what half of them know best, and compare the halves; a seed a trial.

    The learner keeps what it promises: after the requests its bytes are those of a fit on what remains with the same
    seed. But the requests depended on that seed, through the shard map, and fits with other seeds do not look like it.

    Args:
        learner: with at least two shards. records: to learn from. test: to measure the shards on.
        trials: each costs two fits from scratch and two retrainings of nearly all shards. seed: of the first trial.

    Returns:
        Accuracies of the targeted half of the shards against those of the others; ``fresh`` is a fit with another seed.

    Raises:
        RequestError: one shard, or no trials.
    """
    if learner.shards < 2 or trials < 1:
        raise RequestError(f"{learner.shards} shards and {trials} trials", "Give at least two shards and one trial")
    return joined([_trial(learner, records, test, seed + trial) for trial in range(trials)])


def _trial(learner: Sisa, records: Records, test: Records, seed: int) -> dict[str, Floats]:
    half = range(learner.shards // 2)
    before = learner.fit(records, seed=2 * seed)
    numbers, logits = learner.shard_logits(before, records.x)
    sure = np.full((learner.shards, len(records)), -1e30)
    sure[numbers] = _log_softmax(logits.astype(np.float64))[:, np.arange(len(records)), records.y]
    gone = seen_in(sure, half)
    hit = guess_shards(sure) == learner.assign(records, 2 * seed)[:, 0]
    as_many = np.random.default_rng([seed, 3]).permutation(len(records)) < gone.sum()
    blind, _ = learner.forget(before.copy(), records.ids[as_many].tolist())
    after, _ = learner.forget(before.copy(), records.ids[gone].tolist())
    fresh = learner.fit(records.without(records.ids[gone].tolist()), seed=2 * seed + 1)
    found: dict[str, float] = {
        "accuracy": _accuracy(learner, before, test),
        "accuracy_after": _accuracy(learner, after, test),
        "deleted": float(gone.sum()),
        "guessed": float(hit[gone].mean()),
    }
    for name, control, state in (
        ("attacked", "control", after),
        ("fresh", "fresh_control", fresh),
        ("blind", "blind_control", blind),
    ):
        found[name], found[control] = _sides(learner, state, test)
    return {name: np.array([value]) for name, value in found.items()}


def _sides(learner: Sisa, state: State, test: Records) -> tuple[float, float]:
    """Mean accuracy of the targeted half of the shards and of the others; a shard without records knows nothing."""
    numbers, logits = learner.shard_logits(state, test.x)
    each = np.full(learner.shards, 1.0 / max(int(test.y.max()) + 1, 1))
    each[numbers] = (logits.argmax(axis=-1) == test.y).mean(axis=1)
    half = learner.shards // 2
    return float(each[:half].mean()), float(each[half:].mean())


def _accuracy(learner: Sisa, state: State, test: Records) -> float:
    return float(np.mean(learner.predict(state, test.x) == test.y))


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
