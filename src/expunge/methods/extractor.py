"""A frozen feature extractor in front of a learner, and what it does to the learner's guarantee.

A private head protects what the head saw. Features that were themselves learned from the records carry them past it, so
an extractor must say where it comes from: it never saw the records (``public``), or it saw them under differential
privacy (``private``), and then its (ε, δ) is part of the bill. There is no third kind.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load
from torch import nn

from expunge.accounting.ledger import Ledger
from expunge.data.records import Array
from expunge.errors import ModelError, RequestError
from expunge.methods.stack_parts import fixed_threads
from expunge.recipe import Recipe
from expunge.training.stack import build

BATCH = 1024


@dataclass(frozen=True, kw_only=True)
class Extractor:
    """A fixed function from a record's features to others, each record by itself.

    Args:
        factory: ``"package.module:function"`` that builds a module (n, ...) -> (n, d). kwargs: handed to it.
        origin: ``public`` (it never saw the records) or ``private`` (it saw them under differential privacy).
        weights: a safetensors file with its weights; "" takes those that `seed` initialises (random features).
        sha256: of that file, hexadecimal; needed with `weights`, so that nobody exchanges them unnoticed.
        seed: of the weights where there is no file.
        epsilon, delta: of a ``private`` one for a single record: nats, > 0, and a probability in [0, 1).
    """

    factory: str
    origin: Literal["public", "private"]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    weights: str = ""
    sha256: str = ""
    seed: int = 0
    epsilon: float = 0.0
    delta: float = 0.0

    def __post_init__(self) -> None:
        if self.origin not in ("public", "private"):
            raise RequestError(
                f"the extractor's origin is {self.origin!r}, expected 'public' or 'private'",
                "One that saw the records without differential privacy has no place before a certified learner",
            )
        if self.origin == "private" and not (0 < self.epsilon < math.inf and 0 <= self.delta < 1):
            raise RequestError(
                f"a private extractor with epsilon={self.epsilon!r} and delta={self.delta!r}",
                "Give the (ε, δ) under which it saw the records: ε > 0, δ in [0, 1)",
            )
        if self.origin == "public" and (self.epsilon or self.delta):
            raise RequestError("a public extractor costs no privacy", "Leave epsilon and delta out, or call it private")
        if bool(self.weights) != bool(self.sha256):
            raise RequestError("weights and sha256 go together", "Give both, or neither of the two")

    def features(self, x: Array) -> npt.NDArray[np.float32]:
        """(n, d) float32 for (n, ...) features.

        Raises:
            ModelError: the module cannot be built or loaded, or refuses them. RequestError: the file is another one.
        """
        module = _module(self.factory, repr(sorted(self.kwargs.items())), self)
        parts = []
        with torch.no_grad(), fixed_threads(1):
            try:
                for part in torch.tensor(np.asarray(x), dtype=torch.float32).split(BATCH):
                    parts.append(module(part).flatten(1))
            except (RuntimeError, ValueError, IndexError) as error:
                raise ModelError(
                    f"the extractor refuses features of shape {tuple(x.shape[1:])} ({str(error).splitlines()[0]})",
                    "Give records of the shape it was built for",
                ) from error
        return np.asarray(torch.cat(parts).numpy(), np.float32)

    def charged(self, ledger: Ledger) -> Ledger:
        """`ledger` with what this extractor learned of the records."""
        if self.origin == "public":
            return ledger
        return ledger.bounded(self.epsilon, self.delta, what="the frozen feature extractor")

    @property
    def assumption(self) -> str:
        """What the guarantee says about it."""
        if self.origin == "public":
            return (
                "the feature extractor is public: it never saw the records (declared by whoever configured it); "
                "what is forgotten is forgotten by the head"
            )
        return (
            f"the feature extractor is private: it saw the records under ({self.epsilon:g}, {self.delta:g}) "
            "differential privacy (declared by whoever configured it), which is part of the ε here"
        )

    def __hash__(self) -> int:
        return hash((self.factory, repr(sorted(self.kwargs.items())), self.weights, self.sha256, self.seed))


@lru_cache(maxsize=4)
def _module(factory: str, kwargs: str, extractor: Extractor) -> nn.Module:
    module = build(Recipe(factory=factory, kwargs=extractor.kwargs), extractor.seed)
    if extractor.weights:
        try:
            content = Path(extractor.weights).read_bytes()
        except OSError as error:
            raise ModelError(
                f"the extractor's weights {extractor.weights} cannot be read ({error})",
                "Give the path of a safetensors file",
            ) from error
        found = hashlib.sha256(content).hexdigest()
        if found != extractor.sha256:
            raise RequestError(
                f"the extractor's weights have the digest {found[:12]}…, expected {extractor.sha256[:12]}…",
                "Restore the file: another extractor may have seen the records",
            )
        try:
            module.load_state_dict(load(content))
        except Exception as error:
            raise ModelError(
                f"the extractor's weights cannot be loaded ({str(error).splitlines()[0]})",
                "Give safetensors weights of this very architecture",
            ) from error
    return module.eval().requires_grad_(False)
