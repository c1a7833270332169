r"""Descent-to-Delete: a few steps of gradient descent on what remains, and Gaussian noise on what is published.

Neel, Roth & Sharifi-Malvajerdi 2021, *Descent-to-Delete: Gradient-Based Methods for Machine Unlearning* (ALT 2021,
arXiv:2007.02923), Algorithms 1 and 2 for strongly convex, smooth losses. With the map of `expunge.methods.projected`,
η = 2/(m+M), contraction γ = (M−m)/(M+m), and I steps for the deletion of one row:

    secret state     θ ← I steps from the secret θ on the rows that remain;    publish θ + N(0, σ²I), keep θ     (1)
    perfect state    θ ← J steps from the *published* one;                     publish θ + N(0, σ²I), keep nothing

**Why it holds.** Removing r rows moves the minimiser by at most rs, s = L/(mn), n rows remaining. If θ was within

    B(n) = s γ^I/(1−γ^I) + rounding                                                                             (2)

of the old minimiser, then J steps with γ^J (B(n) + rs) ≤ B(n) bring it within B(n) of the new one; for r = 1 these are
I steps, for r more only ln(1 + (r−1)(1−γ^I))/ln(1/γ) further ones. B grows as n falls and names no past, so the bound
stays through any number of deletions. A fit runs until γ^T R ≤ B(n). Published, both are hidden by the same

    σ(n) = Δ/μ(ε, δ),   Δ = B(n) + the distance of a fit ≤ 2 B(n)                                                (3)

of the analytic Gaussian mechanism, whose μ(ε, δ) is the largest that (ε, δ) allows.

In the perfect state the noise is part of the start: with probability 1 − δ/2 over *all* releases its norm is below
ν(n) = σ(n)·q(n), q(n) the quantile of the norm of a normal vector at 1 − 3δ/(π²n²) (n falls at every release, so
these sum to δ/2 at most), and J fulfils γ^J (B(n) + ν + rs) ≤ B(n); the noise is calibrated to (ε, δ/2). Since θ is
within B(n) for every run (or all but δ/2 of them), requests may depend on what was published before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from scipy import special

from expunge.accounting import gaussian
from expunge.accounting.ledger import Ledger
from expunge.data.records import Array, Records
from expunge.errors import NonFiniteLoss, RequestError
from expunge.guarantee import Certified, Guarantee
from expunge.methods.convex import Float, Objective, class_count, linear_scores, normal
from expunge.methods.learner import Again, Job, Learned, Learner, Part, State, part_digest
from expunge.methods.projected import Descent

ASSUMPTIONS = (
    "the seed, and with it the noise, is secret and was drawn at random",
    "every row was clipped to the stated norm by the learner itself; features were made without looking at other rows",
    "it compares one published model with that of a fit on what remains; models published earlier are not called back",
    "the number of rows and of classes, and the times of requests, are public",
    "normal numbers of the computer are taken for real ones",
)
SECRET = ("the secret iterate is never published",)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What holds of a release with `rows` rows: a function of hyper-parameters, n, d and K alone.

    Args:
        bound: B(n), of the distance from the minimiser. fit_steps: T. sensitivity: Δ. sigma: σ(n).
        noise_norm: ν(n), what the norm of the noise stays below but for δ/2; 0 in the secret state.
    """

    rows: int
    bound: float
    fit_steps: int
    sensitivity: float
    sigma: float
    noise_norm: float


