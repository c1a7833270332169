"""How an ensemble of shards answers as one: mean of probabilities, majority vote, and a vote under noise.

The noisy vote is the defence of Gupta et al. 2021 (Adaptive Machine Unlearning, arXiv:2106.04378) against deletion
requests that depend on published predictions: answers that are differentially private in what the shards hold say
little about which record lies in which shard. `vote_privacy` gives the (epsilon, delta) that is proved.

Everything here is a pure function of numpy arrays. Sums run over shards in their order and row by row, so that the
answer to a query has the same bytes whichever queries are asked with it.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from expunge.data.records import Array
from expunge.errors import DataError, ModelError, RequestError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

Mechanism = Literal["laplace", "exponential"]
MECHANISMS: tuple[Mechanism, ...] = ("laplace", "exponential")


class Answer(NamedTuple):
    """What an ensemble publishes about n queries.

    Args:
        scores: ``(n, classes)``; the label is where a row is largest. labels: ``(n,)`` class numbers.
    """

    scores: Floats
    labels: Ints


def mean_of_probabilities(logits: Array, weights: Array) -> Answer:
    """Weighted mean of the shards' softmax probabilities.

    Args:
        logits: ``(shards, n, classes)`` nats. weights: ``(shards,)``, at least 0; 0 for a shard without rows, whose
            logits may then be anything, NaN included.

    Returns:
        Scores are logarithms of the mean probability, in nats. Of equal scores the lowest class wins.

    Raises:
        ModelError: every weight is 0. DataError: shapes do not fit, a weight is negative, a logit that counts is not
            finite.
    """
    used = _checked(logits, weights)
    total = math.fsum(weight for _, weight in used)
    summed = _summed_probabilities(used) / total
    scores = np.log(np.maximum(summed, np.finfo(np.float64).tiny))
    return Answer(scores, scores.argmax(axis=1))


def vote_counts(logits: Array, weights: Array) -> Ints:
    """Votes of each class ``(n, classes)``: every shard names its likeliest class (the lowest of equal ones).

    Args:
        logits, weights: as in `mean_of_probabilities`; weights are whole numbers, 1 for a vote.

    Raises:
        ModelError, DataError: as `mean_of_probabilities`; a weight is no whole number.
    """
    used = _checked(logits, weights)
    if any(weight != int(weight) for _, weight in used):
        raise DataError("a shard's vote has a fractional weight", "Give each shard one vote, and an empty one none")
    n, classes = used[0][0].shape
    counts = np.zeros((n, classes), dtype=np.int64)
    for shard, weight in used:
        counts[np.arange(n), shard.argmax(axis=1)] += int(weight)
    return counts


def majority_vote(logits: Array, weights: Array) -> Answer:
    """The class that most shards name; a tie goes to the larger summed probability, then to the lowest class.

    Args:
        logits, weights: as in `vote_counts`.

    Returns:
        Scores are logarithms of shares of the vote, in nats. What a tie is broken by stands in them as a fraction of
        one vote, at most a half, so that the largest score is the label.

    Raises:
        ModelError, DataError: as `vote_counts`.
    """
    used = _checked(logits, weights)
    counts = vote_counts(logits, weights)
    total = sum(weight for _, weight in used)
    # The fraction of a vote is that of a mean over shards, below one half: it decides ties and nothing else.
    votes = counts + np.maximum(_summed_probabilities(used) / (2 * total), np.finfo(np.float64).tiny)
    scores = np.log(votes / (total + 0.5))
    return Answer(scores, votes.argmax(axis=1))


def noisy_vote(
    counts: Array,
    noise: float,
    seed: int | bytes,
    queries: Array,
    *,
    release: str = "",
    mechanism: Mechanism = "laplace",
) -> Answer:
    """The vote under noise that is a function of (seed, release, features of the query).

    Asking twice gives the same answer, so that repetition cannot average the noise away. A query that differs in one
    bit is another query and costs its own epsilon.

    Args:
        counts: ``(n, classes)`` whole votes, from `vote_counts`. noise: scale b > 0, in votes; Laplace noise has the
            standard deviation √2 b. seed: the key of the noise. The statement of `vote_privacy` holds as long as it is
            secret: whoever knows it subtracts the noise, and a small number is soon guessed.
        queries: ``(n, ...)`` numeric features of the queries.
        release: digest of the model that answers. Without it the noise of one query is the same before and after a
            deletion, and vanishes from the difference of the two answers.
        mechanism: ``laplace`` adds noise to every count; all noisy counts may be published. ``exponential`` names a
            class with a probability in proportion to exp(count / b) and publishes nothing else.

    Returns:
        Scores are noisy counts in votes (``laplace``) or 1 at the label and 0 elsewhere (``exponential``).

    Raises:
        RequestError: no positive scale, no such mechanism. DataError: shapes do not fit, counts are no votes, features
            are no finite numbers.
    """
    _positive(noise)
    if mechanism not in MECHANISMS:
        raise RequestError(f"there is no mechanism {mechanism!r} for votes", f"Choose one of {', '.join(MECHANISMS)}")
    votes = np.asarray(counts)
    if votes.ndim != 2 or not votes.size or not np.issubdtype(votes.dtype, np.integer) or votes.min() < 0:
        raise DataError(
            f"counts have shape {votes.shape} and type {votes.dtype}, expected whole votes (n, classes)",
            "Count them with `vote_counts`",
        )
    n, classes = votes.shape
    uniform = _uniforms(queries, n, classes, seed, release)
    if mechanism == "laplace":
        centred = uniform - 0.5
        scores = votes - noise * np.sign(centred) * np.log1p(-2.0 * np.abs(centred))
        return Answer(scores, scores.argmax(axis=1))
    # The largest of count / b plus standard Gumbel noise is a draw from the exponential mechanism.
    labels = (votes / noise - np.log(-np.log(uniform))).argmax(axis=1)
    scores = np.zeros((n, classes))
    scores[np.arange(n), labels] = 1.0
    return Answer(scores, labels)


def vote_privacy(noise: float, *, queries: int = 1, changed_votes: int = 1) -> tuple[float, float]:
    """The differential privacy (epsilon, delta) of `noisy_vote`: (2 · changed_votes · queries / b, 0).

    Deleting or adding a record (or all records of an owner who lies in one shard) changes one shard and so one vote of
    each query: one count falls and one rises by 1, an L1 sensitivity of 2, and Laplace noise of scale b on the counts
    is (2 / b)-DP. For the exponential mechanism each count changes by at most 1, and probabilities in proportion to
    exp(count / b) are (2 / b)-DP too. A record that lies in another shard changes two votes (``changed_votes=2``): that
    is privacy of the shard map, the randomness on which Gupta et al. rest their reduction from adaptive to non-adaptive
    requests. Answers to several queries, or of several releases, compose by addition; the same query of the same
    release is the same answer and counts once.

    What is not covered: a seed that is known, the rounding of floating-point noise (Mironov 2012), answers read in any
    other way than through the noisy vote, and the shards' own weights.

    Args:
        noise: scale b > 0 in votes. queries: distinct pairs of query and release. changed_votes: see above.

    Raises:
        RequestError: a scale that is not positive, or a number below 1.
    """
    _positive(noise)
    if queries < 1 or changed_votes < 1:
        raise RequestError(f"{queries} queries and {changed_votes} changed votes", "Count at least one of each")
    return 2.0 * changed_votes * queries / noise, 0.0


def _positive(noise: float) -> None:
    if not (noise > 0.0 and math.isfinite(noise)):
        raise RequestError(
            f"the scale of the noise on votes must be positive, got {noise}", "Use `majority_vote` for no noise"
        )


def _checked(logits: Array, weights: Array) -> list[tuple[Floats, float]]:
    """The shards that count, with their weights."""
    values, each = np.asarray(logits), np.asarray(weights, dtype=np.float64)
    if values.ndim != 3 or each.shape != values.shape[:1] or not values.shape[2]:
        raise DataError(
            f"logits have shape {values.shape} and weights {each.shape}",
            "Give logits (shards, n, classes) and one weight a shard",
        )
    if not np.isfinite(each).all() or (each < 0).any():
        raise DataError(f"weights must be finite and at least 0, got {each.tolist()}", "An empty shard has weight 0")
    if not each.any():
        raise ModelError("every shard has weight 0: nobody can answer", "Keep at least one record")
    used = [(values[k].astype(np.float64), float(each[k])) for k in np.flatnonzero(each)]
    if not all(np.isfinite(shard).all() for shard, _ in used):
        raise DataError("a shard's logits hold NaN or infinity", "Find the shard that diverged")
    return used


def _summed_probabilities(used: list[tuple[Floats, float]]) -> Floats:
    summed = np.zeros(used[0][0].shape)
    for shard, weight in used:
        odds = np.exp(shard - shard.max(axis=1, keepdims=True))
        summed += weight * (odds / odds.sum(axis=1, keepdims=True))
    return summed


def _uniforms(queries: Array, n: int, classes: int, seed: int | bytes, release: str) -> Floats:
    """``(n, classes)`` in (0, 1): an extendable hash of (seed, release, features), with 52 bits to a number."""
    features = np.asarray(queries)
    if features.ndim < 1 or len(features) != n or not np.issubdtype(features.dtype, np.number):
        raise DataError(
            f"queries have shape {features.shape} and there are counts for {n}", "Give the features of each query"
        )
    # In one type, and with one zero: neither may make two queries of one.
    rows = np.ascontiguousarray(features, dtype="<f8") + 0.0
    if not np.isfinite(rows).all():
        raise DataError("a query holds NaN or infinity", "Ask about records whose features are all known")
    key = seed.hex() if isinstance(seed, bytes) else int(seed)
    head = json.dumps(["votes", key, release, list(rows.shape[1:])]).encode()
    drawn = b"".join(hashlib.shake_256(head + row.tobytes()).digest(8 * classes) for row in rows)
    bits = np.frombuffer(drawn, dtype="<u8").reshape(n, classes) >> np.uint64(12)
    result: Floats = (bits.astype(np.float64) + 0.5) / 2.0**52
    return result
