"""k-means that forgets: streams of deletions, forced retrainings included, against fitting anew after each of them.

Both learners run in one process, one thread, on the same rows, with several seeds. A deletion is timed by the processor
seconds of `forget`, a refit by those of `fit` in the same run. Every stream ends with a fresh fit, and the bytes must
be equal. Losses are means over ten seeds, compared with scikit-learn's KMeans and with Lloyd from the same seeds.

    python benchmarks/kmeans.py [--rows 1000000] [--deletions 300] [--seeds 3]
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from sklearn.cluster import KMeans

from expunge.data.digits import load_digits
from expunge.data.records import Array, Records
from expunge.methods.exact.dckmeans import ROOT, DivideAndConquerKMeans
from expunge.methods.exact.qkmeans import QuantisedKMeans
from expunge.methods.kmeans import nearest
from expunge.methods.learner import Learner, State

CLUSTERS = 10
LONGEST = 10.0  # seconds of one stream


def gaussians(rows: int, features: int, spread: float) -> Records:
    """A mixture of ten Gaussians with centres in the unit cube; standard deviation `spread` a feature."""
    rng = np.random.default_rng(features)
    centres = rng.random((CLUSTERS, features))
    x = (centres[rng.integers(0, CLUSTERS, rows)] + rng.normal(0, spread, (rows, features))).astype(np.float32)
    return Records(ids=np.array([f"row-{i}" for i in range(rows)]), columns={"x": x})


def digits() -> Records:
    table = load_digits()
    return Records(ids=table.ids, columns={"x": table.x.reshape(len(table), -1)})


def loss(x: Array, centres: Array) -> float:
    """Mean squared distance to the nearest centre."""
    own = centres[nearest(x, centres)]
    steps = range(0, len(x), 65_536)
    return sum(float(((x[i : i + 65_536] - own[i : i + 65_536]) ** 2).sum()) for i in steps) / len(x)


def model(learner: Learner, state: State) -> Array:
    return state.parts[ROOT]["centres"] if learner.name == "dckmeans" else state.parts["model"]["centres"]


def learners() -> Iterator[Learner]:
    for epsilon in (0.01, 0.05, 0.2):
        yield QuantisedKMeans(clusters=CLUSTERS, epsilon=epsilon)
    for leaves in (16, 128):
        yield DivideAndConquerKMeans(clusters=CLUSTERS, widths=(1, leaves))


def scikit(x: Array, seed: int) -> float:
    """Loss after at most ten iterations from one start, with scikit-learn's k-means++ (the best of 2 + ln k a draw)."""
    return loss(x, KMeans(CLUSTERS, n_init=1, max_iter=10, random_state=seed).fit(x).cluster_centers_)


def stream(learner: Learner, records: Records, deletions: int, seed: int) -> tuple[list[float], Counter[str], bool]:
    """Seconds of each deletion in a row, what they did, and whether the state ends as that of a fresh fit."""
    state = learner.fit(records, seed=seed)
    events: Counter[str] = Counter()
    spent: list[float] = []
    for record_id in records.ids[np.random.default_rng(seed).permutation(len(records))[:deletions]].tolist():
        start = time.process_time()
        state, unlearned = learner.forget(state, [record_id])
        spent.append(time.process_time() - start)
        events[str(unlearned.trace[0]["stage"])] += 1
        if sum(spent) > LONGEST:
            break
    return spent, events, learner.fit(state.rows.records(), seed=seed).digest() == state.digest()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--deletions", type=int, default=300)
    arguments.add_argument("--seeds", type=int, default=3)
    given = arguments.parse_args()
    tables = {
        "digits, 1,797 x 64": digits(),
        f"{given.rows // 10:,} x 10": gaussians(given.rows // 10, 10, 0.1),
        f"{given.rows:,} x 10": gaussians(given.rows, 10, 0.1),
        f"{given.rows:,} x 50": gaussians(given.rows, 50, 0.2),
    }
    failed = False
    for title, records in tables.items():
        repeats = 10 if len(records) <= 200_000 else 0
        best = [scikit(records.x, seed) for seed in range(repeats)]
        lloyd = DivideAndConquerKMeans(clusters=CLUSTERS, widths=(1,))  # the same seeds as the quantised ones
        plain = [loss(records.x, model(lloyd, lloyd.fit(records, seed=seed))) for seed in range(repeats)]
        if repeats:
            print(
                f"{title}: loss of scikit-learn {np.mean(best):.4f}, of Lloyd from plain k-means++ {np.mean(plain):.4f}"
            )
        else:
            print(title)
        for learner in learners():
            fits, losses = [], []
            for seed in range(max(repeats, 1)):
                start = time.process_time()
                state = learner.fit(records, seed=seed)
                fits.append(time.process_time() - start)
                losses.append(loss(records.x, model(learner, state)))
            spent: list[float] = []
            events: Counter[str] = Counter()
            equal = True
            for seed in range(given.seeds):
                seconds, seen, same = stream(learner, records, given.deletions, seed)
                spent, events, equal = spent + seconds, events + seen, equal and same
            failed |= not equal
            setting = f"epsilon={learner.epsilon}" if isinstance(learner, QuantisedKMeans) else f"{learner.widths}"
            compared = ""
            if repeats:
                compared = f" ({np.mean(losses) / np.mean(best):.2f}, {np.mean(losses) / np.mean(plain):.2f})"
            print(
                f"  {learner.name} {setting}: loss {np.mean(losses):.4f}{compared}; fit {np.mean(fits):.3f} s; "
                f"{len(spent)} deletions {dict(events)}, mean {np.mean(spent) * 1e3:.2f} ms, median "
                f"{np.median(spent) * 1e3:.2f} ms: {np.mean(fits) / np.mean(spent):,.0f}x a refit; "
                f"equal bytes: {equal}",
                flush=True,
            )
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
