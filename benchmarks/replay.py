"""Replay against training again: what one deletion costs in steps (by the formula and counted) and in processor time.

Digits, a perceptron 64-128-10, one thread. Each row is a setting: passes, checkpoints every so many of the 32 steps of
a pass, one period or eight. Deletions are single random rows of the given period; each starts from the same state, and
every tenth is compared with a fresh fit, byte for byte. The last two columns are accuracy on held-out digits, replayed
training against the same recipe trained by permutations: what hashed batches and an order by arrival cost.
"""

from __future__ import annotations

import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

import expunge
from expunge.data.digits import load_digits
from expunge.data.records import Records
from expunge.data.splits import split
from expunge.methods.exact.replay import Replay
from expunge.recipe import Recipe, Trainer

PERIODS, DELETIONS = 8, 30


def setting(epochs: int, every: int, periods: int, budget: int | None = None) -> Replay:
    trainer = Trainer(epochs=epochs, batch_size=32, learning_rate=0.1)
    recipe = Recipe(factory="expunge.models.architectures:mlp", kwargs={"features": 64, "classes": 10}, trainer=trainer)
    return Replay(
        recipe=recipe,
        steps_per_epoch=32 // periods,
        checkpoint_every=every,
        storage_budget_bytes=budget,
        periods=periods,
        arrival="came",
    )


def measure(name: str, learner: Replay, train: Records, test: Records, period: int) -> None:
    table = Records(ids=train.ids, columns={**train.columns, "came": train.column("came") * learner.periods // PERIODS})
    start = time.process_time()
    state = learner.fit(table)
    fit = [time.process_time() - start]
    generator = np.random.default_rng(0)
    rows = generator.choice(np.flatnonzero(table.column("came") == period), DELETIONS, replace=False)
    steps, seconds = [], []
    for count, record_id in enumerate(table.ids[rows].tolist()):
        after, unlearned = learner.forget(state.copy(), [record_id])
        told = unlearned.trace[0]
        steps.append(told["steps"] - told["from_step"])
        seconds.append(unlearned.cost.seconds)
        if count % 10 == 0:
            start = time.process_time()
            fresh = learner.fit(table.without([record_id]))
            fit.append(time.process_time() - start)
            assert fresh.digest() == after.digest()
    course, marks = learner.course(0), learner.checkpoint_steps()
    expected = course.expected_steps(marks, period=period)
    accuracy = float((learner.predict(state, test.x) == test.y).mean())
    usual = float((expunge.train(learner.recipe, train).logits(test).argmax(1) == test.y).mean())
    faster = statistics.median(fit) / statistics.mean(seconds)
    print(
        f"{name:34} {len(marks):5} {learner.extra_bytes(state) / 1e6:6.2f} MB {course.steps:6} {expected:9.1f} "
        f"{statistics.mean(steps):9.1f} {course.steps / expected:8.2f}x {faster:8.2f}x {accuracy:9.3f} {usual:9.3f}",
        flush=True,
    )


def main() -> None:
    parts = split(load_digits(), {"train": 0.7, "test": 0.3})
    train = parts["train"]
    came = np.arange(len(train)) * PERIODS // len(train)
    train = Records(ids=train.ids, columns={**train.columns, "came": came}, classes=train.classes)
    heads = ("kept", "extra", "steps", "expected", "replayed", "formula", "time", "accuracy", "usual")
    print(f"{'setting':34} {heads[0]:>5} {heads[1]:>9} " + " ".join(f"{h:>9}" for h in heads[2:]))
    for epochs in (1, 3, 20):
        measure(f"{epochs} passes, every step", setting(epochs, 1, 1), train, parts["test"], 0)
    measure("1 pass, every 8 steps", setting(1, 8, 1), train, parts["test"], 0)
    measure("1 pass, room for two checkpoints", setting(1, 1, 1, 2 * 78_000), train, parts["test"], 0)
    for period in (0, PERIODS // 2, PERIODS - 1):
        learner = setting(20, 1, PERIODS)
        measure(f"20 passes, rows of period {period + 1} of {PERIODS}", learner, train, parts["test"], period)


if __name__ == "__main__":
    main()
