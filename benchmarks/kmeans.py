"""k-means that forgets: a stream of deletions, forced retrainings included, against fitting anew after each of them.

Both learners and the plain way run in one process, one thread, on the same rows. A deletion is timed by the processor
seconds of `forget`; fitting anew is timed on the same records in the same run. Every stream ends with a fresh fit, and
the bytes must be equal. The loss is compared with scikit-learn's KMeans (k-means++, one start, at most ten iterations).

    python benchmarks/kmeans.py [--rows 1000000] [--deletions 100]
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


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--deletions", type=int, default=100)
    given = arguments.parse_args()
    tables = {
        "digits, 1797 x 64": digits(),
        f"{given.rows // 10} Gaussian rows x 10": gaussians(given.rows // 10, 10, 0.1),
        f"{given.rows} Gaussian rows x 10": gaussians(given.rows, 10, 0.1),
        f"{given.rows} Gaussian rows x 50": gaussians(given.rows, 50, 0.2),
    }
    failed = False
    for title, records in tables.items():
        plain = KMeans(CLUSTERS, n_init=1, max_iter=10, random_state=0, algorithm="lloyd")
        start = time.process_time()
        plain.fit(records.x)
        seconds, reference = time.process_time() - start, loss(records.x, plain.cluster_centers_)
        print(f"{title}: scikit-learn's KMeans {seconds:.2f} s, loss {reference:.4f}")
        for learner in learners():
            start = time.process_time()
            state = learner.fit(records, seed=1)
            fit = time.process_time() - start
            ratio = loss(records.x, model(learner, state)) / reference
            order = np.random.default_rng(1).permutation(len(records))[: given.deletions]
            events: Counter[str] = Counter()
            spent = []
            for record_id in records.ids[order].tolist():
                start = time.process_time()
                state, unlearned = learner.forget(state, [record_id])
                spent.append(time.process_time() - start)
                events[str(unlearned.trace[0]["stage"])] += 1
                if sum(spent) > 60:
                    break
            left = state.rows.records()
            start = time.process_time()
            fresh = learner.fit(left, seed=1)
            again = time.process_time() - start
            equal = fresh.digest() == state.digest()
            failed |= not equal
            setting = f"epsilon={learner.epsilon}" if isinstance(learner, QuantisedKMeans) else f"{learner.widths}"
            print(
                f"  {learner.name} {setting}: fit {fit:.2f} s, loss ratio {ratio:.3f}; {len(spent)} deletions "
                f"{dict(events)}, mean {np.mean(spent) * 1e3:.2f} ms, median {np.median(spent) * 1e3:.2f} ms; "
                f"a refit takes {again:.2f} s: {again / np.mean(spent):,.0f}x; equal bytes: {equal}",
                flush=True,
            )
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
