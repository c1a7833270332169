"""Choosing a form: every one is held against the request, and each that will not do is told why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from expunge.errors import RequestError
from expunge.evaluation.forms.judgement import TOLERATED_RECOVERY, within_access
from expunge.guarantee import GUARANTEES
from expunge.planner.request import PlanRequest, Word, in_words

PROVED = ("exact", "certified")


@dataclass(frozen=True, kw_only=True)
class Option:
    """One way to serve the request.

    Args:
        label, form, guarantee: as in the table of forms; `word` is the guarantee's bare word. seconds: what it would
            take here: its measured share of retraining times what retraining takes; None where nobody knows.
        useful: share of kept questions that are still answered, the worse of near and far; None without evidence.
        why_not: reasons against it; none: it will do.
    """

    label: str
    form: str
    guarantee: str
    word: Word
    seconds: float | None
    useful: float | None
    why_not: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "why_not": list(self.why_not)}


class Unattainable(RequestError):
    """No form gives what is demanded; the remedy names what would have to give."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Args:
    chosen: what is recommended. others: what would do too, best first. refused: what will not, with reasons.
    meanwhile: what can hold until the chosen form is done, where that takes longer; None where nothing must.
    """

    chosen: Option
    others: tuple[Option, ...]
    refused: tuple[Option, ...]
    meanwhile: Option | None

    def as_dict(self) -> dict[str, Any]:
        return {
            "chosen": self.chosen.as_dict(),
            "others": [o.as_dict() for o in self.others],
            "refused": [o.as_dict() for o in self.refused],
            "meanwhile": None if self.meanwhile is None else self.meanwhile.as_dict(),
        }


def choose(request: PlanRequest, evidence: Mapping[str, Any]) -> Choice:
    """The recommended form.

    Whose motive is access revocation gets the strongest guarantee that can be had in time, then the cheapest; whose
    motive is correction gets what keeps most of the rest, then the cheapest.

    Args:
        evidence: the report of `expunge bench forms`.

    Raises:
        Unattainable: no form will do.
    """
    every = [option(request, row, evidence) for row in evidence["rows"] if row["label"] != "do_nothing"]
    fit = sorted((o for o in every if not o.why_not), key=lambda o: _rank(request, o))
    refused = tuple(o for o in every if o.why_not)
    if not fit:
        raise Unattainable(f"no form gives {request.least} under this request", _relaxations(request, evidence))
    best = fit[0]
    return Choice(chosen=best, others=tuple(fit[1:]), refused=refused, meanwhile=_meanwhile(request, best, every))


def option(request: PlanRequest, row: Mapping[str, Any], evidence: Mapping[str, Any]) -> Option:
    """One row of the evidence against the request."""
    if row["status"] != "ok":
        return Option(
            label=row["label"], form=row["form"], guarantee="unknown", word="suppressed", seconds=None, useful=None,
            why_not=(f"it did not run where evidence was gathered: {row['reason']}",),
        )  # fmt: skip
    word = _word(row["guarantee"])
    seconds = _seconds(request, row, evidence)
    reasons = [
        *_weaker(request, word),
        *_impossible(request, row),
        *_late(request, seconds),
        *([] if word in PROVED else _attacked(request, row)),
        *_useless(row),
    ]
    return Option(
        label=row["label"],
        form=row["form"],
        guarantee=row["guarantee"],
        word=word,
        seconds=seconds,
        useful=_useful(row),
        why_not=tuple(reasons),
    )


def _word(guarantee: str) -> Word:
    bare = guarantee.partition("(")[0]
    return bare if bare in GUARANTEES else "suppressed"  # type: ignore[return-value]  # one of the four


def _seconds(request: PlanRequest, row: Mapping[str, Any], evidence: Mapping[str, Any]) -> float | None:
    """The measured share of retraining, times what retraining takes; prompts take no training whatever the model."""
    if row["form"] == "by prompting":
        return float(row["seconds"])
    retraining = request.model.retraining
    if retraining is None or not evidence["retrain_seconds"]:
        return None
    return float(row["seconds"]) / float(evidence["retrain_seconds"]) * retraining


def _weaker(request: PlanRequest, word: Word) -> list[str]:
    if GUARANTEES[word].strength >= GUARANTEES[request.least].strength:
        return []
    return [f"its word is {word}, and {request.least} is demanded"]


def _impossible(request: PlanRequest, row: Mapping[str, Any]) -> list[str]:
    model = request.model
    if row["label"] == "retrain":
        return [] if model.data and model.weights else ["training data and recipe are not at hand"]
    if row["form"] in ("exact", "certified") and model.learner != row.get("method"):
        how = f"by {model.learner}" if model.learner else "in another way"
        return [f"the model would have to be trained by {row.get('method')} from the start, and was trained {how}"]
    if row["form"] != "by prompting" and row.get("kind") != "tool" and not model.weights:
        return ["nobody here has the weights"]
    if row.get("kind") == "tool" and row["guarantee"] != "suppressed" and not model.weights:
        return ["nobody here has the weights"]
    return []


def _late(request: PlanRequest, seconds: float | None) -> list[str]:
    if request.deadline is None:
        return []
    if seconds is None:
        return ["what it takes is not known: say what retraining takes (model.retraining)"]
    if seconds > request.deadline:
        return [f"it takes about {in_words(seconds)}, and {in_words(request.deadline)} are left"]
    return []


def _attacked(request: PlanRequest, row: Mapping[str, Any]) -> list[str]:
    """The evidence against the access that attackers have."""
    verdict = row["verdict"][request.threat]
    if verdict["word"] != "holds":
        return [f"{request.threat.replace('_', ' ')}: {verdict['word']}: {verdict['because'][0]}"]
    if request.difficulty != "hard":
        return []
    doubtful = []
    for name, curve in row["attacks"].items():
        if curve["status"] == "ok" and within_access(name, request.threat):
            recovery = curve["headline"]["recovery"]
            if recovery["status"] == "scored" and recovery["high"] > TOLERATED_RECOVERY:
                doubtful.append(name.replace("_", " "))
    return [f"hard to forget, and not beyond doubt under {', '.join(doubtful)}"] if doubtful else []


def _useful(row: Mapping[str, Any]) -> float | None:
    shares = [row["measurements"].get(probe) for probe in ("retain", "neighbour")]
    values = [m["value"] for m in shares if m is not None and m["status"] == "scored"]
    return min(values) if values else None


def _useless(row: Mapping[str, Any]) -> list[str]:
    lost = [why for why in row["verdict"]["black_box"]["because"] if why.startswith("utility:")]
    return [f"it loses what was to be kept ({lost[0].removeprefix('utility: ')})"] if lost else []


def _rank(request: PlanRequest, found: Option) -> tuple[float, ...]:
    seconds = found.seconds if found.seconds is not None else float("inf")
    strength = -float(GUARANTEES[found.word].strength)
    if request.motive == "access_revocation":
        return (strength, seconds)
    return (-round(found.useful or 0.0, 2), seconds, strength)


def _meanwhile(request: PlanRequest, best: Option, every: Sequence[Option]) -> Option | None:
    """What hides it at once while the chosen form is under way."""
    if best.word == "suppressed" or best.seconds is None or best.seconds < 60:
        return None
    boxes = [o for o in every if o.word == "suppressed" and o.form == "by prompting"]
    usable = [o for o in boxes if not [w for w in o.why_not if "demanded" not in w and "weights" not in w]]
    return min(usable, key=lambda o: -(o.useful or 0.0), default=None)


def _relaxations(request: PlanRequest, evidence: Mapping[str, Any]) -> str:
    """What would have to give: each single change of the request under which some form will do."""
    changes: list[tuple[str, PlanRequest]] = []
    weaker = [w for w in ("certified", "empirical", "suppressed") if _below(w, request.least)]
    changes += [(f"accept {w}", request.model_copy(update={"least_guarantee": w})) for w in weaker]
    if request.deadline is not None:
        changes.append(("take longer than the deadline", request.model_copy(update={"deadline": None})))
    changes += [
        (f"keep attackers to {t.replace('_', ' ')} access", request.model_copy(update={"threat": t}))
        for t in ("black_box", "logits", "weights")
        if t != request.threat
    ]
    found = []
    for words, changed in changes:
        rows = [option(changed, r, evidence) for r in evidence["rows"] if r["label"] != "do_nothing"]
        able = [o.label.replace("_", " ") for o in rows if not o.why_not]
        if able:
            found.append(f"{words} ({', '.join(able[:3])})")
    if not found:
        return "Nothing that one change of the request would mend: keep the training data and a learner from now on"
    return "One of these would do: " + "; ".join(dict.fromkeys(found))


def _below(one: str, other: str) -> bool:
    return GUARANTEES[one].strength < GUARANTEES[other].strength
