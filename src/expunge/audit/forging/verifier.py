"""What a verifier of a training log looks at, from the least to the most.

``rows``        the batches hold only rows that are said to have been learned from.
``steps``       every step, repeated, ends within the tolerance of the logged state: all that the paper's verifier does.
``passes``      every pass uses each of those rows exactly once and unweighted, as the algorithm declares. A batch keeps
                its size only if a row stands in twice, so this needs no commitment and finds most forgeries, all but
                `dropped`; who declares to draw rows with repetition escapes it.
``membership``  the rows are those that were committed to before training.
``order``       the batches are those that were committed to: their hashes are in the log that was signed.

The last two need a commitment (`committed_log`) from before anybody had a reason to forge.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from expunge.audit.checks import Checks, Inconclusive, Verdict
from expunge.audit.custody import audit_folder, read_manifest, read_nonce, state_commitment
from expunge.audit.forging.log import Batch, ClaimedLog, Distance, Numbers, Run, repeat
from expunge.audit.log import Log
from expunge.audit.note import Checkpoint, split, verify
from expunge.audit.statement import Entry
from expunge.audit.trust import TrustedKeys
from expunge.errors import RequestError, TamperedEvidence
from expunge.methods.durable import DurableLearner
from expunge.methods.hashed_course import Keys
from expunge.methods.training_log import TrainingLog

REMEDY = "Ask for the log that was committed to, or train again under custody"


@dataclass(frozen=True, kw_only=True, eq=False)
class Committed:
    """What was committed to of a run: each step's batch and each row, by 64-bit hashes.

    Args:
        batches: (steps,) of the ordered keys (`TrainingLog.ids`). rows: (steps,) how many. keys: (n,) of the ids.
    """

    batches: Keys
    rows: Numbers
    keys: Keys

    def contradicts(self, step: int, keys: Keys) -> bool:
        """Whether a step with this batch (keys in order) is another than the committed one."""
        mine = TrainingLog(1, 0)
        mine.write(0, keys, True)
        return bool(mine.ids[0] != self.batches[step] or mine.rows[0] != self.rows[step])


def read_note(path: Path) -> str:
    """The text of a checkpoint.

    Raises:
        RequestError: it cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"cannot read the checkpoint {path} ({error})", "Check the file's name") from error


def committed_log(folder: Path, keys: TrustedKeys, *, kept: str | None = None) -> Committed:
    """The training log in a folder in custody, if it is the one whose state was signed last.

    Args:
        kept: the text of a checkpoint that the verifier has from earlier. Without it this is what the signer says
            today: who holds the key can begin another log, of another run.

    Raises:
        RunError: there is no learner, or no custody. TamperedEvidence: log, rows or training log are not those that
            were signed. RequestError: the learner keeps no training log.
    """
    folder = Path(folder)
    nonce, manifest = read_nonce(folder), read_manifest(folder)
    log = Log(audit_folder(folder) / "log", keys.public)
    if not keys.owns(log.origin):
        raise TamperedEvidence(f"the log in {folder} is of {log.origin}", "Use the keys of that signer")
    if not log.entries:
        raise TamperedEvidence(f"the log in {folder} is empty", REMEDY)
    if kept is not None:
        _check_continues(log, kept, keys)
    last = Entry.read(log.entries[-1])
    state = DurableLearner(folder).state
    records = state.rows.records()
    made = state_commitment(
        nonce, state.digest(), {"rows": records.digest(), **state.part_digests()}, records, manifest
    )
    if (made.state, made.manifest) != (last.state, last.manifest):
        raise TamperedEvidence("the rows or the training log in the folder are not those that were signed", REMEDY)
    part = state.parts.get("log")
    if part is None or not {"ids", "rows", "keys"} <= set(part):
        raise RequestError("the learner in the folder keeps no training log", "Train it as `replay`")
    return Committed(batches=np.asarray(part["ids"]), rows=np.asarray(part["rows"]), keys=np.asarray(part["keys"]))


def _check_continues(log: Log, kept: str, keys: TrustedKeys) -> None:
    """Refuse a log that does not begin as it did when its checkpoint was kept."""
    head = Checkpoint.parse(split(kept)[0])
    verify(kept, head.origin, keys.public)
    if not head.size:
        raise RequestError("the kept checkpoint counts no entry, so nothing had been committed to", "Keep a later one")
    if head.origin != log.origin:
        raise TamperedEvidence(
            f"the log in the folder is {log.origin}, the kept checkpoint is of {head.origin}: it was begun anew", REMEDY
        )
    if head.size > len(log.entries) or log.tree.root(head.size) != head.root:
        raise TamperedEvidence(f"the first {head.size} entries of the log are not those of the kept checkpoint", REMEDY)


