"""Deletions from DaRE forests against growing them anew, and their accuracy beside scikit-learn's random forest.

A deletion is the whole of `forget`, of a record chosen at random; a refit is `learn` on what is there at the start.
Mean processor seconds, one thread. After the deletions every array is compared with a fresh fit's.
"""

from __future__ import annotations

import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, make_classification
from sklearn.ensemble import RandomForestClassifier

from expunge.data.records import Array, Records
from expunge.methods.exact.dare import DareForest
from expunge.methods.learner import Job

TREES, DELETIONS = 10, 40
ACCURACY_TREES, SPLITS = 100, 3


def deletions(name: str, learner: DareForest, x: Array, y: Array, test: tuple[Array, Array]) -> bool:
    ids = np.array([f"r{k}" for k in range(len(x))])
    records = Records(ids=ids, columns={"x": x, "y": y})
    state = learner.fit(records)
    start = time.process_time()
    learner.learn(records, seed=0, job=Job())
    refit = time.process_time() - start
    gone = np.random.default_rng(1).permutation(ids)[:DELETIONS].tolist()
    seconds, regrown = [], 0
    for record in gone:
        state, outcome = learner.forget(state, [record])
        seconds.append(outcome.cost.seconds)
        regrown += len(outcome.trace)
    equal = state.digest() == learner.fit(records.without(gone)).digest()
    mean, median = np.mean(seconds), np.median(seconds)
    accuracy = np.mean(learner.predict(state, test[0]) == test[1])
    print(
        f"{name}: refit {refit:.2f} s, deletion {mean * 1e3:.1f} ms (median {median * 1e3:.1f}), {refit / mean:,.0f}x "
        f"(median {refit / median:,.0f}x); {regrown / DELETIONS / learner.trees:.2f} subtrees regrown a tree; "
        f"kept to forget {learner.extra_bytes(state) / 1e6:.0f} MB; accuracy {accuracy:.3f}; fresh fit's bytes: {equal}"
    )
    return equal


def accuracies() -> None:
    for name, load in (("digits", load_digits), ("breast_cancer", load_breast_cancer)):
        x, y = load(return_X_y=True)
        rows: dict[str, list[float]] = {}
        for split in range(SPLITS):
            order = np.random.default_rng(split).permutation(len(x))
            train, test = order[: len(x) * 4 // 5], order[len(x) * 4 // 5 :]
            records = Records(ids=[f"r{k}" for k in train], columns={"x": x[train].astype(np.float32), "y": y[train]})
            for random_depth in (0, 2, 4):
                learner = DareForest(trees=ACCURACY_TREES, random_depth=random_depth)
                hits = learner.predict(learner.fit(records, seed=split), x[test]) == y[test]
                rows.setdefault(f"dare, random_depth {random_depth}", []).append(float(np.mean(hits)))
            reference = RandomForestClassifier(ACCURACY_TREES, random_state=split).fit(x[train], y[train])
            rows.setdefault("scikit-learn", []).append(float(reference.score(x[test], y[test])))
        print(
            f"{name}, {ACCURACY_TREES} trees, mean of {SPLITS} splits: "
            + "; ".join(f"{k} {np.mean(v):.4f}" for k, v in rows.items())
        )


def main() -> None:
    accuracies()
    equal = True
    for n in (10_000, 100_000):
        x, y = make_classification(
            n_samples=n + 10_000,
            n_features=40,
            n_informative=8,
            n_redundant=4,
            class_sep=1.0,
            flip_y=0.02,
            random_state=2,
        )
        x = x.astype(np.float32)
        test = (x[n:], y[n:])
        for random_depth in (0, 4, 8):
            learner = DareForest(trees=TREES, max_depth=20, random_depth=random_depth)
            equal &= deletions(f"n={n:,}, d=40, random_depth {random_depth}", learner, x[:n], y[:n], test)
        start = time.process_time()
        reference = RandomForestClassifier(TREES, max_depth=20, random_state=0).fit(x[:n], y[:n])
        seconds = time.process_time() - start
        print(f"n={n:,}: scikit-learn fits in {seconds:.2f} s, accuracy {reference.score(*test):.3f}")
    if not equal:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
