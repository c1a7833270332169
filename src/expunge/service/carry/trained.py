"""A model trained in any way, with a run request as its template (`expunge run`): forgets approximately, by a method.

location: the request's YAML. Each batch runs it with the records of everybody who asked so far, from the original, so
that a later batch does not undo an earlier one; the folder of the last run holds the model that is served.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expunge.audit.encoding import sha256
from expunge.errors import Conflict, RequestError
from expunge.service.carry.contract import Hands, Outcome, Work, every, matching
from expunge.service.registry import Index
from expunge.service.words import Stage
from expunge.training.files import read_json, write_json

if TYPE_CHECKING:
    from expunge.service.registry import Target

OUTSIDE = (
    "what attacks that were not made would recover: nothing is proved about this model",
    "the original model and the runs before this one, which are kept beside it",
)


class TrainedModel:
    """See the module."""

    kind = "trained"

    def index(self, target: Target) -> Index:
        rows = _rows(_template(target))
        owners: dict[str, int] = {}
        for _, owner in rows:
            if owner:
                owners[owner] = owners.get(owner, 0) + 1
        if not owners:
            raise RequestError(f"{target.id}: its training records have no owners", "Name the column in the request")
        return Index(
            owners=owners,
            digest=sha256(Path(target.location).read_bytes()),
            rows=len(rows),
            options={"guarantee": {"approximate": "empirical"}},
        )

    def stages(self, target: Target) -> tuple[tuple[Stage, ...], dict[str, str]]:
        return ("approximate",), {"exact": "it was not trained by a learner that can forget exactly"}

    def carry_out(self, hands: Hands, target: Target, stage: Stage, batch_id: str, works: Sequence[Work]) -> Outcome:
        template = _template(target)
        found = matching(hands.identities, works, _rows(template))
        folder = hands.home / "runs" / target.id / batch_id
        done = folder / "batch.json"
        if not done.exists():
            before = _forgotten(hands.home / "runs" / target.id, besides=batch_id)
            ids = sorted({*before, *every(found)})
            if every(found):
                _execute(template, ids, folder)
            folder.mkdir(parents=True, exist_ok=True)
            write_json(done, {"ids": ids, "at": hands.at.isoformat()})
        report = next((p for n in ("report.json", "language.json") if (p := folder / n).exists()), None)
        evidence = () if report is None else (("the run's report", str(report), sha256(report.read_bytes())),)
        return Outcome(
            guarantee={"class": "empirical"},
            rows={k: len(v) for k, v in found.items()},
            evidence=evidence,
            findings={"run": f"runs/{target.id}/{batch_id}"},
            outside=OUTSIDE,
        )

    def check(
        self, hands: Hands, target: Target, stage: Stage, works: Sequence[Work], outcome: Outcome
    ) -> dict[str, Any]:
        for name, path, digest in outcome.evidence:
            if not Path(path).exists() or sha256(Path(path).read_bytes()) != digest:
                raise Conflict(f"{name} is not there as it was written", "Retry the request: the run is taken up again")
        return {"run": outcome.findings.get("run"), "requests in the run": len(works)}


def _template(target: Target) -> dict[str, Any]:
    from expunge.language_request import from_folder, is_language_request
    from expunge.request import read_document

    path = Path(target.location)
    document = dict(read_document(path))
    return from_folder(document, path.parent) if is_language_request(document) else document


def _rows(template: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """(id, owner) of every training record that the template names."""
    from expunge.language_request import is_language_request

    if is_language_request(template):
        from expunge.data.texts import load_texts
        from expunge.language_request import TextPart

        told = dict(template["forget"]) if isinstance(template["forget"], Mapping) else {"source": template["forget"]}
        part = TextPart.model_validate({k: v for k, v in told.items() if k not in ("ids", "owners")})
        options = part.options()
        records = load_texts(options.pop("source"), **options)
    else:
        from expunge.request import Request
        from expunge.run import records_of

        records, _, _ = records_of(Request.model_validate(template))  # the model never saw those set aside
    owners = records.owners
    if owners is None:
        return []
    return [(str(i), str(o)) for i, o in zip(records.ids.tolist(), owners.tolist(), strict=True)]


def _execute(template: Mapping[str, Any], ids: Sequence[str], folder: Path) -> None:
    from expunge.language_request import LanguageRequest, is_language_request

    document = dict(template)
    if is_language_request(template):
        from expunge.language_run import execute_language, make_language_plan

        told = dict(template["forget"]) if isinstance(template["forget"], Mapping) else {"source": template["forget"]}
        told.pop("owners", None)
        document["forget"] = {**told, "ids": list(ids)}
        execute_language(make_language_plan(LanguageRequest.parse(document, "the template"), folder))
        return
    from expunge.request import Request
    from expunge.run import execute, make_plan

    document["forget"] = {"ids": list(ids)}
    execute(make_plan(Request.model_validate(document), folder), processes=1)


def _forgotten(runs: Path, *, besides: str) -> set[str]:
    """Ids that earlier runs of the target were asked for."""
    told: set[str] = set()
    for path in runs.glob("*/batch.json"):
        if path.parent.name != besides:
            told |= set(read_json(path)["ids"])
    return told
