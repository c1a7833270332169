"""Every endpoint, in one table: where it is, which permission it needs, and what it is for.

The routes are made from it, the OpenAPI document says it, the tests try each line with each role, and docs/api.md shows
it. Who has a permission stands in `expunge.service.permissions.ALLOWED`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Operation:
    """An endpoint.

    Args:
        id: name in the document and in the metrics. permission: a key of `ALLOWED`; None: for everybody, without a key.
        status: of success. repeats: whether ``Idempotency-Key`` is heeded.
    """

    id: str
    method: Literal["GET", "POST", "DELETE"]
    path: str
    permission: str | None
    tag: str
    summary: str
    status: int

    @property
    def repeats(self) -> bool:
        # an answer of OpenDSR holds the identity, so it is kept nowhere; its own id makes it repeatable
        return self.method == "POST" and self.tag not in ("opendsr", "health")


_ONE = "/v1/requests/{request_id}"

Row = tuple[str, Literal["GET", "POST", "DELETE"], str, str | None, str, int]


def _group(tag: str, *rows: Row) -> tuple[Operation, ...]:
    return tuple(Operation(id_, method, path, may, tag, text, status) for id_, method, path, may, text, status in rows)


OPERATIONS: tuple[Operation, ...] = (
    *_group(
        "requests",
        ("file_request", "POST", "/v1/requests", "file", "File a request", 201),
        ("list_requests", "GET", "/v1/requests", "list", "Requests by due date", 200),
        ("export_requests", "GET", "/v1/requests/export", "export", "All that a filter lets through", 200),
        ("act_on_many", "POST", "/v1/requests/bulk", "list", "One action on all that a filter lets through", 200),
        ("count_requests", "GET", "/v1/counts", "list", "How many in each state", 200),
        ("due_dates", "GET", "/v1/calendar", "list", "Due dates of open requests in a month", 200),
        ("get_request", "GET", _ONE, "see", "A request", 200),
        ("get_history", "GET", f"{_ONE}/history", "see", "What happened to it", 200),
        ("get_layers", "GET", f"{_ONE}/layers", "see", "What is done to which target", 200),
        ("get_exposure", "GET", f"{_ONE}/exposure", "see", "How long each target still told", 200),
        ("estimate_request", "GET", f"{_ONE}/estimate", "estimate", "What it would touch and cost", 200),
    ),
    *_group(
        "decisions",
        ("verify_request", "POST", f"{_ONE}/verify", "verify", "The identity has been verified", 200),
        ("approve_request", "POST", f"{_ONE}/approve", "approve", "Let the work begin", 200),
        ("deny_request", "POST", f"{_ONE}/deny", "deny", "Refuse it, with a reason", 200),
        ("cancel_request", "POST", f"{_ONE}/cancel", "cancel", "Take it back", 200),
        ("extend_request", "POST", f"{_ONE}/extend", "extend", "The one extension", 200),
        ("hold_request", "POST", f"{_ONE}/hold", "hold", "A legal hold", 200),
        ("release_request", "POST", f"{_ONE}/release", "release", "The end of a hold", 200),
        ("retry_request", "POST", f"{_ONE}/retry", "retry", "Begin again with what failed", 200),
        ("finalise_request", "POST", f"{_ONE}/finalise", "finalise", "Close it by hand", 200),
    ),
    *_group(
        "suppression",
        ("check_suppression", "POST", "/v1/suppression/check", "check_suppression", "Who is blocked", 200),
    ),
    *_group(
        "registry",
        ("register_target", "POST", "/v1/targets", "register", "Register a model, store or data set", 201),
        ("list_targets", "GET", "/v1/targets", "see_registry", "What is registered", 200),
        ("get_target", "GET", "/v1/targets/{target_id}", "see_registry", "One of them", 200),
        ("reindex_target", "POST", "/v1/targets/{target_id}/reindex", "register", "Read again who is in it", 200),
        ("retire_target", "POST", "/v1/targets/{target_id}/retire", "register", "Take it out of service", 204),
        ("get_lineage", "GET", "/v1/lineage", "see_registry", "What was made from what", 200),
    ),
    *_group(
        "evidence",
        ("list_certificates", "GET", f"{_ONE}/certificates", "see_certificate", "Its certificates", 200),
        ("get_certificate", "GET", f"{_ONE}/certificates/{{target_id}}/{{stage}}", "see_certificate", "Its file", 200),
        ("verify_certificate", "POST", "/v1/certificates/verify", "see_certificate", "Check one that is sent", 200),
        ("get_checkpoint", "GET", "/v1/log/checkpoint", "see_log", "The signed head of the log of certificates", 200),
        ("get_trusted_keys", "GET", "/v1/log/keys", None, "The keys to check certificates with", 200),
    ),
    *_group(
        "policy",
        ("get_policy", "GET", "/v1/policy", "see_policy", "What is decided by", 200),
    ),
    *_group(
        "webhooks",
        ("make_webhook", "POST", "/v1/webhooks", "manage_webhooks", "Tell a URL what happens", 201),
        ("list_webhooks", "GET", "/v1/webhooks", "manage_webhooks", "Who is told", 200),
        ("get_webhook", "GET", "/v1/webhooks/{webhook_id}", "manage_webhooks", "One of them", 200),
        ("remove_webhook", "DELETE", "/v1/webhooks/{webhook_id}", "manage_webhooks", "Tell it no more", 204),
        ("rotate_webhook", "POST", "/v1/webhooks/{webhook_id}/rotate", "manage_webhooks", "A new secret", 200),
        ("enable_webhook", "POST", "/v1/webhooks/{webhook_id}/enable", "manage_webhooks", "Begin again", 200),
        ("disable_webhook", "POST", "/v1/webhooks/{webhook_id}/disable", "manage_webhooks", "Stop for now", 200),
        ("list_deliveries", "GET", "/v1/webhooks/{webhook_id}/deliveries", "manage_webhooks", "What it was sent", 200),
    ),
    *_group(
        "keys",
        ("make_key", "POST", "/v1/keys", "manage_keys", "A key for a program", 201),
        ("list_keys", "GET", "/v1/keys", "manage_keys", "The keys, without their secrets", 200),
        ("revoke_key", "DELETE", "/v1/keys/{key_id}", "manage_keys", "Let nobody in with it", 204),
    ),
    *_group(
        "audit",
        ("read_audit_trail", "GET", "/v1/audit", "see_audit", "Who did what, when", 200),
    ),
    *_group(
        "opendsr",
        ("opendsr_discovery", "GET", "/opendsr/discovery", None, "What is supported", 200),
        ("opendsr_file", "POST", "/opendsr/requests", "file_for_others", "File a request", 201),
        ("opendsr_status", "GET", "/opendsr/requests/{subject_request_id}", "file_for_others", "How it stands", 200),
        ("opendsr_cancel", "DELETE", "/opendsr/requests/{subject_request_id}", "file_for_others", "Take it back", 202),
        ("opendsr_certificate", "GET", "/opendsr/certificate.pem", None, "What its answers are signed with", 200),
    ),
    *_group(
        "health",
        ("healthz", "GET", "/healthz", None, "The process answers", 200),
        ("readyz", "GET", "/readyz", None, "It can work: the database answers", 200),
        ("metrics", "GET", "/metrics", "see_metrics", "For Prometheus", 200),
    ),
)  # fmt: skip

BY_ID: Mapping[str, Operation] = {operation.id: operation for operation in OPERATIONS}

TAGS: Mapping[str, str] = {
    "requests": "File, list, look at and export requests.",
    "decisions": "Move a request on. Who may do which stands at each.",
    "suppression": "Whoever was erased is not learned from again.",
    "registry": "Models, stores and data sets, and what was made from what.",
    "evidence": "Certificates, and the log that they stand in.",
    "policy": "Deadlines, caps, batching, retention.",
    "webhooks": "Standard Webhooks: signed, and sent until they arrive.",
    "keys": "Keys of programs. An approver's key is made by an approver, any other by an operator.",
    "audit": "Who did what, when.",
    "opendsr": "OpenDSR 2.0, so that a privacy platform can use the service as a processor.",
    "health": "For whoever runs it.",
}
