"""What a model holds where a question ends and its answer is about to begin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from expunge.data.records import Records
from expunge.models.language import LanguageModel
from expunge.models.packing import Packed
from expunge.training.text_batches import TextTable
from expunge.training.text_net import Net
from expunge.training.text_probe import Places, watch


def ends_of_questions(packed: Packed) -> Tensor:
    """(texts,) place of the token that predicts the first token of each answer."""
    segment = packed.segment
    first = torch.ones(len(segment), dtype=torch.bool, device=segment.device)
    first[1:] = segment[1:] != segment[:-1]
    return packed.positions[first]


@torch.no_grad()
def at_ends_of_questions(
    model: LanguageModel, net: Net, questions: Records, modules: Mapping[int, nn.Module], side: Any
) -> dict[int, Tensor]:
    """Name -> (questions, width) float32: what enters or leaves the modules where each question ends.

    The answers of the records come later in the texts and are not seen there. In no particular order of questions.
    """
    found: dict[int, list[Tensor]] = {name: [] for name in modules}
    for batch in TextTable(model.encode(questions), "questions").in_order():
        packed = batch.packed.to(net.device)
        places, ends = Places(packed, net.layout), ends_of_questions(packed)

        def keep(name: int, flowing: Tensor, places: Places = places, ends: Tensor = ends) -> None:
            found[name].append(places.read(flowing)[ends].float())

        with watch(modules, keep, side):
            net(batch)
    return {name: torch.cat(rows) for name, rows in found.items()}
