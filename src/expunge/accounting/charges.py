"""The facts a ledger is fed with: one dataclass a mechanism, each with the numbers its proof needs and no more.

A charge says what was released about a record and what hid it. It computes nothing; `ledger` composes charges,
`renyi` and `loss` turn them into curves. `what` is the purpose in words ("noisy gradient step"), never a record's id:
a ledger is published.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar

from expunge.accounting.gaussian import check_delta, checked, ratio
from expunge.errors import RequestError


@dataclass(frozen=True, kw_only=True)
class Charge:
    """Base. ``mechanism`` names it in JSON; ``count`` is how many times it was applied, each with fresh noise."""

    mechanism: ClassVar[str] = ""
    what: str = ""
    count: int = 1

    def __post_init__(self) -> None:
        whole("count", self.count)
        if not isinstance(self.what, str):
            raise RequestError(f"what must be words, got {self.what!r}", "Say what the charge paid for")

    def as_dict(self) -> dict[str, Any]:
        return {"mechanism": self.mechanism, **asdict(self)}

    def merged(self, other: Charge) -> Charge | None:
        """Both as one charge, if they differ in nothing but their count; the ledger stays short."""
        if type(self) is type(other) and replace(self, count=1) == replace(other, count=1):
            return replace(self, count=self.count + other.count)
        return None


@dataclass(frozen=True, kw_only=True)
class Gaussian(Charge):
    """A value of L2 ``sensitivity`` was released under N(0, ``noise``² I). Both ≥ 0, in the units of the value."""

    mechanism: ClassVar[str] = "gaussian"
    sensitivity: float
    noise: float

    def __post_init__(self) -> None:
        super().__post_init__()
        ratio(self.sensitivity, self.noise)

    @property
    def mu(self) -> float:
        """μ of one application, for one record."""
        return ratio(self.sensitivity, self.noise)


@dataclass(frozen=True, kw_only=True)
class SubsampledGaussian(Charge):
    """``count`` steps of DP-SGD: rows join a batch by independent coins, clipped sums get Gaussian noise.

    ``noise_multiplier`` is standard deviation over clipping norm, ≥ 0; ``sample_rate`` in (0, 1]. Poisson sampling is
    the fact: shuffled batches have no such bound (Chua et al. 2024, arXiv:2403.17673).
    """

    mechanism: ClassVar[str] = "subsampled_gaussian"
    noise_multiplier: float
    sample_rate: float

    def __post_init__(self) -> None:
        super().__post_init__()
        checked("noise_multiplier", self.noise_multiplier, least=0.0)
        if checked("sample_rate", self.sample_rate, least=0.0, most=1.0) == 0:
            raise RequestError("sample_rate is 0", "A record that is never sampled costs nothing: charge nothing")


@dataclass(frozen=True, kw_only=True)
class Laplace(Charge):
    """A value of L1 ``sensitivity`` was released under Laplace noise of this ``scale``. Both ≥ 0, in its units."""

    mechanism: ClassVar[str] = "laplace"
    sensitivity: float
    scale: float

    def __post_init__(self) -> None:
        super().__post_init__()
        checked("sensitivity", self.sensitivity, least=0.0)
        checked("scale", self.scale, least=0.0)

    @property
    def rate(self) -> float:
        """ε of one application, for one record."""
        return ratio(self.sensitivity, self.scale)


@dataclass(frozen=True, kw_only=True)
class Bounded(Charge):
    """A mechanism of which only its (``epsilon``, ``delta``) is known."""

    mechanism: ClassVar[str] = "bounded"
    epsilon: float
    delta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checked("epsilon", self.epsilon, least=0.0)
        check_delta(self.delta, zero=True)


@dataclass(frozen=True, kw_only=True)
class Concentrated(Charge):
    """A mechanism whose Rényi divergence of every order α > 1 is at most ``rho``·α (ρ-zCDP). ρ ≥ 0, nats."""

    mechanism: ClassVar[str] = "concentrated"
    rho: float

    def __post_init__(self) -> None:
        super().__post_init__()
        checked("rho", self.rho, least=0.0)


@dataclass(frozen=True, kw_only=True)
class Renyi(Charge):
    """A mechanism whose Rényi divergence is known at some ``orders`` > 1, rising: at most ``values``, nats, ≥ 0."""

    mechanism: ClassVar[str] = "renyi"
    orders: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "orders", tuple(checked("order", a, least=1.0) for a in self.orders))
        object.__setattr__(self, "values", tuple(checked("value", v, least=0.0) for v in self.values))
        rising = all(a < b for a, b in zip((1.0, *self.orders), self.orders, strict=False))
        if not self.orders or len(self.orders) != len(self.values) or not rising:
            raise RequestError(
                f"{len(self.orders)} orders and {len(self.values)} values do not make a curve",
                "Give rising orders above 1, and one value (nats) for each",
            )


@dataclass(frozen=True, kw_only=True)
class Residual(Charge):
    """Gradient residuals of summed norm ≤ ``beta`` hidden by one secret draw of N(0, ``noise``² I) in the objective.

    Guo et al. 2020 (arXiv:1911.03030), Theorem 3. Residuals under the same ``draw`` add up (there is one noise);
    those under different draws compose like Gaussian mechanisms. ``limit`` is the β at which the owner retrains.
    ``count`` is how many removals the sum is of.
    """

    mechanism: ClassVar[str] = "residual"
    beta: float
    noise: float
    limit: float
    draw: str = field(default="b")

    def __post_init__(self) -> None:
        super().__post_init__()
        ratio(checked("beta", self.beta, least=0.0), self.noise)
        checked("limit", self.limit, least=0.0)

    @property
    def mu(self) -> float:
        """μ of the whole sum, for exactly the records that were removed."""
        return ratio(self.beta, self.noise)

    def merged(self, other: Charge) -> Charge | None:
        if not isinstance(other, Residual) or self.draw != other.draw:
            return None
        if (self.noise, self.limit) != (other.noise, other.limit):
            raise RequestError(
                f"the draw {self.draw!r} has noise {self.noise:g} and limit {self.limit:g}, and this charge says "
                f"{other.noise:g} and {other.limit:g}",
                "One draw of noise has one standard deviation and one limit: name another draw",
            )
        return replace(self, beta=self.beta + other.beta, count=self.count + other.count)


CHARGES: dict[str, type[Charge]] = {
    c.mechanism: c for c in (Gaussian, SubsampledGaussian, Laplace, Bounded, Concentrated, Renyi, Residual)
}


def charge_from(told: Any) -> Charge:
    """A charge from what `Charge.as_dict` gave, read back from JSON.

    Raises:
        RequestError: an unknown mechanism, or fields that are not its own.
    """
    kind = CHARGES.get(str(told.get("mechanism"))) if isinstance(told, dict) else None
    if kind is None:
        raise RequestError(f"{told!r} is no charge", f"A charge names its mechanism: {', '.join(CHARGES)}")
    given: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in told.items()}
    del given["mechanism"]
    named = {f.name for f in fields(kind)}
    if set(given) != named:
        raise RequestError(
            f"a charge of {kind.mechanism} has the fields {sorted(named)}, got {sorted(given)}",
            "Read only what `Ledger.as_dict` wrote",
        )
    try:
        return kind(**given)
    except TypeError as error:  # a field of another JSON type
        raise RequestError(f"{told!r} is no charge ({error})", "Read only what `Ledger.as_dict` wrote") from error


def whole(name: str, value: int, least: int = 1) -> int:
    """`value` if it is a whole number of at least `least`.

    Raises:
        RequestError.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise RequestError(f"{name} must be a whole number of at least {least}, got {value!r}", f"Give {name} in range")
    return value
