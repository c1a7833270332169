"""What a certificate promises for a game, and whether what was seen refutes it.

A certificate of unlearning compares the model after deletion with one retrained without the record. Write D for what
remains, M(S) for the model after the set S was in and deleted, R for the retrained one. (ε, δ) holds between

- **retrained**: M(S) and R: the certificate itself;
- **never in**: M(S) and M(S') for two sets, with the canary in one and a stand-in for it in the other, both deleted.
  Both are (ε, δ)-close to R, so by the triangle they are (2ε, (1+e^ε)δ)-close to each other:
  P[M(S)∈E] <= e^ε P[R∈E] + δ <= e^ε (e^ε P[M(S')∈E] + δ) + δ;
- **all coins**: M(S), with S drawn by coins, and R, which knows nothing of them: see `one_run`;
- **in or out**: a model with the record and one without, nothing deleted: differential privacy. A certificate of
  unlearning promises nothing there; a learner that is private from the start promises its (ε, δ).

A one-sided certificate has only P[M(S)∈E] <= e^ε P[R∈E] + δ: no triangle, and only one direction of a test counts.

A mechanism often promises more than one point: for Gaussian noise, a δ for every ε. All points of a `Claim` are held
against the counts, and any one that fails refutes the mechanism.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from expunge.audit.epsilon.one_run import joint_lower_bound, lower_bound
from expunge.audit.epsilon.populations import Separation
from expunge.errors import RequestError
from expunge.guarantee import Certified, Exact, Guarantee

Against = Literal["retrained", "never_in", "in_or_out", "all_coins"]
Outcome = Literal["refuted", "not refuted", "no claim"]
Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a mechanism says of itself.

    Args:
        points: (ε, δ), all of which are claimed; the first is the one that is printed.
        words: how the mechanism put it.
        adaptive, private, one_sided, equal_noise: see `expunge.audit.epsilon.games.claim_from`.
    """

    points: tuple[Point, ...]
    words: str = ""
    adaptive: bool = False
    private: bool = False
    one_sided: bool = False
    equal_noise: bool = False

    def __post_init__(self) -> None:
        if not self.points:
            raise RequestError("a claim of nothing", "Give at least one pair (ε, δ)")
        for epsilon, delta in self.points:
            if not (0 <= epsilon < math.inf and 0 <= delta <= 1):
                raise RequestError(f"the claim ({epsilon!r}, {delta!r}) is no (ε, δ)", "Give ε >= 0 and δ in [0, 1]")

    def promised(self, against: Against, *, adaptive: bool = False) -> tuple[Point, ...]:
        """The points that hold for a game; none where the claim says nothing about it."""
        nothing = {
            "retrained": self.equal_noise,
            "never_in": self.one_sided,
            "in_or_out": not self.private,
            "all_coins": False,
        }
        if nothing[against] or (adaptive and not self.adaptive):
            return ()
        if against == "never_in":
            return tuple((2 * e, min(1.0, (1 + math.exp(min(e, 700.0))) * d)) for e, d in self.points)
        return self.points


def claim_of(guarantee: Guarantee) -> Claim | None:
    """The claim in a guarantee: its (ε, δ), or (0, 0) for an exact one; None for a word that claims no ε."""
    if isinstance(guarantee, Certified):
        return Claim(points=((guarantee.epsilon, guarantee.delta),), words=str(guarantee))
    if isinstance(guarantee, Exact):
        return Claim(points=((0.0, 0.0),), words=str(guarantee))
    return None


def weakest(claims: Iterable[Claim]) -> Claim | None:
    """Of claims made by models of one game, the points that all of them imply: for each place the largest ε and δ."""
    found = list(claims)
    if not found:
        return None
    places = min(len(c.points) for c in found)
    points = tuple((max(c.points[i][0] for c in found), max(c.points[i][1] for c in found)) for i in range(places))
    return replace(found[0], points=points)


