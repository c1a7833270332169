"""Round the weights, as every small deployment does: what unlearning changed by less than a step is undone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from expunge.errors import RequestError
from expunge.evaluation.attacks.language.contract import Access, Attack, Scene, Target, Trial, answered
from expunge.evaluation.attacks.language.finetuning import check_points
from expunge.evaluation.attacks.language.weight_maps import layer_matrices


def rounded(weight: Tensor, bits: int, group: int | None = None) -> Tensor:
    """(…, out, in) every weight at the nearest of 2^bits − 1 evenly spaced values, symmetric about 0.

    The step is max|w| / (2^(bits−1) − 1) of the weights that are rounded together: a row, or `group` neighbours in it;
    the last group of a row may be shorter. Rounded values stay as they are when rounded again.
    """
    size = weight.shape[-1] if group is None else min(group, weight.shape[-1])
    short = -weight.shape[-1] % size
    wide = torch.nn.functional.pad(weight.double(), (0, short)).unflatten(-1, (-1, size))
    step = wide.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)
    near = torch.round(wide / step.where(step > 0, torch.ones_like(step))) * step
    out: Tensor = near.flatten(-2)[..., : weight.shape[-1]].to(weight.dtype)
    return out


@dataclass(frozen=True, kw_only=True)
class Quantise(Attack):
    """Round the matrices of all decoder layers to the nearest value on a grid of few bits, and ask again.

    Unlearning that must keep everything else moves weights little. Where it moves them by less than half a step, the
    rounded unlearned model is the rounded original. Paper: Zhang et al. 2024, 2410.16454.

    Args:
        bits: a curve point each, 2 to 32. group: weights rounded together within a row; None takes the whole row.

    This differs from the authors' code in:
        1. The step is max|w| / (2^(bits−1) − 1) instead of max|w| / 2^(bits−1): the largest weight is on the
           grid.
        2. Rounding to the nearest only; they also use GPTQ and AWQ, which need texts to calibrate and recover as much.
        3. Weights are rounded and then computed with in full precision; activations are not rounded.
    """

    name: ClassVar[str] = "quantise"
    summary: ClassVar[str] = "rounds the weights to 8 and 4 bits and asks again"
    paper: ClassVar[str] = "arXiv:2410.16454"
    access: ClassVar[Access] = "weights"
    unit: ClassVar[str] = "bits a weight"
    headline: ClassVar[Literal["last", "best"]] = "best"

    bits: tuple[int, ...] = (4, 8)
    group: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "bits", tuple(self.bits))
        check_points("bits", self.bits, least=2, most=32)
        if self.group is not None and self.group < 1:
            raise RequestError(f"group is {self.group}", "Give 1 or more weights, or none for whole rows")

    def attempt(self, target: Target, scene: Scene, seed: int) -> Trial:
        model = target.weights(self.name).merged()
        matrices = list(layer_matrices(model.module))
        before = [m.clone() for m in matrices]
        points = []
        for bits in self.bits:
            for matrix, weight in zip(matrices, before, strict=True):
                matrix.copy_(rounded(weight, bits, self.group))
            points.append((bits, answered(model, scene.questions)))
        return self.trial(scene.questions, points, group=self.group)
