"""Bounds on ε from one model: m coins decide which canaries are in, the auditor guesses r of them, v guesses are right.

**One coin at a time.** Steinke, Nasr & Jagielski 2023, *Privacy Auditing with One (1) Training Run* (arXiv:2305.08846),
Theorem 5.2: if the release is (ε, δ)-differentially private in every coin, then for W ~ Binomial(r, e^ε/(1+e^ε))

    P[V >= v] <= P[W >= v] + 2mδ · max_{1<=i<=v} P[v-i <= W < v] / i.                                          (1)

m counts all coins, abstentions included. The lower bound on ε is the largest ε at which (1) is below 1 - confidence.
(1) need not grow with ε because of its second term; any ε it excludes is refuted all the same, since (ε, δ) implies
(ε', δ) for every ε' >= ε.

**All coins at once.** A certificate of unlearning says more than (1) uses: whatever was in and then deleted, the
release is (ε, δ)-close to that of *one* model which never saw any canary. That model knows nothing of the coins, so r
guesses made from it are Binomial(r, 1/2), and averaging the certificate's inequality over the 2^m outcomes gives

    P[V >= v] <= e^ε P[Binomial(r, 1/2) >= v] + δ.                                                            (2)

(2) concerns the ε of the whole set of deletions, (1) that of one coin; (2) is far stronger where both apply.

This differs from the authors' code in:
1. Many values of v at once.
2. Equation (2), which is ours: it has no counterpart in an audit of differential privacy.
3. How many to guess, and whether a high score speaks for or against having been in, are chosen on canaries whose coins
   are shown and which then do not count (the paper reports the best of several r).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from expunge.errors import DataError, RequestError
from expunge.evaluation.metrics.checks import booleans, floats, same_length, share
from expunge.evaluation.metrics.epsilon import CAP

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SHARES = (1.0, 0.5, 0.25, 0.1)
"""Shares of the canaries that `choose` may guess."""

STEPS = 60  # halvings of [0, 50]


def p_value(
    right: Any, guesses: int, epsilon: float | Floats, *, delta: float = 0.0, coins: int | None = None
) -> Floats:
    """Equation (1): how likely so many right guesses are at most if the release is (ε, δ)-private in every coin.

    Args:
        right: v, a number or an array, each in 0..guesses. guesses: r. epsilon: nats, one or one a value of `right`.
        delta: in [0, 1). coins: m >= r; by default r.

    Returns:
        The shape of `right`, in [0, 1].

    Raises:
        DataError: counts that contradict each other. RequestError: ε or δ out of range.
    """
    v, m = _counts(right, guesses, coins)
    values = np.broadcast_to(np.asarray(epsilon, dtype=np.float64), v.shape)
    _budget(values, delta)
    return _p_value(v.ravel(), guesses, values.ravel(), delta, m).reshape(v.shape)


def lower_bound(
    right: Any, guesses: int, *, delta: float = 0.0, coins: int | None = None, confidence: float = 0.95
) -> Floats:
    """Largest ε that equation (1) refutes at `confidence`, in [0, 50] nats; arguments as `p_value`."""
    v, m = _counts(right, guesses, coins)
    _budget(np.zeros(1), delta)
    level = 1.0 - share("confidence", confidence)
    unique, back = np.unique(v, return_inverse=True)
    low, high = np.zeros(len(unique)), np.full(len(unique), CAP)
    for _ in range(STEPS):
        middle = (low + high) / 2
        refuted = _p_value(unique, guesses, middle, delta, m) < level
        low, high = np.where(refuted, middle, low), np.where(refuted, high, middle)
    found = np.where(_p_value(unique, guesses, np.zeros(len(unique)), delta, m) < level, low, 0.0)
    return np.asarray(found[back].reshape(v.shape), dtype=np.float64)


def _p_value(v: Ints, r: int, epsilon: Floats, delta: float, m: int) -> Floats:
    q = special.expit(epsilon)
    tail = _tail(v, r, q)
    if delta == 0.0:
        return tail
    k = np.arange(r + 1)
    # F(v-1) - F(v-i-1), summed downwards from v-1: differences of two tails would lose their digits
    with np.errstate(divide="ignore", invalid="ignore"):
        log_mass = (
            special.gammaln(r + 1)
            - special.gammaln(k + 1)
            - special.gammaln(r - k + 1)
            + special.xlogy(k, q[:, None])
            + special.xlog1py(r - k, -q[:, None])
        )
    mass = np.exp(log_mass)
    steepest = np.zeros(len(v))
    for row, value in enumerate(v.tolist()):
        if value:
            steepest[row] = (mass[row, :value][::-1].cumsum() / np.arange(1, value + 1)).max()
    return np.minimum(1.0, tail + 2.0 * m * delta * steepest)


def joint_p_value(right: Any, guesses: int, epsilon: float, *, delta: float = 0.0) -> Floats:
    """Equation (2): how likely so many right guesses are at most if every outcome is (ε, δ)-close to one model.

    Arguments and result as `p_value`, but that there is no `coins`: abstentions cost nothing here.
    """
    v, _ = _counts(right, guesses, None)
    _budget(np.array([epsilon]), delta)
    return np.minimum(1.0, np.exp(np.minimum(0.0, epsilon + _log_tail(v, guesses))) + delta)


def joint_lower_bound(right: Any, guesses: int, *, delta: float = 0.0, confidence: float = 0.95) -> Floats:
    """Largest ε that equation (2) refutes at `confidence`, in [0, 50] nats: log((1 - confidence - δ) / tail)."""
    v, _ = _counts(right, guesses, None)
    _budget(np.zeros(1), delta)
    room = 1.0 - share("confidence", confidence) - delta
    if room <= 0:
        return np.zeros(v.shape)
    return np.asarray(np.clip(np.log(room) - _log_tail(v, guesses), 0.0, CAP), dtype=np.float64)


def guess(scores: Any, guesses: int) -> Ints:
    """1 (in) for the highest half of `guesses` scores, -1 (out) for the lowest half, 0 (abstain) between; ``(coins,)``.

    Raises:
        DataError: empty, NaN, or more guesses than scores.
    """
    values = floats("scores", scores, ("canaries",))
    if not 1 <= guesses <= len(values):
        raise DataError(f"{guesses} guesses about {len(values)} canaries", "Guess at least one and at most all")
    order = values.argsort(kind="stable")
    said = np.zeros(len(values), dtype=np.int64)
    said[order[: guesses // 2]] = -1
    said[order[len(values) - (guesses - guesses // 2) :]] = 1
    return said


def count(said: Any, coins: Any) -> tuple[int, int]:
    """Guesses made and guesses right, for what `guess` returned and ``(coins,)`` true where the canary was in."""
    inside = booleans("coins", coins, ("canaries",))
    words = np.asarray(said)
    same_length("canaries", guesses=words, coins=inside)
    made = words != 0
    return int(made.sum()), int(((words > 0) == inside)[made].sum())


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How to guess.

    Args:
        sign: 1 if a high score speaks for having been in, -1 if against. share: of the canaries to guess about, (0, 1].
    """

    sign: int
    share: float

    def __call__(self, scores: Floats) -> Ints:
        return guess(self.sign * scores, max(1, round(self.share * len(scores))))


