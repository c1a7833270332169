"""The report as a document: ``expunge/report/1``, field by field. docs/report.md says how to read and recompute each.

Everything a view shows is in here and nothing else is, so that a page, a table and a comparison of the same JSON can
not disagree. Validation refuses what would make a number unreadable: NaN, a missing interval, a row without a reason,
a word stronger than the guarantee.
"""

from __future__ import annotations

import datetime
from collections.abc import Sized
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, field_validator, model_validator

from expunge.guarantee import GUARANTEES
from expunge.result import Direction

SCHEMA = "expunge/report/1"
FLOOR_ROW, CEILING_ROW = "retrain", "do_nothing"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Open(BaseModel):
    """Named fields, and any others: a reader of the JSON may ignore what it does not know."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @property
    def others(self) -> dict[str, Any]:
        return dict(self.__pydantic_extra__ or {})


class Scored(_Strict):
    """A measurement that was made: see `expunge.result.Measurement`. A bound of None is unbounded on that side."""

    status: Literal["scored"]
    name: str
    value: FiniteFloat
    n: int = Field(ge=1)
    low: FiniteFloat | None
    high: FiniteFloat | None
    direction: Direction
    floor: FiniteFloat | None
    ceiling: FiniteFloat | None
    confidence: float = Field(0.95, gt=0, le=1)
    unit: str = ""
    unit_of_n: str = "records"
    definition: str = ""
    detail: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _inside(self) -> Scored:
        if (self.low is not None and self.low > self.value) or (self.high is not None and self.value > self.high):
            raise ValueError(f"value {self.value:g} is outside of its interval [{self.low}, {self.high}]")
        return self


class Unscored(_Strict):
    """A measurement that could not be made, and why."""

    status: Literal["unscored"]
    name: str
    reason: str = Field(min_length=1)


Measured = Annotated[Scored | Unscored, Field(discriminator="status")]


class RowCost(_Open):
    """Of one unlearned model; `stacked` models shared the pass that was timed."""

    seconds: float = Field(ge=0)
    examples: float = Field(ge=0)
    stored_bytes: float = Field(0, ge=0)
    stacked: float = Field(1, ge=1)


class Row(BaseModel):
    """A method, its guarantee, its cost, and any number of measurements: each other key must hold one."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Measured] = Field(init=False)

    method: str = Field(min_length=1)
    run: str | None = None
    status: Literal["ok", "inapplicable", "failed"]
    reason: str | None = None
    form: str
    kind: str
    guarantee: str
    protocol: str
    parameters: dict[str, Any]
    models: int = Field(ge=0)
    repetitions: int | None = Field(None, ge=1)
    cost: RowCost | None = None

    @field_validator("guarantee")
    @classmethod
    def _a_word(cls, value: str) -> str:
        strength(value)
        return value

    @model_validator(mode="after")
    def _says_why(self) -> Row:
        if self.status != "ok" and not self.reason:
            raise ValueError(f"status {self.status!r} needs a `reason`")
        return self

    @property
    def label(self) -> str:
        """Name in tables and plots; key of its series. Runs that are compared carry theirs."""
        return self.method if self.run is None else f"{self.method} @ {self.run}"

    @property
    def role(self) -> Literal["floor", "ceiling", "method"]:
        if self.method == FLOOR_ROW:
            return "floor"
        return "ceiling" if self.method == CEILING_ROW else "method"

    @property
    def measured(self) -> dict[str, Scored | Unscored]:
        return dict(self.__pydantic_extra__ or {})

    def scored(self, key: str) -> Scored | None:
        found = self.measured.get(key)
        return found if isinstance(found, Scored) else None


class Provenance(_Open):
    """What the numbers are a function of. Digests are hexadecimal, or one a role (``forget``, ``retain``, …)."""

    expunge: str
    torch: str | None = None
    numpy: str | None = None
    python: str | None = None
    platform: str | None = None
    engine: str | None = None
    records_digest: str | dict[str, str] | None
    recipe_digest: str | dict[str, str] | None
    original_digest: str | dict[str, str] | None
    seeds: dict[str, Any]


class ProblemPart(_Open):
    """Names, and how many records of each kind."""

    dataset: str
    model: str
    forget: int = Field(ge=1)
    retain: int = Field(ge=0)
    holdout: int = Field(ge=0)
    test: int = Field(ge=0)
    classes: int | None = Field(None, ge=1)


class Claim(_Open):
    """What is said about the handed-over model: never more than its row's guarantee."""

    method: str
    form: str
    guarantee: str
    threat_model: str
    counterfactual: str


