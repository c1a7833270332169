"""The words of the control plane: states of a request and the moves between them, reasons, roles, SLA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

Status = Literal[
    "received",
    "verified",
    "approved",
    "planned",
    "running",
    "evaluated",
    "fulfilled",
    "denied",
    "cancelled",
    "failed",
    "paused",
]
STATUSES: tuple[Status, ...] = get_args(Status)
FINAL: frozenset[Status] = frozenset({"fulfilled", "denied", "cancelled"})
HOLDABLE: frozenset[Status] = frozenset({"received", "verified", "approved", "planned", "failed"})

# From each state, where a request may go. A legal hold (`paused`) returns to where it came from.
MOVES: Mapping[Status, frozenset[Status]] = {
    "received": frozenset({"verified", "denied", "cancelled", "paused"}),
    "verified": frozenset({"approved", "denied", "cancelled", "paused"}),
    "approved": frozenset({"planned", "cancelled", "failed", "paused"}),
    "planned": frozenset({"running", "cancelled", "failed", "paused"}),
    "running": frozenset({"evaluated", "failed"}),
    "evaluated": frozenset({"fulfilled", "failed"}),
    "failed": frozenset({"approved", "denied", "cancelled", "paused"}),
    "paused": HOLDABLE,
    "fulfilled": frozenset(),
    "denied": frozenset(),
    "cancelled": frozenset(),
}

# Data Rights Protocol 1.0, section 3.02, and one for what it has no word for.
DenialReason = Literal[
    "suspected_fraud",
    "insuf_verification",
    "no_match",
    "claim_not_covered",
    "outside_jurisdiction",
    "too_many_requests",
    "other",
]
DENIAL_REASONS: tuple[DenialReason, ...] = get_args(DenialReason)

Reason = Literal["privacy", "copyright", "safety", "correction", "staleness"]
REASONS: tuple[Reason, ...] = get_args(Reason)

GuaranteeWord = Literal["exact", "certified", "empirical", "suppressed"]
STRENGTH: Mapping[str, int] = {"suppressed": 0, "empirical": 1, "certified": 2, "exact": 3}

Role = Literal["subject", "operator", "approver", "auditor"]
ROLES: tuple[Role, ...] = get_args(Role)

# An open request is on time, nearly due, past its due date while an extension is still possible, or past everything.
Sla = Literal["on_track", "due_soon", "overdue", "breached", "kept", "missed"]
SLAS: tuple[Sla, ...] = get_args(Sla)

# What is done to a layer, from quick and weak to slow and strong.
Stage = Literal["suppress", "approximate", "exact"]
STAGES: tuple[Stage, ...] = get_args(Stage)
LayerStatus = Literal["pending", "running", "done", "already", "failed", "out_of_scope"]
LAYER_DONE: frozenset[LayerStatus] = frozenset({"done", "already"})  # already erased is no failure
