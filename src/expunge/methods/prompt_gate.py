"""What tells questions about the forgotten from others: a score of texts, and a threshold with a stated error.

The threshold is that of split conformal prediction: with n retained texts that nothing was fitted on, and a rate a,

    threshold = the k-th smallest of their scores,  k = n + 1 - floor(a (n + 1)),

so that a further retained text, drawn like these, is above it with probability at most a.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from expunge.errors import DataError, ModelError, RequestError, RunError
from expunge.models.chat import ChatModel
from expunge.models.encoder import Encoder, Vectors, load_encoder, of_model, unit

Scores = npt.NDArray[np.float64]
LEAST_CAUGHT = 0.5  # of the very texts that a guard was made from
PROBE = "A short text by which an encoder is known again: 17 grey herons stood in the rain."


class Measure(ABC):
    """Vectors to scores; higher is more like what is forgotten."""

    kind: ClassVar[str]

    @abstractmethod
    def score(self, vectors: Vectors) -> Scores:
        """(n, width) -> (n,)."""

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """What it consists of."""


@dataclass(frozen=True, eq=False)
class Nearest(Measure):
    """The largest cosine with vectors that are kept. It holds (m, width) unit vectors and the (width,) centre."""

    kind: ClassVar[str] = "nearest"
    bank: Vectors
    centre: Vectors

    @classmethod
    def of(cls, vectors: Vectors, centre: Vectors) -> Nearest:
        return cls(unit(vectors - centre), centre)

    def score(self, vectors: Vectors) -> Scores:
        return np.asarray((unit(vectors - self.centre) @ self.bank.T).max(axis=1), dtype=np.float64)

    def arrays(self) -> dict[str, np.ndarray]:
        return {"bank": self.bank, "centre": self.centre}


@dataclass(frozen=True, eq=False)
class Linear(Measure):
    """w · (x - centre) / spread + b, the log-odds of a logistic regression."""

    kind: ClassVar[str] = "linear"
    weight: Vectors
    bias: Vectors
    centre: Vectors
    spread: Vectors

    @classmethod
    def fit(cls, gone: Vectors, kept: Vectors, *, strength: float) -> Linear:
        """Logistic regression with both classes of equal weight and an L2 penalty of ‖w‖² / (2 strength)."""
        from sklearn.linear_model import LogisticRegression

        both = np.concatenate([gone, kept]).astype(np.float64)
        centre, spread = both.mean(axis=0), np.maximum(both.std(axis=0), 1e-6)
        labels = np.repeat([1, 0], [len(gone), len(kept)])
        found = LogisticRegression(C=strength, class_weight="balanced", max_iter=2000, tol=1e-6)
        found.fit((both - centre) / spread, labels)
        return cls(*(np.asarray(a, np.float32) for a in (found.coef_[0], found.intercept_, centre, spread)))

    def score(self, vectors: Vectors) -> Scores:
        return np.asarray((vectors - self.centre) / self.spread @ self.weight + self.bias[0], dtype=np.float64)

    def arrays(self) -> dict[str, np.ndarray]:
        return {"weight": self.weight, "bias": self.bias, "centre": self.centre, "spread": self.spread}


MEASURES: dict[str, type[Measure]] = {m.kind: m for m in (Nearest, Linear)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Gate:
    """A measure with its threshold.

    Args:
        measure: scores. threshold: above it a text is about the forgotten. rate: of retained texts above it, at most.
        calibrated: number of retained texts it rests on. caught: share of the forgotten texts above it.
    """

    measure: Measure
    threshold: float
    rate: float
    calibrated: int
    caught: float

    @classmethod
    def of(cls, measure: Measure, gone: Sequence[Vectors], kept: Sequence[Vectors], rate: float) -> Gate:
        """Calibrate on retained texts, each a ``(pieces, width)`` array, whose score is the largest of its pieces'.

        Raises:
            DataError: too few retained texts for the rate, or less than half of the forgotten texts are above the
                threshold: a guard that hides so little is none.
        """
        threshold = conformal_threshold(_largest(measure, kept), rate)
        caught = float(np.mean(_largest(measure, gone) > threshold))
        if caught < LEAST_CAUGHT:
            raise DataError(
                f"only {caught:.0%} of the forgotten texts can be told from retained ones where {rate:.2g} of these "
                "may be blocked",
                "Allow a higher false_block_rate, give another encoder, or keep fewer texts that say the same",
            )
        return cls(measure=measure, threshold=threshold, rate=rate, calibrated=len(kept), caught=caught)

    def above(self, vectors: Vectors) -> bool:
        """Whether any of a text's pieces is above the threshold."""
        return bool(len(vectors)) and float(self.measure.score(vectors).max()) > self.threshold

    def as_dict(self) -> dict[str, Any]:
        return {
            "kind": self.measure.kind,
            "threshold": self.threshold,
            "rate": self.rate,
            "calibrated": self.calibrated,
            "caught": self.caught,
        }


