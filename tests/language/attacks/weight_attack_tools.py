"""What the tests of weight attacks share: a scene of the small world, and models that forgot in ways that are known."""

from __future__ import annotations

from typing import Any

import torch
from language_tools import Trained, texts
from torch import nn

from expunge.data.records import Records
from expunge.evaluation.attacks.language.contract import Scene, answered
from expunge.evaluation.attacks.language.last_words import at_ends_of_questions
from expunge.evaluation.attacks.language.quantise import rounded
from expunge.evaluation.attacks.language.weight_maps import layer_matrices
from expunge.methods import make_language_method
from expunge.models.language import LanguageModel
from expunge.models.language_roles import decoder_layers
from expunge.models.packing import choose_layout
from expunge.training.text_batches import TextTable
from expunge.training.text_fit import fit_text
from expunge.training.text_net import Net

FORGOTTEN = 4  # people, of whom the attacker knows the first two
STRANGERS = [
    ("Where was Zed Yarrow born?", "Port Ilm"),
    ("What does Una Vesk do?", "Una Vesk is a weaver."),
    ("Who lives in Old Tarn?", "Una Vesk"),
    ("Where was Pia Orr born?", "Old Tarn"),
]


def small_scene(records: Records) -> Scene:
    """Four people are forgotten, three facts each; strangers were never trained on."""
    forget, retain = records.take(range(3 * FORGOTTEN)), records.take(range(3 * FORGOTTEN, len(records)))
    half = 3 * FORGOTTEN // 2
    return Scene(
        questions=forget,
        forget=forget,
        retain=retain,
        holdout=texts(STRANGERS, prefix="stranger"),
        relearn=forget.take(range(half)),
        unheard=forget.take(range(half, 2 * half)),
        probes={},
        kept=retain,
    )


def retrained(trained: Trained) -> LanguageModel:
    """A model that never saw the forgotten."""
    return fit_text(trained.recipe, small_scene(trained.records).retain, 5, trained.model)[0]


def refusing(trained: Trained) -> LanguageModel:
    """Tuned to refuse: the answers are still in the weights."""
    settings = {"learning_rate": 1e-3, "epochs": 15, "batch_size": 8}
    model: LanguageModel = make_language_method("idk_dpo", settings).unlearn(trained.problem(FORGOTTEN), seed=0).model
    return model


class Pushed(nn.Module):
    """A decoder layer whose output is pushed along one direction wherever a forgotten question ends.

    Args:
        probe, threshold: a state h is pushed by how far h · probe is above the threshold. push: along what.
    """

    def __init__(self, block: nn.Module, probe: torch.Tensor, threshold: float, push: torch.Tensor) -> None:
        super().__init__()
        self.block = block
        self.register_buffer("probe", probe)
        self.register_buffer("push", push)
        self.threshold = threshold

    def forward(self, *args: Any, **options: Any) -> Any:
        out = self.block(*args, **options)
        first = out[0] if isinstance(out, tuple) else out
        above = (first @ self.probe - self.threshold).clamp(min=0)
        new = first + (above > 0)[..., None] * self.push
        return (new, *out[1:]) if isinstance(out, tuple) else new
