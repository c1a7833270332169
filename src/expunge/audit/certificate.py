"""A certificate's file, taken apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.audit.encoding import from_hex, whole
from expunge.audit.manifest import Membership, NonMembership
from expunge.audit.note import Checkpoint, split
from expunge.audit.statement import Entry, Statement, unseal
from expunge.errors import RunError, TamperedEvidence
from expunge.training.files import read_json

REMEDY = "Ask whoever issued the certificate for the one that was signed"


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """A certificate's file, taken apart; nothing in it is verified yet.

    Args:
        envelope: DSSE. statement: what it states. index: in the log. inclusion, consistency: proofs of the log, the
            second from the checkpoint in the statement. note: the checkpoint. before, after: proofs of the manifests.
    """

    envelope: Mapping[str, Any]
    statement: Statement
    index: int
    inclusion: tuple[bytes, ...]
    consistency: tuple[bytes, ...]
    note: str
    before: tuple[Membership, ...]
    after: tuple[NonMembership, ...]

    @property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint.parse(split(self.note)[0])

    @property
    def entry(self) -> Entry:
        """What must stand in the log."""
        return Entry.of(self.statement)

    @classmethod
    def read(cls, source: Path | Mapping[str, Any]) -> Certificate:
        """
        Raises:
            TamperedEvidence: it is not the JSON of a certificate. RunError: there is no such file.
        """
        if isinstance(source, Path) and not source.exists():
            raise RunError(f"there is no certificate {source}", "Check the file's name")
        try:
            value = read_json(source) if isinstance(source, Path) else source
            if value["format"] != 1:
                raise ValueError(f"format {value['format']!r}")
            log, manifest = value["log"], value["manifest"]
            return cls(
                envelope=value["envelope"],
                statement=Statement.read(unseal(value["envelope"])[0]),
                index=whole(log["index"]),
                inclusion=tuple(from_hex(p) for p in log["inclusion"]),
                consistency=tuple(from_hex(p) for p in log["consistency"]),
                note=str(log["checkpoint"]),
                before=tuple(Membership.from_dict(p) for p in manifest["before"]),
                after=tuple(NonMembership.from_dict(p) for p in manifest["after"]),
            )
        except RunError as error:
            raise TamperedEvidence(error.cause, REMEDY) from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise TamperedEvidence(f"the certificate cannot be read ({error})", REMEDY) from error
