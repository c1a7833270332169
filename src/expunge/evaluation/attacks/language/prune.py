"""Set the smallest weights to zero: small changes that suppress go before large ones that know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from expunge.evaluation.attacks.language.contract import Access, Attack, Scene, Target, Trial, answered
from expunge.evaluation.attacks.language.finetuning import check_points
from expunge.evaluation.attacks.language.weight_maps import layer_matrices


def pruned(weight: Tensor, sparsity: float) -> Tensor:
    """(…, out, in) the round(sparsity · n) entries of least magnitude set to 0; of equal ones the first go."""
    flat = weight.flatten().clone()
    smallest = torch.argsort(flat.abs(), stable=True)[: round(sparsity * len(flat))]
    flat[smallest] = 0
    return flat.view(weight.shape)


@dataclass(frozen=True, kw_only=True)
class Prune(Attack):
    """Set the smallest weights of every matrix of the decoder layers to zero, and ask again.

    Magnitude pruning: Han et al. 2015, 1506.02626. That pruning can take off what fine-tuning has wrapped around a
    capability that is still there: Jain et al. 2023, 2311.12786; on unlearned models: Łucki et al. 2024, 2409.18025.

    Args:
        sparsities: a curve point each, in [0, 1): share of each matrix that becomes 0.

    This differs from the authors' code in:
        1. Magnitude alone; 2409.18025 prunes what matters to forget prompts and not to others.
    """

    name: ClassVar[str] = "prune"
    summary: ClassVar[str] = "sets the smallest weights to zero and asks again"
    paper: ClassVar[str] = "arXiv:2409.18025; arXiv:1506.02626"
    access: ClassVar[Access] = "weights"
    unit: ClassVar[str] = "share of weights set to zero"
    headline: ClassVar[Literal["last", "best"]] = "best"

    sparsities: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.5)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sparsities", tuple(self.sparsities))
        check_points("sparsities", self.sparsities, least=0, most=0.999)

    def attempt(self, target: Target, scene: Scene, seed: int) -> Trial:
        model = target.weights(self.name).merged()
        matrices = list(layer_matrices(model.module))
        before = [m.clone() for m in matrices]
        points = []
        for sparsity in self.sparsities:
            for matrix, weight in zip(matrices, before, strict=True):
                matrix.copy_(pruned(weight, sparsity))
            points.append((sparsity, answered(model, scene.questions)))
        return self.trial(scene.questions, points)
