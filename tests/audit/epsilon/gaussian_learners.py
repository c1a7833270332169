"""A certified learner small enough to know everything about, and what goes wrong with such learners.

`DescendingMean` learns the mean of clipped rows in d columns and publishes it under Gaussian noise. It forgets by a
few steps of gradient descent towards the mean of what remains (Neel et al. 2021): the secret iterate keeps the share
`contraction` of its distance, and that residual is what the noise must hide. Where all records sit at -clip and the
deleted ones at +clip the residual is exactly the sensitivity that is stated: no audit has an easier case.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from expunge.accounting.gaussian import mu_of
from expunge.accounting.ledger import Ledger
from expunge.data.records import Array, Records
from expunge.guarantee import Certified, Guarantee
from expunge.methods.learner import Job, Learned, Learner, State


@dataclass(frozen=True, kw_only=True)
class DescendingMean(Learner):
    """Args:
    epsilon, delta: the certificate. contraction: in (0, 1). clip: bound of a number.
    capacity: requests of one record that are covered; or group: records of the one request that is.
    noise_cut: 1 is right; 0.5 publishes with half the noise. sensitivity_factor: 1 is right.
    residual_kept: False states the residual of the last request alone, as if each began at the optimum.
    with_ledger: keep a ledger.
    """

    name: ClassVar[str] = "descending_mean"
    summary: ClassVar[str] = "the mean under noise"
    paper: ClassVar[str] = "tests"
    form: ClassVar[str] = "certified"
    guarantee: ClassVar[type[Guarantee]] = Certified
    equality: ClassVar[str | None] = None
    task: ClassVar[str] = "regression"

    epsilon: float = 1.0
    delta: float = 1e-5
    contraction: float = 0.5
    clip: float = 1.0
    capacity: int = 1
    group: int = 1
    noise_cut: float = 1.0
    sensitivity_factor: float = 1.0
    residual_kept: bool = True
    with_ledger: bool = False

    def sensitivity(self, n: int) -> float:
        """How far the iterate may be from the mean of what remains of n.

        One deletion moves a mean by at most 2 clip/(n'+1), n' being what remains, and the residual is `contraction`
        times what was left before and this; k deleted together move it by at most 2 clip k/n.
        """
        if self.group > 1:
            return self.contraction * 2 * self.clip * self.group / n * self.sensitivity_factor
        left, residual = n, 0.0
        for _ in range(min(self.capacity, n - 1) if self.residual_kept else 1):
            residual = self.contraction * (residual + 2 * self.clip / left)
            left -= 1
        return residual * self.sensitivity_factor

    def values(self, records: Records) -> Array:
        """(n, d) what is averaged: target times features, no longer than `clip`."""
        raw = records.y[:, None] * records.x
        return raw * np.minimum(1.0, self.clip / np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), 1e-12))

    def learn(self, records: Records, *, seed: int, job: Job) -> Learned:
        return self._publish(self.values(records).mean(axis=0), seed, len(records), len(records))

    def remove(self, state: State, ids: tuple[str, ...], *, job: Job) -> Learned:
        kept = state.rows.without(ids)
        target = self.values(kept).mean(axis=0)
        mean = target + self.contraction * (state.parts["secret.mean"]["mean"] - target)
        return self._publish(mean, state.seed, len(kept), state.facts["n"])

    def _publish(self, mean: Array, seed: int, left: int, n: int) -> Learned:
        rng = np.random.Generator(np.random.Philox(key=(seed * 1000003 + left) % 2**64))
        sensitivity = self.sensitivity(n)
        noise = sensitivity / mu_of(self.epsilon, self.delta)
        published = mean + noise * self.noise_cut * rng.normal(size=mean.shape)
        ledger = Ledger(self.epsilon, self.delta).gaussian(sensitivity, noise)
        return Learned(
            parts={"secret.mean": {"mean": mean}, "published.mean": {"mean": published}},
            facts={"n": n, **({"ledger": ledger.as_dict()} if self.with_ledger else {})},
        )

    def predict(self, state: State, x: Array) -> Array:
        return np.asarray(x @ state.parts["published.mean"]["mean"])

    def reached(self, learned: Learned) -> Guarantee:
        return Certified(epsilon=self.epsilon, delta=self.delta, assumptions=("the unperturbed mean stays secret",))


@dataclass(frozen=True, kw_only=True)
class PrivateMean(DescendingMean):
    """The Gaussian mechanism on the mean: private from the start, so that a deletion changes nothing."""

    name: ClassVar[str] = "private_mean"
    private: ClassVar[bool] = True

    def sensitivity(self, n: int) -> float:
        return 2 * self.clip / n * self.sensitivity_factor

    def remove(self, state: State, ids: tuple[str, ...], *, job: Job) -> Learned:
        return Learned(parts=state.parts, facts=state.facts)


def at_the_edge(n: int, canaries: int = 1) -> tuple[Records, Records]:
    """n records at -1, and canaries at +1: what moves a mean the most."""

    def at(value: float, names: list[str]) -> Records:
        count = len(names)
        return Records(ids=np.array(names), columns={"x": np.ones((count, 1)), "y": np.full(count, value)})

    return at(-1.0, [f"r{k}" for k in range(n)]), at(1.0, [f"c{k}" for k in range(canaries)])