def rule_delta(points: tuple[Point, ...]) -> float:
    """The δ for which an auditor should choose its threshold: of one point its δ, of a profile half its largest.

    At half of the total variation that is promised, a threshold near the middle is worth choosing, where few models
    already tell; at a δ of 1e-5 only the tails count, and it takes thousands of models to see them.
    """
    return points[0][1] if len(points) == 1 else max(d for _, d in points) / 2


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The outcome of one game.

    Args:
        game: its name. outcome: ``no claim`` where nothing is promised for this game.
        promised: (ε, δ) that hold for this game, the printed one first. claimed: (ε, δ) of the certificate itself.
        observed: lower bound on ε at the δ of the first point promised (at `delta` without a claim).
        confidence: of the bounds of this game, all points together.
        failed: (ε, δ, observed) of the point that is refuted by most, if one is.
        counts: what it rests on.
    """

    game: str
    outcome: Outcome
    claimed: Point | None
    promised: tuple[Point, ...]
    observed: float
    delta: float
    confidence: float
    counts: dict[str, Any]
    failed: tuple[float, float, float] | None = None

    @property
    def line(self) -> str:
        level = f"{100 * self.confidence:.5g}%"
        seen = f"observed at least {self.observed:.2f} ({level})"
        if not self.promised:
            return f"{self.game}: nothing claimed for this game, {seen} at δ={self.delta:.3g}"
        epsilon, delta = self.promised[0]
        text = f"{self.game}: claimed {epsilon:.2f}, {seen} at δ={delta:.3g}: {self.outcome}"
        if self.failed is not None and self.failed[1] != delta:
            text += f" (at δ={self.failed[1]:.3g}: claimed {self.failed[0]:.2f}, at least {self.failed[2]:.2f})"
        return text

    def as_dict(self) -> dict[str, Any]:
        return {
            "game": self.game,
            "outcome": self.outcome,
            "claimed": None if self.claimed is None else list(self.claimed),
            "promised": [list(p) for p in self.promised],
            "observed": self.observed,
            "delta": self.delta,
            "confidence": self.confidence,
            "failed": None if self.failed is None else list(self.failed),
            "counts": self.counts,
        }


def judge_separation(
    game: str,
    separation: Separation,
    claim: Claim | None,
    promised: tuple[Point, ...],
    *,
    delta: float,
    confidence: float,
) -> Verdict:
    """The verdict on a game of two populations; `delta` is read where nothing is promised."""
    one_sided = claim is not None and claim.one_sided
    bounds = [separation.bound(d, confidence, one_sided=one_sided) for _, d in promised]
    return _verdict(
        game, bounds, claim, promised, separation.bound(delta, confidence), delta, confidence, separation.as_dict()
    )


def judge_one_run(
    game: str,
    right: int,
    guesses: int,
    coins: int,
    claim: Claim | None,
    promised: tuple[Point, ...],
    *,
    joint: bool,
    delta: float,
    confidence: float,
) -> Verdict:
    """The verdict on one run; `joint` by equation (2) of `one_run`, otherwise by (1)."""

    def bound(at: float) -> float:
        if at >= 1.0:
            return 0.0
        if joint:
            return float(joint_lower_bound(right, guesses, delta=at, confidence=confidence))
        return float(lower_bound(right, guesses, delta=at, coins=coins, confidence=confidence))

    counts = {"right": right, "guesses": guesses, "coins": coins}
    return _verdict(game, [bound(d) for _, d in promised], claim, promised, bound(delta), delta, confidence, counts)


def _verdict(
    game: str,
    bounds: list[float],
    claim: Claim | None,
    promised: tuple[Point, ...],
    unclaimed: float,
    delta: float,
    confidence: float,
    counts: dict[str, Any],
) -> Verdict:
    failed = None
    over = [(b - e, (e, d, b)) for b, (e, d) in zip(bounds, promised, strict=True) if b > e]
    if over:
        failed = max(over)[1]
    return Verdict(
        game=game,
        outcome="no claim" if not promised else "refuted" if failed else "not refuted",
        claimed=None if claim is None else claim.points[0],
        promised=promised,
        observed=bounds[0] if bounds else unclaimed,
        delta=promised[0][1] if promised else delta,
        confidence=confidence,
        counts=counts,
        failed=failed,
    )
