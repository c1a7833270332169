"""The tables of the control plane. Times are UTC text of one width (`expunge.service.clock.stamp`): text orders them.

Nobody's identity stands in any of them: subjects are keyed hashes (`expunge.service.identity`). What must be told to a
filter in plain words is sealed under a key of the request's own.
"""

from __future__ import annotations

from sqlalchemy import JSON, Column, Float, Index, Integer, MetaData, Table, Text

metadata = MetaData()
SCHEMA = 1

request = Table(
    "request",
    metadata,
    Column("id", Text, primary_key=True),
    Column("external_id", Text),
    Column("subject_token", Text),  # None once the request was minimised
    Column("scope", JSON, nullable=False),
    Column("scope_digest", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("least_guarantee", Text, nullable=False),
    Column("regime", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("paused_from", Text),
    Column("denial_reason", Text),
    Column("verified", Integer, nullable=False),
    Column("received_at", Text, nullable=False),
    Column("acknowledged_at", Text),
    Column("due_at", Text, nullable=False),
    Column("soon_at", Text, nullable=False),  # from when on it is nearly due
    Column("limit_at", Text, nullable=False),  # from when on not even an extension would have helped
    Column("extended_at", Text),
    Column("extension_reason", Text),
    Column("closed_at", Text),
    Column("hold_reason", Text),
    Column("filed_by", Text, nullable=False),
    Column("approved_by", Text),
    Column("planned_by", Text),
    Column("duplicate_of", Text),
    Column("estimate", JSON),
    Column("sealed", Text),
    Column("version", Integer, nullable=False),
    Column("minimised_at", Text),
    Index("request_by_due", "due_at", "id"),
    Index("request_by_verified", "verified", "due_at", "id"),
    Index("request_by_status", "status", "due_at", "id"),
    Index("request_by_count", "verified", "status"),
    Index("request_by_subject", "subject_token"),
    Index("request_by_receipt", "received_at"),
    Index("request_by_external", "external_id"),
    Index("request_by_closing", "closed_at", "minimised_at"),
    # lists and counts are answered from this one alone: rows are wide, and reading 50,000 of them takes half a second
    Index(
        "request_by_standing",
        "verified",
        "closed_at",
        "due_at",
        "id",
        "soon_at",
        "limit_at",
        "extended_at",
        "status",
        "reason",
        "regime",
        "received_at",
    ),
)

event = Table(
    "event",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("request_id", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("from_status", Text),
    Column("to_status", Text),
    Column("detail", JSON, nullable=False),
    Index("event_by_request", "request_id", "id"),
)

layer = Table(
    "layer",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("target", Text, primary_key=True),
    Column("stage", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("batch_id", Text),
    Column("not_before", Text),
    Column("rows", Integer),
    Column("outcome", JSON),
    Column("certificate", Text),  # path, relative to the service's folder
    Column("started_at", Text),
    Column("ended_at", Text),
    Index("layer_by_batch", "batch_id"),
    Index("layer_by_status", "status", "not_before"),
)

batch = Table(
    "batch",
    metadata,
    Column("id", Text, primary_key=True),
    Column("target", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("status", Text, nullable=False),  # pending, running, done, failed
    Column("size", Integer, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("ended_at", Text),
    Column("seconds", Float),
    Column("reason", Text),
    Index("batch_by_status", "status", "created_at"),
)

target = Table(
    "target",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("location", Text, nullable=False),
    Column("digest", Text),
    Column("parent", Text),
    Column("made_from", JSON, nullable=False),
    Column("options", JSON, nullable=False),
    Column("run_seconds", JSON, nullable=False),
    Column("registered_at", Text, nullable=False),
    Column("retired_at", Text),
)

holding = Table(
    "holding",
    metadata,
    Column("subject_token", Text, primary_key=True),
    Column("target", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("rows", Integer, nullable=False),
    Index("holding_by_target", "target"),
)

suppressed = Table(
    "suppressed",
    metadata,
    Column("subject_token", Text, primary_key=True),
    Column("request_id", Text),  # None once the request was erased
    Column("since", Text, nullable=False),
    Column("until", Text),
)

api_key = Table(
    "api_key",
    metadata,
    Column("id", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("salt", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("subject_token", Text),
    Column("created_at", Text, nullable=False),
    Column("expires_at", Text),
    Column("revoked_at", Text),
    Column("last_used_at", Text),
)

session = Table(
    "session",
    metadata,
    Column("id_hash", Text, primary_key=True),
    Column("actor", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("subject_token", Text),
    Column("csrf", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("expires_at", Text, nullable=False),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("key", Text, primary_key=True),
    Column("actor", Text, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("status", Integer),
    Column("body", Text),
    Column("at", Text, nullable=False),
)

webhook = Table(
    "webhook",
    metadata,
    Column("id", Text, primary_key=True),
    Column("url", Text, nullable=False),
    Column("secret_sealed", Text, nullable=False),
    Column("events", JSON, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("disabled_at", Text),
)

delivery = Table(
    "delivery",
    metadata,
    Column("id", Text, primary_key=True),
    Column("webhook_id", Text, nullable=False),
    Column("event_id", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("due_at", Text, nullable=False),
    Column("status", Text, nullable=False),  # pending, delivered, given_up
    Column("response_code", Integer),
    Column("at", Text),
    Index("delivery_by_due", "status", "due_at"),
)

audit_trail = Table(
    "audit_trail",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("object", Text),
    Column("outcome", Text, nullable=False),
    Index("audit_by_time", "at"),
)

setting = Table("setting", metadata, Column("key", Text, primary_key=True), Column("value", JSON, nullable=False))

worker = Table(
    "worker",
    metadata,
    Column("id", Text, primary_key=True),
    Column("started_at", Text, nullable=False),
    Column("beat_at", Text, nullable=False),
    Column("stopped_at", Text),
)