@dataclass(frozen=True, kw_only=True)
class DescentToDelete(Learner):
    """A linear classifier that descends a few steps on what remains and publishes itself under noise.

    Args:
        loss: ``logistic``, or ``squared`` on targets ±1.
        regularisation: λ > 0, of one row.
        steps: I ≥ 1, steps for the deletion of one row; the more, the less noise.
        epsilon: nats, > 0. delta: in (0, 1).
        variant: ``secret`` keeps an iterate that is never published, ``perfect`` keeps only what is published.
        fit_precision: in (0, 1]; a fit ends within this share of B(n) of the minimiser (1: the paper's). Less costs
            steps of training once, and up to halves the noise.
        clip_norm: C > 0, largest norm of a row with its constant feature. intercept: the constant feature as a share
            of C, in [0, 1).
        classes: number of classes; None takes what the records name, or the largest label seen.

    This differs from the paper in (its experiments give no defaults that suit every table; these are ours):
        1. s = rL/(mn) with n the rows that remain, where the paper has 2L/(mn) and n/2 rows at least: no limit on how
           many rows may go.
        2. The analytic Gaussian mechanism in place of σ = Δ/(√2(√(ln(1/δ)+ε)−√ln(1/δ))); the trace has both.
        3. Several rows in one request are one deletion with a few steps more.
        4. Perfect state: quantiles instead of tail bounds, indexed by n and not by the number i of the request (the
           paper's I + ln ln(4di/δ)/ln(1/γ) steps), so that nothing counts the requests.
        5. Rounding of the sums is part of B(n). K classes are one vector of K·d numbers with one Gaussian release.

    This differs from the authors' code in:
        1. It starts at 0 instead of a random point, and the published vector is not projected again.
    """

    name: ClassVar[str] = "descent_to_delete"
    summary: ClassVar[str] = (
        "Linear classifiers: a few steps of descent on what remains, published under Gaussian noise"
    )
    paper: ClassVar[str] = "2007.02923"
    form: ClassVar[str] = "certified"
    guarantee: ClassVar[type[Guarantee]] = Certified
    public: ClassVar[tuple[str, ...]] = ("removed", "rows", "steps", "bound", "sensitivity", "sigma", "constants")
    equality: ClassVar[str | None] = None

    loss: Literal["logistic", "squared"] = "logistic"
    regularisation: float = 1e-2
    steps: int = 50
    epsilon: float = 1.0
    delta: float = 1e-5
    variant: Literal["secret", "perfect"] = "secret"
    fit_precision: float = 1.0
    clip_norm: float = 1.0
    intercept: float = 0.5
    classes: int | None = None

    def __post_init__(self) -> None:
        _ = self.objective  # checks its own
        if self.variant not in ("secret", "perfect"):
            raise RequestError(f"variant is 'secret' or 'perfect', not {self.variant!r}", "Correct it")
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise RequestError(f"steps is {self.steps!r}, expected a whole number of at least 1", "Try 50")
        if not 0 < self.fit_precision <= 1:
            raise RequestError(f"fit_precision is {self.fit_precision!r}, expected a share in (0, 1]", "Try 1")
        if not 0 < self.epsilon < math.inf:
            raise RequestError(f"epsilon is {self.epsilon!r}, expected a finite number > 0", "Try 1")
        gaussian.check_delta(self.delta)
        if self.classes is not None and self.classes < 2:
            raise RequestError(f"classes is {self.classes!r}, expected at least 2", "Leave it out to read it off")

    @property
    def objective(self) -> Objective:
        return Objective(
            loss=self.loss, regularisation=self.regularisation, clip_norm=self.clip_norm, intercept=self.intercept
        )

    # --- what is proved -----------------------------------------------------------------------------------------------

    def plan(self, rows: int, features: int, vectors: int = 1) -> Plan:
        """Steps, bound and noise of a release from `rows` rows, with `vectors` vectors of `features` numbers each."""
        descent = self._descent(vectors)
        share = descent.contraction**self.steps
        bound = descent.minimiser_shift(1, rows) * share / (1 - share)
        floor = descent.rounding(features) / (1 - share)
        fit_steps = descent.steps_for(self.fit_precision * bound / descent.reach) if bound > 0 else self.steps
        fitted = min(self.fit_precision * bound, descent.reach) if bound > 0 else descent.reach * share
        sensitivity = bound + floor + fitted + floor
        perfect = self.variant == "perfect"
        sigma = gaussian.sigma(self.epsilon, self._release_delta, sensitivity)
        tail = 3 * self.delta / (math.pi * rows) ** 2
        norm = sigma * math.sqrt(float(special.chdtri(features * vectors, tail))) if perfect else 0.0
        return Plan(
            rows=rows,
            bound=bound + floor,
            fit_steps=fit_steps,
            sensitivity=sensitivity,
            sigma=sigma,
            noise_norm=norm,
        )

    def steps_of(self, removed: int, left: int, features: int, vectors: int = 1) -> int:
        """J: steps that a request for `removed` rows takes when `left` rows remain."""
        descent = self._descent(vectors)
        share = descent.contraction**self.steps
        noise = self.plan(left + removed, features, vectors).noise_norm
        extra = (removed - 1) + noise / descent.minimiser_shift(1, left)
        return self.steps + descent.steps_for(1 / (1 + (1 - share) * extra))

    def paper_sigma(self, rows: int, vectors: int = 1) -> float:
        """4√2 L γ^I / (m n (1−γ^I) (√(ln(1/δ)+ε) − √ln(1/δ))), the secret state's σ in the paper, n the first size."""
        descent, c = self._descent(vectors), self.objective.constants()
        share = descent.contraction**self.steps
        log = math.log(1 / self.delta)
        slack = math.sqrt(log + self.epsilon) - math.sqrt(log)
        lipschitz = c.lipschitz * math.sqrt(vectors)
        return 4 * math.sqrt(2) * lipschitz * share / (c.strong_convexity * rows * (1 - share) * slack)

    @property
    def _release_delta(self) -> float:
        return self.delta / 2 if self.variant == "perfect" else self.delta

    def _descent(self, vectors: int) -> Descent:
        return Descent(objective=self.objective, vectors=vectors)

    # --- learn and forget ---------------------------------------------------------------------------------------------

    def learn(self, records: Records, *, seed: int, job: Job) -> Learned:
        classes = class_count(records, self.classes)
        z, t = self.objective.features(records.x), self.objective.targets(records.y, classes)
        descent = self._descent(t.shape[1])
        plan = self.plan(len(z), z.shape[1], t.shape[1])
        weights = descent.run(np.zeros((t.shape[1], z.shape[1])), z, t, plan.fit_steps)
        event = {"event": "fit", "steps": plan.fit_steps, **self._told(plan, descent)}
        facts = {
            "classes": classes,
            "constants": self._constants(descent),
            "ledger": Ledger(self.epsilon, self._release_delta).as_dict(),
        }
        return self._learned(weights, plan, seed, facts, len(z) * plan.fit_steps, event)

    def remove(self, state: State, ids: tuple[str, ...], *, job: Job) -> Learned:
        rest = state.rows.without(ids)
        classes = int(state.facts["classes"])
        z, t = self.objective.features(rest.x), self.objective.targets(rest.y, classes)
        descent = self._descent(t.shape[1])
        plan = self.plan(len(z), z.shape[1], t.shape[1])
        steps = self.steps_of(len(ids), len(z), z.shape[1], t.shape[1])
        kept = "published.model" if self.variant == "perfect" else "secret.iterate"
        weights = descent.run(state.parts[kept]["weights"], z, t, steps)
        event = {"event": "descent", "removed": len(ids), "steps": steps, **self._told(plan, descent)}
        # each release is compared with a fit of its own, so one charge is all that is ever owed
        ledger = Ledger(self.epsilon, self._release_delta)
        ledger = ledger.gaussian(plan.sensitivity, plan.sigma, what="published weights")
        facts = {**state.facts, "ledger": ledger.as_dict()}
        return self._learned(weights, plan, state.seed, facts, len(z) * steps, event)

    def reached(self, learned: Learned) -> Guarantee:
        secret = SECRET if self.variant == "secret" else ()
        return Certified(epsilon=self.epsilon, delta=self.delta, assumptions=ASSUMPTIONS + secret)

    def predict(self, state: State, x: Array) -> Array:
        return np.asarray(self.scores(state, x).argmax(axis=1))

    def scores(self, state: State, x: Array) -> Float:
        return linear_scores(self.objective, state.parts["published.model"]["weights"], x)

    def extra_bytes(self, state: State) -> int:
        return sum(array.nbytes for array in state.parts.get("secret.iterate", {}).values())

    def again(self, state: State, *, job: Job) -> Again | None:
        """The release from the secret iterate, and how far that is from the one of a fit; nothing if none is kept."""
        if self.variant == "perfect":
            return None
        records, weights = state.rows.records(), state.parts["secret.iterate"]["weights"]
        z, t = self.objective.features(records.x), self.objective.targets(records.y, int(state.facts["classes"]))
        plan = self.plan(len(z), z.shape[1], t.shape[1])
        fitted = self._descent(t.shape[1]).run(np.zeros_like(weights), z, t, plan.fit_steps)
        apart = float(np.linalg.norm(weights - fitted))
        return Again(
            parts={"published.model": self._released(weights, plan, state.seed)},
            found=f"the secret iterate is {apart:.3g} from that of a fit on what remains, of at most "
            f"{plan.sensitivity:.3g}",
            holds=apart <= plan.sensitivity,
        )

    def _learned(
        self, weights: Float, plan: Plan, seed: int, facts: dict[str, Any], examples: int, event: dict[str, Any]
    ) -> Learned:
        if not np.isfinite(weights).all():
            raise NonFiniteLoss(self.name, plan.fit_steps)
        parts: dict[str, Part] = {"published.model": self._released(weights, plan, seed)}
        if self.variant == "secret":
            parts["secret.iterate"] = {"weights": weights}
        return Learned(parts=parts, facts=facts, examples=examples, trace=(event,))

    def _released(self, weights: Float, plan: Plan, seed: int) -> Part:
        # Noise is a function of what it hides: two different iterates never share it, so no difference of two releases
        # is free of it, and the same iterate is the same release.
        noise = normal(weights.shape, seed, self.name, plan.rows, part_digest({"weights": weights}))
        return {"weights": weights + plan.sigma * noise}

    def _constants(self, descent: Descent) -> dict[str, float]:
        return {**descent.constants.as_dict(), "step_size": descent.step, "contraction": descent.contraction}

    def _told(self, plan: Plan, descent: Descent) -> dict[str, Any]:
        return {
            "rows": plan.rows,
            "bound": plan.bound,
            "sensitivity": plan.sensitivity,
            "sigma": plan.sigma,
            "sigma_of_the_paper": self.paper_sigma(plan.rows, descent.vectors),
            "constants": self._constants(descent),
        }
