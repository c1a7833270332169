"""Deterministic replay: one model, a log of its training, and checkpoints from which the rest is trained again.

Abdullah X, *Unlearning at Scale: Implementing the Right to be Forgotten in Large Language Models*, 2508.12220. Training
is a deterministic program θ_T = F(θ_0, B_0, …, B_{T−1}) of its batches B_t, seeds and learning rates, all of which are
logged. To forget U, load the last checkpoint t ≤ min{s : B_s ∩ U ≠ ∅} and run

    (θ, v)_{s+1} = step((θ, v)_s, ∇ mean_{B_s ∖ U} ℓ, η_s)    for s = t, …, T−1    (v: the optimiser's state),

with a step whose batch has become empty left out and its learning rate η_s unused. What comes out has the bytes of a
fit that never saw U, because a row's batch is a function of its own id (`expunge.methods.hashed_course`).

This differs from the authors' code in:
    1. Batches are drawn by a hash of the id. The paper filters the batches that were drawn for all the data; that
       equals training on the rest with *those* batches, and the log then tells where rows are missing. Here the log
       after `forget` is the log of a fresh fit.
    2. There is no gradient accumulation, so the log has no accumulation boundary.
    3. Of its fast paths, only checkpoints are here: no ring of per-step deltas, no adapters, no curvature-guided step.
    4. Checkpoints stand only where a row can still be unseen, in the first pass.
    5. Another version of torch or another processor is noticed, and everything is trained again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from expunge.data.records import Array, Records
from expunge.errors import DataError, ModelError, RequestError
from expunge.methods.hashed_course import HashedCourse, Keys, Numbers, row_keys
from expunge.methods.learner import Job, Learned, Learner, Part, State
from expunge.methods.stack_parts import (
    checkpoint_bytes,
    environment,
    fixed_threads,
    part_logits,
    repeatable_engine,
    restore_optimiser,
    restored_stack,
    stack_part,
)
from expunge.methods.training_log import TrainingLog
from expunge.models.classifier import Classifier
from expunge.recipe import Recipe
from expunge.training.batched_mlp import mlp_layers
from expunge.training.batches import Batch, Table
from expunge.training.engine import Engine, engine_named
from expunge.training.fit import cross_entropy, optimiser_of
from expunge.training.loop import SCHEDULES, Loop, Net, Stream
from expunge.training.stack import Stack, build

MODEL, LOG = "model", "log"


@dataclass(frozen=True)
class StepTable(Table):
    """A table whose every "epoch" is one step of the run, so that the one training loop can begin at any step."""

    batch: Callable[[int], Numbers]
    smallest: int

    def steps(self, batch_size: int) -> list[int]:
        return [1]

    def epoch(self, batch_size: int, seeds: Sequence[int], purpose: str, epoch: int) -> Iterator[Batch]:
        rows = self.batch(epoch)
        if len(rows) >= self.smallest:
            yield self.gather(torch.from_numpy(rows)[None], torch.ones(1, len(rows)))


@dataclass(frozen=True, kw_only=True)
class Replay(Learner):
    """A classifier that is trained once and replayed from before the forgotten rows.

    Args:
        recipe: the network and its training. ``trainer.batch_size`` and ``trainer.checkpoint_every`` are not used.
        steps_per_epoch: batches a pass; fixed, so that a batch does not depend on how many rows there are.
        checkpoint_every: steps between checkpoints. storage_budget_bytes: most that all checkpoints may take together;
            fewer are kept, evenly spread, where they would take more. None: no limit.
        arrival: an integer column that says in which period a row came in, 0 … `periods` − 1. All passes over a period
            come before those over the next, so that recent rows are cheap to forget. None: one period.
        smallest_batch: steps with fewer rows are left out; 2 where the network keeps batch statistics.
        engine: ``batched`` (plain perceptrons), ``loop`` (everything), ``auto`` (the first that fits).
        threads: of the processor; a part of the run, since sums are added in an order that depends on it.
    """

    name: ClassVar[str] = "replay"
    summary: ClassVar[str] = "one model, its training log and checkpoints: replays what came after the rows"
    paper: ClassVar[str] = "2508.12220"
    needs: ClassVar[tuple[str, ...]] = ("recipe",)

    recipe: Recipe
    steps_per_epoch: int = 32
    checkpoint_every: int = 4
    storage_budget_bytes: int | None = None
    arrival: str | None = None
    periods: int = 1
    smallest_batch: int = 1
    engine: Literal["auto", "batched", "loop"] = "auto"
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("steps_per_epoch", "checkpoint_every", "periods", "smallest_batch", "threads"):
            value = getattr(self, name)
            if not isinstance(value, int) or not 1 <= value < 2**31:
                raise RequestError(f"replay.{name} must be a whole number from 1, got {value!r}", "Correct it")
        if self.storage_budget_bytes is not None and self.storage_budget_bytes < 0:
            raise RequestError(
                f"replay.storage_budget_bytes must be at least 0, got {self.storage_budget_bytes}",
                "Give a number of bytes, or None for no limit",
            )
        if self.engine not in ("auto", "batched", "loop"):
            raise RequestError(
                f"replay.engine must be auto, batched or loop, got {self.engine!r}",
                "The third engine, vmap, does not promise the same bytes twice",
            )
        if self.periods > 1 and self.arrival is None:
            raise RequestError(
                f"replay has {self.periods} periods and no column that tells them apart", "Name it in `arrival`"
            )

    # --- the contract -------------------------------------------------------------------------------------------------

    def check(self, records: Records) -> None:
        super().check(records)
        if self.arrival is not None:
            arrival = records.column(self.arrival)
            whole = arrival.ndim == 1 and np.issubdtype(arrival.dtype, np.integer)
            if not whole or arrival.min() < 0 or arrival.max() >= self.periods:
                raise DataError(
                    f"column {self.arrival!r} must hold period numbers from 0 to {self.periods - 1}",
                    "Number the periods in which rows came in, and set `periods` to how many there will ever be",
                )

    def learn(self, records: Records, *, seed: int, job: Job) -> Learned:
        template = build(self.recipe, 0)
        Classifier(template).check_fits(records)
        self._check_network(template)
        keys = row_keys(records.ids.tolist(), seed)
        everything = np.arange(len(records))
        return self._run(records.columns, everything, keys, seed, 0, {}, job, first_seen=0)

    def remove(self, state: State, ids: tuple[str, ...], *, job: Job) -> Learned:
        positions = np.flatnonzero(state.rows.alive)
        leaves = np.zeros(len(state.rows.alive), bool)
        leaves[state.rows.at(ids)] = True
        gone = leaves[positions]
        columns = {name: state.rows.column(name) for name in ("x", "y", self.arrival) if name is not None}
        keys = np.asarray(state.parts[LOG]["keys"])
        course = self.course(state.seed)
        first = int(course.first_steps(keys[gone], self._period(columns, positions[gone])).min())
        start = 0
        if state.facts.get("environment") == environment():
            start = max((step for step in checkpoints(state.parts) if step <= first), default=0)
        return self._run(columns, positions[~gone], keys[~gone], state.seed, start, state.parts, job, first_seen=first)

    def predict(self, state: State, x: Array) -> Array:
        return np.asarray(self.scores(state, x).argmax(1))

    def scores(self, state: State, x: Array) -> Array:
        """(n, classes) logits."""
        return part_logits(self.recipe, state.parts[MODEL], x)

    def extra_bytes(self, state: State) -> int:
        return state.stored_bytes - sum(array.nbytes for array in state.parts[MODEL].values())

    # --- the run ------------------------------------------------------------------------------------------------------

    def course(self, seed: int) -> HashedCourse:
        """Which step sees which row, and what a deletion is expected to cost."""
        return HashedCourse(
            seed=seed,
            epochs=self.recipe.trainer.epochs,
            steps_per_epoch=self.steps_per_epoch,
            periods=self.periods,
        )

    def checkpoint_steps(self) -> list[int]:
        """Before which steps the state is kept; a function of the hyper-parameters alone."""
        course, most = self.course(0), None
        if self.storage_budget_bytes is not None:
            most = self.storage_budget_bytes // checkpoint_bytes(self.recipe)
        return course.checkpoint_steps(self.checkpoint_every, most)

    def _run(
        self,
        columns: Mapping[str, Array],
        positions: Numbers,
        keys: Keys,
        seed: int,
        start: int,
        parts: Mapping[str, Part],
        job: Job,
        *,
        first_seen: int,
    ) -> Learned:
        """Train on the rows at `positions` of `columns`, from before step `start`, whose state is in `parts`."""
        course, trainer = self.course(seed), self.recipe.trainer
        stack, optimiser = Stack.initialised(self.recipe, [seed]), optimiser_of(trainer)
        if start:
            saved = parts[part_name(start)]
            stack = restored_stack(stack.template, saved)
            restore_optimiser(optimiser, saved)
        kept = {name: parts[name] for step, name in checkpoints(parts).items() if step <= start}
        wanted, periods = set(self.checkpoint_steps()), self._period(columns, positions)
        log = TrainingLog(course.steps, seed, parts.get(LOG), start)

        @lru_cache(maxsize=1)
        def block(number: int) -> list[Numbers]:
            return course.block(number, keys, periods)

        def batch(step: int) -> Numbers:
            number, place = divmod(step, self.steps_per_epoch)
            rows = block(number)[place]
            log.write(step, keys[rows], len(rows) >= self.smallest_batch)
            return positions[rows]

        table = StepTable(
            {"x": _shared(columns["x"], np.float32), "y": _shared(columns["y"], np.int64)},
            (positions,),
            np.empty(0),
            batch,
            self.smallest_batch,
        )

        def objective(net: Net, batch: Batch) -> Tensor:
            return batch.mean(cross_entropy(net(batch), batch.y, trainer.label_smoothing))

        def after_step(done: int) -> None:
            if done in wanted:
                kept[part_name(done)] = stack_part(stack, optimiser)
            if job.progress:
                job.progress("replay" if parts else "training", done - start, course.steps - start)

        loop = Loop(stack, self._engine(stack.template), [seed])
        schedule = SCHEDULES[trainer.schedule]
        with fixed_threads(self.threads):
            loop.run(
                objective,
                Stream(table=table, batch_size=1, name="train"),
                epochs=course.steps,
                optimiser=optimiser,
                schedule=schedule,
                first_epoch=start,
                purpose="train",
                after_epoch=after_step,
            )
        factors = torch.ones(course.steps) if schedule is None else schedule(torch.arange(course.steps) / course.steps)
        rates = trainer.learning_rate * factors.numpy().astype(np.float64)
        return Learned(
            parts={MODEL: stack_part(stack), LOG: {**log.part(rates), "keys": keys}, **kept},
            facts={"environment": dict(environment())},
            examples=int(loop.examples.sum()),
            trace=({"first_seen": first_seen, "from_step": start, "steps": course.steps},),
        )

    def _period(self, columns: Mapping[str, Array], positions: Numbers) -> Numbers:
        if self.arrival is None:
            return np.zeros(len(positions), np.int64)
        return np.asarray(columns[self.arrival][positions], np.int64)

    def _engine(self, template: nn.Module) -> Engine:
        return repeatable_engine(template) if self.engine == "auto" else engine_named(self.engine)

    def _check_network(self, template: nn.Module) -> None:
        if self.engine == "batched" and mlp_layers(template) is None:
            raise ModelError("the batched engine runs plain perceptrons only", 'Choose engine="auto" or "loop"')
        statistics = any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in template.modules())
        if statistics and self.smallest_batch < 2:
            raise RequestError(
                "the network keeps batch statistics, and a batch of one row has none", "Set smallest_batch=2"
            )


def part_name(step: int) -> str:
    return f"checkpoint.{step:06d}"


def checkpoints(parts: Mapping[str, Part]) -> dict[int, str]:
    """Step -> part that holds the state before it."""
    return {int(name.split(".")[1]): name for name in sorted(parts) if name.startswith("checkpoint.")}


def _shared(column: Array, kind: Any) -> Tensor:
    column = np.asarray(column, kind)
    return torch.from_numpy(column if column.flags.writeable else column.copy())
