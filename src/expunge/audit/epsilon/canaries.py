"""Records made to be remembered, and the small set of real records that they join.

A bound on ε is only as good as the record it is about, and certificates speak of the worst one. Three kinds:

- ``mislabelled``: the features of a real record with another class, or the target at the far end of its range;
- ``extreme``: along the direction in which the features vary least, as long as the longest record, with the label that
  the records on that side do not have: what a linear model has least company for;
- ``orthogonal``: each along a direction of its own, so that canaries disturb each other little (Keinan, Shenfeld &
  Ligett 2025, arXiv:2503.07199: interference is what limits an audit in one run). There are as many directions as
  features; past that they repeat with the sign turned and other labels.

All are functions of (records, seed). Features are of any shape; the geometry is that of the flattened row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from expunge.data.records import Array, Records
from expunge.data.splits import unit_hash
from expunge.errors import DataError, RequestError, UnknownName

KINDS = ("mislabelled", "extreme", "orthogonal")
TASKS = ("classification", "regression")


def small_set(records: Records, size: int, seed: int, task: str) -> Records:
    """At most about `size` of `records`, chosen by hash of their ids, in their own order.

    Every class stays: for each class that the choice misses, its first record by hash comes in addition.

    Raises:
        RequestError: a size below 4. DataError: fewer than 4 records.
    """
    if size < 4:
        raise RequestError(f"instances of {size} records", "Take at least 4: companions and canaries come out of them")
    if len(records) < 4:
        raise DataError(f"there are {len(records)} records to build instances from", "Audit a learner with at least 4")
    place = unit_hash(records.ids, f"epsilon audit {seed}")
    order = place.argsort(kind="stable")
    chosen = set(order[:size].tolist())
    if task == "classification":
        labels = records.y[order]
        _, first = np.unique(labels, return_index=True)
        chosen |= set(order[first].tolist())
    return records.take(np.array(sorted(chosen)))


def make_canaries(base: Records, number: int, *, kind: str, task: str, seed: int) -> Records:
    """`number` canaries of one kind, with the columns of `base` and ids of their own.

    Raises:
        UnknownName: no such kind. RequestError: no canaries, or a task without labels. DataError: one class only.
    """
    if kind not in KINDS:
        raise UnknownName("kind of canary", kind, KINDS)
    if task not in TASKS:
        raise RequestError(
            f"a learner for {task} answers no question about a labelled record",
            f"Audit learners for {' or '.join(TASKS)}; check others by replay (`expunge verify --replay`)",
        )
    if number < 1:
        raise RequestError(f"{number} canaries", "Take at least one")
    names = np.array([f"canary {kind} {seed} {k}" for k in range(number)])
    if set(names.tolist()) & set(base.ids.tolist()):
        raise DataError("the records already hold canaries with these ids", "Audit with another seed")
    rng = np.random.Generator(np.random.Philox(key=int(unit_hash(names[:1], "canaries")[0] * 2**53)))
    flat = base.x.reshape(len(base), -1).astype(np.float64)
    models = rng.integers(len(base), size=number)
    if kind == "mislabelled":
        x, y = flat[models], _far_label(base, base.y[models], task, rng)
    else:
        directions = _directions(flat, 1 if kind == "extreme" else number, rng)
        x = np.resize(directions, (number, flat.shape[1])) * np.linalg.norm(flat, axis=1).max()
        nearest = (x @ flat.T).argmax(axis=1)
        y = _far_label(base, base.y[nearest], task, rng)
    return _like(base, names, x.reshape((number, *base.x.shape[1:])), y, models)


def stand_ins(base: Records, number: int, *, seed: int) -> Records:
    """`number` records with as little to say as can be: what is in where a canary is not.

    With them both worlds have learned from, and deleted, equally many records, which no certificate hides. Their
    features are 0, where a record moves the weights of a linear model not at all, and their labels those of `base` in
    turn.
    """
    names = np.array([f"stand-in {seed} {k}" for k in range(number)])
    models = base.y.argsort(kind="stable")[np.linspace(0, len(base) - 1, number).astype(np.int64)]
    return _like(base, names, np.zeros((number, *base.x.shape[1:])), base.y[models], models)


def _directions(flat: npt.NDArray[np.float64], number: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """(number, d) unit rows: principal directions from the least used on, then the same with the sign turned.

    One sign of a direction is drawn: there is no telling which way a record has less company.
    """
    _, _, axes = np.linalg.svd(flat, full_matrices=flat.shape[0] < flat.shape[1] <= 1024)
    axes = axes[::-1]
    signs = np.where(rng.random(len(axes)) < 0.5, -1.0, 1.0)[:, None]
    both = np.concatenate([axes * signs, -axes * signs])
    return np.resize(both[:number], (number, flat.shape[1]))


def _far_label(base: Records, labels: Array, task: str, rng: np.random.Generator) -> Array:
    """Another class of those there are; or the end of the targets' range that is farther away."""
    if task == "regression":
        low, high = float(base.y.min()), float(base.y.max())
        return np.where(labels.astype(np.float64) - low > high - labels.astype(np.float64), low, high)
    classes = np.unique(base.y)
    if len(classes) < 2:
        raise DataError("the records have one class, and none can be mislabelled", "Audit with records of two classes")
    at = classes.searchsorted(labels)
    return np.asarray(classes[(at + rng.integers(1, len(classes), size=len(labels))) % len(classes)])


def _like(base: Records, names: Array, x: Array, y: Array, models: Array) -> Records:
    """Canaries with every column of `base`; what is neither features nor label is that of the record in `models`."""
    columns: dict[str, Any] = {name: column[models] for name, column in base.columns.items()}
    columns["x"], columns["y"] = x.astype(base.x.dtype), y.astype(base.y.dtype)
    return Records(
        ids=names,
        columns=columns,
        owners=None if base.owners is None else names,
        classes=base.classes,
        feature_names=base.feature_names,
    )


def joined(*tables: Records) -> Records:
    """The rows of all tables, one after the other; they have the same columns."""
    first = tables[0]
    owners = [t.owners for t in tables if t.owners is not None]
    return Records(
        ids=np.concatenate([t.ids for t in tables]),
        columns={name: np.concatenate([t.column(name) for t in tables]) for name in first.columns},
        owners=np.concatenate(owners) if first.owners is not None else None,
        classes=first.classes,
        feature_names=first.feature_names,
    )
