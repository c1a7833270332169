"""What `expunge audit forge RUN` does: hide rows of a replayable run, and see what a verifier would have noticed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from expunge.audit.forging.forge import Forgery, Progress, forge, forgeability
from expunge.audit.forging.search import SEARCHES
from expunge.audit.trust import TrustedKeys
from expunge.errors import RequestError

DECADES = (0.0, *(float(f"1e{p}") for p in range(-12, 2)))


@dataclass(frozen=True, kw_only=True, eq=False)
class ForgeAudit:
    """What was forged and what passes.

    Args:
        learner: its name. rows, steps: of the run. ids: of the rows that were hidden, each by itself.
        forgeries: one a row and search. irregular: search -> how many logs use a row twice in a pass, or weights.
        contradicted: search -> how many contradict the committed batches; None if there is no commitment to hold
            against them. order: why, or what they were held against. settings: with which it can be repeated.
    """

    learner: str
    rows: int
    steps: int
    ids: tuple[str, ...]
    forgeries: tuple[Forgery, ...]
    irregular: dict[str, int]
    contradicted: dict[str, int] | None
    order: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def searches(self) -> tuple[str, ...]:
        return tuple(self.settings["searches"])

    def of(self, search: str) -> list[Forgery]:
        return [forgery for forgery in self.forgeries if forgery.search == search]

    def curve(self, tolerances: Sequence[float] = DECADES) -> dict[str, Any]:
        """Share of forged steps, and of rows with all their steps, that pass at each tolerance."""
        return {
            "tolerances": list(tolerances),
            "steps": {s: forgeability(self._steps(s), tolerances) for s in self.searches},
            "rows": {s: forgeability([f.distance for f in self.of(s)], tolerances) for s in self.searches},
        }

    def _steps(self, search: str) -> list[float]:
        return [step.distance.largest for forgery in self.of(search) for step in forgery.steps]

    def lines(self) -> list[str]:
        """What to print."""
        n, at = len(self.ids), self.settings["tolerance"]
        moved = [step.moved for forgery in self.of(self.searches[0]) for step in forgery.steps]
        head = f"pass at {at:g}: steps"
        told = [
            f"{self.learner}: {n} of {self.rows} rows left out of the log of {self.steps} steps, each by itself",
            f"{'search':<12}{'distance: median':>17}{'largest':>10}  {head}  rows  rows whose log is irregular"
            + ("  contradicted" if self.contradicted is not None else ""),
        ]
        for search in self.searches:
            steps, whole = self._steps(search), [f.distance for f in self.of(search)]
            told.append(
                f"{search:<12}{np.median(steps):>17.3g}{max(steps):>10.3g}  "
                f"{forgeability(steps, [at])[0]:>{len(head)}.0%}  {forgeability(whole, [at])[0]:>4.0%}  "
                f"{f'{self.irregular[search]} of {n}':>27}"
                + (f"{f'{self.contradicted[search]} of {n}':>14}" if self.contradicted is not None else "")
            )
        best = min(self.searches, key=lambda s: max(f.distance for f in self.of(s)))
        largest = max(f.distance for f in self.of(best))
        told += [
            f"a true step goes {np.median(moved):.3g} far (median)",
            f"a verifier of the steps alone who allows {largest:.3g} accepts every one of these forgeries by {best}",
            f"committed batches: {self.order}",
        ]
        return told

    def as_dict(self) -> dict[str, Any]:
        return {
            "learner": self.learner,
            "rows": self.rows,
            "steps": self.steps,
            "forgeries": [forgery.as_dict() for forgery in self.forgeries],
            "curve": self.curve(sorted({*DECADES, self.settings["tolerance"]})),
            "irregular": self.irregular,
            "contradicted": self.contradicted,
            "order": self.order,
            "settings": self.settings,
        }


def audit_forge(
    folder: str | Path,
    *,
    ids: Sequence[str] = (),
    rows: int = 20,
    searches: Sequence[str] = tuple(SEARCHES),
    candidates: int = 64,
    tolerance: float = 0.0,
    seed: int = 0,
    public_keys: str | Path | None = None,
    checkpoint: str | Path | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> ForgeAudit:
    """`expunge audit forge RUN`. Nothing in the folder is changed.

    Args:
        folder: of a durable `replay` learner that still has the rows. ids: rows to hide, each by itself; by default
            `rows` of them, drawn by `seed`. searches, candidates: see `forge`.
        tolerance: of the verifier in the printed table; the curve has many.
        public_keys: of the signer (`expunge keys show`): with them, and a folder in custody, forged batches are held
            against the committed ones.
        checkpoint: of its log (``audit/log/checkpoint``), kept by the verifier from before there was a reason to forge:
            without it a signer can commit anew to whatever was forged. out: draw the curve here (.png or .svg).

    Raises:
        RequestError, UnknownName, UnknownIds, EmptyRetainSet, RunError: before anything is computed. TamperedEvidence:
            what lies in the folder does not agree. DataError, ModelError: the run cannot be forged in this way.
    """
    from expunge.audit.forging.network import ReplayRun
    from expunge.audit.forging.plot import save_plot
    from expunge.audit.forging.verifier import committed_log, contradicted, irregular, read_note
    from expunge.figures import check_path
    from expunge.methods.durable import DurableLearner
    from expunge.methods.exact.replay import Replay

    folder, picture = Path(folder), None if out is None else Path(out)
    if picture is not None:
        check_path(picture)
    if not tolerance >= 0:
        raise RequestError(f"tolerance {tolerance!r}", "Give a number from 0")
    if checkpoint is not None and public_keys is None:
        raise RequestError("a checkpoint without the public keys that signed it", "Give the signer's public keys too")
    if not ids and rows < 1:
        raise RequestError(f"{rows} rows to hide", "Give at least one")
    durable = DurableLearner(folder)
    learner = durable.learner
    if not isinstance(learner, Replay):
        raise RequestError(
            f"the learner in {folder} is {learner.name}, which keeps no training log", "Learn with `replay`"
        )
    state = durable.state
    committed, order = None, "none: the folder is not in custody, and whoever holds it can write another log"
    if (folder / "audit" / "lineage.json").exists():
        order = "not looked at: give the signer's public keys"
        if public_keys is not None:
            kept = None if checkpoint is None else read_note(Path(checkpoint))
            committed = committed_log(folder, TrustedKeys.read(Path(public_keys)), kept=kept)
            order = "the training log is the one whose state was signed, " + (
                "in a log that continues the checkpoint that was kept"
                if kept
                else "as its signer says: no earlier checkpoint was given"
            )
    elif public_keys is not None:
        raise RequestError(f"{folder} is not in custody: there is nothing to check with keys", "Leave the keys out")
    run = ReplayRun(learner, state)
    hidden = tuple(dict.fromkeys((ids,) if isinstance(ids, str) else ids)) or _draw(run, rows, seed)
    forgeries = forge(run, hidden, searches=searches, candidates=candidates, seed=seed, progress=progress)
    if not any(forgery.steps for forgery in forgeries):
        raise RequestError(
            "none of these rows was used in a step, so the log is without them as it is", "Name rows that were used"
        )
    chosen = tuple(dict.fromkeys(searches))
    odd, against = dict.fromkeys(chosen, 0), dict.fromkeys(chosen, 0)
    for forgery in forgeries:
        log = forgery.log(run)
        touched = {int(run.passes[step.step]) for step in forgery.steps}
        batches = {p: [b for t, b in log.batches.items() if run.passes[t] == p] for p in touched}
        odd[forgery.search] += any(irregular(found) for found in batches.values())
        against[forgery.search] += committed is not None and bool(contradicted(run, log, committed))
    told = ForgeAudit(
        learner=learner.name,
        rows=len(run.ids),
        steps=run.steps,
        ids=hidden,
        forgeries=forgeries,
        irregular=odd,
        contradicted=against if committed is not None else None,
        order=order,
        settings={
            "searches": list(chosen),
            "candidates": candidates,
            "tolerance": tolerance,
            "seed": seed,
            "state": state.digest(),
        },
    )
    if picture is not None:
        save_plot(told, picture)
    return told


def _draw(run: Any, rows: int, seed: int) -> tuple[str, ...]:
    """`rows` ids, or all but one, by a hash of (seed, id)."""
    from expunge.methods.hashed_course import row_keys

    order = np.argsort(row_keys(run.ids, seed), kind="stable")
    return tuple(run.ids[k] for k in order[: min(rows, len(run.ids) - 1)].tolist())
