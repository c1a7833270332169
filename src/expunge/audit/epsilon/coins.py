"""The game in one run: m canaries, a coin each; those that fell in are learned and then deleted in one request.

A real record is deleted with them in any case, so that there is always something to delete and the request says nothing
of the coins. Guesses rest on the answers to each canary, less what models that never saw any of them answer.

Several runs may be played: their coins are independent, so equation (1) of `one_run` holds for all coins together, and
(2), which is about one release, for each run by itself; it is applied to the first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from expunge.audit.epsilon.canaries import joined, make_canaries
from expunge.audit.epsilon.claims import Claim, weakest
from expunge.audit.epsilon.games import Tick, claim_from
from expunge.audit.epsilon.observe import Access, check_access, per_record, rounded
from expunge.audit.epsilon.one_run import choose, count
from expunge.data.records import Records
from expunge.data.splits import unit_hash
from expunge.errors import RequestError
from expunge.methods.learner import Learner

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

LEAST = 16
SHOWN = 0.25  # share of the canaries whose coins are shown, to choose how to guess


@dataclass(frozen=True, kw_only=True)
class Flips:
    """What was seen in one or more runs.

    Args:
        scores: (runs, canaries), higher speaks for in. coins: (runs, canaries), true where the canary was in.
        claim: of the releases; None if they claim nothing.
    """

    scores: Floats
    coins: Bools
    claim: Claim | None


@dataclass(frozen=True, kw_only=True)
class Guessed:
    """right of guesses about coins, none of which had a part in choosing how to guess."""

    right: int
    guesses: int
    coins: int


def play_one_run(
    learner: Learner,
    base: Records,
    *,
    canaries: int,
    runs: int = 1,
    references: int = 4,
    deleted: bool = True,
    seed: int = 0,
    access: Access = "scores",
    tick: Tick | None = None,
) -> Flips:
    """Learn with the canaries whose coins fell in and, if `deleted`, forget them; a function of its arguments.

    Args:
        canaries: m of each run, 16 at least; half orthogonal, half mislabelled. references: models that never saw one,
            two at least, against which answers are measured. deleted: False asks about privacy, not about deletion.

    Raises:
        RequestError: too few canaries, runs or references.
    """
    check_access(access)
    if canaries < LEAST or runs < 1 or references < 2:
        raise RequestError(
            f"{canaries} canaries in {runs} runs with {references} reference models",
            f"Take at least {LEAST} canaries, one run and two references",
        )
    from expunge.training.seeds import derive

    pool = joined(
        make_canaries(base, canaries - canaries // 2, kind="orthogonal", task=learner.task, seed=seed),
        make_canaries(base, canaries // 2, kind="mislabelled", task=learner.task, seed=seed),
    )

    def answers(state_seed: int, inside: Bools | None) -> tuple[Floats, Claim | None]:
        if inside is None:
            state, claim = learner.fit(base, seed=state_seed), None
        else:
            state, claim = learner.fit(joined(base, pool.take(inside)), seed=state_seed), None
            if deleted:
                state, unlearned = learner.forget(state, [*pool.ids[inside].tolist(), decoy])
                claim = claim_from(learner, state, unlearned.guarantee)
            elif getattr(learner, "private", False):
                after, unlearned = learner.forget(state.copy(), [decoy])  # what it claims for one record
                claim = claim_from(learner, after, unlearned.guarantee)
        if tick:
            tick()
        values = per_record(learner, state, pool, access)
        return (rounded(values) if learner.equality == "real_arithmetic" else values), claim

    decoy = str(base.ids[unit_hash(base.ids, f"decoy {seed}").argmin()])
    known = np.array([answers(derive(seed, "one run", "reference", k), None)[0] for k in range(references)])
    variance = known.var(axis=0, ddof=1)
    spread = np.sqrt((variance + variance.mean()) / 2)
    spread = np.where(spread > 0, spread, 1.0)
    scores, coins, claims = [], [], []
    for k in range(runs):
        inside = unit_hash(pool.ids, f"coins {seed} {k}") < 0.5
        seen, claim = answers(derive(seed, "one run", "run", k), inside)
        scores.append((seen - known.mean(axis=0)) / spread)
        coins.append(inside)
        claims.append(claim)
    made = [claim for claim in claims if claim is not None]
    return Flips(
        scores=np.array(scores), coins=np.array(coins), claim=weakest(made) if len(made) == len(claims) else None
    )


def guess_coins(flips: Flips, *, runs: int | None = None, seed: int = 0) -> Guessed:
    """Guess the coins of the first `runs` runs (all by default) by a rule chosen on a quarter of the canaries."""
    scores, coins = flips.scores[:runs], flips.coins[:runs]
    shown = np.zeros(scores.shape[1], dtype=bool)
    order = unit_hash(np.array([str(k) for k in range(len(shown))]), f"shown {seed}").argsort(kind="stable")
    shown[order[: max(1, round(SHOWN * len(shown)))]] = True
    rule = choose(scores[:, shown].ravel(), coins[:, shown].ravel())
    hidden = coins[:, ~shown].ravel()
    guesses, right = count(rule(scores[:, ~shown].ravel()), hidden)
    return Guessed(right=right, guesses=guesses, coins=len(hidden))
