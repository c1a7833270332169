"""What `expunge audit epsilon RUN` does: a folder's learner is made again many times, and its claim put to the test.

What is audited is the mechanism (learner, hyper-parameters, code), on instances made of the folder's own records and of
canaries; the model in the folder is read and not changed. All games together hold with the confidence that was asked
for: each is played at 1 - (1 - confidence)/games.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from expunge.audit.epsilon.canaries import KINDS, make_canaries, small_set
from expunge.audit.epsilon.claims import Against, Claim, Point, Verdict, judge_one_run, judge_separation, rule_delta
from expunge.audit.epsilon.coins import Flips, guess_coins, play_one_run
from expunge.audit.epsilon.games import PILOT_ROUNDS, most_exposed_kind, play, table
from expunge.audit.epsilon.observe import Access, check_access
from expunge.audit.epsilon.populations import LEAST, separate
from expunge.data.records import Records
from expunge.errors import RequestError, UnknownName
from expunge.evaluation.metrics.checks import share
from expunge.methods.learner import Learner, Progress

ONE_RUN = "one_run"
ONE_RUN_IN_OR_OUT = "one_run_in_or_out"
IN_ONE_RUN = (ONE_RUN, ONE_RUN_IN_OR_OUT)
DEFAULT_GAMES = ("retrained", "never_in", "class_skewed", ONE_RUN)
DELTA = 1e-5  # where nothing is claimed
REFERENCES = 4


@dataclass(frozen=True, kw_only=True)
class EpsilonAudit:
    """All verdicts of an audit.

    Args:
        learner, parameters: what was audited. claimed: in words, or "" if nothing was. verdicts: one a game, two of
            ``one_run``. settings: with which the audit can be repeated, bit for bit.
    """

    learner: str
    parameters: dict[str, Any]
    claimed: str
    verdicts: tuple[Verdict, ...]
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def refuted(self) -> bool:
        return any(verdict.outcome == "refuted" for verdict in self.verdicts)

    @property
    def exit_code(self) -> int:
        """1 if a claim is refuted, otherwise 0."""
        return int(self.refuted)

    def lines(self) -> list[str]:
        """What to print."""
        head = f"{self.learner}: {self.claimed or 'claims no ε'}; {self.settings['access']} seen"
        if self.refuted:
            end = "REFUTED: the mechanism reveals more than it claims"
        elif all(verdict.outcome == "no claim" for verdict in self.verdicts):
            end = "nothing to refute: no game that was played has a claim"
        else:
            end = "not refuted: these attacks did not exceed the claim, which does not prove it"
        return [head, *("  " + verdict.line for verdict in self.verdicts), end]

    def as_dict(self) -> dict[str, Any]:
        return {
            "learner": self.learner,
            "parameters": self.parameters,
            "claimed": self.claimed,
            "refuted": self.refuted,
            "verdicts": [verdict.as_dict() for verdict in self.verdicts],
            "settings": self.settings,
        }


def audit_epsilon(
    folder: Path,
    *,
    games: Sequence[str] = DEFAULT_GAMES,
    rounds: int = 400,
    size: int = 100,
    canaries: int | None = None,
    runs: int = 1,
    kind: str | None = None,
    access: Access = "scores",
    confidence: float = 0.95,
    seed: int = 0,
    progress: Progress | None = None,
) -> EpsilonAudit:
    """`expunge audit epsilon RUN`; exit with `EpsilonAudit.exit_code`.

    Args:
        folder: of a durable learner. Other arguments: see `audit_learner`.

    Raises:
        RunError: there is no learner in the folder. RequestError, UnknownName, DataError.
    """
    from expunge.methods.durable import DurableLearner

    durable = DurableLearner(folder)
    return audit_learner(
        durable.learner,
        durable.state.rows.records(),
        games=games,
        rounds=rounds,
        size=size,
        canaries=canaries,
        runs=runs,
        kind=kind,
        access=access,
        confidence=confidence,
        seed=seed,
        progress=progress,
    )


def audit_learner(
    learner: Learner,
    records: Records,
    *,
    games: Sequence[str] = DEFAULT_GAMES,
    rounds: int = 400,
    size: int = 100,
    canaries: int | None = None,
    runs: int = 1,
    kind: str | None = None,
    access: Access = "scores",
    confidence: float = 0.95,
    seed: int = 0,
    progress: Progress | None = None,
) -> EpsilonAudit:
    """Play games with a learner on its own records and judge what it claims.

    Args:
        games: of `games.table` and ``one_run``. rounds: of each game of two worlds, 16 at least; each learns twice. A
            bound at 95% cannot pass what they allow: 1.8 for 64 rounds, 3.7 for 400, 4.6 for 1,000.
        size: records of an instance of those games. The fewer, the more a canary weighs.
        canaries, runs: of ``one_run``, which learns from all records; by default one canary a feature, 16 to 128.
        kind: of canary; by default the one that a few rounds beforehand tell apart best.
        access: ``labels``, ``scores`` or ``weights``. seed: of everything.

    Raises:
        RequestError, UnknownName: before anything is learned. DataError, ModelError: the records or the learner do not
            suit a game.
    """
    known = table()
    chosen = tuple(dict.fromkeys(games))
    if not chosen:
        raise RequestError("no games to play", f"Name some of {', '.join([*known, *IN_ONE_RUN])}")
    for name in chosen:
        if name not in known and name not in IN_ONE_RUN:
            raise UnknownName("game", name, [*known, *IN_ONE_RUN])
    check_access(access)
    share("confidence", confidence)
    if kind is not None and kind not in KINDS:
        raise UnknownName("kind of canary", kind, KINDS)
    if rounds < LEAST:
        raise RequestError(f"{rounds} rounds", f"Play at least {LEAST}; with fewer no rule can be chosen and counted")
    base = small_set(records, size, seed, learner.task)
    make_canaries(base, 1, kind=KINDS[0], task=learner.task, seed=seed)  # refuses what cannot be audited
    in_one_run = sum(name in IN_ONE_RUN for name in chosen)
    if canaries is None:
        canaries = int(np.clip(np.prod(records.x.shape[1:], dtype=int), 16, 128))
    tests = len(chosen) + (ONE_RUN in chosen)
    each = 1.0 - (1.0 - confidence) / tests
    of_game = rounds + (0 if kind else PILOT_ROUNDS * len(KINDS))
    total = 2 * of_game * (len(chosen) - in_one_run) + (REFERENCES + runs) * in_one_run
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress:
            progress("learning", done, total)

    verdicts: list[Verdict] = []
    claims: list[Claim] = []
    for name in chosen:
        if name in IN_ONE_RUN:
            flips = play_one_run(
                learner,
                records,
                canaries=canaries,
                runs=runs,
                references=REFERENCES,
                deleted=name == ONE_RUN,
                seed=seed,
                access=access,
                tick=tick,
            )
            verdicts += _judge_coins(name, flips, seed, each)
            claims += [flips.claim] if flips.claim is not None else []
            continue
        game = known[name]
        of_kind = kind or most_exposed_kind(game, learner, base, seed=seed, access=access, tick=tick)
        made = make_canaries(base, game.canaries, kind=of_kind, task=learner.task, seed=seed)
        played = play(game, learner, base, made, rounds=rounds, seed=seed, access=access, tick=tick)
        promised: tuple[Point, ...] = ()
        if played.claim is not None:
            promised = played.claim.promised(game.against, adaptive=game.deletions == "adaptive")
            claims.append(played.claim)
        separation = separate(
            played.deleted,
            played.never,
            delta=rule_delta(promised) if promised else DELTA,
            confidence=each,
            seed=seed,
        )
        verdict = judge_separation(
            f"{name} ({of_kind})",
            separation,
            played.claim if promised else None,
            promised,
            delta=DELTA,
            confidence=each,
        )
        verdicts.append(verdict)
    return EpsilonAudit(
        learner=learner.name,
        parameters=learner.parameters(),
        claimed=claims[0].words if claims else "",
        verdicts=tuple(verdicts),
        settings={
            "games": list(chosen),
            "rounds": rounds,
            "size": size,
            "canaries": canaries,
            "runs": runs,
            "kind": kind,
            "access": access,
            "confidence": confidence,
            "seed": seed,
            "records": records.digest(),
        },
    )


def _judge_coins(name: str, flips: Flips, seed: int, confidence: float) -> list[Verdict]:
    """Equation (1) of `one_run`, and (2) where canaries were deleted: then all outcomes are close to one model."""
    made = []
    for joint in (True, False) if name == ONE_RUN else (False,):
        found = guess_coins(flips, runs=1 if joint else None, seed=seed)
        against: Against = "in_or_out" if name == ONE_RUN_IN_OR_OUT else "all_coins" if joint else "never_in"
        verdict = judge_one_run(
            f"{name} ({'all coins' if joint else 'each coin'})",
            found.right,
            found.guesses,
            found.coins,
            flips.claim,
            () if flips.claim is None else flips.claim.promised(against),
            joint=joint,
            delta=DELTA,
            confidence=confidence,
        )
        made.append(verdict)
    return made