def conformal_threshold(scores: Scores, rate: float) -> float:
    """See the module.

    Raises:
        DataError: fewer texts than 1 / rate - 1, of which nothing can be said at that rate.
    """
    allowed = math.floor(rate * (len(scores) + 1) + 1e-9)
    if allowed < 1:
        raise DataError(
            f"a false-block rate of {rate:g} cannot be calibrated on {len(scores)} retained texts",
            f"Give at least {math.ceil(1 / rate) - 1} that nothing was fitted on, or allow a higher rate",
        )
    return float(np.sort(scores)[len(scores) - allowed])


def check_rate(rate: float) -> None:
    if not 0 < rate < 1:
        raise RequestError(f"false_block_rate is {rate}", "Give a share between 0 and 1")


def encoder_for(model: ChatModel, folder: str | None) -> Encoder:
    """The encoder in a folder, or the model's own hidden states.

    Raises:
        ModelError: none is named and the model gives no embeddings.
    """
    if folder is not None:
        return load_encoder(folder)
    if "embed" not in model.capabilities:
        raise ModelError("the model gives no embeddings", "Name the folder of a local encoder")
    return of_model(model, "the model")


class Embedded:
    """Texts as vectors, each text once."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def each(self, texts: Sequence[Sequence[str]]) -> list[Vectors]:
        """For each list of texts its ``(texts, width)`` vectors."""
        flat = list(dict.fromkeys(t for own in texts for t in own))
        vectors = self.encoder.embed(flat)
        place = {t: k for k, t in enumerate(flat)}
        return [vectors[[place[t] for t in own]] for own in texts]


def save_gates(folder: Path, gates: dict[str, Gate], encoder: Encoder, settings: dict[str, Any]) -> None:
    """``guard.json`` and ``guard.safetensors``: numbers, no text but the settings."""
    from safetensors.numpy import save_file

    from expunge.training.files import write_atomically, write_json

    folder.mkdir(parents=True, exist_ok=True)
    arrays = {f"{name}.{part}": a for name, gate in gates.items() for part, a in gate.measure.arrays().items()}
    arrays["probe"] = encoder.embed([PROBE])[0]
    arrays = {name: np.ascontiguousarray(a, dtype=np.float32) for name, a in arrays.items()}
    write_atomically(folder / "guard.safetensors", lambda path: save_file(arrays, str(path)))
    told = {"gates": {name: gate.as_dict() for name, gate in gates.items()}, "settings": settings}
    write_json(folder / "guard.json", {"schema": "expunge/guard/1", **told})


def load_gates(folder: Path, encoder: Encoder | None = None) -> tuple[dict[str, Gate], dict[str, Any], Vectors]:
    """Gates, settings and the probe's vector.

    Raises:
        RunError: nothing readable is there. ModelError: the encoder is not the one the gates were made with.
    """
    from safetensors.numpy import load_file

    try:
        told = json.loads((folder / "guard.json").read_text(encoding="utf-8"))
        arrays = load_file(str(folder / "guard.safetensors"))
        gates = {
            name: Gate(
                measure=MEASURES[g["kind"]](
                    **{part.removeprefix(f"{name}."): a for part, a in arrays.items() if part.startswith(f"{name}.")}
                ),
                threshold=float(g["threshold"]),
                rate=float(g["rate"]),
                calibrated=int(g["calibrated"]),
                caught=float(g["caught"]),
            )
            for name, g in told["gates"].items()
        }
        probe, settings = arrays["probe"], dict(told["settings"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise RunError(f"{folder} holds no guard ({type(error).__name__})", "Give a folder that save wrote") from error
    if encoder is not None:
        check_encoder(encoder, probe)
    return gates, settings, probe


def check_encoder(encoder: Encoder, probe: Vectors) -> None:
    """Raise `ModelError` where the encoder is another one than that of the probe's vector."""
    found = encoder.embed([PROBE])[0]
    room = 1e-3 * float(np.abs(probe).max())  # another processor rounds otherwise
    if found.shape != probe.shape or not np.allclose(found, probe, rtol=1e-3, atol=room):
        raise ModelError(
            "the encoder is not the one that this guard was made with", "Give that one, or make the guard again"
        )


def _largest(measure: Measure, texts: Sequence[Vectors]) -> Scores:
    """(texts,) the largest score of each text's pieces."""
    scores = measure.score(np.concatenate(list(texts)))
    ends = np.cumsum([len(t) for t in texts])[:-1]
    return np.array([own.max() for own in np.split(scores, ends)])
