"""What `expunge accounting` does: ε of a mechanism, its growth over requests, a policy's judgement; text or JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from expunge.accounting import gaussian
from expunge.accounting.groups import NOTIONS
from expunge.accounting.growth import REQUESTS, Growth, growth
from expunge.accounting.ledger import Account, Ledger, Notion
from expunge.accounting.loss import Side
from expunge.errors import MissingEvidence, RequestError

if TYPE_CHECKING:
    from rich.console import Console

    from expunge.accounting.policy import Verdict

Mechanism = Literal["gaussian", "subsampled_gaussian", "laplace", "residual"]
MECHANISMS: tuple[Mechanism, ...] = ("gaussian", "subsampled_gaussian", "laplace", "residual")


@dataclass(frozen=True, kw_only=True)
class Accounting:
    """What the command tells: the ledger, ε by each accountant that has one, and what else was asked for."""

    ledger: Ledger
    accounts: tuple[Account, ...]
    growth: Growth | None = None
    verdict: Verdict | None = None

    def as_dict(self) -> dict[str, Any]:
        return {
            "ledger": self.ledger.as_dict(),
            "accounts": [account.as_dict() for account in self.accounts],
            "growth": None if self.growth is None else self.growth.as_dict(),
            "policy": None if self.verdict is None else self.verdict.as_dict(),
        }


def mechanism_ledger(
    *,
    mechanism: Mechanism = "gaussian",
    noise: float | None = None,
    epsilon: float | None = None,
    sensitivity: float = 1.0,
    sample_rate: float | None = None,
    count: int = 1,
    delta: float = 1e-5,
) -> Ledger:
    """A ledger with one mechanism in it; either its noise is given, or (Gaussian ones) the ε it shall have.

    Args:
        noise: standard deviation, Laplace scale, or for subsampled_gaussian the noise multiplier. epsilon: calibrates
            the noise of one release (gaussian) or of all steps (subsampled_gaussian) instead.
        sensitivity: L2 (gaussian), L1 (laplace) or the residual's norm β; must stay 1 for subsampled_gaussian.
        sample_rate: Poisson, for subsampled_gaussian only. count: releases, steps, or removals of this residual.
        delta: of the budget, and the calibration.

    Raises:
        RequestError: options that do not belong together, or values out of range.
    """
    if mechanism not in MECHANISMS:
        raise RequestError(f"there is no mechanism {mechanism!r}", f"Known: {', '.join(MECHANISMS)}")
    if (noise is None) == (epsilon is None):
        raise RequestError("give either --noise or --epsilon", "The noise is known, or it is calibrated to an epsilon")
    if (sample_rate is not None) != (mechanism == "subsampled_gaussian"):
        raise RequestError(
            "--sample-rate belongs to subsampled_gaussian, and it needs one", "Give both or neither of them"
        )
    budget = Ledger(1.0 if epsilon is None else epsilon, delta)
    if sample_rate is not None:
        if sensitivity != 1:
            raise RequestError(
                "--sensitivity has no meaning for subsampled_gaussian", "Its noise is in units of the clipping norm"
            )
        if noise is None:
            from expunge.accounting.notion import noise_multiplier

            noise = noise_multiplier(budget.budget_epsilon, delta, sample_rate=sample_rate, steps=count)
        return budget.subsampled_gaussian(noise, sample_rate, count)
    if noise is None:
        if mechanism not in ("gaussian", "laplace"):
            raise RequestError("the noise of a residual is not calibrated here", "Give --noise")
        noise = (
            gaussian.sigma(budget.budget_epsilon, delta, sensitivity)
            if mechanism == "gaussian"
            else sensitivity / budget.budget_epsilon
        )
    if mechanism == "gaussian":
        return budget.gaussian(sensitivity, noise, count)
    if mechanism == "laplace":
        return budget.laplace(sensitivity, noise, count)
    from expunge.accounting.charges import whole

    for _ in range(whole("count", count)):
        budget = budget.residual(sensitivity, noise=noise)
    return budget


def make_accounting(
    *,
    mechanism: Mechanism = "gaussian",
    noise: float | None = None,
    epsilon: float | None = None,
    sensitivity: float = 1.0,
    sample_rate: float | None = None,
    count: int = 1,
    delta: float = 1e-5,
    notion: Notion | None = None,
    group: int = 1,
    side: Side = "both",
    requests: tuple[int, ...] | None = None,
    policy: Path | None = None,
) -> Accounting:
    """Everything `expunge accounting` tells about one mechanism.

    Args:
        notion: only this accountant; by default each that has a bound. group: records at once. side: see `Ledger`.
        requests: rising numbers for a table of growth; () for the default ones, None for no table.
        policy: a file that says which ε is enough. The others: see `mechanism_ledger`.

    Raises:
        RequestError, MissingEvidence, RunError: before anything is printed.
    """
    from expunge.accounting.policy import read_policy

    rules = None if policy is None else read_policy(policy)
    ledger = mechanism_ledger(
        mechanism=mechanism,
        noise=noise,
        epsilon=epsilon,
        sensitivity=sensitivity,
        sample_rate=sample_rate,
        count=count,
        delta=delta,
    )
    accounts = []
    for one in NOTIONS if notion is None else (notion,):
        try:
            accounts.append(ledger.account(delta, one, group, side=side))
        except MissingEvidence:
            if notion is not None:
                raise
    return Accounting(
        ledger=ledger,
        accounts=tuple(accounts),
        growth=None if requests is None else growth(ledger, requests or REQUESTS, delta),
        verdict=None if rules is None else rules.judge(ledger),
    )


def accounting_command(*, out: Path | None = None, as_json: bool = False, **options: Any) -> bool:
    """Print `make_accounting` of `options`, as text or as one JSON document; draw the growth into `out`.

    Returns:
        False if a policy was given and says that it is not enough (for the exit status), else True.

    Raises:
        As `make_accounting`; RequestError: `out` is neither .png nor .svg, or there is no growth to draw.
    """
    from expunge.accounting.plot import save_growth
    from expunge.figures import check_path

    if out is not None:
        check_path(out)
        if options.get("requests") is None:
            options["requests"] = ()
    told = make_accounting(**options)
    if out is not None and told.growth is not None:
        save_growth(told.growth, out)
    if as_json:
        print(json.dumps(told.as_dict() | {"plot": None if out is None else str(out)}, allow_nan=False))
    else:
        from rich.console import Console

        print_accounting(told, Console())
        if out is not None:
            print(f"\nplot: {out.resolve()}")
    return told.verdict is None or told.verdict.enough


def print_accounting(told: Accounting, console: Console) -> None:
    """The accounts, the table of growth with its slopes, and the policy's words."""
    for charge in told.ledger.charges:
        facts = ", ".join(f"{k} {v:g}" for k, v in charge.as_dict().items() if isinstance(v, int | float))
        console.print(f"{charge.mechanism}: {facts}", highlight=False)
    for account in told.accounts:
        console.print(f"{account.notion.upper()}: {account}", highlight=False)
    if told.growth is not None:
        print_growth(told.growth, console)
    if told.verdict is not None:
        console.print()
        for sentence in told.verdict.words():
            console.print(sentence, highlight=False, markup=False)


def print_growth(told: Growth, console: Console) -> None:
    """The table of growth; the last row holds the slopes."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    heads = ("requests k", "composition", "by RDP", "naive", "group of k", "group, naive", "… at δ")
    for head in heads:
        table.add_column(head, justify="right")
    columns = ("composition", "composition_rdp", "naive", "group", "group_published", "group_published_delta")

    def cell(value: float | None) -> str:
        return "–" if value is None else f"{value:.4g}"

    for row in told.rows:
        table.add_row(f"{row.requests:,}", *(cell(getattr(row, column)) for column in columns))
    table.add_section()
    slopes = (told.slopes.get(column) for column in columns)
    table.add_row("log–log slope", *("" if s is None else f"{s:.2f}" for s in slopes))
    console.print(f"\nε in nats at δ = {told.delta:g}, by {told.notion.upper()}", highlight=False)
    console.print(table)
