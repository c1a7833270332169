"""The policy of a service, as data: by when requests are answered, who must agree, how work is batched, what is kept.

regimes:
  gdpr: {calendar_months: 1, extension_months: 2, working_day: true, zone: Europe/Berlin, holidays: [2026-12-25]}
  ccpa: {days: 45, extension_days: 45, zone: America/Los_Angeles}
serving: {rule: escalation, approximate_within_hours: 24, period_days: 30, epoch: 2026-01-05}
approval: {four_eyes: true, per_subject_a_year: 12, per_day: 5000, largest_share: 0.1}
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from expunge.errors import RequestError
from expunge.request import Strict, explain, known_fields

Rule = Literal["now", "batched", "periodic", "escalation"]
RULES: tuple[Rule, ...] = ("now", "batched", "periodic", "escalation")


class Regime(Strict):
    """A law's or a contract's clock, counted in calendar months or in days.

    Args:
        calendar_months: the same day of the month so many months later, else that month's last day. days: instead.
        extension_months, extension_days: further time, once, if told before the due date. working_day: a due date on a
            weekend or holiday moves to the next working day. holidays: dates. zone: whose midnight ends the day.
        repeat_days: requests are carried out again so often, against what came back (California's DROP: 45).
    """

    calendar_months: int | None = Field(None, ge=1, le=120)
    days: int | None = Field(None, ge=1, le=3650)
    extension_months: int = Field(0, ge=0, le=24)
    extension_days: int = Field(0, ge=0, le=730)
    working_day: bool = False
    holidays: tuple[date, ...] = ()
    zone: str = "UTC"
    repeat_days: int | None = Field(None, ge=1, le=365)

    @field_validator("zone")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"there is no time zone {value!r}") from None
        return value

    @model_validator(mode="after")
    def _one(self) -> Regime:
        if (self.calendar_months is None) == (self.days is None):
            raise ValueError("give calendar_months or days, and not both")
        if self.extension_months and self.extension_days:
            raise ValueError("give extension_months or extension_days, and not both")
        return self

    @property
    def extends(self) -> bool:
        return bool(self.extension_months or self.extension_days)


GDPR = Regime(calendar_months=1, extension_months=2, working_day=True)
REGIMES: Mapping[str, Regime] = {
    "gdpr": GDPR,
    "uk_gdpr": GDPR.model_copy(update={"zone": "Europe/London"}),
    "ccpa": Regime(days=45, extension_days=45, zone="America/Los_Angeles"),
    "drop": Regime(days=45, repeat_days=45, zone="America/Los_Angeles"),
}


class Serving(Strict):
    """When the work is done.

    Args:
        rule: ``now``, ``batched`` (earliest deadline first, as late as is safe), ``periodic`` (at the next retraining)
            or ``escalation`` (suppressed at once, approximate soon, exact at the next window).
        margin_hours: kept free before the earliest due date of a batch. largest_batch: requests.
        approximate_within_hours: of escalation. period_days, epoch: windows of periodic retraining, counted from there.
        cost_per_hour: of a worker, in `currency`.
    """

    rule: Rule = "batched"
    margin_hours: float = Field(24.0, ge=0)
    largest_batch: int = Field(1000, ge=1)
    approximate_within_hours: float = Field(24.0, gt=0)
    period_days: float = Field(30.0, ge=0)
    epoch: date = date(2026, 1, 5)
    cost_per_hour: float = Field(0.0, ge=0)
    currency: str = Field("EUR", pattern=r"^[A-Z]{3}$")


class Approval(Strict):
    """Deletion is an attack too: who must agree, and how much may go.

    Args:
        four_eyes: whoever filed or planned a request does not approve it. per_subject_a_year: requests. per_day:
            requests of all. largest_share: of a model's records that may go without a second approver's confirmation.
        cost_cap: most a request may cost, in the currency of serving; None: no cap.
    """

    four_eyes: bool = True
    per_subject_a_year: int = Field(12, ge=1)
    per_day: int = Field(100_000, ge=1)
    largest_share: float = Field(0.1, gt=0, le=1)
    cost_cap: float | None = Field(None, gt=0)


class Retention(Strict):
    """What the service itself forgets, in days after a request is closed.

    Args:
        identity_days: until the sealed identity is destroyed with its key. request_days: until the row is reduced to
            what statistics need. log_days: of the audit trail. suppression_days: how long re-ingestion stays blocked;
            None: for ever.
    """

    identity_days: float = Field(30.0, ge=0)
    request_days: float = Field(730.0, ge=0)
    log_days: float = Field(1095.0, ge=0)
    suppression_days: float | None = Field(None, gt=0)


class Retries(Strict):
    """Of a step that fails: how often, and how long between, doubling."""

    attempts: int = Field(4, ge=1, le=50)
    first_seconds: float = Field(1.0, ge=0)
    factor: float = Field(2.0, ge=1)
    longest_seconds: float = Field(300.0, ge=0)


class Policy(Strict):
    """Everything a service decides by.

    Args:
        regimes: name -> clock. default_regime: of requests that name none. due_soon: share of the time, counted from
            the receipt, after which an open request is nearly due. escalation and the rest: see their classes.
    """

    name: str = "default"
    regimes: dict[str, Regime] = Field(default_factory=lambda: dict(REGIMES))
    default_regime: str = "gdpr"
    due_soon: float = Field(0.75, gt=0, lt=1)
    acknowledge_within_days: float = Field(10.0, gt=0)
    serving: Serving = Field(default_factory=Serving)
    approval: Approval = Field(default_factory=Approval)
    retention: Retention = Field(default_factory=Retention)
    retries: Retries = Field(default_factory=Retries)

    @model_validator(mode="after")
    def _default_known(self) -> Policy:
        if self.default_regime not in self.regimes:
            raise ValueError(f"default_regime {self.default_regime!r} is none of {', '.join(sorted(self.regimes))}")
        return self

    def regime(self, name: str) -> Regime:
        """
        Raises:
            RequestError: the policy has no such regime.
        """
        if name not in self.regimes:
            raise RequestError(f"the policy has no regime {name!r}", f"Known: {', '.join(sorted(self.regimes))}")
        return self.regimes[name]

    @classmethod
    def read(cls, path: Path) -> Policy:
        """The policy in a YAML or JSON file.

        Raises:
            RequestError: not there, not readable, or a field is wrong.
        """
        try:
            value = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise RequestError(f"cannot read {path} ({error.strerror})", "Give the path of a policy's YAML") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise RequestError(f"{path} is not YAML", "Correct it; docs/service.md shows one") from error
        if not isinstance(value, Mapping):
            raise RequestError(f"{path} is not a mapping of fields", "See docs/service.md")
        try:
            return cls.model_validate(dict(value))
        except ValidationError as error:
            names = known_fields(cls, Regime, Serving, Approval, Retention, Retries)
            raise RequestError(
                f"{path} is not a valid policy: {explain(error, names)}", "Correct those fields; see docs/service.md"
            ) from error
