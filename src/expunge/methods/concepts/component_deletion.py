"""Deleting components: the neurons or heads that the forgotten answers owe most to are set to zero."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from expunge.errors import RequestError
from expunge.methods.text_base import TextMethod
from expunge.methods.text_workspace import TextWorkspace
from expunge.models.language_roles import Projection, attention_heads, attention_output, down_projection
from expunge.training.text_batches import TextBatch, TextTable
from expunge.training.text_net import Net
from expunge.training.text_probe import Places, watch


def integrated_gradients(net: Net, batch: TextBatch, projection: Projection, steps: int) -> Tensor:
    """(texts, in) what each input of a projection contributes to the mean log p of a text's answer, in nats.

    a ⊙ (1/m) Σ_{k=1…m} ∂F((k/m) a) / ∂a summed over the text's tokens, with a the inputs and 0 the baseline: the sum
    over inputs tends to F(a) − F(0) as m grows. With m = 1 it is activation times gradient.
    """
    packed = batch.packed.to(net.device)
    places = Places(packed, net.layout)
    lengths = torch.tensor(packed.lengths, device=net.device)
    segment = torch.repeat_interleave(torch.arange(len(lengths), device=net.device), lengths)
    total: Tensor | None = None
    for k in range(1, steps + 1):
        kept: list[Tensor] = []

        def scale(_: int, x: Tensor, share: float = k / steps, kept: list[Tensor] = kept) -> Tensor:
            kept.extend([x.detach(), (share * x.detach()).requires_grad_()])
            return kept[1]

        with torch.enable_grad(), watch({0: projection.module}, scale, "input"):
            answered = -net(batch).nll.sum()
        slope = torch.autograd.grad(answered, kept[1])[0]
        each = places.read(kept[0] * slope).float()
        total = each if total is None else total + each
    if total is None:
        raise ValueError("integrated gradients of no steps")
    return torch.zeros(len(lengths), total.shape[1], device=net.device).index_add(0, segment, total / steps)


def strongest(scores: Tensor, fraction: float) -> Tensor:
    """(k, 2) layer and number of the ⌈fraction · n⌉ highest of (layers, components) scores, those above 0 only."""
    flat = scores.flatten()
    count = math.ceil(fraction * len(flat))
    order = torch.argsort(flat, descending=True, stable=True)[:count]
    order = order[flat[order] > 0].sort().values
    return torch.stack([order // scores.shape[1], order % scores.shape[1]], 1)


def most_sparing(owed: Tensor, spared: Tensor) -> float:
    """The retain weight below which some component scores above 0; 0 where none does, at any weight up from 0."""
    positive = owed > 0
    if not bool(positive.any()):
        return 0.0
    return float((owed[positive] / spared[positive].clamp(min=0)).max())


@dataclass(frozen=True, kw_only=True)
class ComponentDeletion(TextMethod):
    """Zero the components whose attribution, E_forget[A_i] − retain_weight · E_retain[A_i], is highest.

    A_i is what component i contributes to the mean log p of an answer: integrated gradients from 0. Neurons are inputs
    of down projections, heads are slices of the inputs of attention output projections; deleting one sets its columns
    there to zero, so that whatever it computes goes nowhere. Papers: Dai et al. 2022 (knowledge neurons), 2104.08696;
    Sundararajan et al. 2017 (integrated gradients), 1703.01365.

    Args:
        component: ``neurons`` or ``heads``. fraction: of all components of the model, in (0, 1). integration: steps m;
            1 is activation times gradient. retain_weight: of the attribution on the retain set.

    Raises:
        RequestError: no component's difference is above 0; it tells below which retain_weight one is.

    This differs from the authors' code in:
        1. Attribution is that of the whole answer summed over all tokens, not of one masked word at its own place.
        2. Neurons that matter to the retain set are spared by the difference, instead of by a threshold on how many
           prompts share a neuron.
    """

    name: ClassVar[str] = "component_deletion"
    summary: ClassVar[str] = "Zero the neurons or heads that the forgotten answers owe most to"
    paper: ClassVar[str] = "arXiv:2104.08696"
    needs: ClassVar[tuple[str, ...]] = ("retain",)
    adapters: ClassVar[bool] = False

    component: Literal["neurons", "heads"] = "neurons"
    fraction: float = 0.01
    integration: int = 20
    retain_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.component not in ("neurons", "heads"):
            raise RequestError(f"component is {self.component!r}", "Choose neurons or heads")
        if not 0 < self.fraction < 1:
            raise RequestError(f"fraction must be between 0 and 1, got {self.fraction}", "Correct it")
        if self.integration < 1 or self.retain_weight < 0:
            raise RequestError("integration must be at least 1 and retain_weight not negative", "Correct them")

    def edit(self, work: TextWorkspace) -> None:
        module = work.model.module
        module.requires_grad_(False)
        find = down_projection if self.component == "neurons" else attention_output
        places = [find(module, n, self.name) for n in range(work.layers)]
        groups = 1
        if self.component == "heads":
            groups = places[0].weight.shape[1] // attention_heads(module, self.name)
        owed = self._attributions(work, work.table("forget"), places, groups)
        spared = torch.zeros_like(owed)
        if self.retain_weight:
            spared = self._attributions(work, work.table("retain"), places, groups)
        scores = owed - self.retain_weight * spared
        chosen = strongest(scores, self.fraction)
        if not len(chosen):
            raise self._nothing(most_sparing(owed, spared))
        for layer, number in chosen.tolist():
            places[layer].weight[:, number * groups : (number + 1) * groups] = 0
        work.note(stage="delete", component=self.component, deleted=chosen.tolist(), of=scores.numel())

    def _nothing(self, limit: float) -> RequestError:
        if limit == 0:
            other = "heads" if self.component == "neurons" else "neurons"
            return RequestError(f"the forgotten answers owe nothing to any of the {self.component}", f"Try {other}")
        return RequestError(
            f"none of the {self.component} does {self.retain_weight:g} times as much for the forgotten answers as for "
            "the retained ones",
            f"Give a retain_weight below {limit:.4g}, or choose the other component",
        )

    def _attributions(self, work: TextWorkspace, table: TextTable, places: list[Projection], groups: int) -> Tensor:
        """(layers, components) means over the texts of a table, float64."""
        rows = []
        for place in places:
            total = torch.zeros(place.weight.shape[1], dtype=torch.float64)
            for batch in table.in_order(work.how.job.tokens_at_once):
                total += integrated_gradients(work.net, batch, place, self.integration).sum(0).double().cpu()
            rows.append(total.view(-1, groups).sum(1) / len(table))
        return torch.stack(rows)
