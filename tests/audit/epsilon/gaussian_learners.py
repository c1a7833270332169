"""A certified learner small enough to know everything about, and what goes wrong with such learners.

`DescendingMean` learns the mean of clipped numbers in d columns and publishes it under Gaussian noise. It forgets by a
few steps of gradient descent towards the mean of what remains (Neel et al. 2021): the secret iterate keeps the share
`contraction` of its distance, and that residual is what the noise must hide. Where all records sit at -clip and the
deleted ones at +clip the residual is exactly the sensitivity that is stated: no audit has an easier case.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from expunge.accounting.gaussian import delta_of, mu_of
from expunge.data.records import Array, Records
from expunge.guarantee import Certified, Guarantee
from expunge.methods.learner import Job, Learned, Learner, State


@dataclass(frozen=True, kw_only=True)
class DescendingMean(Learner):
    """Args:
    epsilon, delta: the certificate. contraction: in (0, 1). clip: bound of a number. capacity: deletions covered.
    noise_cut: 1 is right; 0.5 publishes with half the noise. sensitivity_factor: 1 is right. residual_kept: False
    states the residual of the last request alone, as if each began at the optimum.
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
    noise_cut: float = 1.0
    sensitivity_factor: float = 1.0
    residual_kept: bool = True

    def sensitivity(self, n: int) -> float:
        """Distance of the iterate from the mean of what remains after `capacity` deletions from n, in one column.

        One deletion moves a mean by at most 2 clip/(n'+1), n' being what remains, and the residual is `contraction`
        times what was left before and this.
        """
        left, residual = n, 0.0
        for _ in range(self.capacity if self.residual_kept else 1):
            residual = self.contraction * (residual + 2 * self.clip / left)
            left -= 1
        return residual * self.sensitivity_factor

    def learn(self, records: Records, *, seed: int, job: Job) -> Learned:
        y = np.clip(records.column("values") if "values" in records.columns else records.y[:, None], -1, 1) * self.clip
        mean = y.mean(axis=0)
        return self._publish(mean, seed, len(records), {"n": len(records)})

    def remove(self, state: State, ids: tuple[str, ...], *, job: Job) -> Learned:
        mean = state.parts["secret.mean"]["mean"]
        kept = state.rows.without(ids)
        y = np.clip(kept.column("values") if "values" in kept.columns else kept.y[:, None], -1, 1) * self.clip
        target = y.mean(axis=0)
        return self._publish(target + self.contraction * (mean - target), state.seed, len(kept), dict(state.facts))

    def _publish(self, mean: Array, seed: int, left: int, facts: dict[str, Any]) -> Learned:
        rng = np.random.Generator(np.random.Philox(key=(seed * 1000003 + left) % 2**64))
        sigma = self.sensitivity(facts["n"]) / mu_of(self.epsilon, self.delta) * self.noise_cut
        noisy = mean + sigma * rng.normal(size=mean.shape)
        return Learned(parts={"secret.mean": {"mean": mean}, "published.mean": {"mean": noisy}}, facts=facts)

    def predict(self, state: State, x: Array) -> Array:
        mean = state.parts["published.mean"]["mean"]
        return np.asarray(np.full(len(x), mean[0]) if len(mean) == 1 else x @ mean)

    def reached(self, learned: Learned) -> Guarantee:
        return Certified(epsilon=self.epsilon, delta=self.delta, assumptions=("the unperturbed mean stays secret",))


@dataclass(frozen=True, kw_only=True)
class ProfiledMean(DescendingMean):
    """The same with the whole profile of its noise, as a mechanism that says it is Gaussian may have it."""

    name: ClassVar[str] = "profiled_mean"

    def privacy_points(self, state: State) -> list[tuple[float, float]]:
        mu = mu_of(self.epsilon, self.delta)
        return [(e, delta_of(e, mu)) for e in (0.0, self.epsilon / 4, self.epsilon / 2)]


def at_the_edge(n: int, canaries: int = 1) -> tuple[Records, Records]:
    """n records at -1, and canaries at +1: what moves a mean the most."""

    def at(value: float, names: list[str]) -> Records:
        count = len(names)
        return Records(ids=np.array(names), columns={"x": np.ones((count, 1)), "y": np.full(count, value)})

    return at(-1.0, [f"r{k}" for k in range(n)]), at(1.0, [f"c{k}" for k in range(canaries)])
