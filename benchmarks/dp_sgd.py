"""One step of DP-SGD, own clipped sums against Opacus' hooks: a perceptron and a small convolutional network.

Both sides do the whole step: forward, per-example gradients, clipping, noise, momentum SGD. Equal effect is checked
first: without noise, ten steps from the same weights give the same parameters to 1e-6. Then both step with noise, in
turns, one thread, processor time, medians. Opacus with its default way to per-example gradients, hooks. The bars hold
for lots of 256 (private training wants large ones); at 64 the smallest network's step is mostly overhead.
"""

from __future__ import annotations

import copy
import os
import time
import warnings
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.models.architectures import mlp, small_cnn
from expunge.training.batches import Batch
from expunge.training.clipping import Clip, clipped_by_vmap, fastest
from expunge.training.engine import ENGINES
from expunge.training.optimiser import Optimiser
from expunge.training.private import PrivateLoop
from expunge.training.stack import Stack

NORM, RATE, MOMENTUM, REPEATS = 1.0, 0.1, 0.9, 60
Step = Callable[[Tensor, Tensor], None]


def own(module: nn.Module, batch: int, noise: float, clip: Clip) -> tuple[Step, Callable[[], Tensor]]:
    stack = Stack.of([module])
    loop = PrivateLoop(
        stack,
        ENGINES["loop"],
        [0],
        noise_multiplier=noise,
        max_grad_norm=NORM,
        key=b"benchmark",
        clip=clip,
        divisor=float(batch),
    )
    optimiser = Optimiser(kind="sgd", learning_rate=RATE, momentum=MOMENTUM)
    done = torch.zeros(1, dtype=torch.int64)
    rows, weight = torch.arange(batch)[None], torch.ones(1, batch)

    def step(x: Tensor, y: Tensor) -> None:
        _, gradient = loop.gradient(None, [Batch({"x": x[None], "y": y[None]}, rows, weight)], done=done)
        optimiser.step(stack.flat, gradient)
        done.add_(1)

    return step, lambda: stack.flat[0]


def opacus(module: nn.Module, batch: int, noise: float) -> tuple[Step, Callable[[], Tensor]]:
    warnings.simplefilter("ignore")  # of hooks, and of a generator that is not cryptographic
    from opacus.grad_sample import GradSampleModule
    from opacus.optimizers import DPOptimizer

    wrapped = GradSampleModule(copy.deepcopy(module))
    inner = torch.optim.SGD(wrapped.parameters(), lr=RATE, momentum=MOMENTUM)
    optimiser = DPOptimizer(inner, noise_multiplier=noise, max_grad_norm=NORM, expected_batch_size=batch)

    def step(x: Tensor, y: Tensor) -> None:
        optimiser.zero_grad()
        F.cross_entropy(wrapped(x), y).backward()
        optimiser.step()

    return step, lambda: torch.cat([p.detach().reshape(-1) for p in wrapped.parameters()])


def largest_difference(module: nn.Module, x: Tensor, y: Tensor, clip: Clip) -> float:
    mine, weights = own(module, len(x), 0.0, clip)
    theirs, their_weights = opacus(module, len(x), 0.0)
    for _ in range(10):
        mine(x, y)
        theirs(x, y)
    return float((weights() - their_weights()).abs().max())


def milliseconds(steps: list[Step], x: Tensor, y: Tensor) -> list[float]:
    """Median of each, taken in turns so that a busy machine slows all alike."""
    seconds: list[list[float]] = [[] for _ in steps]
    for turn in range(REPEATS + 3):
        for k, step in enumerate(steps):
            start = time.process_time()
            step(x, y)
            if turn >= 3:
                seconds[k].append(time.process_time() - start)
    return [float(np.median(s)) * 1e3 for s in seconds]


def main() -> None:
    torch.set_num_threads(1)
    failed = False
    torch.manual_seed(0)
    cases = (
        ("mlp 64-128-10", mlp(64, 10), (64,), 4.0),
        ("mlp 784-128-10", mlp(784, 10), (784,), 4.0),
        ("small_cnn 8x8", small_cnn((1, 8, 8), 10), (1, 8, 8), 1.2),
        ("small_cnn 28x28", small_cnn((1, 28, 28), 10), (1, 28, 28), 1.2),
    )
    for name, module, shape, bar in cases:
        for batch in (64, 256):
            generator = torch.Generator().manual_seed(0)
            x = torch.randn(batch, *shape, generator=generator)
            y = torch.randint(0, 10, (batch,), generator=generator)
            apart = largest_difference(module, x, y, fastest(module))
            steps = [
                own(module, batch, 1.0, fastest(module))[0],
                own(module, batch, 1.0, clipped_by_vmap)[0],
                opacus(module, batch, 1.0)[0],
            ]
            mine, by_vmap, theirs = milliseconds(steps, x, y)
            ratio = theirs / mine
            held = batch < 256 or ratio >= bar
            failed |= not held or apart > 1e-6
            verdict = f" (bar {bar:g}x: {'met' if held else 'MISSED'})" if batch == 256 else ""
            print(
                f"{name}, batch {batch}: own {mine:.2f} ms, vmap(grad) {by_vmap:.2f}, Opacus {theirs:.2f}: "
                f"{ratio:.1f}x{verdict}; "
                f"parameters apart by {apart:.0e} after 10 noiseless steps"
            )
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
