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
    status: int = 200

    @property
    def repeats(self) -> bool:
        # an answer of OpenDSR holds the identity, so it is kept nowhere; its own id makes it repeatable
        return self.method == "POST" and self.tag not in ("opendsr", "health")


_ONE = "/v1/requests/{request_id}"

OPERATIONS: tuple[Operation, ...] = (
    Operation("file_request", "POST", "/v1/requests", "file", "requests", "File a request", 201),
    Operation("list_requests", "GET", "/v1/requests", "list", "requests", "Requests by due date"),
    Operation("export_requests", "GET", "/v1/requests/export", "export", "requests", "All that a filter lets through"),
    Operation("act_on_many", "POST", "/v1/requests/bulk", "list", "requests", "One action on all that a filter lets through"),
    Operation("count_requests", "GET", "/v1/counts", "list", "requests", "How many in each state"),
    Operation("due_dates", "GET", "/v1/calendar", "list", "requests", "Due dates of open requests in a month"),
    Operation("get_request", "GET", _ONE, "see", "requests", "A request"),
    Operation("get_history", "GET", f"{_ONE}/history", "see", "requests", "What happened to it"),
    Operation("get_layers", "GET", f"{_ONE}/layers", "see", "requests", "What is done to which target"),
    Operation("get_exposure", "GET", f"{_ONE}/exposure", "see", "requests", "How long each target still told"),
    Operation("estimate_request", "GET", f"{_ONE}/estimate", "estimate", "requests", "What it would touch and cost"),
    Operation("verify_request", "POST", f"{_ONE}/verify", "verify", "decisions", "The identity has been verified"),
    Operation("approve_request", "POST", f"{_ONE}/approve", "approve", "decisions", "Let the work begin"),
    Operation("deny_request", "POST", f"{_ONE}/deny", "deny", "decisions", "Refuse it, with a reason"),
    Operation("cancel_request", "POST", f"{_ONE}/cancel", "cancel", "decisions", "Take it back"),
    Operation("extend_request", "POST", f"{_ONE}/extend", "extend", "decisions", "The one extension"),
    Operation("hold_request", "POST", f"{_ONE}/hold", "hold", "decisions", "A legal hold"),
    Operation("release_request", "POST", f"{_ONE}/release", "release", "decisions", "The end of a hold"),
    Operation("retry_request", "POST", f"{_ONE}/retry", "retry", "decisions", "Begin again with what failed"),
    Operation("finalise_request", "POST", f"{_ONE}/finalise", "finalise", "decisions", "Close it by hand"),
    Operation("check_suppression", "POST", "/v1/suppression/check", "check_suppression", "suppression", "Who must not be learned from"),
    Operation("register_target", "POST", "/v1/targets", "register", "registry", "Register a model, store or data set", 201),
    Operation("list_targets", "GET", "/v1/targets", "see_registry", "registry", "What is registered"),
    Operation("get_target", "GET", "/v1/targets/{target_id}", "see_registry", "registry", "One of them"),
    Operation("reindex_target", "POST", "/v1/targets/{target_id}/reindex", "register", "registry", "Read again who is in it"),
    Operation("retire_target", "POST", "/v1/targets/{target_id}/retire", "register", "registry", "Take it out of service", 204),
    Operation("get_lineage", "GET", "/v1/lineage", "see_registry", "registry", "What was made from what"),
    Operation("list_certificates", "GET", f"{_ONE}/certificates", "see_certificate", "evidence", "Its certificates"),
    Operation("get_certificate", "GET", f"{_ONE}/certificates/{{target_id}}/{{stage}}", "see_certificate", "evidence", "One of them, to keep"),
    Operation("verify_certificate", "POST", "/v1/certificates/verify", "see_certificate", "evidence", "Check a certificate that is sent"),
    Operation("get_checkpoint", "GET", "/v1/targets/{target_id}/checkpoint", "see_log", "evidence", "The signed head of a target's log"),
    Operation("get_policy", "GET", "/v1/policy", "see_policy", "policy", "What is decided by"),
    Operation("make_webhook", "POST", "/v1/webhooks", "manage_webhooks", "webhooks", "Tell a URL what happens", 201),
    Operation("list_webhooks", "GET", "/v1/webhooks", "manage_webhooks", "webhooks", "Who is told"),
    Operation("get_webhook", "GET", "/v1/webhooks/{webhook_id}", "manage_webhooks", "webhooks", "One of them"),
    Operation("remove_webhook", "DELETE", "/v1/webhooks/{webhook_id}", "manage_webhooks", "webhooks", "Tell it no more", 204),
    Operation("rotate_webhook", "POST", "/v1/webhooks/{webhook_id}/rotate", "manage_webhooks", "webhooks", "A new secret"),
    Operation("enable_webhook", "POST", "/v1/webhooks/{webhook_id}/enable", "manage_webhooks", "webhooks", "Begin again"),
    Operation("disable_webhook", "POST", "/v1/webhooks/{webhook_id}/disable", "manage_webhooks", "webhooks", "Stop for now"),
    Operation("list_deliveries", "GET", "/v1/webhooks/{webhook_id}/deliveries", "manage_webhooks", "webhooks", "What it was sent"),
    Operation("make_key", "POST", "/v1/keys", "manage_keys", "keys", "A key for a program", 201),
    Operation("list_keys", "GET", "/v1/keys", "manage_keys", "keys", "The keys, without their secrets"),
    Operation("revoke_key", "DELETE", "/v1/keys/{key_id}", "manage_keys", "keys", "Let nobody in with it", 204),
    Operation("read_audit_trail", "GET", "/v1/audit", "see_audit", "audit", "Who did what, when"),
    Operation("opendsr_discovery", "GET", "/opendsr/discovery", None, "opendsr", "What is supported"),
    Operation("opendsr_file", "POST", "/opendsr/requests", "file_for_others", "opendsr", "File a request", 201),
    Operation("opendsr_status", "GET", "/opendsr/requests/{subject_request_id}", "file_for_others", "opendsr", "How it stands"),
    Operation("opendsr_cancel", "DELETE", "/opendsr/requests/{subject_request_id}", "file_for_others", "opendsr", "Take it back", 202),
    Operation("healthz", "GET", "/healthz", None, "health", "The process answers"),
    Operation("readyz", "GET", "/readyz", None, "health", "It can work: the database answers"),
    Operation("metrics", "GET", "/metrics", "see_metrics", "health", "For Prometheus"),
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
