"""The one training loop. Training, retraining and every gradient method go through `Loop.run`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from expunge.errors import NonFiniteLoss
from expunge.training.batches import Batch, Table
from expunge.training.engine import Engine, small_model_threads
from expunge.training.optimiser import Optimiser
from expunge.training.seeds import derive
from expunge.training.stack import Stack, padded_like


class Net:
    """The stack as a function, for the time of one step."""

    def __init__(
        self,
        engine: Engine,
        stack: Stack,
        parameters: dict[str, Tensor],
        train: bool,
        seeds: Sequence[int] = (),
        active: Tensor | None = None,
    ) -> None:
        self._engine, self._stack, self.parameters, self._train, self._seeds = engine, stack, parameters, train, seeds
        self._active = active

    def __call__(self, batch: Batch) -> Tensor:
        """(models, batch, classes) logits."""
        return self._engine.logits(
            self._stack.template,
            self.parameters,
            self._stack.buffers,
            batch.x,
            train=self._train,
            weight=batch.weight,
            seeds=self._seeds,
        )

    def on(self, x: Tensor) -> Tensor:
        """(models, batch, classes) logits of features that stand in no table (noise, generated records)."""
        weight = None if self._active is None else self._active.float()[:, None].expand(x.shape[:2])
        return self._engine.logits(
            self._stack.template,
            self.parameters,
            self._stack.buffers,
            x,
            train=self._train,
            weight=weight,
            seeds=self._seeds,
        )


Objective = Callable[..., Tensor]
"""(net, batch) or (net, first, second) -> (models,): what each model minimises at this step."""

EditGradient = Callable[[Tensor, Tensor], Tensor]
"""(gradient, weights), both (models, parameters) -> gradient."""


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Where a loop's records come from."""

    table: Table
    batch_size: int
    name: str


