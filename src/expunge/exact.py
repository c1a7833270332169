"""Learners from the command line: learn into a folder, forget from it, with evidence for both.

A learner's folder holds its state (`expunge.methods.durable`) and, in custody of a key folder, the manifest of its
rows, the log and the certificates (`expunge.audit`).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from expunge.audit.custody import Custody, Order
from expunge.audit.keys import KeyFolder
from expunge.data import load_records
from expunge.data.records import Records
from expunge.data.select import Select
from expunge.data.splits import split
from expunge.data.texts import load_texts
from expunge.errors import RequestError, RunError, UnknownIds, UnknownName
from expunge.evaluation.benchmarks.challenge import cores
from expunge.methods import LEARNERS, make_learner
from expunge.methods.durable import DurableLearner
from expunge.methods.exact.sisa import Sisa
from expunge.methods.learner import Job, Learner, Progress, Publishes
from expunge.recipe import Recipe, Trainer
from expunge.result import Unlearned
from expunge.training.files import read_json
from expunge.training.ray_workers import make_workers

SECRET_BITS = 48  # a shorter seed is no secret
SHIPPED = {"softmax_regression", "mlp", "small_cnn"}


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """One `forget` from a folder: the outcome, and where its certificate is (None without keys)."""

    unlearned: Unlearned
    records: int
    remaining: int
    certificate: Path | None

    def lines(self) -> list[str]:
        """The same in words."""
        cost = self.unlearned.cost
        told = [
            f"{self.records:,} records forgotten, {self.remaining:,} remain: {self.unlearned.guarantee}",
            f"{cost.seconds:.3g} processor seconds, {cost.examples:,} example gradients or rows worked through",
        ]
        for event in self.unlearned.trace:
            told.append("  " + ", ".join(f"{k} {len(v) if isinstance(v, list) else v}" for k, v in event.items()))
        return [*told, f"certificate: {self.certificate or 'none, for there are no keys'}"]

    def as_dict(self) -> dict[str, Any]:
        cost = self.unlearned.cost
        return {
            "method": self.unlearned.method,
            "guarantee": self.unlearned.guarantee.as_dict(),
            "forgotten": self.records,
            "remaining": self.remaining,
            "seconds": cost.seconds,
            "examples": cost.examples,
            "trace": [dict(event) for event in self.unlearned.trace],
            "certificate": None if self.certificate is None else str(self.certificate),
        }


def settings_of(pairs: Sequence[str], option: str = "--set") -> dict[str, Any]:
    """``["shards=20", "aggregate=vote"]`` as hyper-parameters; values are read as YAML. `option`: for messages.

    Raises:
        RequestError: a pair without "=".
    """
    import yaml

    settings = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise RequestError(f"{option} {pair} has no '='", f"Write it as {option} name=value")
        settings[name.strip()] = yaml.safe_load(value)
    return settings


def shipped_recipe(records: Records, architecture: str, trainer: Trainer) -> Recipe:
    """A recipe for these records: a shipped architecture, or ``package.module:function`` of one's own.

    Raises:
        UnknownName: neither.
    """
    if ":" in architecture:
        return Recipe(factory=architecture, kwargs={}, trainer=trainer)
    if architecture not in SHIPPED:
        raise UnknownName("architecture", architecture, SHIPPED)
    return Recipe(
        factory=f"expunge.models.architectures:{architecture}",
        kwargs={"features": list(records.x.shape[1:]), "classes": max(len(records.classes), int(records.y.max()) + 1)},
        trainer=trainer,
    )


def open_keys(folder: Path | None, *, make_as: str | None = None) -> KeyFolder | None:
    """The keys in `folder`; made there if `make_as` names the signer and there are none."""
    if folder is None:
        return None
    if make_as is not None and not (folder / "trusted.json").exists():
        return KeyFolder.make(folder, make_as)
    return KeyFolder(folder)


def learn(
    name: str,
    data: str,
    out: Path,
    *,
    settings: Mapping[str, Any],
    architecture: str = "mlp",
    epochs: int | None = None,
    columns: Mapping[str, Any] | None = None,
    train_share: float = 1.0,
    seed: int | None = None,
    keys: KeyFolder | None = None,
    engine: str = "process",
    processes: int = 1,
    progress: Progress | None = None,
) -> tuple[DurableLearner, dict[str, Any]]:
    """Learn from a data set into `out`; a repeated call finds it there.

    Args:
        seed: by default 0, and a secret one for certified learners: whoever knows it subtracts their noise.
        columns: roles of columns for files (`load_records`). train_share: of the records that are learned from, by the
            hash of the id; the rest is tested on. engine: ``process`` or ``ray``. processes: 0 is one a core.

    Returns:
        the learner, and what to say about it: records, owners, parts, bytes, test accuracy (None without a rest).

    Raises:
        UnknownName, RequestError, DataError, RunError.
    """
    if name not in LEARNERS:
        raise UnknownName("learner", name, LEARNERS)
    hidden = LEARNERS[name].hides_seed()
    if hidden and keys is not None and seed is not None and seed.bit_length() < SECRET_BITS:
        raise RequestError(
            f"the noise of {name} is drawn from the seed, and {seed} is found by trying",
            "Leave out `--seed`: a secret one is drawn and kept in the folder",
        )
    if seed is None:
        state = out / "state.json"
        drawn = secrets.randbits(62) | 1 << 61  # of a full length, whatever is drawn
        seed = 0 if not hidden else int(read_json(state)["seed"]) if state.exists() else drawn
    if not 0 < train_share <= 1:
        raise RequestError(f"the training share is {train_share:g}", "Give a number above 0 and at most 1")
    given = {key: value for key, value in (columns or {}).items() if value is not None}
    records = _load(name, data, given)
    parts = {"train": records}
    if train_share < 1:
        parts = split(records, {"train": train_share, "test": 1 - train_share}, salt="fit")
    parameters = dict(settings)
    if "recipe" in LEARNERS[name].needs and "recipe" not in parameters:
        trainer = Trainer() if epochs is None else Trainer(epochs=epochs)
        parameters["recipe"] = shipped_recipe(records, architecture, trainer)
    if "base" in LEARNERS[name].needs and epochs is not None:
        parameters.setdefault("epochs", epochs)
    learner = make_learner(name, parameters)
    count = processes or cores()
    if engine == "process" and count == 1:
        job = Job(progress=progress)
        durable = DurableLearner.create(out, learner, parts["train"], seed=seed, witness=_witness(keys), job=job)
    else:
        with make_workers(engine, count) as workers:
            job = Job(workers=workers, progress=progress)
            durable = DurableLearner.create(out, learner, parts["train"], seed=seed, witness=_witness(keys), job=job)
    return durable, _about(durable, parts.get("test"))


def _load(name: str, data: str, given: Mapping[str, Any]) -> Records:
    """The records of a data set, or texts for a learner of language."""
    if LEARNERS[name].task != "language":
        return load_records(data, **given)
    if "label" in given:
        raise RequestError(f"{name} learns from texts, which have no label", "Leave out `--label`")
    return load_texts(data, **given)


def _witness(keys: KeyFolder | None) -> Custody | None:
    return None if keys is None else Custody(keys)


def _about(durable: DurableLearner, test: Records | None) -> dict[str, Any]:
    learner, state = durable.learner, durable.state
    accuracy = None
    # answers that are charged are not spent, or given away, on an evaluation
    if test is not None and learner.task == "classification" and not isinstance(learner, Publishes):
        accuracy = float(np.mean(learner.predict(state, test.x) == test.y))
    return {
        "learner": learner.name,
        "folder": str(durable.folder),
        "guarantee": learner.guarantee.word if learner.equality is None else f"exact({learner.equality})",
        "task": learner.task,
        "records": len(state.rows),
        "owners": len(durable.owners()),
        "parts": len(state.parts),
        "bytes": state.stored_bytes,
        "extra_bytes": learner.extra_bytes(state),
        "test_accuracy": accuracy,
        "digest": state.digest(),
    }


def choose(durable: DurableLearner, *, ids: Sequence[str] = (), owners: Sequence[str] = ()) -> list[str]:
    """Ids of the records that a request names.

    Raises:
        UnknownIds: an id or an owner that is not there. EmptyForgetSet, RequestError: none or both are named.
    """
    return Select(ids=tuple(ids), owners=tuple(owners)).resolve(durable.state.rows.records())


def forget(
    folder: Path,
    *,
    ids: Sequence[str] = (),
    owners: Sequence[str] = (),
    keys: KeyFolder | None = None,
    order: Order | None = None,
    progress: Progress | None = None,
) -> Forgetting:
    """Forget records from the learner in `folder`, and certify it where there are keys.

    Raises:
        UnknownIds, EmptyForgetSet, EmptyRetainSet, RunError: the folder is in custody and no keys were given.
    """
    in_custody = (folder / "audit").exists()
    if in_custody and keys is None:
        raise RunError(f"{folder} is in custody: what is forgotten there is certified", "Name its keys (`--keys`)")
    if keys is not None and not in_custody and (folder / "state.json").exists():
        raise RunError(f"{folder} was made without keys", "Forget without `--keys`, or learn again with them")
    witness = None if keys is None else Custody(keys, order=order)
    durable = DurableLearner(folder, witness=witness, job=Job(progress=progress))
    finished = durable.recover()
    try:
        wanted = choose(durable, ids=ids, owners=owners)
    except UnknownIds as error:
        if finished is None or not (owners or set(ids) == finished[0]):
            raise
        if owners:
            raise UnknownIds(
                "owners",
                owners,
                f"what remains (an interrupted request for {len(finished[0])} records was finished just now)",
            ) from error
        wanted, unlearned = list(ids), finished[1]
    else:
        unlearned = durable.forget(wanted)
    certificates = sorted((folder / "audit" / "certificates").glob("*.json")) if keys else []
    return Forgetting(
        unlearned=unlearned,
        records=len(wanted),
        remaining=len(durable.state.rows),
        certificate=certificates[-1] if certificates else None,
    )


def price(folder: Path, *, ids: Sequence[str] = (), owners: Sequence[str] = ()) -> dict[str, Any]:
    """What a request would take, without carrying it out: records, and example gradients where they can be counted.

    Raises:
        UnknownIds, EmptyForgetSet, EmptyRetainSet, RunError.
    """
    durable = DurableLearner(folder)
    learner: Learner = durable.learner
    wanted = choose(durable, ids=ids, owners=owners)
    learner.check_ids(durable.state, wanted)
    told: dict[str, Any] = {"learner": learner.name, "forgotten": len(wanted), "examples": None}
    if isinstance(learner, Sisa):
        state = durable.state
        plan = learner.plan(state.seed)
        told["examples"] = learner.cost_of(state, wanted)
        told["shards"] = [
            {"shard": shard, "from_slice": start, "remaining": int(kept.sum())}
            for shard, start, kept in learner.touched(state, tuple(wanted), plan)
        ]
    return told
