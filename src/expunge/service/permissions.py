"""Which role may do what: one table, used by the desk and tested against every endpoint."""

from __future__ import annotations

from collections.abc import Mapping

from expunge.errors import NotAllowed
from expunge.service.entities import Actor

# An approver's key can only be made by an approver, and no other key can: else one person could be four eyes alone.
ALLOWED: Mapping[str, frozenset[str]] = {
    "file": frozenset({"subject", "operator"}),
    "file_for_others": frozenset({"operator"}),
    "see": frozenset({"subject", "operator", "approver", "auditor"}),
    "list": frozenset({"subject", "operator", "approver", "auditor"}),
    "verify": frozenset({"operator"}),
    "approve": frozenset({"approver"}),
    "deny": frozenset({"operator", "approver"}),
    "cancel": frozenset({"subject", "operator"}),
    "extend": frozenset({"operator"}),
    "hold": frozenset({"operator", "approver"}),
    "release": frozenset({"approver"}),
    "retry": frozenset({"operator"}),
    "finalise": frozenset({"approver"}),
    "estimate": frozenset({"operator", "approver", "auditor"}),
    "export": frozenset({"operator", "auditor"}),
    "register": frozenset({"operator"}),
    "see_registry": frozenset({"operator", "approver", "auditor"}),
    "check_suppression": frozenset({"operator"}),
    "see_policy": frozenset({"operator", "approver", "auditor"}),
    "see_log": frozenset({"operator", "approver", "auditor"}),
    "see_certificate": frozenset({"subject", "operator", "approver", "auditor"}),
    "see_audit": frozenset({"auditor"}),
    "see_metrics": frozenset({"operator", "approver", "auditor"}),
    "erase": frozenset({"approver"}),
    "manage_webhooks": frozenset({"operator"}),
    "manage_keys": frozenset({"operator", "approver"}),
    "make_key": frozenset({"operator"}),
    "make_approver": frozenset({"approver"}),
}


def check(actor: Actor, action: str) -> None:
    """
    Raises:
        NotAllowed: the actor's role may not do that.
    """
    if actor.role != "system" and actor.role not in ALLOWED[action]:
        roles = ", ".join(sorted(ALLOWED[action]))
        raise NotAllowed(f"the role {actor.role} may not do this ({action.replace('_', ' ')})", f"Ask: {roles}")
