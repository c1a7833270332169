"""Attacks on unlearned models, on retrained ones and on the original, all alike, as one document.

Every trial (one attack on one model) is a file that is done when it is there, named by the digest of what it depends
on: attack, settings, seed, scene and model. An interrupted campaign goes on; a changed model is attacked anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from expunge.environment import environment
from expunge.errors import ExpungeError, MissingEvidence, NoAccess, RequestError, RunError
from expunge.evaluation.attacks.language.contract import Access, Point, Trial
from expunge.evaluation.attacks.language.curves import recovery_curve, withheld
from expunge.result import Unscored
from expunge.training.chunks import Progress
from expunge.training.files import read_json, write_json

SCHEMA = "expunge/attacks/1"
ORIGINAL = "original"


class AnyAttack(Protocol):
    """What attacks on language models and on classifiers have in common; see their contracts."""

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str]
    access: ClassVar[Access]
    unit: ClassVar[str]
    headline: ClassVar[Literal["last", "best"]]

    def run(self, target: Any, scene: Any, *, seed: int) -> Trial: ...

    def settings(self) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """A model to attack.

    Args:
        label: unique in the campaign. load: makes it; called when its turn comes, and not kept. source: where it is
            from; a model that calibrates an attack (its setting ``reference``) is no reference for that attack.
    """

    label: str
    load: Callable[[], Any]
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """Who is attacked, with what knowledge.

    Args:
        models: ``language`` or ``classifier``. scene: what the attacker knows. scene_digest: of all of it.
        original, references: None and empty where there are none; recovery is unscored then.
        unlearned: label of a row -> its models, one a seed. absent: label of a row -> why it cannot be attacked.
        target: (model, original or None) -> what the attacks take. folder: of the trials. seed: of all attacks.
        about: what the document says of the data.
    """

    models: Literal["language", "classifier"]
    scene: Any
    scene_digest: str
    original: Suspect | None
    references: Sequence[Suspect]
    unlearned: Mapping[str, Sequence[Suspect]]
    target: Callable[[Any, Any], Any]
    folder: Path
    absent: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)

    def run(self, attacks: Sequence[AnyAttack], progress: Progress | None = None) -> dict[str, Any]:
        """Carry out whatever is missing, and return the document (``expunge/attacks/1``)."""
        trials, digests = self._trials(attacks, progress)
        return {
            "schema": SCHEMA,
            "models": self.models,
            "scene": self.scene_digest,
            "about": dict(self.about),
            "seed": self.seed,
            "references": [s.label for s in self.references],
            "digests": digests,
            "attacks": [self._entry(attack, trials[k]) for k, attack in enumerate(attacks)],
            "environment": environment(),
        }

    # --- trials ------------------------------------------------------------------------------------------------------

    def _everyone(self) -> Iterator[Suspect]:
        yield from () if self.original is None else (self.original,)
        yield from self.references
        for suspects in self.unlearned.values():
            yield from suspects

    def _trials(
        self, attacks: Sequence[AnyAttack], progress: Progress | None
    ) -> tuple[list[dict[str, Trial | str]], dict[str, str]]:
        """For each attack: label -> the trial, or why there is none; and the digest of every model.

        One model is in memory at a time, and the original where an attack compares with it.
        """
        everyone = list(self._everyone())
        if len({s.label for s in everyone}) < len(everyone):
            raise RequestError("two models of the campaign have one label", "Give each its own")
        with_pairs = self.original is not None and any(a.access == "pair" for a in attacks)
        before = self.original.load() if self.original is not None and with_pairs else None
        found: list[dict[str, Trial | str]] = [{} for _ in attacks]
        digests = {}
        for done, suspect in enumerate(everyone):
            model = suspect.load()
            digest = digests[suspect.label] = model.digest()
            for k, attack in enumerate(attacks):
                if progress:
                    progress(attack.name, done, len(everyone))
                if not _calibrates(suspect, attack):
                    found[k][suspect.label] = self._trial(attack, suspect, model, digest, before)
                if progress:
                    progress(attack.name, done + 1, len(everyone))
        return found, digests

    def _trial(self, attack: AnyAttack, suspect: Suspect, model: Any, digest: str, before: Any) -> Trial | str:
        pair = None if before is None or attack.access != "pair" else before.digest()
        identity = _identity([attack.name, attack.settings(), self.seed, self.scene_digest, digest, pair])
        path = self.folder / attack.name / f"{suspect.label}-{identity[:20]}.json"
        if path.exists():
            return _read(path)
        try:
            trial = attack.run(self.target(model, before), self.scene, seed=self.seed)
        except (NoAccess, MissingEvidence) as error:
            return str(error)
        except ExpungeError as error:
            return f"it did not run: {error}"
        write_json(path, _written(trial))
        return _read(path)  # what is read back is what an interrupted campaign would go on with

    # --- document ----------------------------------------------------------------------------------------------------

    def _entry(self, attack: AnyAttack, trials: Mapping[str, Trial | str]) -> dict[str, Any]:
        return {
            "name": attack.name,
            "access": attack.access,
            "unit": attack.unit,
            "paper": attack.paper,
            "summary": attack.summary,
            "headline": attack.headline,
            "settings": json.loads(json.dumps(attack.settings(), default=str)),
            "rows": [json.loads(json.dumps(row, default=str)) for row in self._rows(attack, trials)],
        }

    def _rows(self, attack: AnyAttack, trials: Mapping[str, Trial | str]) -> Iterator[dict[str, Any]]:
        """Controls first: the original, and each retrained model held against the others."""
        references = [s.label for s in self.references if s.label in trials]
        unlearned = [(label, [s.label for s in suspects]) for label, suspects in self.unlearned.items()]
        rows = [] if self.original is None else [("do_nothing", ORIGINAL, [self.original.label], references)]
        rows += [(r, "retrained", [r], [o for o in references if o != r]) for r in references]
        rows += [(label, "unlearned", suspects, references) for label, suspects in unlearned]
        for label, role, suspects, against in rows:
            yield {"label": label, "role": role, **self._row(attack, trials, suspects, against)}
        for label, reason in self.absent.items():
            yield {"label": label, "role": "unlearned", **withheld(reason)}

    def _row(
        self, attack: AnyAttack, trials: Mapping[str, Trial | str], suspects: Sequence[str], against: Sequence[str]
    ) -> dict[str, Any]:
        mine, base = [trials[s] for s in suspects], [trials[r] for r in against]
        full = None if self.original is None else trials[self.original.label]
        no_floor = str(getattr(attack, "unscored", ""))
        failed = next((t for t in mine if isinstance(t, str)), None)
        if failed is not None:
            return withheld(failed)
        # Where a control cannot be attacked (no access, no evidence) recovery is unscored and what was found stands.
        row = recovery_curve(
            attack,
            [t for t in mine if isinstance(t, Trial)],
            [] if no_floor else [t for t in base if isinstance(t, Trial)],
            None if no_floor or isinstance(full, str) else full,
            seed=self.seed,
        )
        for point in row["curve"] if no_floor else []:  # the headline is one of them
            point["recovery"] = Unscored(name="attack_recovery", reason=no_floor).as_dict()
        return {**row, "shown": next(dict(t.shown) for t in mine if isinstance(t, Trial))}


def _calibrates(suspect: Suspect, attack: AnyAttack) -> bool:
    return bool(suspect.source) and suspect.source == getattr(attack, "reference", None)


def _identity(told: Any) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def _written(trial: Trial) -> dict[str, Any]:
    return {
        "items": list(trial.items),
        "unit": trial.unit,
        "points": [{"cost": p.cost, "found": p.found.tolist()} for p in trial.points],
        "shown": json.loads(json.dumps(dict(trial.shown), default=str)),
    }


def _read(path: Path) -> Trial:
    try:
        told = read_json(path)
        points = tuple(Point(cost=p["cost"], found=np.array(p["found"], dtype=np.float64)) for p in told["points"])
        return Trial(items=tuple(told["items"]), points=points, unit=told["unit"], shown=told["shown"])
    except (KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged", "Remove that file and run again: it is made anew") from error


# --- the file ------------------------------------------------------------------------------------------------------


def read_attacks(path: Path) -> dict[str, Any]:
    """The document in a file.

    Raises:
        RunError: it is not there, damaged, or of another kind.
    """
    document = read_json(path)
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise RunError(f"{path} is no document of attacks ({SCHEMA})", "Name another file")
    return document


def write_attacks(document: dict[str, Any], path: Path) -> dict[str, Any]:
    """Write a document, together with the attacks that an earlier one in its place had on the same models and scene.

    Raises:
        RunError: there is another kind of file, or the folder cannot be written to.
    """
    if path.exists():
        kept = read_attacks(path)
        same = ("models", "scene", "seed", "references", "digests")
        if all(kept[key] == document[key] for key in same):
            known = {(a["name"], json.dumps(a["settings"], sort_keys=True)) for a in document["attacks"]}
            earlier = [
                a for a in kept["attacks"] if (a["name"], json.dumps(a["settings"], sort_keys=True)) not in known
            ]
            document = {**document, "attacks": [*earlier, *document["attacks"]]}
    write_json(path, document)
    return document
