"""The certificate of one layer: what was done to a model, a file or a box for a request, and what it rests on.

A learner's folder has certificates of its own, with manifests and a log of its states. A service touches more than
learners, and for each layer it files one of these: an in-toto statement about the target, signed, in the service's own
log, which names the evidence by digest: the learner's certificate, the report of a run, the file as it is now.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.alias_generators import to_camel

from expunge.audit.certificate import REMEDY
from expunge.audit.checks import Checks, Inconclusive, Verdict
from expunge.audit.code import code_digest, lock_digest
from expunge.audit.encoding import canonical, from_hex, sha256, whole
from expunge.audit.keys import KeyFolder
from expunge.audit.log import Log
from expunge.audit.merkle import verify_consistency, verify_inclusion
from expunge.audit.note import Checkpoint, split
from expunge.audit.note import verify as verify_note
from expunge.audit.statement import STATEMENT_TYPE, Code, Digest, LogPosition, read_guarantee, seal, signed_by, unseal
from expunge.audit.trust import TrustedKeys, parse_time
from expunge.environment import environment
from expunge.errors import RunError, TamperedEvidence
from expunge.training.files import read_json, write_json

PREDICATE_TYPE: Literal["urn:expunge:attestation:layer:v1"] = "urn:expunge:attestation:layer:v1"
FORMAT = 1


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class Evidence(_Strict):
    """A file that the statement rests on.

    Args:
        name: what it is. path: relative to the folder of the service, None where it is not kept there.
    """

    name: str
    sha256: Digest
    path: str | None = None


class LayerPredicate(_Strict):
    """What was done to a target.

    Args:
        request_ids: that it answers. policy: regime. due_at: the earliest. target, kind, stage: what and how.
        guarantee_class: as `Guarantee.as_dict`. already: nothing was left of the subjects when it was done.
        evidence: files. findings: what was checked afterwards, JSON. log: a checkpoint older than this statement.
    """

    request_ids: tuple[str, ...] = Field(min_length=1)
    policy: tuple[str, ...]
    due_at: str
    issued_at: str
    target: str
    kind: str
    stage: Literal["suppress", "approximate", "exact"]
    guarantee_class: dict[str, Any]
    already: bool = False
    evidence: tuple[Evidence, ...]
    findings: dict[str, Any]
    out_of_scope: tuple[str, ...] = Field(min_length=1)
    code: Code
    environment: dict[str, str]
    log: LogPosition

    @field_validator("guarantee_class")
    @classmethod
    def _known(cls, value: dict[str, Any]) -> dict[str, Any]:
        read_guarantee(value)
        return value


class _Subject(_Strict):
    name: str
    digest: dict[str, str]


class LayerStatement(_Strict):
    """in-toto Statement v1 about a target."""

    type: Literal["https://in-toto.io/Statement/v1"] = Field(STATEMENT_TYPE, alias="_type")
    subject: tuple[_Subject, ...] = Field(min_length=1, max_length=1)
    predicate_type: Literal["urn:expunge:attestation:layer:v1"] = PREDICATE_TYPE
    predicate: LayerPredicate

    @classmethod
    def about(cls, predicate: LayerPredicate) -> LayerStatement:
        digest = sha256(canonical([e.model_dump(mode="json") for e in predicate.evidence]))
        return cls(subject=(_Subject(name=predicate.target, digest={"sha256": digest}),), predicate=predicate)

    @property
    def payload(self) -> bytes:
        return canonical(self.model_dump(mode="json", by_alias=True, exclude_none=True))

    @property
    def leaf(self) -> bytes:
        """What stands in the log."""
        return canonical({"kind": "layer", "document": sha256(self.payload)})

    @classmethod
    def read(cls, payload: bytes) -> LayerStatement:
        """
        Raises:
            TamperedEvidence: it is no statement of this type, or not about its own evidence.
        """
        try:
            statement = cls.model_validate(json.loads(payload))
        except (ValidationError, ValueError) as error:
            raise TamperedEvidence("the statement cannot be read", REMEDY) from error
        if statement.payload != payload:
            raise TamperedEvidence("the statement is not written as this program writes it", REMEDY)
        if statement.subject != cls.about(statement.predicate).subject:
            raise TamperedEvidence("the subject of the statement is not its evidence", REMEDY)
        return statement


def open_log(folder: Path, keys: KeyFolder, origin: str) -> Log:
    """The log of a service, empty if there was none."""
    return Log.create(folder, origin, keys.signer, keys.trusted.public)


def certify(path: Path, about: Mapping[str, Any], log_folder: Path, keys: KeyFolder, origin: str) -> str:
    """Sign a statement, append it to the log and write its certificate to `path`; repeated, it finds what is there.

    Args:
        about: the fields of `LayerPredicate` but for code, environment and log.

    Returns:
        SHA-256 of the certificate's file.
    """
    draft = path.with_name(f".{path.name}.statement")
    if not path.exists():
        log = open_log(log_folder, keys, origin)
        if not draft.exists():  # written before it is logged, so that a killed process logs the same one again
            position = LogPosition(origin=log.origin, size=len(log), root=log.head.root.hex())
            predicate = LayerPredicate(
                **about,
                code=Code(version=_version(), digest=code_digest(), lock=lock_digest()),
                environment=environment(),
                log=position,
            )
            payload = LayerStatement.about(predicate).payload
            write_json(draft, {"payload": payload.decode()})
        statement = LayerStatement.read(read_json(draft)["payload"].encode())
        index = log.append(statement.leaf, keys.signer)
        size = index + 1
        write_json(
            path,
            {
                "format": FORMAT,
                "envelope": seal(statement.payload, keys.signer),
                "log": {
                    "index": index,
                    "inclusion": [p.hex() for p in log.inclusion(index, size)],
                    "consistency": [p.hex() for p in log.consistency(statement.predicate.log.size, size)],
                    "checkpoint": log.checkpoint_at(size, keys.signer),
                },
            },
        )
    draft.unlink(missing_ok=True)
    return sha256(path.read_bytes())


def is_layer(value: Any) -> bool:
    """Whether a certificate's JSON is of a layer; anything unreadable is not."""
    try:
        told = json.loads(unseal(value["envelope"])[0])
        return bool(told["predicateType"] == PREDICATE_TYPE)
    except (TamperedEvidence, KeyError, TypeError, ValueError):
        return False


