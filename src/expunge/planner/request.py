"""What a plan is asked for, as ``plan.yaml`` holds it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator

from expunge.errors import RequestError
from expunge.request import Strict, explain, known_fields

Word = Literal["exact", "certified", "empirical", "suppressed"]
Motive = Literal["access_revocation", "correction"]
Threat = Literal["black_box", "logits", "weights", "pair"]

# Who takes back what was given may ask for a proof; who corrects a fault needs a model that is safe enough.
LEAST: Mapping[Motive, Word] = {"access_revocation": "certified", "correction": "empirical"}
_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


class TrainedPart(Strict):
    """What is known of the model's making.

    Args:
        learner: name of the learner that it was trained by (``sharded_adapters``, ``sisa``, ``dp_lora``); None where it
            was trained in any other way. weights: whether they are at hand; False for a remote endpoint.
        data: whether the training data and the recipe are at hand, so that it could be trained again.
        retraining: what training again takes, e.g. ``9 h``; None where nobody knows.
    """

    learner: str | None = None
    weights: bool = True
    data: bool = True
    retraining: float | None = None

    @field_validator("retraining", mode="before")
    @classmethod
    def _duration(cls, value: Any) -> Any:
        return seconds(value)


class PlanRequest(Strict):
    """One question to the planner.

    Args:
        motive: ``access_revocation`` (somebody takes back what was theirs: a proof is owed) or ``correction`` (a fault
            is mended: safe enough will do). model: `TrainedPart`.
        least_guarantee: by default what the motive asks for. deadline: from now, e.g. ``30 d``; None: none.
        threat: what attackers have of the model. difficulty: known so far; ``hard`` asks for evidence without doubt:
            the upper end of every recovery's interval is held against the bar, not the lower.
        evidence: ``forms.json`` of `expunge bench forms`, measured on the very machine and kind of model.
    """

    id: str = "plan"
    motive: Motive = "access_revocation"
    model: TrainedPart = Field(default_factory=TrainedPart)
    least_guarantee: Word | None = None
    deadline: float | None = Field(None, gt=0)
    threat: Threat = "black_box"
    difficulty: Literal["easy", "ordinary", "hard"] = "ordinary"
    evidence: str | None = None

    @field_validator("deadline", mode="before")
    @classmethod
    def _duration(cls, value: Any) -> Any:
        return seconds(value)

    @property
    def least(self) -> Word:
        return self.least_guarantee or LEAST[self.motive]

    @classmethod
    def read(cls, path: Path) -> PlanRequest:
        """The request in a YAML or JSON file; a path of evidence is taken from beside it.

        Raises:
            RequestError: not there, not readable, or a field is wrong.
        """
        try:
            value = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise RequestError(f"cannot read {path} ({error.strerror})", "Give the path of a plan's YAML") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise RequestError(f"{path} is not YAML", "Correct it; docs/planner.md shows one") from error
        if not isinstance(value, Mapping):
            raise RequestError(f"{path} is not a mapping of fields", "See docs/planner.md")
        try:
            found = cls.model_validate(dict(value))
        except ValidationError as error:
            names = known_fields(cls, TrainedPart)
            raise RequestError(
                f"{path} is not a valid plan: {explain(error, names)}", "Correct those fields; see docs/planner.md"
            ) from error
        if found.evidence is not None and not Path(found.evidence).is_absolute():
            found = found.model_copy(update={"evidence": str(path.parent / found.evidence)})
        return found


def seconds(value: Any) -> Any:
    """A duration such as ``30 d``, ``45 min`` or a number of seconds, as seconds; anything else as it is.

    Raises:
        ValueError: a text that is no duration.
    """
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|min|h|d|w)\s*", value)
    if match is None:
        raise ValueError(f"{value!r} is no duration such as '30 d', '9 h' or '45 min'")
    return float(match[1]) * _UNITS[match[2]]


def in_words(duration: float) -> str:
    """Seconds in the largest unit of which there is one at least."""
    for unit in ("w", "d", "h", "min"):
        if duration >= _UNITS[unit]:
            return f"{duration / _UNITS[unit]:.3g} {unit}"
    return f"{duration:.3g} s"
