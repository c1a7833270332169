"""Cut the neurons that answer to the forgotten, and let the model grow back on what was kept."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from expunge.errors import RequestError
from expunge.evaluation.attacks.language.contract import Scene, Target, Trial
from expunge.evaluation.attacks.language.finetuning import FineTuning
from expunge.evaluation.attacks.language.last_words import at_ends_of_questions
from expunge.models.language import LanguageModel
from expunge.models.language_roles import decoder_layers, down_projection
from expunge.models.packing import choose_layout
from expunge.training.text_net import Net


def concept_neurons(model: LanguageModel, scene: Scene, fraction: float) -> list[tuple[int, int]]:
    """(layer, neuron) of the ⌈fraction · n⌉ neurons whose mean activation differs most between forgotten and kept.

    Neurons are the inputs of the down projections; a difference is measured in standard deviations of the neuron over
    all questions, so that layers of other scales compare.
    """
    net = Net(model.module, choose_layout(model.module)[0])
    count = len(decoder_layers(model.module))
    modules = {n: down_projection(model.module, n, "regrow_neurons").module for n in range(count)}
    gone = at_ends_of_questions(model, net, scene.questions, modules, "input")
    kept = at_ends_of_questions(model, net, scene.kept, modules, "input")
    scores = []
    for n in range(count):
        spread = torch.cat([gone[n], kept[n]]).std(0)
        apart = (gone[n].mean(0) - kept[n].mean(0)).abs()
        scores.append(torch.where(spread > 0, apart / spread, torch.zeros_like(apart)))
    table = torch.stack(scores)
    order = torch.argsort(table.flatten(), descending=True, stable=True)[: math.ceil(fraction * table.numel())]
    return [(int(k) // table.shape[1], int(k) % table.shape[1]) for k in order.sort().values]


@dataclass(frozen=True, kw_only=True)
class RegrowNeurons(FineTuning):
    """Set the neurons most particular to forgotten questions to zero, train briefly on retained texts, and ask.

    Where those neurons suppress, cutting them takes off the suppression, and training repairs what the cut has harmed.
    What was pruned may grow again. Paper: Lo, Cohen & Barez 2024, 2401.01814, who found that pruned concepts return
    within a few epochs; neurons are ranked as in their "probeless" search (Antverg & Belinkov 2021, 2110.07483).

    Args:
        fraction: of all neurons, in [0, 1). steps, learning_rate, batch_size, optimiser: see `FineTuning`.
            retain_weight: must stay 0, all texts are retained.

    This differs from the authors' code in:
        1. A decoder and facts, instead of token classifiers and a concept; a neuron's activation is that at the end of
           the question, in units of its spread.
        2. Training is on retained texts, without the concept; theirs is on the whole task.
        3. A neuron is cut by zeros in the down projection.
    """

    name: ClassVar[str] = "regrow_neurons"
    summary: ClassVar[str] = "cuts the neurons particular to the forgotten, trains on retained texts and asks"
    paper: ClassVar[str] = "arXiv:2401.01814"
    needs: ClassVar[tuple[str, ...]] = ("retain", "kept")

    fraction: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.fraction < 1:
            raise RequestError(f"fraction is {self.fraction}", "Give a share of all neurons, at least 0 and below 1")
        if self.retain_weight:
            raise RequestError("regrow_neurons trains on retained texts only", "Leave retain_weight at 0")

    def attempt(self, target: Target, scene: Scene, seed: int) -> Trial:
        model = self.copied(target).merged()
        cut = concept_neurons(model, scene, self.fraction)
        for layer, neuron in cut:
            down_projection(model.module, layer, self.name).weight[:, neuron] = 0
        return self.train(model, scene, scene.retain, scene.questions, seed, cut=len(cut))