@dataclass
class Loop:
    """Runs objectives over a stack and counts what they cost.

    Args:
        stack: changed in place. engine: computes its outputs. seeds: one a model.
        on_step: called after every step with (step, steps, mean loss): progress, interruption, checkpoints.
    """

    stack: Stack
    engine: Engine
    seeds: Sequence[int]
    on_step: Callable[[int, int, float], None] | None = None
    examples: Tensor = field(init=False)
    seconds: float = 0.0
    _calls: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.examples = torch.zeros(len(self.stack), dtype=torch.float64)

    def net(self, *, train: bool = False) -> Net:
        """The stack as it is, without gradients of its own."""
        return Net(self.engine, self.stack, self.stack.views(), train)

    def run(
        self,
        objective: Objective,
        first: Stream,
        second: Stream | None = None,
        *,
        epochs: float,
        optimiser: Optimiser,
        schedule: Callable[[Tensor], Tensor] | None = None,
        trainable: Tensor | None = None,
        edit_gradient: EditGradient | None = None,
        after_step: Callable[[int], None] | None = None,
        after_epoch: Callable[[int], Tensor | None] | None = None,
        first_epoch: int = 0,
        purpose: str | None = None,
    ) -> list[float]:
        """Minimise `objective` for `epochs` passes over `first`; `second` is drawn from endlessly beside it.

        Args:
            epochs: passes over `first`; a fraction stops within a pass.
            schedule: progress in [0, 1) as (models,) -> factor of the learning rate (models,).
            trainable: (parameters,) or (models, parameters) Boolean; other weights stay as they are.
            edit_gradient: replaces the gradient before the optimiser sees it.
            after_step: called with the number of steps done; may write to the weights (masks, projections).
            after_epoch: called with the number of epochs done; may return a (models,) Boolean: who stops here.
            first_epoch, purpose: which epochs of which named order to draw; by default every call of `run` with the
                same stream draws fresh orders.

        Returns:
            mean loss of each epoch over steps and models, in the order run.

        Raises:
            NonFiniteLoss: the objective of any model is NaN or infinite.
        """
        with small_model_threads(self.engine):
            return self._run(
                objective,
                first,
                second,
                epochs,
                optimiser,
                schedule,
                trainable,
                edit_gradient,
                after_step,
                after_epoch,
                first_epoch,
                purpose,
            )

    def _run(
        self,
        objective: Objective,
        first: Stream,
        second: Stream | None,
        epochs: float,
        optimiser: Optimiser,
        schedule: Callable[[Tensor], Tensor] | None,
        trainable: Tensor | None,
        edit_gradient: EditGradient | None,
        after_step: Callable[[int], None] | None,
        after_epoch: Callable[[int], Tensor | None] | None,
        first_epoch: int,
        purpose: str | None,
    ) -> list[float]:
        started = time.process_time()
        if purpose is None:
            count = self._calls[first.name] = self._calls.get(first.name, -1) + 1
            purpose = f"{first.name}/{count}"
        per_epoch = torch.tensor(first.table.steps(first.batch_size))
        # Rounding of a fraction must not add a step: 2/21 of 21 steps are 2.
        totals = torch.tensor([math.ceil(round(s * epochs, 9)) for s in per_epoch.tolist()])
        companion = second.table.forever(second.batch_size, self.seeds, f"{purpose}+{second.name}") if second else None
        stopped = torch.zeros(len(self.stack), dtype=torch.bool)
        step, epoch_losses = 0, []
        for epoch in range(first_epoch, math.ceil(round(epochs, 9))):
            losses = []
            for position, batch in enumerate(first.table.epoch(first.batch_size, self.seeds, purpose, epoch)):
                # Counted for each model by itself: its rate must not depend on how long its neighbours' epochs are.
                done = epoch * per_epoch + position
                active = (position < per_epoch) & (done < totals) & ~stopped
                if not bool(active.any()):
                    break
                # A model that rests sees padding, so that its batch statistics and its place in `second` rest too.
                batch = batch.only(active)
                batches = [batch] if companion is None else [batch, companion.next(active)]
                loss, gradient = self.gradient(objective, batches, active=active, done=done)
                if edit_gradient:
                    gradient = edit_gradient(gradient, self.stack.flat)
                factor = schedule(done / totals.clamp(min=1)) if schedule else 1.0
                optimiser.step(self.stack.flat, gradient, factor=factor, active=active, trainable=trainable)
                losses.append(loss)
                step += 1
                if after_step:
                    after_step(step)
                if self.on_step:
                    self.on_step(step, int(totals.max()), loss)
            if losses:
                epoch_losses.append(sum(losses) / len(losses))
            now = time.process_time()
            self.seconds, started = self.seconds + now - started, now  # what `after_epoch` saves must hold it
            finished = after_epoch(epoch + 1) if after_epoch else None
            if finished is not None:
                stopped = stopped | finished
        self.seconds += time.process_time() - started
        return epoch_losses

    def gradient(
        self,
        objective: Objective,
        batches: list[Batch],
        *,
        active: Tensor | None = None,
        done: Tensor | None = None,
        train: bool = True,
    ) -> tuple[float, Tensor]:
        """Mean loss and the (models, parameters) gradient of `objective` at the current weights.

        Args:
            active: (models,) who counts. done: (models,) steps done, which names the randomness of dropout.
            train: False leaves dropout out and batch statistics as they are: a measurement, not a step.
        """
        leaves = {n: v.detach().requires_grad_() for n, v in self.stack.views().items()}
        seeds: Sequence[int] = ()
        if self.engine.name == "loop" and train:
            steps = [-1] * len(self.stack) if done is None else done.tolist()
            seeds = [derive(s, "step", d) for s, d in zip(self.seeds, steps, strict=True)]
        per_model = objective(Net(self.engine, self.stack, leaves, train, seeds, active), *batches)
        kept = per_model if active is None else per_model[active]
        total = kept.sum()
        if not bool(torch.isfinite(total)):
            raise NonFiniteLoss("the objective", 0 if done is None else int(done.max()))
        parts = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        flat = padded_like(self.stack.flat, zeros=False)
        for (start, stop, _), part in zip(self.stack.layout.spans.values(), parts, strict=True):
            flat[:, start:stop] = 0.0 if part is None else part.flatten(1)
        for batch in batches:
            self.examples += batch.weight.sum(1) if active is None else batch.weight.sum(1) * active
        return float(total.detach()) / max(len(kept), 1), flat


def outputs(stack: Stack, engine: Engine, table: Table, batch_size: int = 512) -> Tensor:
    """(models, n, classes) logits in evaluation mode on all n rows of a table."""
    net = Net(engine, stack, stack.views(), False)
    parts: list[Tensor] = []
    with torch.no_grad(), small_model_threads(engine):
        for rows in torch.arange(len(table)).split(batch_size):
            x = table.columns["x"][rows]
            parts.append(net.on(x.unsqueeze(0).expand(len(stack), *x.shape)))
    return torch.cat(parts, 1)


def cosine(progress: Tensor) -> Tensor:
    """½(1 + cos πt): 1 at the start, 0 at the end."""
    return torch.tensor([0.5 * (1 + math.cos(math.pi * t)) for t in progress.tolist()])


def linear(progress: Tensor) -> Tensor:
    return 1 - progress


def by_epoch(factors: Sequence[float]) -> Callable[[Tensor], Tensor]:
    """A schedule that holds ``factors[e]`` throughout epoch e, as torch's own do when stepped by epoch."""
    last = len(factors) - 1
    # Progress is a quotient in single precision: without the margin 1/3 of three epochs may still be epoch 0.
    return lambda progress: torch.tensor(
        [float(factors[min(int(t * len(factors) + 1e-4), last)]) for t in progress.tolist()]
    )


def cosine_by_epoch(epochs: int) -> Callable[[Tensor], Tensor]:
    """½(1 + cos πe/epochs) throughout epoch e: never 0, unlike `cosine` at its end."""
    return by_epoch([0.5 * (1 + math.cos(math.pi * e / epochs)) for e in range(epochs)])


SCHEDULES: dict[str, Callable[[Tensor], Tensor] | None] = {"constant": None, "cosine": cosine, "linear": linear}
