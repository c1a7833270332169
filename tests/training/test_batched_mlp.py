"""The hand-written perceptron against autograd on the module it stands for."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from expunge.training.batched_mlp import mlp_layers, mlp_logits


def perceptron(*sizes: int, flatten: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()] if flatten else []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("models", [1, 3, 16])
@pytest.mark.parametrize("sizes", [(12, 5), (12, 7, 4), (12, 9, 8, 3)])
def test_outputs_and_gradients_equal_autograd(models: int, sizes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    modules = [perceptron(*sizes) for _ in range(models)]
    names = [n for n, _ in modules[0].named_parameters()]
    stacked = {
        n: torch.stack([dict(m.named_parameters())[n].detach() for m in modules]).requires_grad_() for n in names
    }
    x = torch.randn(models, 6, 3, 4).requires_grad_()
    weight = torch.randn(models, 6, sizes[-1])  # a gradient that differs for every output

    logits = mlp_logits(modules[0], stacked, x)
    (logits.square() * weight).sum().backward()

    for k, module in enumerate(modules):
        own = x.detach()[k].clone().requires_grad_()
        expected = module(own)
        (expected.square() * weight[k]).sum().backward()
        torch.testing.assert_close(logits[k], expected, rtol=1e-5, atol=1e-5)
        assert x.grad is not None
        torch.testing.assert_close(x.grad[k], own.grad, rtol=1e-5, atol=1e-5)
        for name, parameter in module.named_parameters():
            gradient = stacked[name].grad
            assert gradient is not None
            torch.testing.assert_close(gradient[k], parameter.grad, rtol=1e-5, atol=1e-5)


def test_gradient_of_the_features_alone() -> None:
    module = perceptron(12, 7, 4)
    parameters = {n: p.detach().unsqueeze(0) for n, p in module.named_parameters()}
    x = torch.randn(1, 5, 12).requires_grad_()
    (gradient,) = torch.autograd.grad(mlp_logits(module, parameters, x).logsumexp(-1).sum(), x)
    own = x.detach()[0].requires_grad_()
    (expected,) = torch.autograd.grad(module(own).logsumexp(-1).sum(), own)
    torch.testing.assert_close(gradient[0], expected, rtol=1e-5, atol=1e-6)


def test_layers_are_named() -> None:
    assert mlp_layers(perceptron(12, 7, 4)) == ["1", "3"]
    assert mlp_layers(perceptron(12, 7, 4, flatten=False)) == ["0", "2"]


@pytest.mark.parametrize(
    "module",
    [
        nn.Linear(4, 2),
        nn.Sequential(),
        nn.Sequential(nn.Flatten()),
        nn.Sequential(nn.Linear(4, 4), nn.ReLU()),
        nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2, bias=False)),
        nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.ReLU(), nn.Linear(4, 2)),
        nn.Sequential(nn.Flatten(0), nn.Linear(4, 2)),
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Linear(4, 2)),
    ],
)
def test_anything_else_is_left_to_other_engines(module: nn.Module) -> None:
    assert mlp_layers(module) is None


def test_shared_weights_are_left_to_other_engines() -> None:
    shared = nn.Linear(4, 4)
    assert mlp_layers(nn.Sequential(shared, nn.ReLU(), shared)) is None


def test_a_layer_that_stands_twice_is_counted_twice() -> None:
    first, relu, last = nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)
    assert mlp_layers(nn.Sequential(first, relu, last)) == ["0", "2"]
    assert mlp_layers(nn.Sequential(first, relu, last, relu)) is None
    assert mlp_layers(nn.Sequential(first, relu, nn.Linear(4, 4), relu, last)) == ["0", "2", "4"]
