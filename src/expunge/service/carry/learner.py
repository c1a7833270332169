"""A learner's folder in custody (`expunge fit --keys`): forgets exactly or within a bound, and certifies it itself.

The same for a classifier in shards and for a language model's adapters: what they have in common is the folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expunge.audit.encoding import sha256
from expunge.errors import Conflict, RequestError, ServiceError
from expunge.service.carry.contract import Hands, Outcome, Work, every, matching
from expunge.service.registry import Index
from expunge.service.words import Stage
from expunge.training.files import read_json, write_atomically, write_json

if TYPE_CHECKING:
    from expunge.methods.durable import DurableLearner
    from expunge.service.registry import Target


class LearnerFolder:
    """See the module."""

    kind = "learner"

    def index(self, target: Target) -> Index:
        from expunge.audit.log import complete_lines, decode_entry
        from expunge.audit.statement import Entry
        from expunge.methods.durable import DurableLearner

        folder = Path(target.location)
        if not (folder / "state.json").exists():
            raise RequestError(f"{target.id}: there is no learner in that folder", "Make one with `expunge fit`")
        if not (folder / "audit").exists():
            raise RequestError(
                f"{target.id}: the learner has no keys, so nothing it forgets could be certified",
                "Learn again with `expunge fit --keys`, naming the keys of this service",
            )
        durable = DurableLearner(folder)
        owners = durable.owners()
        if not owners:
            raise RequestError(f"{target.id}: its records have no owners", "Learn with `--owner COLUMN`")
        lines = complete_lines(folder / "audit" / "log")
        # a plain digest of the state would let whoever holds the other rows test a guess of one: the logged commitment
        state = Entry.read(decode_entry(lines[-1], len(lines) - 1)).state
        return Index(
            owners={str(k): v for k, v in owners.items()},
            digest=state,
            rows=len(durable.state.rows),
            options={"guarantee": {"exact": durable.learner.guarantee.word}, "learner": durable.learner.name},
        )

    def stages(self, target: Target) -> tuple[tuple[Stage, ...], dict[str, str]]:
        return ("exact",), {}

    def carry_out(self, hands: Hands, target: Target, stage: Stage, batch_id: str, works: Sequence[Work]) -> Outcome:
        from expunge.audit.custody import Custody, Order
        from expunge.methods.durable import DurableLearner

        folder = Path(target.location)
        ids = tuple(sorted(w.request_id for w in works))
        order = Order(
            ids=(batch_id, *ids),
            policy=", ".join(sorted({w.regime for w in works})),
            due_at=min(w.due_at for w in works),
        )
        durable = DurableLearner(folder, witness=Custody(hands.keys, order=order))
        durable.recover()  # a killed worker may have left a request half done: it is finished, in the same bytes
        path = _certificate(folder, batch_id)
        before = matching(hands.identities, works, _rows(durable))
        if path is None:
            wanted = every(before)
            if wanted:
                _note_owners(hands, works, before, durable)
                durable.forget(wanted)
                path = _certificate(folder, batch_id)
            counts = {k: len(v) for k, v in before.items()}
        else:
            counts = dict.fromkeys(ids, -1)  # it was done before the kill; how many rows of whom is not known any more
        guarantee = self._guarantee(path, durable)
        evidence: tuple[tuple[str, str, str], ...] = ()
        if path is not None:  # a copy beside the service's own, so that both are checked from one folder
            copy = hands.home / "certificates" / f"{batch_id}.learner.json"
            write_atomically(copy, lambda temporary: temporary.write_bytes(path.read_bytes()))
            evidence = (("the learner's certificate", str(copy), sha256(copy.read_bytes())),)
        return Outcome(guarantee=guarantee, rows=counts, evidence=evidence)

    def check(
        self, hands: Hands, target: Target, stage: Stage, works: Sequence[Work], outcome: Outcome
    ) -> dict[str, Any]:
        from expunge.audit.verify import verify
        from expunge.methods.durable import DurableLearner

        left = every(matching(hands.identities, works, _rows(DurableLearner(Path(target.location)))))
        if left:
            raise Conflict(
                f"{len(left)} rows of the subjects are in {target.id} again", "Retry: they are forgotten too"
            )
        findings: dict[str, Any] = {"rows left of the subjects": 0}
        for _, path, digest in outcome.evidence:
            if sha256(Path(path).read_bytes()) != digest:
                raise ServiceError("the learner's certificate was changed after it was written", "Restore it")
            verdict = verify(path, keys=hands.keys.trusted)
            findings["the learner's certificate"] = verdict.outcome
            if verdict.outcome != "pass":
                raise ServiceError(
                    f"the learner's certificate does not pass: {', '.join(verdict.failed)}", "Look at its folder"
                )
        return findings

    @staticmethod
    def _guarantee(path: Path | None, durable: DurableLearner) -> dict[str, Any]:
        from expunge.audit.certificate import Certificate

        if path is not None:
            return dict(Certificate.read(path).statement.predicate.guarantee_class)
        # nothing of the subjects was there, so nothing had to be done: exact, whatever the learner's own word is
        return {"class": "exact", "equality": "bitwise"}


def _rows(durable: DurableLearner) -> list[tuple[str, str | None]]:
    records = durable.state.rows.records()
    owners = records.owners
    if owners is None:
        return []
    return [(str(i), str(o)) for i, o in zip(records.ids.tolist(), owners.tolist(), strict=True)]


def _note_owners(hands: Hands, works: Sequence[Work], found: dict[str, list[str]], durable: DurableLearner) -> None:
    """Which owners' keys the requests leave behind, as tags of the key folder: destroyed when the policy says so.

    Somebody of whom single records go keeps the key, for the others are still committed to under it.
    """
    from expunge.audit.keys import owner

    owner_of = dict(_rows(durable))
    for work in works:
        if work.records:
            continue
        path = hands.home / "batches" / f"{work.request_id}.owners.json"
        tags = set(read_json(path)["tags"]) if path.exists() else set()
        names = {owner(str(owner_of[i])) for i in found[work.request_id]}
        write_json(path, {"tags": sorted(tags | {hands.keys.tag(name) for name in names if hands.keys.holds(name)})})


def _certificate(folder: Path, batch_id: str) -> Path | None:
    """The certificate that names the batch, the latest first."""
    from expunge.audit.certificate import Certificate

    for path in sorted((folder / "audit" / "certificates").glob("*.json"), reverse=True):
        if batch_id in Certificate.read(path).statement.predicate.request_ids:
            return path
    return None
