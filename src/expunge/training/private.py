"""Training under noise: each record's gradient is clipped, and Gaussian noise is added to the sum of a step.

The step of DP-SGD (Abadi et al., 2016, arXiv 1607.00133). `PrivateLoop` alone leaves out the sampling that its
accounting rests on: whoever states an epsilon must draw batches as the accountant assumes, which `PoissonTable` does.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from expunge.errors import NonFiniteLoss
from expunge.training.batches import Batch, Table
from expunge.training.clipping import Clip, clipped_by_vmap, deterministic
from expunge.training.loop import Loop
from expunge.training.seeds import derive
from expunge.training.stack import padded_like


@dataclass
class PrivateLoop(Loop):
    """A loop whose gradient is Σ clip(∇ℓ_i) + noise · clip · N(0, I), divided by the number of rows a full batch has.

    It minimises cross-entropy, whatever objective it is handed: a record's own gradient cannot be told from a mean.

    Args:
        noise_multiplier: standard deviation of the noise in units of `max_grad_norm`, ≥ 0.
        max_grad_norm: largest Euclidean norm of a record's gradient, > 0.
        key: of the noise, with the model's seed and the step. Whoever knows it subtracts the noise.
        salts: one a model, such as a digest of its records, so that other records have other noise.
        clip: how the clipped sum is computed, see `expunge.training.clipping`.
        divisor: of the sum, a number that depends on no record; None: the width of the batch.
        label_smoothing: of the cross-entropy, in [0, 1).
    """

    noise_multiplier: float = 1.0
    max_grad_norm: float = 1.0
    key: bytes = b""
    purpose: str = field(default="", repr=False)
    salts: Sequence[bytes] = ()
    clip: Clip = clipped_by_vmap
    divisor: float | None = None
    label_smoothing: float = 0.0
    _deterministic: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._deterministic = deterministic(self.stack.template)

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

        The mean is of the records that were drawn, with no noise: it may not be published. It is 0 where none were.

        Raises:
            ModelError: the module's records cannot be told apart (batch statistics). NonFiniteLoss.
        """
        (batch,) = batches
        flat = padded_like(self.stack.flat)
        losses = []
        for k in range(len(self.stack)):
            if active is not None and not bool(active[k]):
                continue
            step = 0 if done is None else int(done[k])
            row, loss, count = self._one(batch, k, step)
            if self.noise_multiplier:
                noise = torch.randn(row.shape, generator=self._generator(k, step))
                row = row + self.noise_multiplier * self.max_grad_norm * noise
            flat[k] = row / (batch.weight.shape[1] if self.divisor is None else self.divisor)
            losses.append(loss)
            self.examples[k] += count
        mean = sum(losses) / max(len(losses), 1)
        if not math.isfinite(mean):
            raise NonFiniteLoss("the objective", 0 if done is None else int(done.max()))
        return mean, flat

    def _one(self, batch: Batch, k: int, step: int) -> tuple[Tensor, float, int]:
        """Sum of the clipped gradients of one model's records, their mean loss, and how many they are."""
        real = batch.weight[k] > 0
        x, y = batch.x[k], batch.y[k]
        if not bool(real.all()):
            x, y = x[real], y[real]
        if not len(x):
            return torch.zeros(self.stack.layout.size), 0.0, 0
        parameters = {name: value[k] for name, value in self.stack.views().items()}
        buffers = {name: value[k] for name, value in self.stack.buffers.items()}
        if self._deterministic:
            total, losses = self._clipped(parameters, buffers, x, y)
        else:
            self.stack.template.train()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derive(int(self.seeds[k]), "step", step))  # of dropout
                total, losses = self._clipped(parameters, buffers, x, y)
        return total, float(losses.mean()), len(x)

    def _clipped(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, y: Tensor
    ) -> tuple[Tensor, Tensor]:
        found = self.clip(self.stack.template, parameters, buffers, x, y, self.max_grad_norm, self.label_smoothing)
        return found.total, found.losses

    def _generator(self, k: int, step: int) -> torch.Generator:
        salt = self.salts[k] if self.salts else b""
        seed = str(int(self.seeds[k])).encode()
        text = b"\x00".join([b"noise", self.key, seed, salt, self.purpose.encode(), str(step).encode()])
        return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1)


# --- Poisson sampling -------------------------------------------------------------------------------------------------


def participation(ids: Sequence[str], key: bytes, sample_rate: float, steps: int) -> list[npt.NDArray[np.int64]]:
    """For each step, positions (rising) of the records in its batch: each joins by a coin of its own.

    A record's coins are SHAKE-256 of (key, its id), 32 bits each, compared with `sample_rate` rounded down: they do not
    depend on any other record, and whoever lacks the key cannot tell them from independent ones.

    Args:
        sample_rate: in (0, 1]. steps: how many.
    """
    threshold = int(sample_rate * 2**32)
    prefix = b"coins\x00" + len(key).to_bytes(8, "big") + key
    joined: list[npt.NDArray[np.int64]] = []
    for record_id in ids:
        coins = np.frombuffer(hashlib.shake_256(prefix + record_id.encode()).digest(4 * steps), dtype="<u4")
        joined.append(np.flatnonzero(coins.astype(np.int64) < threshold))
    step = np.concatenate(joined) if joined else np.zeros(0, np.int64)
    row = np.repeat(np.arange(len(joined)), [len(j) for j in joined])
    order = np.argsort(step, kind="stable")
    return np.split(row[order], np.searchsorted(step[order], np.arange(1, steps)))


@dataclass(frozen=True)
class PoissonTable(Table):
    """A table of one model whose every "epoch" is one step on a Poisson batch, so that the one training loop serves.

    A batch may be empty; its step is taken all the same, with noise alone. The loop must be given a `divisor`: how many
    records were drawn is nobody's to know.

    Args:
        batches: positions of each step's records, from `participation`.
    """

    batches: Sequence[npt.NDArray[np.int64]] = ()

    @classmethod
    def drawn(cls, table: Table, key: bytes, sample_rate: float, steps: int) -> PoissonTable:
        return cls(table.columns, table.rows, table.ids, participation(table.ids.tolist(), key, sample_rate, steps))

    def steps(self, batch_size: int) -> list[int]:
        return [1]

    def epoch(self, batch_size: int, seeds: Sequence[int], purpose: str, epoch: int) -> Iterator[Batch]:
        rows = torch.from_numpy(self.batches[epoch])[None]
        yield self.gather(rows, torch.ones(rows.shape))
