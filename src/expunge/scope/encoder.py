"""Similarity of meaning between texts and the passages of a corpus."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from expunge.models.encoder import Encoder, load_encoder, of_model, unit

__all__ = ["Encoder", "Meanings", "load_encoder", "of_model"]


class Meanings:
    """The vectors of a corpus, computed once.

    Args:
        encoder: what computes them. texts: of the corpus.
    """

    def __init__(self, encoder: Encoder, texts: Sequence[str]) -> None:
        self.encoder = encoder
        vectors = encoder.embed(texts)
        self._mean = vectors.mean(0) if encoder.centred else np.zeros(vectors.shape[1], np.float32)
        self._unit = unit(vectors - self._mean)

    def to(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """(texts, corpus) cosines."""
        sought = unit(self.encoder.embed(texts) - self._mean)
        return np.asarray(sought @ self._unit.T, dtype=np.float64)
