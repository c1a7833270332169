"""Train a stack of models by a recipe: the same code for one model, retrained references and shadow models."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from expunge.data.records import Records
from expunge.errors import RunError
from expunge.models.classifier import Classifier
from expunge.recipe import Recipe, Trainer
from expunge.training.batches import Batch, Table
from expunge.training.engine import Engine, choose_engine
from expunge.training.files import write_atomically
from expunge.training.loop import SCHEDULES, Loop, Net, Stream
from expunge.training.optimiser import Optimiser
from expunge.training.stack import Stack


@dataclass
class Fitted:
    """A trained stack, what it cost and what was kept on the way.

    Args:
        stack: the models. checkpoints: epoch -> the stack as it was then (what `trainer.checkpoint_every` asks for).
        losses: mean training loss of each epoch. engine: name of the engine that ran, a part of the run.
    """

    stack: Stack
    engine: str
    seconds: float
    examples: Tensor
    losses: list[float]
    checkpoints: dict[int, Stack] = field(default_factory=dict)


def cross_entropy(logits: Tensor, y: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """(models, batch) nats a record, from (models, batch, classes) logits and (models, batch) labels."""
    if label_smoothing:
        losses = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none", label_smoothing=label_smoothing)
        return losses.view(y.shape)
    # Twice as fast as torch's own for a handful of classes, and the same function.
    return logits.logsumexp(-1) - logits.gather(-1, y.unsqueeze(-1)).squeeze(-1)


def optimiser_of(trainer: Trainer) -> Optimiser:
    return Optimiser(
        kind=trainer.optimizer,
        learning_rate=trainer.learning_rate,
        momentum=trainer.momentum if trainer.optimizer == "sgd" else 0.0,
        weight_decay=trainer.weight_decay,
    )


def train_loop(
    loop: Loop,
    table: Table,
    trainer: Trainer,
    *,
    first_epoch: int = 0,
    optimiser: Optimiser | None = None,
    after_epoch: Callable[[int], Tensor | None] | None = None,
    epochs: float | None = None,
    purpose: str = "train",
) -> list[float]:
    """Minimise cross-entropy over `table` as `trainer` says, in place.

    Args:
        epochs: passes instead of the trainer's; a fraction stops within one. purpose: names the order of the rows.
    """

    def objective(net: Net, batch: Batch) -> Tensor:
        return batch.mean(cross_entropy(net(batch), batch.y, trainer.label_smoothing))

    return loop.run(
        objective,
        Stream(table=table, batch_size=trainer.batch_size, name="train"),
        epochs=trainer.epochs if epochs is None else epochs,
        optimiser=optimiser or optimiser_of(trainer),
        schedule=SCHEDULES[trainer.schedule],
        first_epoch=first_epoch,
        purpose=purpose,
        after_epoch=after_epoch,
    )


def fit(
    recipe: Recipe,
    records: Records | Sequence[Records],
    seeds: Sequence[int],
    *,
    engine: Engine | None = None,
    resume: Path | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
) -> Fitted:
    """Train one model a seed, all at once, on shared records or on one set each.

    Model k is a function of (its records, recipe, ``seeds[k]``): stacking changes it by rounding at most, and not at
    all on the ``batched`` and ``loop`` engines.

    Args:
        resume: a file that holds the state after each epoch; if it is there the run goes on from it and ends in the
            same bytes, and it is removed at the end.

    Raises:
        NonFiniteLoss, ModelError, DataError. RunError: `resume` belongs to another run.
    """
    sets = [records] * len(seeds) if isinstance(records, Records) else list(records)
    table = Table.of(sets)
    stack = Stack.initialised(recipe, seeds)
    Classifier(stack.template).check_fits(sets[0])
    if engine is None:
        engine, _ = choose_engine(stack.template, table.columns["x"][:2])
    loop = Loop(stack, engine, seeds, on_step)
    optimiser = optimiser_of(recipe.trainer)
    checkpoints: dict[int, Stack] = {}
    identity = json.dumps([recipe.digest(), table_digest(table), list(seeds), engine.name])
    first_epoch = _restore(resume, identity, stack, optimiser, loop, checkpoints) if resume else 0

    def after_epoch(done: int) -> None:
        every = recipe.trainer.checkpoint_every
        if every and done % every == 0 and done < recipe.trainer.epochs:
            checkpoints[done] = stack.clone()
        if resume and done < recipe.trainer.epochs:
            _save(resume, identity, done, stack, optimiser, loop, checkpoints)

    losses = train_loop(
        loop, table, recipe.trainer, first_epoch=first_epoch, optimiser=optimiser, after_epoch=after_epoch
    )
    if resume:
        resume.unlink(missing_ok=True)
    return Fitted(stack, engine.name, loop.seconds, loop.examples, losses, checkpoints)


def table_digest(table: Table) -> str:
    import hashlib

    h = hashlib.sha256()
    for name in sorted(table.columns):
        h.update(table.columns[name].contiguous().numpy().tobytes())
    for rows in table.rows:
        h.update(rows.tobytes())
    return h.hexdigest()


def _save(
    path: Path, identity: str, epoch: int, stack: Stack, optimiser: Optimiser, loop: Loop, checkpoints: dict[int, Stack]
) -> None:
    tensors = stack.tensors()
    tensors |= {f"optimiser.{k}": v for k, v in optimiser.state().items()}
    tensors |= {f"checkpoint.{e}.{k}": v for e, s in checkpoints.items() for k, v in s.tensors().items()}
    tensors["examples"] = loop.examples
    metadata = {"identity": identity, "epoch": str(epoch), "seconds": repr(loop.seconds)}
    write_atomically(
        path, lambda temporary: save_file({k: v.contiguous() for k, v in tensors.items()}, str(temporary), metadata)
    )


def _restore(
    path: Path, identity: str, stack: Stack, optimiser: Optimiser, loop: Loop, checkpoints: dict[int, Stack]
) -> int:
    if not path.exists():
        return 0
    with safe_open(str(path), "pt") as file:
        metadata = file.metadata() or {}
    if metadata.get("identity") != identity:
        raise RunError(f"{path} belongs to another training run", "Remove it, or use another folder")
    tensors = load_file(str(path))
    restored = Stack.from_tensors(stack.template, tensors)
    stack.flat.copy_(restored.flat)
    for name, buffer in restored.buffers.items():
        stack.buffers[name].copy_(buffer)
    optimiser.restore({k.removeprefix("optimiser."): v for k, v in tensors.items() if k.startswith("optimiser.")})
    loop.examples.copy_(tensors["examples"])
    loop.seconds = float(metadata["seconds"])
    for epoch in sorted({int(k.split(".")[1]) for k in tensors if k.startswith("checkpoint.")}):
        prefix = f"checkpoint.{epoch}."
        part = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        checkpoints[epoch] = Stack.from_tensors(stack.template, part)
    return int(metadata["epoch"])
