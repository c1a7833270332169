"""The outcome of a verification: named checks, each passed, failed or inconclusive, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from expunge.errors import ExpungeError

Outcome = Literal["pass", "fail", "inconclusive"]


class Inconclusive(Exception):
    """Raised by a check that can be neither passed nor failed; its text is the reason."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at.

    Args:
        name: what. outcome: ``fail`` if the evidence contradicts, ``inconclusive`` if it does not suffice.
        reason: what was found.
    """

    name: str
    outcome: Outcome
    reason: str

    def as_dict(self) -> dict[str, str]:
        return {"name": self.name, "outcome": self.outcome, "reason": self.reason}


@dataclass
class Checks:
    """Checks as they are made."""

    made: list[Check] = field(default_factory=list)

    def run(self, name: str, check: Callable[[], str]) -> bool:
        """Make one check: it returns what it found, raises `Inconclusive`, or an error, which is a failure."""
        try:
            found: tuple[Outcome, str] = "pass", check()
        except Inconclusive as reason:
            found = "inconclusive", str(reason)
        except ExpungeError as error:
            found = "fail", error.cause
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, OSError) as error:
            # a file that was altered may hold anything; what cannot be read has not passed
            found = "fail", f"what it looks at is damaged ({type(error).__name__}: {error})"
        self.made.append(Check(name=name, outcome=found[0], reason=found[1]))
        return found[0] == "pass"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What `verify` found.

    Args:
        checks: in the order in which they were made.
        scope: ``certificate`` (the file alone), ``folder`` (and the learner's folder), ``replay`` (and trained again).
        says: what the certificate states, as JSON values, for display; believe it only if `outcome` is ``pass``.
    """

    checks: tuple[Check, ...]
    scope: Literal["certificate", "folder", "replay"]
    says: dict[str, Any] = field(default_factory=dict)

    @property
    def outcome(self) -> Outcome:
        """``fail`` if any check failed, else ``inconclusive`` if any was, else ``pass``."""
        outcomes = {check.outcome for check in self.checks}
        return "fail" if "fail" in outcomes else "inconclusive" if "inconclusive" in outcomes else "pass"

    @property
    def exit_code(self) -> int:
        """0 passed, 1 failed, 3 inconclusive: 2 is what a wrong command line gives."""
        return {"pass": 0, "fail": 1, "inconclusive": 3}[self.outcome]

    @property
    def failed(self) -> tuple[str, ...]:
        return tuple(check.name for check in self.checks if check.outcome == "fail")

    def __getitem__(self, name: str) -> Check:
        return next(check for check in self.checks if check.name == name)

    def as_dict(self) -> dict[str, Any]:
        return {
            "outcome": self.outcome,
            "scope": self.scope,
            "says": self.says,
            "checks": [check.as_dict() for check in self.checks],
        }
