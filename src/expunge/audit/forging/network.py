"""The run of a `Replay` learner, repeated step by step from its log with the arithmetic of its fit."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from expunge.audit.forging.log import Batch, Distance, Floats, Numbers
from expunge.errors import ModelError, RunError, TamperedEvidence
from expunge.methods.exact.replay import LOG, MODEL, Replay
from expunge.methods.hashed_course import Keys
from expunge.methods.learner import Part, State, part_digest
from expunge.methods.stack_parts import (
    environment,
    fixed_threads,
    repeatable_engine,
    restore_optimiser,
    restored_stack,
    stack_part,
)
from expunge.methods.training_log import TrainingLog
from expunge.training.batches import Batch as Rows
from expunge.training.engine import engine_named, small_model_threads
from expunge.training.fit import cross_entropy, optimiser_of
from expunge.training.loop import SCHEDULES, Loop, Net
from expunge.training.stack import Stack, build

CHUNK = 256
"""Rows whose gradients are taken at once: memory is this times the number of parameters."""


class ReplayRun:
    """The run that a state of `Replay` came from.

    Args:
        learner, state: as they are. The log in the state must be that of the rows in it.

    Raises:
        RunError: the run was made in another environment, whose bytes cannot be repeated here. TamperedEvidence: the
            log is not that of these rows.
    """

    def __init__(self, learner: Replay, state: State) -> None:
        made = state.facts.get("environment")
        if made != environment():
            raise RunError(
                f"the run was made with {made} and this is {environment()}: its steps may round differently here",
                "Repeat it where it was made, or fit it again here",
            )
        self.learner, self.state = learner, state
        records = state.rows.records()
        self.ids = tuple(records.ids.tolist())
        self.keys: Keys = np.asarray(state.parts[LOG]["keys"])
        self._course = learner.course(state.seed)
        self.steps = self._course.steps
        self.passes: Numbers = np.arange(self.steps) // learner.steps_per_epoch
        self._columns = {
            "x": torch.from_numpy(np.array(records.x, np.float32)),
            "y": torch.from_numpy(np.array(records.y, np.int64)),
        }
        self._periods = (
            np.zeros(len(records), np.int64)
            if learner.arrival is None
            else np.asarray(records.column(learner.arrival), np.int64)
        )
        self._template = build(learner.recipe, 0)
        self._engine = repeatable_engine(self._template) if learner.engine == "auto" else engine_named(learner.engine)
        self._schedule = SCHEDULES[learner.recipe.trainer.schedule]
        self._block = lru_cache(maxsize=2)(lambda number: self._course.block(number, self.keys, self._periods))
        self._check_log()

    def _check_log(self) -> None:
        log, mine = self.state.parts[LOG], TrainingLog(self.steps, self.state.seed)
        for step in range(self.steps):
            rows = self._drawn(step)
            mine.write(step, self.keys[rows], len(rows) >= self.learner.smallest_batch)
        if any(not np.array_equal(getattr(mine, name), log[name]) for name in ("ids", "rows", "updates", "seeds")):
            raise TamperedEvidence("the log is not that of the rows beside it", "Restore the folder from a copy")

    def _drawn(self, step: int) -> Numbers:
        number, place = divmod(step, self.learner.steps_per_epoch)
        return self._block(number)[place]

    def batch(self, step: int) -> Numbers:
        rows = self._drawn(step)
        return rows if len(rows) >= self.learner.smallest_batch else rows[:0]

    def start(self) -> Part:
        return stack_part(
            Stack.initialised(self.learner.recipe, [self.state.seed]), optimiser_of(self.learner.recipe.trainer)
        )

    def advance(self, step: int, state: Part, batch: Batch) -> Part:
        trainer = self.learner.recipe.trainer
        stack, optimiser = restored_stack(self._template, state), optimiser_of(trainer)
        restore_optimiser(optimiser, state)
        rows = torch.from_numpy(np.asarray(batch.rows, np.int64))[None]
        weights = torch.ones(1, rows.shape[1])
        if batch.weights is not None:
            weights = torch.from_numpy(np.asarray(batch.weights, np.float32))[None]
        used = Rows({name: column[rows] for name, column in self._columns.items()}, rows, weights)

        def objective(net: Net, drawn: Rows) -> Tensor:
            losses = cross_entropy(net(drawn), drawn.y, trainer.label_smoothing)
            return drawn.mean(losses) if batch.weights is None else (losses * drawn.weight).sum(1) / batch.size

        done = torch.tensor([step])
        factor = 1.0 if self._schedule is None else self._schedule(done / torch.tensor([self.steps]))
        with fixed_threads(self.learner.threads), small_model_threads(self._engine):
            loop = Loop(stack, self._engine, [self.state.seed])
            _, gradient = loop.gradient(objective, [used], active=torch.ones(1, dtype=torch.bool), done=done)
            optimiser.step(stack.flat, gradient, factor=factor)
        return stack_part(stack, optimiser)

    def gradients(self, step: int, state: Part, rows: Numbers) -> Floats:
        """As in `Run`; dropout off and batch statistics as they stand, since a row by itself has none.

        Raises:
            ModelError: `torch.func` cannot take the network's gradients row by row.
        """
        stack = restored_stack(self._template, state)
        module = self._template.eval()
        parameters = {name: values[0] for name, values in stack.views().items()}
        buffers = {name: values[0] for name, values in stack.buffers.items()}
        smoothing = self.learner.recipe.trainer.label_smoothing

        def loss(values: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            logits = functional_call(module, {**values, **buffers}, (x[None],))
            return cross_entropy(logits[None], y[None, None], smoothing).sum()

        parts = []
        with fixed_threads(self.learner.threads):
            for chunk in torch.from_numpy(np.asarray(rows, np.int64)).split(CHUNK):
                x, y = self._columns["x"][chunk], self._columns["y"][chunk]
                try:
                    found = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, x, y)
                except RuntimeError as error:
                    raise ModelError(
                        f"the network has no gradient row by row ({str(error).splitlines()[0]})",
                        "Forge a run of a network that torch.func can stack",
                    ) from error
                parts.append(torch.cat([found[name].flatten(1) for name in stack.layout.spans], 1).numpy())
        return np.concatenate(parts).astype(np.float64)

    def distance(self, one: Part, other: Part) -> Distance:
        gaps = {
            name: float(np.linalg.norm(np.asarray(one[name], np.float64) - np.asarray(other[name], np.float64)))
            for name in one
        }
        weights = gaps.pop("flat")
        return Distance(weights, float(np.linalg.norm(list(gaps.values()))))

    def finish(self, state: Any) -> None:
        model = self.state.parts[MODEL]
        if part_digest({name: state[name] for name in model}) != part_digest(model):
            raise TamperedEvidence(
                "the steps of the log do not end in the model beside it", "Restore the folder, or fit it again"
            )
