"""The statement, its envelope and its log entry."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any

import pytest
from audit_tools import flips
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError

from expunge.audit.encoding import blinded, canonical, from_base64, to_base64
from expunge.audit.signing import SigningKey
from expunge.audit.statement import (
    PAYLOAD_TYPE,
    Entry,
    Predicate,
    Statement,
    pae,
    parts_digest,
    read_guarantee,
    seal,
    signed_by,
    unseal,
)
from expunge.errors import TamperedEvidence
from expunge.guarantee import Certified, Empirical, Exact

A, B, C = ("a" * 64, "b" * 64, "c" * 64)
PREDICATE: dict[str, Any] = {
    "requestIds": ["R-1"],
    "policy": "GDPR Art. 17",
    "dueAt": "2026-06-25T12:00:00Z",
    "issuedAt": "2026-05-25T12:00:00Z",
    "method": {"name": "sisa", "parametersDigest": A, "seed": 0},
    "guaranteeClass": {"class": "exact", "equality": "bitwise"},
    "before": {"state": A, "parts": {"rows": A, "shard": B}, "manifest": {"root": A, "size": 2}},
    "after": {"state": B, "parts": {"rows": B, "shard": C}, "manifest": {"root": B, "size": 1}},
    "changed": ["rows", "shard"],
    "destroyed": [A, B],
    "forgetSet": [{"id": A, "row": B}],
    "levels": {"rows": "destroyed", "copies elsewhere": "not reached"},
    "cost": {"seconds": 0.5, "examples": 7},
    "code": {"version": "0.1.0", "digest": A, "lock": B},
    "environment": {"python": "3.11"},
    "outOfScope": ["backups"],
    "log": {"origin": "example.com/log", "size": 1, "root": C},
}


def statement(**changes: Any) -> Statement:
    return Statement.about(Predicate.model_validate({**PREDICATE, **changes}))


def test_it_is_an_in_toto_statement() -> None:
    told = json.loads(statement().payload)
    assert told["_type"] == "https://in-toto.io/Statement/v1"
    assert told["predicateType"] == "urn:expunge:attestation:forgetting:v1"
    digest = hashlib.sha256(bytes.fromhex(B) + bytes.fromhex(C)).hexdigest()
    assert told["subject"] == [{"name": "sisa", "digest": {"sha256": digest}}]
    assert told["predicate"] == {**PREDICATE, "metrics": []}
    assert Statement.read(statement().payload) == statement()


def test_metrics_come_back_with_their_gaps() -> None:
    told = statement(metrics=[{"name": "accuracy", "value": 0.5, "floor": None}])
    assert Statement.read(told.payload) == told and b'"floor":null' in told.payload


def test_the_subject_is_the_digest_of_the_parts_in_order_of_their_names() -> None:
    assert parts_digest({"b": B, "a": A}) == parts_digest({"a": A, "b": B})
    assert parts_digest({"a": B, "b": A}) != parts_digest({"a": A, "b": B})


@pytest.mark.parametrize(
    "changes",
    [
        {"outOfScope": []},
        {"requestIds": []},
        {"forgetSet": []},
        {"issuedAt": "yesterday"},
        {"dueAt": "2026-06-25"},
        {"guaranteeClass": {"class": "perfect"}},
        {"guaranteeClass": {"class": "exact"}},
        {"guaranteeClass": {"class": "exact", "equality": "bitwise", "epsilon": 1}},
        {"levels": {"rows": "perhaps"}},
        {"destroyed": ["A" * 64]},
        {"before": {**PREDICATE["before"], "state": "short"}},
        {"after": {**PREDICATE["after"], "manifest": {"root": B, "size": -1}}},
        {"surprise": 1},
    ],
)
def test_what_a_certificate_must_say_cannot_be_left_out(changes: dict[str, Any]) -> None:
    value = json.loads(statement().payload)
    value["predicate"].update(changes)
    with pytest.raises(TamperedEvidence, match="cannot be read"):
        Statement.read(canonical(value))


@pytest.mark.parametrize("name", [name for name in PREDICATE if name not in ("policy", "dueAt")])
def test_every_other_field_is_mandatory(name: str) -> None:
    value = json.loads(statement().payload)
    del value["predicate"][name]
    with pytest.raises(TamperedEvidence):
        Statement.read(canonical(value))


def test_statements_of_another_type_subject_or_spelling_are_refused() -> None:
    value = json.loads(statement().payload)
    for key, other in (
        ("_type", "https://in-toto.io/Statement/v0.1"),
        ("predicateType", "https://slsa.dev/provenance/v1"),
    ):
        with pytest.raises(TamperedEvidence):
            Statement.read(canonical({**value, key: other}))
    with pytest.raises(TamperedEvidence, match="subject"):
        Statement.read(canonical({**value, "subject": [{"name": "sisa", "digest": {"sha256": A}}]}))
    with pytest.raises(TamperedEvidence, match="not written"):
        Statement.read(json.dumps(value).encode())
    for payload in (b"", b"[]", b"\xff", b"null"):
        with pytest.raises(TamperedEvidence):
            Statement.read(payload)


def test_guarantees_come_back_as_they_went() -> None:
    for guarantee in (
        Exact(equality="real_arithmetic"),
        Empirical(),
        Certified(epsilon=1.0, delta=1e-5, assumptions=("convex",)),
    ):
        assert read_guarantee(json.loads(json.dumps(guarantee.as_dict()))) == guarantee


def test_the_encoding_that_is_signed_is_dsses() -> None:
    """The example of the specification, and lengths in bytes."""
    assert Envelope(b"hello world", "http://example.com/HelloWorld", {}).pae() == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pae("é".encode()) == b"DSSEv1 28 application/vnd.in-toto+json 2 \xc3\xa9"


def test_the_library_verifies_our_envelopes_and_we_verify_its() -> None:
    key = SigningKey.make()
    payload = statement().payload
    envelope = seal(payload, key)
    library = Envelope.from_dict(copy.deepcopy(envelope))
    assert library.payload == payload and library.payload_type == PAYLOAD_TYPE
    assert set(library.verify([key.public.library_key()], 1)) == {key.public.id}
    with pytest.raises(VerificationError):
        library.verify([SigningKey.make().public.library_key()], 1)
    theirs = Envelope(payload, PAYLOAD_TYPE, {})
    theirs.sign(key._signer)
    assert theirs.to_dict() == envelope
    assert signed_by(theirs.to_dict(), [key.public]) == key.public


def test_only_a_trusted_key_over_this_very_payload_counts() -> None:
    key, other = SigningKey.make(), SigningKey.make()
    envelope = seal(statement().payload, key)
    assert signed_by(envelope, [other.public]) is None and signed_by(envelope, []) is None
    assert signed_by(envelope, [other.public, key.public]) == key.public
    changed = {**envelope, "payload": to_base64(statement(policy="other").payload)}
    assert signed_by(changed, [key.public]) is None
    hint = {**envelope, "signatures": [{**envelope["signatures"][0], "keyid": other.public.id}]}
    assert signed_by(hint, [key.public, other.public]) == key.public
    second = {**envelope, "signatures": [{"keyid": "x", "sig": to_base64(bytes(64))}, *envelope["signatures"]]}
    assert signed_by(second, [key.public]) == key.public


def test_one_changed_byte_of_payload_or_signature_is_found() -> None:
    key = SigningKey.make()
    envelope = seal(statement().payload, key)
    for changed in flips(statement().payload, 60):
        assert signed_by({**envelope, "payload": to_base64(changed)}, [key.public]) is None
    signature = from_base64(envelope["signatures"][0]["sig"])
    assert signature is not None
    for changed in flips(signature, 64):
        told = [{**envelope["signatures"][0], "sig": to_base64(changed)}]
        assert signed_by({**envelope, "signatures": told}, [key.public]) is None


@pytest.mark.parametrize(
    "change",
    [
        {"payload": "not base64!"},
        {"payload": "aGVsbG8"},
        {"payloadType": "text/plain"},
        {"signatures": []},
        {"signatures": [{"sig": "AAAA"}]},
        {"signatures": [{"keyid": "x", "sig": "?"}]},
        {"signatures": None},
    ],
)
def test_what_is_no_envelope_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(TamperedEvidence):
        unseal({**seal(statement().payload, SigningKey.make()), **change})


def test_a_log_entry_is_digests_and_commitments_and_nothing_else() -> None:
    entry = Entry.of(statement())
    told = json.loads(entry.leaf)
    assert told == {
        "kind": "forget",
        "document": hashlib.sha256(statement().payload).hexdigest(),
        "state": B,
        "previous": A,
        "manifest": {"root": B, "size": 1},
    }
    assert Entry.read(entry.leaf) == entry
    for leaf in (
        b"",
        b"{}",
        canonical({**told, "owner": "Ada"}),
        canonical({**told, "state": "Ada"}),
        entry.leaf + b" ",
    ):
        with pytest.raises(TamperedEvidence):
            Entry.read(leaf)


def test_canonical_json_has_one_form() -> None:
    assert canonical({"b": [1, 0.5, None], "a": "é"}) == '{"a":"é","b":[1,0.5,null]}'.encode()
    with pytest.raises(ValueError, match="Out of range"):
        canonical(float("nan"))
    assert from_base64("AAA=") == b"\x00\x00" and from_base64("AAB=") is None and from_base64("AAA") is None
    assert blinded(b"k", "a", "bc") != blinded(b"k", "ab", "c") != blinded(b"j", "ab", "c")
