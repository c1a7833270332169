"""Training shards slice by slice, many shards at once, from wherever each one must start.

A shard is trained on its first slice, then on its first two, and so on; before each next slice a checkpoint may be
kept. A shard's bytes are a function of its own records, the recipe and its seed: not of the other shards in the stack,
of how many there are, of the number of processes or of threads.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file

from expunge.data.records import Records
from expunge.data.store import read_records, save_records
from expunge.methods.stack_parts import fixed_threads
from expunge.models.classifier import Classifier
from expunge.recipe import Recipe
from expunge.training.batched_mlp import mlp_layers
from expunge.training.batches import Table
from expunge.training.chunks import ChunkedJob, save_chunk
from expunge.training.engine import ENGINES, Engine
from expunge.training.files import read_json, write_atomically
from expunge.training.fit import optimiser_of, train_loop
from expunge.training.loop import Loop
from expunge.training.population import STACK
from expunge.training.private import PrivateLoop
from expunge.training.seeds import derive
from expunge.training.stack import Stack, build

FINAL = 0  # the key of the trained model among a shard's checkpoints


@dataclass(frozen=True, kw_only=True)
class ShardWork:
    """One shard to train.

    Args:
        shard: its number. records: all of its records. slices: (n,) slice number of each.
        start: number of slices that `stack` has been trained on; 0 starts from fresh weights.
        stack: a stack of one, the checkpoint to start from; None at 0.
    """

    shard: int
    records: Records
    slices: npt.NDArray[np.int64]
    start: int = 0
    stack: Stack | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How every shard is trained: part of the hyper-parameters, the same for all.

    Args:
        slices: how many. kept: after how many slices a checkpoint is kept (none at 0 and at the end).
        epochs: passes over the slices so far at each of them. seed: of all shards; each derives its own.
        noise, max_grad_norm, key: of training under noise (`expunge.training.private`); 0 is plain training.
    """

    recipe: Recipe
    slices: int
    kept: tuple[int, ...]
    epochs: float
    seed: int
    noise: float = 0.0
    max_grad_norm: float = 1.0
    key: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe.as_dict(),
            "slices": self.slices,
            "kept": list(self.kept),
            "epochs": self.epochs,
            "seed": self.seed,
            "noise": self.noise,
            "max_grad_norm": self.max_grad_norm,
            "key": self.key,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Plan:
        return cls(
            recipe=Recipe.from_dict(value["recipe"]),
            slices=value["slices"],
            kept=tuple(value["kept"]),
            epochs=value["epochs"],
            seed=value["seed"],
            noise=value["noise"],
            max_grad_norm=value["max_grad_norm"],
            key=value["key"],
        )


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What training made of one shard: number of slices (`FINAL`: all) -> a stack of one; and the example gradients."""

    checkpoints: Mapping[int, Stack]
    examples: int


OnShard = Callable[[int], None]


def exact_engine(recipe: Recipe) -> Engine:
    """The engine whose bytes do not depend on who else is in the stack: batched for perceptrons, else one by one."""
    return ENGINES["batched" if mlp_layers(build(recipe, 0)) is not None else "loop"]


def planned_examples(plan: Plan, slices: npt.NDArray[np.int64], start: int) -> int:
    """Example gradients of training a shard from its `start`-th checkpoint, counted without training.

    Args:
        slices: (n,) slice number of each of its records.
    """
    total = 0
    for stage in range(start, plan.slices):
        rows, batch = int((slices <= stage).sum()), plan.recipe.trainer.batch_size
        if rows:
            steps = -(-rows // batch)
            passes, rest = divmod(math.ceil(round(steps * plan.epochs, 9)), steps)
            total += passes * rows + rest * batch
    return total


def train_shards(plan: Plan, work: Sequence[ShardWork], on_done: OnShard | None = None) -> dict[int, Trained]:
    """Train all of `work` in this process, `STACK` shards at a time.

    Raises:
        NonFiniteLoss, ModelError, DataError.
    """
    done: dict[int, Trained] = {}
    with fixed_threads(1):
        for first in range(0, len(work), STACK):
            part = work[first : first + STACK]
            done |= _train_stack(plan, part)
            if on_done:
                on_done(len(part))
    return done


def shard_seed(seed: int, shard: int) -> int:
    return derive(seed, "shard", shard)


def _train_stack(plan: Plan, work: Sequence[ShardWork]) -> dict[int, Trained]:
    engine = exact_engine(plan.recipe)
    now = {w.shard: w.stack or Stack.initialised(plan.recipe, [shard_seed(plan.seed, w.shard)]) for w in work}
    kept: dict[int, dict[int, Stack]] = {w.shard: {} for w in work}
    examples = dict.fromkeys(now, 0)
    for stage in range(plan.slices):
        due = [(w, w.records.take(w.slices <= stage)) for w in work if w.start <= stage]
        due = [(w, records) for w, records in due if len(records)]
        if due:
            stack = Stack.cat([now[w.shard] for w, _ in due])
            Classifier(stack.template).check_fits(due[0][1])
            purpose = "train" if stage == 0 else f"train/slice.{stage}"
            seeds = [shard_seed(plan.seed, w.shard) for w, _ in due]
            loop = _loop(plan, stack, engine, seeds, purpose, [records for _, records in due])
            train_loop(
                loop,
                Table.of([records for _, records in due]),
                plan.recipe.trainer,
                optimiser=optimiser_of(plan.recipe.trainer),
                epochs=plan.epochs,
                purpose=purpose,
            )
            for k, (w, _) in enumerate(due):
                now[w.shard] = stack.take([k])
                examples[w.shard] += int(loop.examples[k])
        if stage + 1 in plan.kept:
            for w in work:
                if w.start <= stage:
                    kept[w.shard][stage + 1] = now[w.shard]
    return {s: Trained(checkpoints={**kept[s], FINAL: now[s]}, examples=examples[s]) for s in now}


def _loop(
    plan: Plan, stack: Stack, engine: Engine, seeds: Sequence[int], purpose: str, sets: Sequence[Records]
) -> Loop:
    if not plan.noise:
        return Loop(stack, engine, seeds)
    # Noise that stayed the same when a record left would vanish from the difference of the models before and after.
    return PrivateLoop(
        stack,
        engine,
        seeds,
        noise_multiplier=plan.noise,
        max_grad_norm=plan.max_grad_norm,
        key=plan.key.encode(),
        purpose=purpose,
        salts=[Records(ids=r.ids, columns={"x": r.x, "y": r.y}).digest().encode() for r in sets],
    )


# --- over processes ---------------------------------------------------------------------------------------------------


def train_shards_in_pieces(
    plan: Plan, work: Sequence[ShardWork], folder: Path, workers: Any, on_done: OnShard | None = None
) -> dict[int, Trained]:
    """The same through files in `folder`: over processes, and resumed if they are there already.

    Raises:
        RunError: a worker died, or `folder` holds other work. What a worker raised.
    """
    digest = hashlib.sha256(json.dumps([w.records.digest() for w in work]).encode())
    for w in work:
        digest.update(w.slices.tobytes() + (w.stack.flat.contiguous().numpy().tobytes() if w.stack else b""))
    specification = {
        **plan.as_dict(),
        "work": [{"shard": w.shard, "start": w.start, "records": len(w.records)} for w in work],
        "inputs": digest.hexdigest(),
    }
    # Shards, not rows: the pieces are what may be lost when a process is killed.
    size = max(1, min(STACK, -(-len(work) // max(getattr(workers, "count", 1), 1))))
    folder = folder / digest.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    for w in work:
        path = folder / f"shard-{w.shard:05d}.safetensors"
        if not path.exists():
            columns = {"x": w.records.x, "y": w.records.y, "slice": w.slices}
            records = Records(ids=w.records.ids, columns=columns, classes=w.records.classes)
            write_atomically(path, lambda temporary, records=records: save_records(records, temporary))  # type: ignore[misc]
        if w.stack:
            start = {k: v.contiguous() for k, v in w.stack.tensors().items()}
            write_atomically(
                folder / f"start-{w.shard:05d}.safetensors",
                lambda temporary, start=start: save_file(start, str(temporary)),  # type: ignore[misc]
            )
    job = ChunkedJob(folder, "expunge.methods.shards:train_chunk", specification, len(work), size)
    finished = 0

    def progress(_what: str, done: int, _total: int) -> None:
        nonlocal finished
        if on_done:
            on_done(done - finished)
        finished = done

    job.run(workers, progress)
    template = build(plan.recipe, 0)
    done: dict[int, Trained] = {}
    for number in job.chunks:
        tensors = load_file(str(job.path(number)))
        for w in work[number * size : (number + 1) * size]:
            prefix = f"{w.shard}."
            mine = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            stages = sorted({int(k.split(".")[0]) for k in mine if k != "examples"})
            stacks = {
                s: Stack.from_tensors(
                    template, {k.removeprefix(f"{s}."): v for k, v in mine.items() if k.startswith(f"{s}.")}
                )
                for s in stages
            }
            done[w.shard] = Trained(checkpoints=stacks, examples=int(mine["examples"]))
    return done


@lru_cache(maxsize=1)
def _template(recipe: str) -> torch.nn.Module:
    return build(Recipe.from_dict(json.loads(recipe)), 0)


def train_chunk(folder: Path, number: int) -> None:
    """The worker's part of `train_shards_in_pieces`."""
    job = read_json(folder / "job.json")
    plan = Plan.from_dict(job)
    template = _template(json.dumps(job["recipe"], sort_keys=True))
    work = []
    for told in job["work"][number * job["chunk"] : (number + 1) * job["chunk"]]:
        records = read_records(folder / f"shard-{told['shard']:05d}.safetensors")
        start = folder / f"start-{told['shard']:05d}.safetensors"
        stack = Stack.from_tensors(template, load_file(str(start))) if told["start"] else None
        work.append(
            ShardWork(
                shard=told["shard"],
                records=records,
                slices=records.column("slice").astype(np.int64),
                start=told["start"],
                stack=stack,
            )
        )
    tensors: dict[str, torch.Tensor] = {}
    for shard, trained in train_shards(plan, work).items():
        for stage, made in trained.checkpoints.items():
            tensors |= {f"{shard}.{stage}.{k}": v for k, v in made.tensors().items()}
        tensors[f"{shard}.examples"] = torch.tensor(trained.examples)
    save_chunk(folder, number, tensors)
