r"""SISA training: sharded, isolated, sliced and aggregated (Bourtoule et al., 2021, arXiv 1912.03817).

The records are cut into S disjoint shards, a model each; a prediction is the mean (or the majority vote) of all
models. Within a shard the records are cut into R slices; the model is trained on slice 1, then on slices 1 and 2, and
so on, for $e = 2e'/(R+1)$ passes each, so that all R stages together work through as many examples as e' passes over
the shard. Before each next slice a checkpoint is kept. To forget a record, its shard alone goes back to the checkpoint
before the record's slice and trains on from there without it.

What makes this exact is that nothing else depends on the record: a record's shard and slice follow from its own id (or
owner), a shard's seed from the shard's number, the order of the rows within a shard from their ids; hyper-parameters
are given and never fitted; there is no early stopping and no normalisation. So after any sequence of requests the state
has the bytes of a fresh run on what remains.

This differs from the authors' code in:

1. Shards and slices are drawn by a hash of the id instead of cutting the table into equal pieces: their sizes vary by
   chance (a binomial), in return no other record moves when one leaves.
2. The optimiser and the schedule start afresh at each slice; the authors carry Adam's state or plain SGD over.
3. Shards without records have no say in a prediction.
4. Distribution-aware sharding takes fixed edges of each record's stated likelihood: the authors pack shards greedily
   over all records, which moves others when one leaves.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch

from expunge.data.records import Array, Records
from expunge.data.splits import unit_hash
from expunge.errors import DataError, ModelError, RequestError, UnknownName
from expunge.methods.aggregate import Answer, majority_vote, mean_of_probabilities, noisy_vote, vote_counts
from expunge.methods.learner import Job, Learned, Learner, Part, State
from expunge.methods.shards import (
    FINAL,
    Plan,
    ShardWork,
    Trained,
    exact_engine,
    planned_examples,
    train_shards,
    train_shards_in_pieces,
)
from expunge.methods.stack_parts import environment
from expunge.recipe import Recipe
from expunge.training.batches import Table
from expunge.training.loop import outputs
from expunge.training.stack import Stack, build
from expunge.training.workers import Workers

Rule = Literal["mean", "vote"]
Sharding = Literal["random", "owner", "likelihood"]


@dataclass(frozen=True, kw_only=True)
class Sisa(Learner):
    """Sharded, isolated, sliced, aggregated training.

    Args:
        recipe: of each shard's model. Perceptrons are trained all at once, other architectures one after the other:
            see `expunge.methods.shards` for why.
        shards: S. slices: R.
        aggregate: ``mean`` of probabilities or majority ``vote``.
        vote_noise: scale of Laplace noise on the published vote counts, in votes, against requests that are chosen by
            looking at predictions (Gupta et al., 2021, arXiv 2106.04378); with ``vote`` only. 0: none. What it promises
            is `expunge.methods.aggregate.vote_privacy`, and it falls with every answer.
        training_noise: noise multiplier of each shard's training, the defence of the same paper where the shards'
            models themselves are in view; each record's gradient is clipped to `max_grad_norm`. 0: plain training.
        noise_key: secret of at least 16 characters, needed by either noise: whoever knows it subtracts the noise.
        sharding: what a record's shard follows from: ``random`` (its id), ``owner`` (all rows of an owner share a shard
            and a slice) or ``likelihood`` (its column "likelihood" in [0, 1], how likely it is to be asked for, picks
            the group of shards, its id the shard within).
        likelihood_edges: increasing, within (0, 1): they cut [0, 1] into groups, each given an equal part of the
            shards. Choose them from what was known before, never from the records in the table.
        storage_budget_bytes: checkpoints are dropped, evenly spaced, until those of all shards fit; None keeps all.
    """

    name: ClassVar[str] = "sisa"
    summary: ClassVar[str] = "an ensemble over disjoint shards; forgetting retrains the touched slices of one shard"
    paper: ClassVar[str] = "1912.03817"
    secret: ClassVar[tuple[str, ...]] = ("noise_key",)
    needs: ClassVar[tuple[str, ...]] = ("recipe",)

    recipe: Recipe
    shards: int = 5
    slices: int = 1
    aggregate: Rule = "mean"
    vote_noise: float = 0.0
    training_noise: float = 0.0
    max_grad_norm: float = 1.0
    noise_key: str = ""
    sharding: Sharding = "random"
    likelihood_edges: tuple[float, ...] = ()
    storage_budget_bytes: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "likelihood_edges", tuple(self.likelihood_edges))
        for name in ("shards", "slices"):
            if getattr(self, name) < 1:
                raise RequestError(f"{name} must be at least 1, got {getattr(self, name)}", "Correct it")
        if self.aggregate not in ("mean", "vote"):
            raise RequestError(f"aggregate is 'mean' or 'vote', not {self.aggregate!r}", "Correct it")
        if self.sharding not in ("random", "owner", "likelihood"):
            raise RequestError(f"sharding is 'random', 'owner' or 'likelihood', not {self.sharding!r}", "Correct it")
        if not self.vote_noise >= 0 or (self.vote_noise and self.aggregate != "vote"):
            raise RequestError(
                f"vote_noise={self.vote_noise:g} with aggregate={self.aggregate!r}",
                "Noise is added to vote counts: give a number of at least 0, and aggregate='vote'",
            )
        if not self.training_noise >= 0 or not self.max_grad_norm > 0:
            raise RequestError(
                f"training_noise={self.training_noise:g} and max_grad_norm={self.max_grad_norm:g}",
                "Give a noise multiplier of at least 0 and a positive norm",
            )
        if (self.vote_noise or self.training_noise) and len(self.noise_key) < 16:
            raise RequestError(
                "noise without a secret protects nobody: whoever guesses its key subtracts it",
                "Give a noise_key of at least 16 characters that nobody else knows",
            )
        edges = self.likelihood_edges
        if bool(edges) != (self.sharding == "likelihood"):
            raise RequestError(
                "sharding='likelihood' and likelihood_edges go together", "Give both, or neither of the two"
            )
        if list(edges) != sorted(set(edges)) or any(not 0 < e < 1 for e in edges):
            raise RequestError(f"likelihood_edges {edges} must increase within (0, 1)", "Correct them")
        if len(edges) >= self.shards:
            raise RequestError(
                f"{len(edges) + 1} groups of likelihood cannot share {self.shards} shards", "Give more shards"
            )
        if self.storage_budget_bytes is not None and self.storage_budget_bytes < 0:
            raise RequestError("storage_budget_bytes is negative", "Give a number of bytes, or None for no limit")

    # --- the map -----------------------------------------------------------------------------------------------------

    def assign(self, records: Records, seed: int) -> npt.NDArray[np.int64]:
        """(n, 2) shard and slice of each record, each a function of that record alone (and `seed`).

        Raises:
            DataError: the records lack the column or the owners that the sharding goes by.
        """
        keys = records.ids
        if self.sharding == "owner":
            if records.owners is None:
                raise DataError("sharding by owner needs owners and the records name none", "Load them with `owner=`")
            keys = records.owners
        first, last = np.zeros(len(records), np.int64), np.full(len(records), self.shards)
        if self.sharding == "likelihood":
            likelihood = np.asarray(records.column("likelihood"), dtype=np.float64)
            if likelihood.min() < 0 or likelihood.max() > 1:
                raise DataError("column 'likelihood' leaves [0, 1]", "Give the probability that a record is asked for")
            groups = len(self.likelihood_edges) + 1
            group = np.searchsorted(self.likelihood_edges, likelihood, side="right")
            first, last = group * self.shards // groups, (group + 1) * self.shards // groups
        shard = first + (unit_hash(keys, f"shard/{seed}") * (last - first)).astype(np.int64)
        slice_ = (unit_hash(keys, f"slice/{seed}") * self.slices).astype(np.int64)
        return np.stack([shard, slice_], axis=1)

    def _map(self, state: State) -> npt.NDArray[np.int64]:
        """`assign` for every position of the table, holes included, computed once for a state's rows."""
        key = f"sisa/{self.shards}/{self.slices}/{self.sharding}/{self.likelihood_edges}/{state.seed}"
        if key not in state.rows.memo:
            state.rows.memo[key] = self.assign(state.rows.table, state.seed)
        return state.rows.memo[key]

    def plan(self, seed: int) -> Plan:
        """How every shard is trained."""
        budget = self.storage_budget_bytes
        each = 0 if budget is None else Stack.initialised(self.recipe, [0]).bytes_per_model
        return Plan(
            recipe=self.recipe,
            slices=self.slices,
            kept=kept_checkpoints(self.slices, self.shards * each, budget),
            epochs=2 * self.recipe.trainer.epochs / (self.slices + 1),
            seed=seed,
            noise=self.training_noise,
            max_grad_norm=self.max_grad_norm,
            key=self.noise_key,
        )

    # --- learn and forget --------------------------------------------------------------------------------------------

    def learn(self, records: Records, *, seed: int, job: Job) -> Learned:
        return self._learn(records, seed, range(self.shards), job)

    def _learn(self, records: Records, seed: int, shards: Collection[int], job: Job) -> Learned:
        where = self.assign(records, seed)
        plan = self.plan(seed)
        work = [_work(records, where, shard) for shard in shards]
        trained = self._train(plan, work, job, "training shards")
        parts = {_name(w.shard): _part(trained[w.shard].checkpoints, len(w.records)) for w in work}
        return Learned(
            parts=parts,
            facts={"environment": dict(environment())},
            examples=sum(t.examples for t in trained.values()),
        )

    def touched(
        self, state: State, ids: tuple[str, ...], plan: Plan
    ) -> Iterator[tuple[int, int, npt.NDArray[np.bool_]]]:
        """Shards to train again, the checkpoint (0: none) each starts from, and the positions of what it keeps."""
        where = self._map(state)
        at = state.rows.at(ids)
        keep = state.rows.alive.copy()
        keep[at] = False
        for shard in sorted(set(where[at, 0].tolist())):
            first = where[at][where[at, 0] == shard, 1].min()
            yield shard, max(c for c in (0, *plan.kept) if c <= first), keep & (where[:, 0] == shard)

    def cost_of(self, state: State, ids: Collection[str]) -> int:
        """Example gradients that forgetting `ids` would take, counted without training.

        Raises:
            EmptyForgetSet, UnknownIds, EmptyRetainSet.
        """
        plan, where = self.plan(state.seed), self._map(state)
        wanted = self.check_ids(state, ids)
        return sum(
            planned_examples(plan, where[kept, 1], start) for _, start, kept in self.touched(state, wanted, plan)
        )

    def remove(self, state: State, ids: tuple[str, ...], *, job: Job) -> Learned:
        if state.facts["environment"] != dict(environment()):
            # Shards of two environments are what no fresh run would give.
            learned = self._learn(state.rows.without(ids), state.seed, range(self.shards), job)
            return replace(learned, trace=({"retrained": "all shards", "why": "other torch or processor than before"},))
        plan = self.plan(state.seed)
        where = self._map(state)
        work, trace = [], []
        for shard, start, kept in self.touched(state, ids, plan):
            mine, slices = state.rows.table.take(kept), where[kept, 1]
            stack = _stack(plan.recipe, state.parts[_name(shard)], start) if start else None
            order = np.argsort(mine.ids)
            work.append(
                ShardWork(shard=shard, records=mine.take(order), slices=slices[order], start=start, stack=stack)
            )
            trace.append({"shard": shard, "from_slice": start, "slices": self.slices, "remaining": len(mine)})
        trained = self._train(plan, work, job, "retraining shards")
        parts = dict(state.parts)
        for w, told in zip(work, trace, strict=True):
            before = {c: _stack(plan.recipe, state.parts[_name(w.shard)], c) for c in plan.kept if c <= w.start}
            parts[_name(w.shard)] = _part({**before, **trained[w.shard].checkpoints}, len(w.records))
            told["examples"] = trained[w.shard].examples
        return Learned(
            parts=parts,
            facts=state.facts,
            examples=sum(t.examples for t in trained.values()),
            trace=tuple(trace),
        )

    def relearn(self, state: State, parts: Collection[str] | None = None, *, job: Job | None = None) -> dict[str, Part]:
        """The named shards only: the others need not be trained to check these."""
        for name in parts or ():
            if name not in state.parts:
                raise UnknownName("part", name, state.parts)
        shards = [s for s in range(self.shards) if parts is None or _name(s) in parts]
        return dict(self._learn(state.rows.records(), state.seed, shards, job or Job()).parts)

    def _train(self, plan: Plan, work: list[ShardWork], job: Job, what: str) -> dict[int, Trained]:
        done = 0

        def on_done(count: int) -> None:
            nonlocal done
            done += count
            if job.progress:
                job.progress(what, done, len(work))

        if job.progress:
            job.progress(what, 0, len(work))
        if job.workers is None and job.scratch is None:
            return train_shards(plan, work, on_done)
        scratch = job.scratch or Path(tempfile.mkdtemp(prefix="expunge-"))
        try:
            return train_shards_in_pieces(plan, work, scratch, job.workers or Workers(), on_done)
        finally:
            if job.scratch is None:
                shutil.rmtree(scratch)

    def extra_bytes(self, state: State) -> int:
        return sum(
            array.nbytes for part in state.parts.values() for name, array in part.items() if name.startswith("slice.")
        )

    # --- predict -----------------------------------------------------------------------------------------------------

    def shard_logits(self, state: State, x: Array) -> tuple[list[int], npt.NDArray[np.float32]]:
        """Numbers of the shards that have records, and their models' (shards, n, classes) logits."""
        shards = [s for s in range(self.shards) if int(state.parts[_name(s)]["records"]) > 0]
        stack = Stack.cat([_stack(self.recipe, state.parts[_name(s)], FINAL) for s in shards])
        features = torch.from_numpy(np.array(x, np.float32))
        table = Table({"x": features}, (), np.empty(len(features)))
        try:
            return shards, outputs(stack, exact_engine(self.recipe), table).numpy()
        except (RuntimeError, IndexError) as error:
            raise ModelError(
                f"the model refuses features of shape {tuple(features.shape[1:])} ({str(error).splitlines()[0]})",
                "Predict for records of the shape it was trained on",
            ) from error

    def scores(self, state: State, x: Array) -> Array:
        return self.answer(state, x).scores

    def predict(self, state: State, x: Array) -> Array:
        return self.answer(state, x).labels

    def answer(self, state: State, x: Array) -> Answer:
        """What is published about (n, ...) features: scores and labels, under noise if that was asked for."""
        shards, logits = self.shard_logits(state, x)
        weights = np.ones(len(shards))
        if self.aggregate == "mean":
            return mean_of_probabilities(logits, weights)
        if not self.vote_noise:
            return majority_vote(logits, weights)
        release = hashlib.sha256("".join(state.part_digests().values()).encode()).hexdigest()
        return noisy_vote(
            vote_counts(logits, weights), self.vote_noise, self.noise_key.encode(), np.asarray(x), release=release
        )

    def contributions(self, state: State, x: Array) -> Contributions:
        """What each shard adds to each prediction; see `Contributions`."""
        shards, logits = self.shard_logits(state, x)
        if self.aggregate == "mean":
            shifted = np.exp(logits - logits.max(-1, keepdims=True))
            said = shifted / shifted.sum(-1, keepdims=True)
        else:
            said = np.eye(logits.shape[-1], dtype=np.float32)[logits.argmax(-1)]
        sizes = [int(state.parts[_name(s)]["records"]) for s in shards]
        return Contributions(shards=shards, records=sizes, share=said.astype(np.float64) / len(shards))


