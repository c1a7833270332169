"""A boxed model (`expunge serve-model`): told at once what it must not tell; it holds nothing and erases nothing.

location: the box's YAML, whose ``requests`` is a folder. options: fronts: ids of the models that stand behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expunge.audit.encoding import sha256
from expunge.errors import Conflict, RequestError
from expunge.service.carry.contract import Hands, Outcome, Work
from expunge.service.registry import Index
from expunge.service.words import Stage
from expunge.training.files import destroy, write_json

if TYPE_CHECKING:
    from expunge.service.registry import Target

OUTSIDE = (
    "the model behind the box, which knows what it knew: whoever reaches it otherwise is told",
    "other words for the same than those that were named",
)


class Box:
    """See the module."""

    kind = "box"

    def index(self, target: Target) -> Index:
        folder = self._folder(target)
        if not folder.is_dir():
            raise RequestError(
                f"{target.id}: its requests are not a folder", "Let `requests` in its YAML name a folder"
            )
        digest = sha256(Path(target.location).read_bytes())
        return Index(owners={}, digest=digest, rows=0, options={"guarantee": {"suppress": "suppressed"}})

    def stages(self, target: Target) -> tuple[tuple[Stage, ...], dict[str, str]]:
        return ("suppress",), {"exact": "a box changes no weight"}

    def carry_out(self, hands: Hands, target: Target, stage: Stage, batch_id: str, works: Sequence[Work]) -> Outcome:
        from expunge.boxed.requests import RequestFile

        folder = self._folder(target)
        evidence = []
        for work in works:
            if not work.tell_not:
                raise RequestError("the request does not say what must not be told", "File it with `tell_not`")
            rules = [{k: list(v) for k, v in told.items() if v} for told in work.tell_not]
            document = {"requests": [{"id": work.request_id, "rules": rules}]}
            RequestFile.model_validate(document)
            path = rule_file(folder, work.request_id)
            write_json(path, document)
            evidence.append((f"rules of {work.request_id}", str(path), sha256(path.read_bytes())))
        fronts = [t for t in (target.parent, *target.options.get("fronts", ())) if t]
        return Outcome(
            guarantee={"class": "suppressed"},
            rows={w.request_id: 0 for w in works},
            evidence=tuple(evidence),
            findings={"fronts": fronts},
            outside=OUTSIDE,
        )

    def check(
        self, hands: Hands, target: Target, stage: Stage, works: Sequence[Work], outcome: Outcome
    ) -> dict[str, Any]:
        from expunge.boxed.requests import read_requests

        held = {one.id for one in read_requests(self._folder(target)).active(hands.at)}
        missing = [w.request_id for w in works if w.request_id not in held]
        if missing:
            raise Conflict(f"the box does not hold {len(missing)} of the requests", "Look at its folder of requests")
        return {"requests in force at the box": len(works)}

    def lift(self, target: Target, request_id: str) -> bool:
        """Take the rules away, where what they hid is gone: they are the last plain words about the subject."""
        path = rule_file(self._folder(target), request_id)
        if not path.exists():
            return False
        destroy(path)
        return True

    @staticmethod
    def _folder(target: Target) -> Path:
        from expunge.boxed.config import BoxSettings

        return BoxSettings.read(Path(target.location)).requests


def rule_file(folder: Path, request_id: str) -> Path:
    return folder / f"{request_id}.json"
