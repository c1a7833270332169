"""A policy: the ε that is enough, written down before the model is trained, and what it means in words.

    # policy.yaml
    epsilon: 1.0                # nats; more than this is refused
    delta: 1.0e-5               # probability; below one over the number of records
    records: 60000              # optional: checks that delta is small enough
    group: 1                    # records that one person may have, leaving together
    side: both                  # or removal: P[unlearned] ≤ e^ε P[retrained] + δ only
    false_positive_rate: 0.01   # of the attacker the words speak of
    prior: 0.5                  # its belief beforehand that the record was in
    reason: "Board decision of 3 May; medical records, released as a black box"

A ledger is judged by the tightest bound it proves, for the policy's group and at the policy's δ.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from expunge.accounting.attacker import Attacker, attacker, attacker_of
from expunge.accounting.charges import Residual
from expunge.accounting.groups import naive
from expunge.accounting.ledger import Ledger
from expunge.errors import RequestError, RunError


class Policy(BaseModel):
    """What is enough. Frozen; unknown fields are refused. Units and ranges as in the module's example."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epsilon: float = Field(gt=0, allow_inf_nan=False)
    delta: float = Field(gt=0, lt=1)
    records: int | None = Field(None, ge=1)
    group: int = Field(1, ge=1)
    side: Literal["both", "removal"] = "both"
    false_positive_rate: float = Field(0.01, gt=0, lt=1)
    prior: float = Field(0.5, gt=0, lt=1)
    reason: str = ""

    @model_validator(mode="after")
    def _small(self) -> Policy:
        # A mechanism that publishes one record in n at random is (0, 1/n)-private and protects nobody.
        if self.records is not None and self.delta >= 1 / self.records:
            raise ValueError(f"delta {self.delta:g} is not below 1/records = {1 / self.records:g}")
        return self

    def attacker(self) -> Attacker:
        """What an attacker could do at most if the policy is just met."""
        return attacker(
            self.epsilon,
            self.delta,
            false_positive_rate=self.false_positive_rate,
            prior=self.prior,
            side=self.side,
        )

    def judge(self, ledger: Ledger) -> Verdict:
        """Whether what the ledger proves is enough.

        A ledger of residuals is judged for the records that were removed, whatever ``group`` says: their sum is
        measured for all of them together, and no other group can be priced.

        Raises:
            RequestError, MissingEvidence: see `Ledger.account`.
        """
        removed = any(isinstance(charge, Residual) for charge in ledger.charges)
        group = 1 if removed else self.group
        told = ledger.account(self.delta, ledger.notion, group, side=self.side)
        found = attacker_of(
            Ledger(ledger.budget_epsilon, self.delta, ledger.charges, ledger.retrains),
            group=group,
            false_positive_rate=self.false_positive_rate,
            prior=self.prior,
            side=self.side,
        )
        unit = "all records removed so far" if removed else f"{group} records at once" if group > 1 else "a record"
        return self._verdict(told.epsilon, found, f"for {unit}, by {told.source.upper()}", self.delta)

    def judge_claim(self, epsilon: float, delta: float) -> Verdict:
        """Whether a claimed (ε, δ) for one record is enough; a group is priced from it naively.

        Raises:
            RequestError: a value out of range.
        """
        grown, grown_delta = naive(epsilon, delta, self.group)
        unit = f"for {self.group} records at once, naively" if self.group > 1 else "for a record, as claimed"
        found = attacker(
            grown, grown_delta, false_positive_rate=self.false_positive_rate, prior=self.prior, side=self.side
        )
        return self._verdict(grown if grown_delta < 1 else math.inf, found, unit, grown_delta)

    def _verdict(self, epsilon: float, found: Attacker, how: str, delta: float) -> Verdict:
        return Verdict(
            enough=epsilon <= self.epsilon and delta <= self.delta,
            epsilon=epsilon,
            delta=delta,
            how=how,
            policy=self,
            attacker=found,
        )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A policy's judgement.

    Args:
        enough: whether ε (and δ) are within the policy. epsilon, delta: what is proved. how: for whom and by whom.
        attacker: what could still be done at what is proved, not at what is allowed.
    """

    enough: bool
    epsilon: float
    delta: float
    how: str
    policy: Policy
    attacker: Attacker

    def words(self) -> list[str]:
        """The judgement and the attacker's bounds as sentences."""
        limit = f"ε = {self.policy.epsilon:g} at δ = {self.policy.delta:g}"
        shown = f"ε = {_up(self.epsilon)} at δ = {self.delta:.3g} ({self.how})"
        verdict = f"Enough: {shown} is within the policy's {limit}."
        if not self.enough:
            verdict = f"Not enough: {shown} exceeds the policy's {limit}."
        scope = "These bounds hold for every attack on what the guarantee covers, and only if its assumptions hold."
        reason = [f"The policy's reason: {self.policy.reason}"] if self.policy.reason else []
        return [verdict, *self.attacker.words(), scope, *reason]

    def as_dict(self) -> dict[str, Any]:
        """JSON; an infinite ε is None."""
        return {
            "enough": self.enough,
            "epsilon": self.epsilon if math.isfinite(self.epsilon) else None,
            "delta": self.delta,
            "how": self.how,
            "policy": self.policy.model_dump(mode="json"),
            "attacker": self.attacker.as_dict(),
            "words": self.words(),
        }


def read_policy(path: Path) -> Policy:
    """A policy from a .yaml, .yml or .json file.

    Raises:
        RunError: it cannot be read. RequestError: it is no policy; the first wrong field is named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(
            f"cannot read the policy {path} ({error})", "Check the file's name and that it is text"
        ) from error
    try:
        told = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        kind = "JSON" if path.suffix.lower() == ".json" else "YAML"
        raise RequestError(f"{path} is not valid {kind} ({error})", "Correct the file") from error
    if not isinstance(told, dict):
        raise RequestError(f"{path} holds no fields", "Write for example epsilon: 1.0 and delta: 1.0e-5")
    try:
        return Policy.model_validate(told)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the policy"
        raise RequestError(
            f"{path}: {where}: {first['msg']}", f"Known fields: {', '.join(Policy.model_fields)}"
        ) from error


def _up(epsilon: float) -> str:
    return "infinity" if math.isinf(epsilon) else f"{math.ceil(epsilon * 1e4 - 1e-7) / 1e4:g}"
