"""The matrices of a model that attacks round and prune: those of its decoder layers, embeddings and head left alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from expunge.models.language_roles import decoder_layers


def layer_matrices(module: Any) -> Iterator[Tensor]:
    """(…, out, in) every matrix of every decoder layer: views, through which the model is written to."""
    for block in decoder_layers(module):
        for part in block.modules():
            transposed = type(part).__name__ == "Conv1D"  # GPT-2 keeps (in, out)
            for parameter in part.parameters(recurse=False):
                if parameter.ndim >= 2:
                    weight = parameter.detach()
                    yield weight.T if transposed else weight