def choose(scores: Any, coins: Any) -> Rule:
    """The rule that does best on canaries whose coins are shown; among equals the one that guesses about more.

    Raises:
        DataError: empty, NaN, other lengths.
    """
    values = floats("scores", scores, ("canaries",))
    best, found = -1.0, Rule(sign=1, share=1.0)
    for part in SHARES:
        for sign in (1, -1):
            rule = Rule(sign=sign, share=part)
            made, right = count(rule(values), coins)
            reached = float(-_log_tail(np.asarray(right), made))
            if reached > best + 1e-12:
                best, found = reached, rule
    return found


def _tail(v: Ints, r: int, q: Floats) -> Floats:
    """P[Binomial(r, q) >= v]."""
    return np.asarray(np.where(v <= 0, 1.0, special.betainc(np.maximum(v, 1), r - v + 1, q)), dtype=np.float64)


def _log_tail(v: Any, r: int) -> Floats:
    """log P[Binomial(r, 1/2) >= v], also where the probability itself is too small for a float."""
    k = np.arange(r + 1)
    log_mass = special.gammaln(r + 1) - special.gammaln(k + 1) - special.gammaln(r - k + 1) - r * np.log(2.0)
    upwards = np.logaddexp.accumulate(log_mass[::-1])[::-1]
    return np.asarray(np.minimum(0.0, upwards[np.asarray(v)]), dtype=np.float64)


def _counts(right: Any, guesses: int, coins: int | None) -> tuple[Ints, int]:
    v = np.asarray(right)
    m = guesses if coins is None else coins
    if guesses < 1 or m < guesses or not v.size or v.min() < 0 or v.max() > guesses:
        raise DataError(
            f"{v.max() if v.size else 'no counts'} right of {guesses} guesses about {m} canaries",
            "Give counts with 0 <= right <= guesses <= coins, and at least one guess",
        )
    return v.astype(np.int64), m


def _budget(epsilon: Floats, delta: float) -> None:
    if not (np.isfinite(epsilon).all() and (epsilon >= 0).all()):
        raise RequestError("ε must be a finite number, at least 0", "Correct it")
    if not 0 <= delta < 1:
        raise RequestError(f"δ is {delta!r}, expected a number from 0 up to 1", "Correct it")
