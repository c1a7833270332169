"""The fast path for plain multilayer perceptrons: K models, one batched matrix product a layer.

The whole network is one autograd node with a hand-written backward pass, because for networks this small the
bookkeeping of a node a layer costs as much as the arithmetic.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

# Looking through a module takes longer than a step of a small one; the template of a stack never changes.
_NAMES: WeakKeyDictionary[nn.Module, list[str] | None] = WeakKeyDictionary()


def mlp_layers(module: nn.Module) -> list[str] | None:
    """Names of the linear layers if `module` is [Flatten] (Linear ReLU)* Linear with biases, else None."""
    if not isinstance(module, nn.Sequential):
        return None
    names: list[str] = []
    expect_linear = True
    # Not `named_children`, which names a layer that stands twice only once.
    for position, (name, layer) in enumerate(module._modules.items()):
        if position == 0 and isinstance(layer, nn.Flatten) and layer.start_dim == 1:
            continue
        if expect_linear and type(layer) is nn.Linear and layer.bias is not None:
            names.append(name)
        elif expect_linear or type(layer) is not nn.ReLU:
            return None
        expect_linear = not expect_linear
    if expect_linear or not names or len({id(p) for p in module.parameters()}) != 2 * len(names):
        return None
    return names


def mlp_logits(module: nn.Module, parameters: dict[str, Tensor], x: Tensor) -> Tensor:
    """(models, batch, classes) logits of perceptrons whose layers `mlp_layers` has named."""
    if module not in _NAMES:
        _NAMES[module] = mlp_layers(module)
    names = _NAMES[module]
    assert names is not None
    weights = [parameters[f"{n}.weight"] for n in names]
    biases = [parameters[f"{n}.bias"] for n in names]
    out: Tensor = _Perceptron.apply(  # type: ignore[no-untyped-call]
        x.reshape(*x.shape[:2], -1), *weights, *biases
    )
    return out


class _Perceptron(torch.autograd.Function):
    """x (models, batch, in), weights (models, out, in)…, biases (models, out)… -> (models, batch, classes)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        depth = len(parameters) // 2
        weights, biases = parameters[:depth], parameters[depth:]
        hidden = [x]
        for layer in range(depth):
            h = torch.baddbmm(biases[layer].unsqueeze(1), hidden[-1], weights[layer].transpose(1, 2))
            hidden.append(h.relu_() if layer < depth - 1 else h)
        ctx.save_for_backward(*hidden[:-1], *weights)
        ctx.depth = depth
        return hidden[-1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        depth = ctx.depth
        hidden, weights = ctx.saved_tensors[:depth], ctx.saved_tensors[depth:]
        (g,) = gradients
        weight_gradients: list[Tensor | None] = [None] * depth
        bias_gradients: list[Tensor | None] = [None] * depth
        for layer in reversed(range(depth)):
            weight_gradients[layer] = torch.bmm(g.transpose(1, 2), hidden[layer])
            bias_gradients[layer] = g.sum(1)
            if layer or ctx.needs_input_grad[0]:
                g = torch.bmm(g, weights[layer])
                if layer:
                    g = torch.ops.aten.threshold_backward(g, hidden[layer], 0)
        return (g if ctx.needs_input_grad[0] else None, *weight_gradients, *bias_gradients)
