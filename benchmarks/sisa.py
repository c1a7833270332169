"""Forgetting from SISA against retraining: the worst slice of each shard, processor time of one thread, equal bytes.

A record of the first slice makes its whole shard train again: the dearest request there is. The alternative is one
model trained on everything that remains, with as many passes, on the same engine.
"""

from __future__ import annotations

import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from expunge.data.digits import load_digits
from expunge.methods.exact.sisa import Sisa
from expunge.methods.shards import exact_engine
from expunge.recipe import Recipe, Trainer
from expunge.training.fit import fit

SHARDS, SLICES, REPEATS = 8, 4, 8
BAR = 7.0


def main() -> None:
    torch.set_num_threads(1)
    records = load_digits()
    recipe = Recipe(
        factory="expunge.models.architectures:mlp",
        kwargs={"features": [1, 8, 8], "classes": 10},
        trainer=Trainer(epochs=10, batch_size=8),
    )
    learner = Sisa(recipe=recipe, shards=SHARDS, slices=SLICES)
    state = learner.fit(records)
    where = learner.assign(records, 0)
    for name, wanted in (("first slice (worst)", 0), ("last slice", SLICES - 1)):
        ids = [str(records.ids[(where[:, 0] == s) & (where[:, 1] == wanted)][0]) for s in range(SHARDS)][:REPEATS]
        forgetting, retraining = [], []
        for record in ids:
            copy = state.copy()
            began = time.process_time()
            after, _ = learner.forget(copy, [record])
            forgetting.append(time.process_time() - began)
            left = records.without([record])
            began = time.process_time()
            fit(recipe, left, [0], engine=exact_engine(recipe))
            retraining.append(time.process_time() - began)
        assert after.digest() == learner.fit(left).digest(), "the bytes differ from those of a fresh run"
        ratio = float(np.median(retraining) / np.median(forgetting))
        note = f" (bar {BAR:g}x: {'met' if ratio >= BAR else 'MISSED'})" if wanted == 0 else ""
        print(
            f"S={SHARDS}, R={SLICES}, {name}: {1e3 * np.median(forgetting):.1f} ms against "
            f"{1e3 * np.median(retraining):.1f} ms, {ratio:.1f}x{note}"
        )


if __name__ == "__main__":
    main()
