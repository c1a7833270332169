"""The game in one run: m canaries, a coin each; those that fell in are learned and then deleted in one request.

Where a coin falls out, a stand-in is learned and deleted instead, so that neither the number of records nor the size of
the request says anything of the coins. Guesses rest on the answers to each canary, less those of models that
never saw any of them and went through the same with stand-ins alone.

Several runs may be played: their coins are independent, so equation (1) of `one_run` holds for all coins together, and
(2), which is about one release, for each run by itself; it is applied to the first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from expunge.audit.epsilon.canaries import joined, make_canaries, stand_ins
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
        canaries: m of each run, 16 at least; orthogonal as far as there are directions, then mislabelled.
        references: models that never saw one, two at least, against which answers are measured.
        deleted: False asks about privacy, not about deletion.

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

    width = int(np.prod(base.x.shape[1:], dtype=int))
    kinds = {"orthogonal": min(canaries, width), "mislabelled": canaries - min(canaries, width)}
    tables = [make_canaries(base, m, kind=kind, task=learner.task, seed=seed) for kind, m in kinds.items() if m]
    pool = joined(*tables)
    others = stand_ins(base, canaries, seed=seed)

    def answers(state_seed: int, inside: Bools) -> tuple[Floats, Claim | None]:
        claim = None
        chosen = joined(pool.take(inside), others.take(~inside)) if deleted else pool.take(inside)
        state = learner.fit(joined(base, chosen), seed=state_seed)
        if deleted:
            state, unlearned = learner.forget(state, chosen.ids.tolist())
            claim = claim_from(learner, state, unlearned.guarantee)
        elif getattr(learner, "private", False):
            after, unlearned = learner.forget(state.copy(), base.ids[:1].tolist())  # what it claims for one record
            claim = claim_from(learner, after, unlearned.guarantee)
        if tick:
            tick()
        values = per_record(learner, state, pool, access)
        return (rounded(values) if learner.equality == "real_arithmetic" else values), claim

    nobody = np.zeros(canaries, dtype=bool)
    known = np.array([answers(derive(seed, "one run", "reference", k), nobody)[0] for k in range(references)])
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