def verify_layer(value: Mapping[str, Any], *, keys: TrustedKeys | None, folder: Path | None = None) -> Verdict:
    """Check a layer's certificate offline; never raises because of what it finds.

    Args:
        value: the certificate's JSON. keys: that are believed. folder: of the service, to compare the evidence in it.
    """
    checks = Checks()
    told: LayerStatement | None = None

    def read() -> str:
        nonlocal told
        if value["format"] != FORMAT:
            raise TamperedEvidence(f"format {value['format']!r} is not known", REMEDY)
        for name in ("index", "inclusion", "consistency", "checkpoint"):
            value["log"][name]  # what is missing here has not passed, and is looked at by no other check
        told = LayerStatement.read(unseal(value["envelope"])[0])
        return f"statement of {told.predicate.issued_at} about {told.predicate.target}"

    if not checks.run("certificate", read) or told is None:
        return Verdict(checks=tuple(checks.made), scope="certificate")
    predicate, log = told.predicate, value["log"]

    def trusted() -> TrustedKeys:
        if keys is None:
            raise Inconclusive("no public key was given: nobody can say who signed this")
        return keys

    def signature() -> str:
        key = signed_by(value["envelope"], trusted().public)
        if key is None:
            raise TamperedEvidence("none of the trusted keys has signed this as it stands", REMEDY)
        at = parse_time(predicate.issued_at)
        if not any(entry.key == key and entry.valid(at) for entry in trusted().keys):
            raise TamperedEvidence(f"the key was not in use at {predicate.issued_at}", REMEDY)
        return f"signed by key {key.id[:16]} of {trusted().name}, in use at {predicate.issued_at}"

    def checkpoint() -> str:
        head = Checkpoint.parse(split(str(log["checkpoint"]))[0])
        if head.origin != predicate.log.origin or not trusted().owns(head.origin):
            raise TamperedEvidence(f"the checkpoint is of the log {head.origin!r}, not of the signer's", REMEDY)
        verify_note(str(log["checkpoint"]), head.origin, trusted().public)
        return f"{head.origin} had {head.size} entries"

    def inclusion() -> str:
        head = Checkpoint.parse(split(str(log["checkpoint"]))[0])
        path = tuple(from_hex(p) for p in log["inclusion"])
        if not verify_inclusion(told.leaf, whole(log["index"]), head.size, path, head.root):
            raise TamperedEvidence("the statement is not in the log under the checkpoint", REMEDY)
        return f"the statement is entry {log['index']} of {head.size}"

    def history() -> str:
        head, old = Checkpoint.parse(split(str(log["checkpoint"]))[0]), predicate.log
        proof = tuple(from_hex(p) for p in log["consistency"])
        if not verify_consistency(old.size, head.size, bytes.fromhex(old.root), head.root, proof):
            raise TamperedEvidence(f"the log was rewritten since it had {old.size} entries", REMEDY)
        return f"continues the log of {old.size} entries that the statement names"

    def evidence() -> str:
        kept = [one for one in predicate.evidence if one.path is not None]
        missing = []
        for one in kept:
            path = (folder or Path()) / str(one.path)
            if not path.exists():
                missing.append(one.name)
            elif sha256(path.read_bytes()) != one.sha256:
                raise TamperedEvidence(f"{one.name} is not the file that the statement names", REMEDY)
        if missing:
            raise Inconclusive(f"not at hand: {', '.join(missing)}")
        elsewhere = len(predicate.evidence) - len(kept)
        return f"{len(kept)} files are those that the statement names; {elsewhere} more it names are not kept here"

    for name, check in (
        ("signature", signature),
        ("checkpoint", checkpoint),
        ("log inclusion", inclusion),
        ("log history", history),
    ):
        checks.run(name, check)
    if folder is not None and predicate.evidence:
        checks.run("evidence", evidence)
    says = {
        "requestIds": list(predicate.request_ids),
        "issuedAt": predicate.issued_at,
        "target": predicate.target,
        "stage": predicate.stage,
        "guarantee": str(read_guarantee(predicate.guarantee_class)),
        "findings": dict(predicate.findings),
        "outOfScope": list(predicate.out_of_scope),
    }
    return Verdict(checks=tuple(checks.made), scope="certificate" if folder is None else "folder", says=says)


def read_layer(path: Path) -> LayerStatement:
    """The statement in a certificate's file, unverified.

    Raises:
        RunError: there is no such file. TamperedEvidence: it is no certificate of a layer.
    """
    if not path.exists():
        raise RunError(f"there is no certificate {path}", "Check the file's name")
    return LayerStatement.read(unseal(read_json(path)["envelope"])[0])


def _version() -> str:
    from expunge import __version__

    return __version__