class ProtocolPart(_Open):
    """Whether runs restart from one original or from as many; `models` unlearned models a method."""

    name: Literal["one_original", "n_originals"]
    description: str
    models: int = Field(ge=1)


class ReferencesPart(_Open):
    """How many models each reference rests on."""

    retrained: int = Field(ge=0)
    original: int = Field(ge=0)


class Histogram(_Strict):
    """Shares of records by loss: B + 1 rising edges (nats), B shares a population, each list summing to at most 1."""

    edges: list[FiniteFloat] = Field(min_length=2)
    share: dict[str, list[FiniteFloat]]

    @model_validator(mode="after")
    def _fits(self) -> Histogram:
        if any(b <= a for a, b in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError("edges must rise")
        for label, shares in self.share.items():
            if len(shares) != len(self.edges) - 1 or min(shares) < 0 or sum(shares) > 1 + 1e-6:
                raise ValueError(f"share[{label!r}] must be {len(self.edges) - 1} shares that sum to at most 1")
        return self


class Series(_Strict):
    """What the plots are drawn from."""

    epsilon: dict[str, list[FiniteFloat]] = Field(default_factory=dict)
    loss_histogram: dict[str, Histogram] = Field(default_factory=dict)
    record_ids: list[str | int] = Field(default_factory=list)
    nearest_retained: list[FiniteFloat | str | None] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_a_record(self) -> Series:
        lists: dict[str, Sized] = {
            **{f"epsilon[{k!r}]": v for k, v in self.epsilon.items()},
            "nearest_retained": self.nearest_retained,
        }
        for name, values in lists.items():
            if self.record_ids and values and len(values) != len(self.record_ids):
                raise ValueError(f"{name} has {len(values)} entries for {len(self.record_ids)} record_ids")
        return self


class SelfCheck(_Strict):
    """How well a metric tells models that hold the records from models that do not; below .9 it earns no verdict."""

    metric: str
    auc: FiniteFloat | None
    low: FiniteFloat | None
    high: FiniteFloat | None
    n: int = Field(ge=0)
    verdict: bool
    reason: str | None = None


class Published(_Strict):
    """A number from the literature. `key` names the measurement, `method` the row that it is to be set beside."""

    what: str
    value: float | str
    source: str
    key: str | None = None
    method: str | None = None


class EvidenceCheck(_Strict):
    """One check of a certificate."""

    name: str
    outcome: Literal["pass", "fail", "inconclusive"]
    reason: str


class Tampering(_Strict):
    """What was altered in a copy, and what the verdict was."""

    what: str
    outcome: Literal["pass", "fail", "inconclusive"]
    failed: list[str]


class LanguageCell(_Strict):
    """A measurement of one model or of several seeds, in brief."""

    value: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat
    n: int = Field(ge=1)
    unit_of_n: str
    direction: Literal["higher", "lower", "match_floor"]


class LanguageRow(_Strict):
    """One method on the language model, or a control; a cell for each of the table's columns."""

    label: str
    status: Literal["ok", "failed"]
    guarantee: str | None
    reason: str | None
    seconds: float | None = Field(ge=0)
    seconds_ratio: float | None = Field(ge=0)
    cells: list[LanguageCell | None]


class LanguageExample(_Strict):
    """A question, its true answer, and by model what is said, how probable, and each token of the truth."""

    probe: str
    id: str
    prompt: str
    answer: str
    says: dict[str, str]
    probability: dict[str, float]
    tokens: dict[str, list[tuple[str, float]]]


class LanguageEvidence(_Strict):
    """A language model that forgot beside retrained ones; `page` is the whole study."""

    request: str
    model: str
    verdict: str
    page: str
    columns: list[str] = Field(min_length=1)
    rows: list[LanguageRow] = Field(min_length=1)
    shown: list[str]
    examples: list[LanguageExample]


class FormsEvidence(_Strict):
    """One request served in several forms under the same attacks; `page` is the whole comparison.

    `attacks` and `rows` are those of its document (``expunge/forms/1``), settings and parameters left out.
    """

    request: str
    verdict: str
    page: str
    attacks: list[dict[str, Any]] = Field(min_length=1)
    rows: list[dict[str, Any]] = Field(min_length=1)


class ExactEvidence(_Strict):
    """One request that was carried out exactly: cost beside retraining, digests, certificate and its checks.

    `before`, `after` and `fresh` are digests of states, `fresh` of a run that never saw the records; the word is exact
    only where `fresh` equals `after`.
    """

    request: str
    learner: str
    layout: str
    forgotten: int = Field(ge=1)
    remaining: int = Field(ge=1)
    guarantee: str
    examples: int = Field(ge=0)
    seconds: float = Field(ge=0)
    retrain_examples: int = Field(ge=0)
    retrain_seconds: float = Field(ge=0)
    accuracy_before: float = Field(ge=0, le=1)
    accuracy_after: float = Field(ge=0, le=1)
    plain_accuracy: float = Field(ge=0, le=1)
    before: str
    after: str
    fresh: str
    destroyed: int = Field(ge=0)
    certificate: str
    key_folder: str
    outcome: Literal["pass", "fail", "inconclusive"]
    checks: list[EvidenceCheck]
    tampering: list[Tampering]


class LedgerRow(_Strict):
    """After a number of requests: residual of the last, ε (nats) of the last model and of all models together."""

    requests: int = Field(ge=1)
    removed: int = Field(ge=1)
    residual: float = Field(ge=0)
    epsilon: float = Field(ge=0)
    epsilon_of_all: float = Field(ge=0)


class EpsilonTest(_Strict):
    """A claimed ε held against a learner that publishes with a share of its noise; 1 is the learner itself."""

    noise: float = Field(ge=0)
    claimed: float = Field(gt=0)
    observed: float = Field(ge=0)
    rounds: int = Field(ge=1)
    refuted: bool


class CertifiedEvidence(_Strict):
    """Requests that were carried out within (ε, δ): cost beside retraining, ledger, certificate, checks and an audit.

    `ledger`, `seconds` and `retrained` follow from the very rows and stand in no certificate; `account` is what stands
    there, and `withheld` says in words what does not.
    """

    request: str
    learner: str
    task: str
    forgotten: int = Field(ge=1)
    remaining: int = Field(ge=1)
    requests: int = Field(ge=1)
    retrained: int = Field(ge=0)
    guarantee: str
    assumptions: list[str] = Field(min_length=1)
    limit: float = Field(gt=0)
    ledger: list[LedgerRow] = Field(min_length=1)
    seconds: float = Field(ge=0)
    retrain_seconds: float = Field(ge=0)
    accuracy_before: float = Field(ge=0, le=1)
    accuracy_after: float = Field(ge=0, le=1)
    retrained_accuracy: float = Field(ge=0, le=1)
    test: int = Field(ge=1)
    certificate: str
    key_folder: str
    account: dict[str, Any]
    withheld: str
    outcome: Literal["pass", "fail", "inconclusive"]
    checks: list[EvidenceCheck]
    tampering: list[Tampering]
    audit: list[EpsilonTest]

    @field_validator("guarantee")
    @classmethod
    def _no_stronger(cls, value: str) -> str:
        if strength(value) > strength("certified"):
            raise ValueError(f"{value!r} is stronger than certified")
        return value


class Report(_Strict):
    """The whole document."""

    version: Literal["expunge/report/1"] = Field(alias="schema")
    title: str
    kind: Literal["run", "bench", "compare"]
    created: str
    command: str | None
    provenance: Provenance
    request: dict[str, Any] | None
    problem: ProblemPart
    claim: Claim | None
    protocol: ProtocolPart
    references: ReferencesPart
    rows: list[Row] = Field(min_length=1)
    series: Series
    self_check: list[SelfCheck]
    published: list[Published]
    limits: list[str] = Field(min_length=1)
    definitions: dict[str, str]
    exact: ExactEvidence | None = None
    certified: CertifiedEvidence | None = None
    language: LanguageEvidence | None = None
    forms: FormsEvidence | None = None

    @field_validator("created")
    @classmethod
    def _a_date(cls, value: str) -> str:
        datetime.datetime.fromisoformat(value)
        return value

    @model_validator(mode="after")
    def _claims_no_more_than_it_has(self) -> Report:
        labels = [row.label for row in self.rows]
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(f"rows: {twice[0]!r} stands there twice")
        if self.claim is None:
            return self
        row = next((r for r in self.rows if self.claim.method in (r.label, r.method)), None)
        if row is None:
            raise ValueError(f"claim.method: {self.claim.method!r} is in no row")
        claimed, had = strength(self.claim.guarantee), strength(row.guarantee)
        if claimed > had or (claimed == had and self.claim.guarantee != row.guarantee):
            raise ValueError(f"claim.guarantee: {self.claim.guarantee!r} is not what the row has: {row.guarantee!r}")
        return self

    def row(self, label: str) -> Row | None:
        return next((r for r in self.rows if r.label == label), None)


def strength(guarantee: str) -> int:
    """How strong a guarantee's word is (``certified(ε=1, δ=1e-05)`` -> 2)."""
    word = guarantee.partition("(")[0].strip()
    if word not in GUARANTEES:
        raise ValueError(f"{guarantee!r} is none of {', '.join(GUARANTEES)}")
    return GUARANTEES[word].strength
