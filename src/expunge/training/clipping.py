"""Sums of clipped per-example gradients Σ_i min(1, C/‖g_i‖) g_i of cross-entropy, three ways to the same number.

Perceptrons, [Flatten] (Linear ReLU)* Linear, go by hand. A linear layer's gradient of example i is the outer
product δ_i a_iᵀ of what comes out going back and what goes in, so its squared norm is ‖δ_i‖²‖a_i‖² (Goodfellow 2015,
arXiv:1510.01799) and the clipped sum is (c·δ)ᵀa with the clipping factors c: one backward pass, nothing formed twice
(book-keeping: Bu et al. 2022, arXiv:2210.00038).

Sequences of Conv2d, Linear and layers without parameters: one backward pass to the layers' outputs;
a convolution's gradient of example i is δ_i U_iᵀ with its unfolded input U_i, which is small enough to be formed.

``clipped_by_vmap``: any module, by ``vmap(grad)``.

``fastest`` chooses. All take the parameters apart from the module and write into neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn import functional as F

from expunge.errors import ModelError
from expunge.training.batched_mlp import mlp_layers

Tensors = Mapping[str, Tensor]

# Layers that compute each example from itself alone and have no parameters, buffers or randomness.
PLAIN = (
    nn.Flatten,
    nn.ReLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.GELU,
    nn.SiLU,
    nn.Identity,
    nn.MaxPool2d,
    nn.AvgPool2d,
)


class ClippedSum(NamedTuple):
    """What one batch gives.

    total: (parameters,) Σ clipped gradients, in the order of the module's parameters.
    norms: (batch,) Euclidean norms before clipping. losses: (batch,) nats.
    """

    total: Tensor
    norms: Tensor
    losses: Tensor


Clip = Callable[[nn.Module, Tensors, Tensors, Tensor, Tensor, float, float], ClippedSum]
"""(module, parameters, buffers, x (batch, ...), y (batch,), max_grad_norm, label_smoothing) -> ClippedSum.

