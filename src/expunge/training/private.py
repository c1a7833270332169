"""Training under noise: each record's gradient is clipped, and Gaussian noise is added to the sum of a step.

The step of DP-SGD (Abadi et al., 2016, arXiv 1607.00133), without the sampling that its accounting rests on: whoever
states an epsilon must draw batches as the accountant assumes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap

from expunge.errors import ModelError, NonFiniteLoss
from expunge.training.batches import Batch
from expunge.training.loop import Loop
from expunge.training.stack import padded_like


@dataclass
class PrivateLoop(Loop):
    """A loop whose gradient is Σ clip(∇ℓ_i) + noise · clip · N(0, I), divided by the number of rows a full batch has.

    It minimises cross-entropy, whatever objective it is handed: a record's own gradient cannot be told from a mean.

    Args:
        noise_multiplier: standard deviation of the noise in units of `max_grad_norm`, ≥ 0.
        max_grad_norm: largest Euclidean norm of a record's gradient, > 0.
        key: of the noise, with the model's seed and the step. Whoever knows it subtracts the noise.
    """

    noise_multiplier: float = 1.0
    max_grad_norm: float = 1.0
    key: bytes = b""
    purpose: str = field(default="", repr=False)

    def gradient(
        self,
        objective: Any,
        batches: list[Batch],
        *,
        active: Tensor | None = None,
        done: Tensor | None = None,
        train: bool = True,
    ) -> tuple[float, Tensor]:
        """Mean loss and the (models, parameters) noisy gradient at the current weights.

        Raises:
            ModelError: the module's records cannot be told apart (batch statistics). NonFiniteLoss.
        """
        (batch,) = batches
        flat = padded_like(self.stack.flat)
        losses = []
        for k in range(len(self.stack)):
            if active is not None and not bool(active[k]):
                continue
            row, loss, count = self._one(batch, k)
            step = 0 if done is None else int(done[k])
            if self.noise_multiplier:
                noise = torch.randn(row.shape, generator=self._generator(int(self.seeds[k]), step))
                row = row + self.noise_multiplier * self.max_grad_norm * noise
            flat[k] = row / batch.weight.shape[1]
            losses.append(loss)
            self.examples[k] += count
        mean = sum(losses) / max(len(losses), 1)
        if not torch.isfinite(torch.tensor(mean)):
            raise NonFiniteLoss("the objective", 0 if done is None else int(done.max()))
        return mean, flat

    def _one(self, batch: Batch, k: int) -> tuple[Tensor, float, int]:
        """Sum of the clipped gradients of one model's records, their mean loss, and how many they are."""
        module = self.stack.template
        module.train()
        real = batch.weight[k] > 0
        x, y = batch.x[k][real], batch.y[k][real]
        parameters = {name: value[k] for name, value in self.stack.views().items()}
        buffers = {name: value[k] for name, value in self.stack.buffers.items()}

        def loss_of(p: dict[str, Tensor], record: Tensor, label: Tensor) -> Tensor:
            logits = functional_call(module, {**p, **buffers}, (record.unsqueeze(0),))
            return torch.nn.functional.cross_entropy(logits, label.unsqueeze(0))

        try:
            each, losses = vmap(grad_and_value(loss_of), in_dims=(None, 0, 0), randomness="different")(parameters, x, y)
        except (RuntimeError, ValueError) as error:
            raise ModelError(
                f"the records of a batch cannot be told apart ({str(error).splitlines()[0][:80]})",
                "Use a network without batch statistics (group or layer normalisation instead)",
            ) from error
        rows = torch.cat([each[name].flatten(1) for name in self.stack.layout.spans], dim=1)
        factors = (self.max_grad_norm / rows.norm(dim=1).clamp(min=1e-12)).clamp(max=1.0)
        return (rows * factors[:, None]).sum(0), float(losses.mean()), len(x)

    def _generator(self, seed: int, step: int) -> torch.Generator:
        text = b"\x00".join([b"noise", self.key, str(seed).encode(), self.purpose.encode(), str(step).encode()])
        return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1)