@dataclass(frozen=True, kw_only=True, eq=False)
class Contributions:
    """What each shard adds to a prediction: an ensemble's answer is the sum of its parts.

    Args:
        shards: numbers. records: how many each was trained on.
        share: (shards, n, classes) in [0, 1]; summed over shards they are the aggregated probabilities or vote shares
            (before the noise, if there is any).
    """

    shards: list[int]
    records: list[int]
    share: npt.NDArray[np.float64]

    def rows(self, query: int = 0) -> list[dict[str, Any]]:
        """One object a shard for one prediction: shard, records, its class, its share of the winning class."""
        winner = int(self.share[:, query].sum(0).argmax())
        return [
            {
                "shard": shard,
                "records": count,
                "says": int(self.share[k, query].argmax()),
                "share_of_prediction": float(self.share[k, query, winner]),
            }
            for k, (shard, count) in enumerate(zip(self.shards, self.records, strict=True))
        ]


def kept_checkpoints(slices: int, bytes_a_slice: int, budget: int | None) -> tuple[int, ...]:
    """After how many slices a checkpoint is kept: all of 1 … R-1, or as many as fit, evenly spaced."""
    possible = slices - 1
    room = possible if budget is None else min(possible, budget // max(bytes_a_slice, 1))
    return tuple(sorted({round((k + 1) * slices / (room + 1)) for k in range(room)}))


def _work(records: Records, where: npt.NDArray[np.int64], shard: int) -> ShardWork:
    """A shard's records in the order of their ids: the order in which they came must not matter."""
    rows = np.flatnonzero(where[:, 0] == shard)
    rows = rows[np.argsort(records.ids[rows])]
    return ShardWork(shard=shard, records=records.take(rows), slices=where[rows, 1])


def _name(shard: int) -> str:
    return f"shard.{shard:04d}"


def _part(checkpoints: Mapping[int, Stack], records: int) -> Part:
    """Weights and buffers of a shard's model and of its checkpoints, and how many records it was trained on."""
    part: dict[str, Array] = {"records": np.array(records)}
    for stage, stack in sorted(checkpoints.items()):
        prefix = "model" if stage == FINAL else f"slice.{stage:03d}"
        part |= {f"{prefix}.{name}": np.array(tensor.numpy()) for name, tensor in stack.tensors().items()}
    return part


def _stack(recipe: Recipe, part: Part, stage: int) -> Stack:
    prefix = "model." if stage == FINAL else f"slice.{stage:03d}."
    tensors = {k.removeprefix(prefix): torch.from_numpy(np.array(v)) for k, v in part.items() if k.startswith(prefix)}
    return Stack.from_tensors(build(recipe, 0), tensors)
