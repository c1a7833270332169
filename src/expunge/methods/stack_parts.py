"""A single model of the population engine as parts of a learner's state, and what makes its bytes repeatable."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from expunge.data.records import Array
from expunge.methods.learner import Part
from expunge.models.classifier import Classifier
from expunge.recipe import Recipe
from expunge.training.batched_mlp import mlp_layers
from expunge.training.engine import Engine, engine_named
from expunge.training.fit import optimiser_of
from expunge.training.optimiser import Optimiser
from expunge.training.stack import Stack, build

OPTIMISER = "optimiser."


def stack_part(stack: Stack, optimiser: Optimiser | None = None) -> dict[str, Array]:
    """Weights, buffers and, for a checkpoint, the optimiser's state: copies that training does not write to."""
    tensors = stack.tensors()
    if optimiser is not None:
        tensors |= {OPTIMISER + name: value for name, value in optimiser.state().items()}
    return {name: tensor.numpy().copy() for name, tensor in tensors.items()}


def restored_stack(template: nn.Module, part: Part) -> Stack:
    """The stack of a part, as a copy."""
    return Stack.from_tensors(template, {k: _tensor(v) for k, v in part.items() if not k.startswith(OPTIMISER)})


def restore_optimiser(optimiser: Optimiser, part: Part) -> None:
    """Set `optimiser` to what a checkpoint holds, as a copy."""
    optimiser.restore({k.removeprefix(OPTIMISER): _tensor(v) for k, v in part.items() if k.startswith(OPTIMISER)})


def checkpoint_bytes(recipe: Recipe) -> int:
    """Bytes of one checkpoint: weights and buffers, and the optimiser's state."""
    optimiser = optimiser_of(recipe.trainer)
    moments = {"sgd": int(bool(optimiser.momentum)), "adam": 2, "adamw": 2}[optimiser.kind]
    stack = Stack.of([build(recipe, 0)])
    return stack.bytes_per_model + moments * 4 * stack.layout.size + 4


def part_logits(recipe: Recipe, part: Part, x: Array) -> Array:
    """(n, classes) float32 logits of the model in a part, for (n, ...) features."""
    model = Classifier(restored_stack(build(recipe, 0), part).module(0))
    with fixed_threads(1):
        return np.asarray(model.logits_of(torch.tensor(np.asarray(x), dtype=torch.float32)).numpy())


def repeatable_engine(template: nn.Module) -> Engine:
    """The engine that promises the same bytes twice: ``batched`` for perceptrons, ``loop`` for everything else."""
    return engine_named("loop" if mlp_layers(template) is None else "batched")


def environment() -> Mapping[str, Any]:
    """What the bytes depend on besides data, hyper-parameters and seed; other bytes are no fault where it differs."""
    capability = torch.backends.cpu.get_cpu_capability()
    return {"torch": str(torch.__version__), "machine": platform.machine(), "processor": capability}


@contextmanager
def fixed_threads(count: int) -> Iterator[None]:
    """Run on `count` threads: how many there are decides how sums are cut, and so their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _tensor(array: Array) -> Tensor:
    """A copy in torch's own memory: products may round differently on memory that is aligned differently."""
    return torch.from_numpy(np.array(array)).clone()
