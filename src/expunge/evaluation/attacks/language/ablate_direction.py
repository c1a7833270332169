"""Take out of the hidden states the direction in which forgotten questions differ from others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from expunge.evaluation.attacks.language.contract import Access, Attack, Scene, Target, Trial, answered
from expunge.evaluation.attacks.language.finetuning import check_points
from expunge.evaluation.attacks.language.last_words import at_ends_of_questions
from expunge.models.language import LanguageModel
from expunge.models.language_roles import decoder_layers
from expunge.models.packing import choose_layout
from expunge.models.steering import Steering, attach
from expunge.training.text_net import Net


def directions(model: LanguageModel, scene: Scene) -> dict[int, Tensor]:
    """Layer -> (1, width) unit vector from the mean state at the end of kept questions to that of forgotten ones.

    A direction of length 0, where the layer treats both alike, is left out.
    """
    net = Net(model.module, choose_layout(model.module)[0])
    layers = dict(enumerate(decoder_layers(model.module)))
    gone = at_ends_of_questions(model, net, scene.questions, layers, "output")
    kept = at_ends_of_questions(model, net, scene.kept, layers, "output")
    apart = {n: gone[n].mean(0) - kept[n].mean(0) for n in layers}
    return {n: (v / v.norm())[None] for n, v in apart.items() if float(v.norm()) > 0}


@dataclass(frozen=True, kw_only=True)
class AblateDirection(Attack):
    """Project the hidden states of the unlearned model off the directions that tell forgotten questions from kept ones.

    r_l = mean h_l(forgotten) − mean h_l(kept), at the end of the questions;  h ← h − (h·r̂) r̂

    A model that suppresses does so along few directions: a push into noise (RMU), a refusal. Papers: Łucki et al. 2024,
    2409.18025; Arditi et al. 2024, 2406.11717.

    Args:
        depths: shares of the model's depth, in (0, 1]. The first try takes each layer's own direction out of it; then
            comes one try a depth, in which the direction of the layer there is taken out of every layer.

    This differs from the authors' code in:
        1. States are read at the last token of the question; theirs is a mean over tokens without outliers.
        2. Kept questions of the same kind stand for WikiText and MMLU. The variant that compares with the original is
           left out: who has it need not ask the unlearned model.
    """

    name: ClassVar[str] = "ablate_direction"
    summary: ClassVar[str] = "takes the direction that tells forgotten questions from others out of the hidden states"
    paper: ClassVar[str] = "arXiv:2409.18025; arXiv:2406.11717"
    access: ClassVar[Access] = "weights"
    unit: ClassVar[str] = "directions tried"
    needs: ClassVar[tuple[str, ...]] = ("kept",)
    headline: ClassVar[Literal["last", "best"]] = "best"

    depths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "depths", tuple(self.depths))
        if self.depths:
            check_points("depths", self.depths, least=1e-9, most=1.0)

    def attempt(self, target: Target, scene: Scene, seed: int) -> Trial:
        model = target.weights(self.name)
        count = len(decoder_layers(model.module))
        own = directions(model, scene)
        layers = [math.ceil(depth * count) - 1 for depth in self.depths]
        tries = [own, *(dict.fromkeys(range(count), own[layer]) if layer in own else {} for layer in layers)]
        points = []
        for number, removed in enumerate(tries, 1):
            attacked = target.weights(self.name)
            attach(attacked.module, Steering(removed=removed))
            points.append((number, answered(attacked, scene.questions)))
        return self.trial(scene.questions, points, layers=["each its own", *layers])