`parameters` come in the module's order.
"""


def fastest(module: nn.Module) -> Clip:
    """The fastest way that `module` allows, with its layers looked up once; all are equal but for rounding."""
    names = mlp_layers(module)
    if names is not None:
        return lambda _module, parameters, _buffers, x, y, norm, smoothing: _perceptron(
            names, parameters, x, y, norm, smoothing
        )
    layers = layered(module)
    if layers is not None:
        return lambda _module, parameters, _buffers, x, y, norm, smoothing: _layers(
            layers, parameters, x, y, norm, smoothing
        )
    return clipped_by_vmap


def clipped_sum(
    module: nn.Module,
    parameters: Tensors,
    buffers: Tensors,
    x: Tensor,
    y: Tensor,
    max_grad_norm: float,
    label_smoothing: float = 0.0,
) -> ClippedSum:
    """By the fastest way that the module allows.

    Raises:
        ModelError: the examples cannot be told apart (batch statistics).
    """
    return fastest(module)(module, parameters, buffers, x, y, max_grad_norm, label_smoothing)


def deterministic(module: nn.Module) -> bool:
    """Whether every layer is known to be a function of its input, the same in training and evaluation."""
    return mlp_layers(module) is not None or layered(module) is not None


def clip_factors(norms: Tensor, max_grad_norm: float) -> Tensor:
    """(batch,) min(1, C/norm)."""
    return (max_grad_norm / norms.clamp(min=1e-12)).clamp(max=1.0)


# --- perceptrons, by hand ---------------------------------------------------------------------------------------------


def _perceptron(
    names: list[str], parameters: Tensors, x: Tensor, y: Tensor, max_grad_norm: float, label_smoothing: float
) -> ClippedSum:
    with torch.no_grad():
        count = len(x)
        inputs, h = [], x.reshape(count, -1)
        for k, name in enumerate(names):
            inputs.append(h)
            h = torch.addmm(parameters[f"{name}.bias"], h, parameters[f"{name}.weight"].t())
            if k < len(names) - 1:
                h = h.relu_()
        log_p = F.log_softmax(h, dim=1)
        if label_smoothing:
            target = smoothed(y, h.shape[1], label_smoothing)
            losses = -(target * log_p).sum(1)
            deltas = [log_p.exp_().sub_(target)]
        else:
            hot = y[:, None]
            losses = log_p.gather(1, hot).neg_().squeeze_(1)
            deltas = [log_p.exp_().scatter_add_(1, hot, torch.full((count, 1), -1.0))]
        for k in range(len(names) - 1, 0, -1):
            back = deltas[0] @ parameters[f"{names[k]}.weight"]
            deltas.insert(0, torch.ops.aten.threshold_backward(back, inputs[k], 0))
        squares = torch.zeros(count)
        for a, delta in zip(inputs, deltas, strict=True):
            squares += _square(delta) * (_square(a) + 1)
        norms = squares.sqrt_()
        factors = clip_factors(norms, max_grad_norm)[:, None]
        pieces: dict[str, Tensor] = {}
        for name, a, delta in zip(names, inputs, deltas, strict=True):
            scaled = delta * factors
            pieces[f"{name}.weight"] = scaled.t() @ a
            pieces[f"{name}.bias"] = scaled.sum(0)
    return ClippedSum(_flat(parameters, pieces), norms, losses)


# --- sequences of layers ----------------------------------------------------------------------------------------------


def layered(module: nn.Module) -> list[tuple[str, nn.Module]] | None:
    """Names and layers if `module` is a sequence whose clipped sum needs one backward pass, else None."""
    if not isinstance(module, nn.Sequential):
        return None
    layers = list(module.named_children())
    if len(layers) != len(module):
        return None  # a layer that comes twice is named once
    for _, layer in layers:
        if isinstance(layer, nn.ReLU | nn.SiLU) and layer.inplace:
            return None  # it would overwrite the output that is differentiated
        if isinstance(layer, nn.Flatten) and layer.start_dim == 0:
            return None
        if type(layer) is nn.Conv2d:
            if layer.groups != 1 or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
                return None
        elif type(layer) is not nn.Linear and type(layer) not in PLAIN:
            return None
    with_parameters = [layer for _, layer in layers if next(layer.parameters(), None) is not None]
    shared = len({id(p) for p in module.parameters()}) != sum(len(list(m.parameters())) for m in with_parameters)
    frozen = any(not p.requires_grad for p in module.parameters())
    return None if shared or frozen or not with_parameters else layers


def _layers(
    layers: list[tuple[str, nn.Module]],
    parameters: Tensors,
    x: Tensor,
    y: Tensor,
    max_grad_norm: float,
    label_smoothing: float,
) -> ClippedSum:
    kept: list[tuple[str, nn.Module, Tensor, Tensor]] = []
    h = x
    with torch.enable_grad():
        for name, layer in layers:
            if not isinstance(layer, nn.Linear | nn.Conv2d):
                h = layer(h)
                continue
            before = h
            weight = parameters[f"{name}.weight"].detach()
            bias = parameters[f"{name}.bias"].detach() if layer.bias is not None else None
            if isinstance(layer, nn.Linear):
                if h.ndim != 2:
                    raise ModelError(
                        f"layer {name!r} is applied to features of shape {tuple(h.shape[1:])}",
                        "Flatten the features before a linear layer",
                    )
                h = F.linear(h, weight, bias)
            else:
                h = F.conv2d(h, weight, bias, layer.stride, layer.padding, layer.dilation)
            if not h.requires_grad:
                h.requires_grad_()
            kept.append((name, layer, before.detach(), h))
        losses = F.cross_entropy(h, y, reduction="none", label_smoothing=label_smoothing)
        deltas = torch.autograd.grad(losses.sum(), [out for *_, out in kept])
    with torch.no_grad():
        squares = torch.zeros(len(x))
        formed: dict[str, Tensor] = {}
        for (name, layer, before, _), delta in zip(kept, deltas, strict=True):
            if isinstance(layer, nn.Conv2d):
                delta = delta.flatten(2)
                formed[f"{name}.weight"] = torch.bmm(delta, unfolded(layer, before).transpose(1, 2)).flatten(1)
                squares += _square(formed[f"{name}.weight"])
                if layer.bias is not None:
                    formed[f"{name}.bias"] = delta.sum(2)
                    squares += _square(formed[f"{name}.bias"])
            else:
                squares += _square(delta) * (_square(before) + (layer.bias is not None))
        norms = squares.sqrt_()
        factors = clip_factors(norms, max_grad_norm)
        pieces = {name: factors @ each for name, each in formed.items()}
        for (name, layer, before, _), delta in zip(kept, deltas, strict=True):
            if isinstance(layer, nn.Linear):
                scaled = delta * factors[:, None]
                pieces[f"{name}.weight"] = scaled.t() @ before
                if layer.bias is not None:
                    pieces[f"{name}.bias"] = scaled.sum(0)
    return ClippedSum(_flat(parameters, pieces), norms, losses.detach())


# --- anything ---------------------------------------------------------------------------------------------------------


def clipped_by_vmap(
    module: nn.Module,
    parameters: Tensors,
    buffers: Tensors,
    x: Tensor,
    y: Tensor,
    max_grad_norm: float,
    label_smoothing: float = 0.0,
) -> ClippedSum:
    """For any module whose examples `torch.func.vmap` can tell apart.

    Raises:
        ModelError: it cannot (batch statistics).
    """

    def loss_of(p: dict[str, Tensor], record: Tensor, label: Tensor) -> Tensor:
        logits = functional_call(module, {**p, **buffers}, (record.unsqueeze(0),))
        return F.cross_entropy(logits, label.unsqueeze(0), label_smoothing=label_smoothing)

    try:
        gradient: Any = vmap(grad_and_value(loss_of), in_dims=(None, 0, 0), randomness="different")
        each, losses = gradient(dict(parameters), x, y)
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"the records of a batch cannot be told apart ({str(error).splitlines()[0][:80]})",
            "Use a network without batch statistics (group or layer normalisation instead)",
        ) from error
    rows = torch.cat([each[name].flatten(1) for name in parameters], dim=1)
    norms = rows.norm(dim=1)
    return ClippedSum((rows * clip_factors(norms, max_grad_norm)[:, None]).sum(0), norms, losses)


def unfolded(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """(batch, channels · kernel, positions): what each output position of `layer` sees; torch's unfold, copied at once.

    Two to ten times as fast on one thread, where torch copies number by number.
    """
    (kernel_h, kernel_w), (step_h, step_w), (apart_h, apart_w) = layer.kernel_size, layer.stride, layer.dilation
    assert not isinstance(layer.padding, str)
    padded = F.pad(x, (layer.padding[1], layer.padding[1], layer.padding[0], layer.padding[0]))
    batch, channels, height, width = padded.shape
    out_h = (height - apart_h * (kernel_h - 1) - 1) // step_h + 1
    out_w = (width - apart_w * (kernel_w - 1) - 1) // step_w + 1
    of_record, of_channel, of_row, of_column = padded.stride()
    view = padded.as_strided(
        (batch, channels, kernel_h, kernel_w, out_h, out_w),
        (of_record, of_channel, of_row * apart_h, of_column * apart_w, of_row * step_h, of_column * step_w),
    )
    return view.reshape(batch, channels * kernel_h * kernel_w, out_h * out_w)


def smoothed(y: Tensor, classes: int, label_smoothing: float) -> Tensor:
    """(batch, classes) one-hot labels with `label_smoothing` of their mass spread over all classes."""
    hot = torch.zeros(len(y), classes).scatter_(1, y[:, None], 1.0)
    return hot if not label_smoothing else hot.mul_(1 - label_smoothing).add_(label_smoothing / classes)


def _square(values: Tensor) -> Tensor:
    """(batch,) squared norms of (batch, d)."""
    squares: Tensor = torch.linalg.vecdot(values, values)
    return squares


def _flat(parameters: Tensors, pieces: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([pieces[name].reshape(-1) for name in parameters])