def distances(run: Run, log: ClaimedLog) -> dict[int, Distance]:
    """Step -> how far each repeated step ends from the logged state.

    Raises:
        TamperedEvidence: the log has other steps than the run.
    """
    steps = {t for t in range(run.steps) if len(run.batch(t))}
    if steps != set(log.batches):
        raise TamperedEvidence(f"{len(log.batches)} steps are logged and the run has {len(steps)}", REMEDY)
    return {
        step.number: run.distance(step.after, run.advance(step.number, step.before, log.batches[step.number]))
        for step in repeat(run)
    }


def check_log(run: Run, log: ClaimedLog, *, tolerance: float = 0.0, committed: Committed | None = None) -> Verdict:
    """Look at a log in all the ways above.

    Args:
        run: which knows the states that were logged. tolerance: largest allowed distance of a step; 0 asks for the same
            bytes up to the sign of zero. committed: what is known from before.
    """
    if not tolerance >= 0:
        raise RequestError(f"tolerance {tolerance!r}", "Give a number from 0")
    checks = Checks()
    checks.run("rows", lambda: _rows(log))
    checks.run("steps", lambda: _steps(run, log, tolerance))
    checks.run("passes", lambda: _passes(run, log))
    checks.run("membership", lambda: _membership(run, log, committed))
    checks.run("order", lambda: _order(run, log, committed))
    return Verdict(checks=tuple(checks.made), scope="replay")


def _rows(log: ClaimedLog) -> str:
    wrong = [step for step, batch in sorted(log.batches.items()) if not log.members[batch.rows].all()]
    if wrong:
        raise TamperedEvidence(f"the batch of step {wrong[0]} holds a row that is said not to be there", REMEDY)
    return f"{len(log.batches)} batches hold only the {int(log.members.sum())} rows that are said to be there"


def _steps(run: Run, log: ClaimedLog, tolerance: float) -> str:
    found = distances(run, log)
    wrong = [step for step, far in found.items() if not far.largest <= tolerance]
    if wrong:
        step = max(wrong, key=lambda t: found[t].largest)
        raise TamperedEvidence(
            f"{len(wrong)} of {len(found)} steps are off by more than {tolerance:g}, step {step} by "
            f"{found[step].largest:.3g}",
            REMEDY,
        )
    largest = max((far.largest for far in found.values()), default=0.0)
    return f"{len(found)} steps repeated, largest distance {largest:.3g}"


def _passes(run: Run, log: ClaimedLog) -> str:
    for number in np.unique(run.passes).tolist():
        batches = [log.batches[t] for t in np.flatnonzero(run.passes == number).tolist() if t in log.batches]
        trouble = irregular(batches)
        if trouble:
            raise TamperedEvidence(f"{trouble} in pass {number}", REMEDY)
        left = log.members.copy()
        for batch in batches:
            left[batch.rows] = False
        # Rows of steps that were left out as too small, or of other periods, are seen in no batch of this pass.
        unseen = _unseen(run, number)
        if (left & ~unseen).any():
            raise TamperedEvidence(f"{int((left & ~unseen).sum())} rows are not used in pass {number}", REMEDY)
    return "every pass uses each of its rows once"


def irregular(batches: Collection[Batch]) -> str:
    """What in the batches of one pass could not come from a pass over distinct rows, in words; "" if nothing."""
    if any(batch.weights is not None or batch.size != len(batch.rows) for batch in batches):
        return "a batch has weights"
    rows = np.concatenate([batch.rows for batch in batches]) if batches else np.zeros(0, np.int64)
    twice = len(rows) - len(np.unique(rows))
    return f"{twice} rows are used twice" if twice else ""


def _unseen(run: Run, number: int) -> np.ndarray:
    unseen = np.ones(len(run.ids), bool)
    for step in np.flatnonzero(run.passes == number).tolist():
        unseen[run.batch(step)] = False
    return unseen


def _membership(run: Run, log: ClaimedLog, committed: Committed | None) -> str:
    if committed is None:
        raise Inconclusive("no rows were committed to before training")
    claimed, known = set(run.keys[log.members].tolist()), set(committed.keys.tolist())
    if claimed != known:
        raise TamperedEvidence(
            f"{len(known - claimed)} rows were committed to that are said not to be there, and {len(claimed - known)} "
            "are said to be there that were not",
            REMEDY,
        )
    return f"the {len(known)} rows are those that were committed to"


def _order(run: Run, log: ClaimedLog, committed: Committed | None) -> str:
    if committed is None:
        raise Inconclusive("no batches were committed to: any that lead to the same weights are as good")
    wrong = contradicted(run, log, committed)
    if wrong:
        raise TamperedEvidence(
            f"{len(wrong)} of {len(log.batches)} batches are not those that were committed to, the first at step "
            f"{wrong[0]}",
            REMEDY,
        )
    return f"{len(log.batches)} batches have the hashes that were committed to"


def contradicted(run: Run, log: ClaimedLog, committed: Committed) -> list[int]:
    """The steps of a log whose batch is not the committed one."""
    return [step for step, b in sorted(log.batches.items()) if committed.contradicts(step, run.keys[b.rows])]
