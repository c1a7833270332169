"""What can be done to a request: by whom, in which state, and what must be said with it.

The desk decides; here stands what a page offers, and a test holds the two together for every state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from expunge.errors import RequestError
from expunge.service.entities import Request
from expunge.service.policy import Policy
from expunge.service.words import DENIAL_REASONS, FINAL, HOLDABLE, MOVES

Needs = Literal["nothing", "reason", "denial", "note"]
LONGEST = 1000


@dataclass(frozen=True, kw_only=True)
class Action:
    """
    Args:
        name: of the desk's method and of the permission. label: of its button. done: "3 requests …". says: what it
            means. needs: what must be said. grave: it cannot be taken back.
    """

    name: str
    label: str
    done: str
    says: str
    needs: Needs = "nothing"
    grave: bool = False


# the way on stands before the ways out
ACTIONS: tuple[Action, ...] = (
    Action(name="verify", label="Mark as verified", done="verified", says="You have verified who asks."),
    Action(
        name="approve",
        label="Approve",
        done="approved",
        says="The work is planned and begins by the policy's rule. Once it has begun, nothing brings the data back.",
        grave=True,
    ),
    Action(name="release", label="Release", done="released", says="The hold ends; the request is where it was before."),
    Action(
        name="retry",
        label="Try again",
        done="to be tried again",
        says="What failed is begun again. What is done stays done.",
    ),
    Action(
        name="deny",
        label="Deny",
        done="denied",
        says="The request is closed and the subject is told the reason. A denied request never moves again.",
        needs="denial",
        grave=True,
    ),
    Action(
        name="extend",
        label="Extend",
        done="extended",
        says="The one extension that the regime knows. The subject is told the reason, before the first due date.",
        needs="reason",
    ),
    Action(
        name="hold",
        label="Put on hold",
        done="put on hold",
        says="A legal hold: nothing is erased until it is released. The deadline goes on.",
        needs="reason",
    ),
    Action(
        name="finalise",
        label="Close by hand",
        done="closed by hand",
        says="The service could not do this, and somebody else has. You answer for it, and the history says so.",
        needs="note",
        grave=True,
    ),
    Action(
        name="cancel",
        label="Cancel",
        done="cancelled",
        says="It is taken back, or was filed by mistake. A cancelled request never moves again.",
        grave=True,
    ),
)
BY_NAME: Mapping[str, Action] = {action.name: action for action in ACTIONS}
MANY: tuple[Action, ...] = tuple(action for action in ACTIONS if action.name != "finalise")


def possible(action: str, request: Request, policy: Policy, now: datetime) -> bool:
    """Whether the state of a request allows it."""
    status = request.status
    tests: dict[str, Callable[[], bool]] = {
        "verify": lambda: status == "received",
        "approve": lambda: status == "verified",
        "deny": lambda: "denied" in MOVES[status],
        "cancel": lambda: "cancelled" in MOVES[status],
        "hold": lambda: status in HOLDABLE,
        "release": lambda: status == "paused",
        "retry": lambda: status == "failed",
        "finalise": lambda: status in ("approved", "planned"),
        "extend": lambda: status not in FINAL and _extends(request, policy, now),
    }
    return tests[action]()


def _extends(request: Request, policy: Policy, now: datetime) -> bool:
    regime = policy.regimes.get(request.regime)
    return regime is not None and regime.extends and request.extended_at is None and now < request.due_at


def barred(action: str, request: Request, policy: Policy, actor_id: str) -> str:
    """Why this person may not, though the role may; nothing where they may."""
    if action in ("approve", "finalise") and policy.approval.four_eyes and request.filed_by == actor_id:
        return "You filed it, and four eyes are needed: ask another approver."
    return ""


def arguments(action: Action, sent: Callable[[str], str]) -> dict[str, Any]:
    """What the desk's method is given, from a form.

    Raises:
        RequestError: what must be said was not.
    """
    # `why` and not `reason`, by which lists are filtered
    reason, note = sent("why"), sent("note")
    if action.needs == "denial":
        if reason not in DENIAL_REASONS:
            raise RequestError("no reason was chosen", "Choose why the request is denied")
        return {"reason": reason, "note": note}
    if action.needs == "reason":
        if not reason:
            raise RequestError("no reason was given", f"Say why; it takes up to {LONGEST} characters")
        return {"reason": reason}
    if action.needs == "note":
        if not note:
            raise RequestError("nothing was said", "Say what was done, and how; without personal data")
        return {"note": note}
    return {}
