"""What the command line calls."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from audit_tools import NAME, World

from expunge.audit.commands import (
    folder_of,
    keys_destroy,
    keys_make,
    keys_receipt,
    keys_rotate,
    keys_show,
    keys_status,
    verify_certificate,
)
from expunge.audit.keys import KeyFolder, owner, record
from expunge.audit.manifest import Manifest
from expunge.data.records import Records
from expunge.errors import RequestError, UnknownIds


def test_the_public_keys_that_are_shown_verify(made: World, tmp_path: Path) -> None:
    public = tmp_path / "public.json"
    public.write_text(json.dumps(keys_show(made.path / "keys")))
    told = verify_certificate(made.second, public_key=public, keys=made.path / "keys", replay=True)
    assert told.outcome == "pass" and told.scope == "replay"
    assert verify_certificate(made.second).outcome == "inconclusive"
    loose = tmp_path / "certificate.json"
    loose.write_bytes(made.second.read_bytes())
    assert verify_certificate(loose, public_key=public).scope == "certificate"
    assert verify_certificate(loose, public_key=public, folder=made.model).outcome == "pass"


def test_a_certificate_in_its_folder_finds_it(made: World, tmp_path: Path) -> None:
    assert folder_of(made.second) == made.model
    assert folder_of(tmp_path / "certificate.json") is None
    assert folder_of(tmp_path / "audit" / "certificates" / "0001.json") is None


def test_keys_are_made_rotated_and_destroyed(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    shown = keys_make(folder, NAME)
    assert shown["name"] == NAME and len(shown["keys"]) == 1 and shown["keys"][0]["validUntil"] is None
    rotated = keys_rotate(folder)
    assert len(rotated["keys"]) == 2 and rotated["keys"][0]["validUntil"] is not None
    keys = KeyFolder(folder)
    secrets = keys.owner_keys([owner("Ada"), record("r1")])
    status = keys_status(folder)
    assert status["ownerKeys"] == 2 and status["destroyed"] == [] and status["keyId"] == keys.signer.public.id
    assert not any(secret.hex() in json.dumps(status) for secret in secrets)
    gone = keys_destroy(folder, owner_name="Ada")
    assert keys_status(folder)["destroyed"] == [gone] and keys_status(folder)["ownerKeys"] == 1
    keys_destroy(folder, record_id="r1")
    for arguments in ({}, {"owner_name": "Ada", "record_id": "r1"}):
        with pytest.raises(RequestError, match="one of them"):
            keys_destroy(folder, **arguments)
    with pytest.raises(UnknownIds, match="Ada"):
        keys_destroy(folder, owner_name="Ada")


def test_a_receipt_names_the_leaf_of_a_row_after_its_key_is_gone(world: World, records: Records) -> None:
    name, row = str(records.owners[0]), str(records.ids[0])  # type: ignore[index]
    receipt = keys_receipt(world.path / "keys", [row, str(records.ids[1])], owner_name=name)
    gone = keys_destroy(world.path / "keys", owner_name=name)
    assert gone["keyId"] == receipt["keyId"]
    told = json.loads(world.second.read_text())["manifest"]
    assert receipt["commitments"][row] in [proof["id"] for proof in told["after"]]
    manifest = Manifest.read(world.audit / "manifest.safetensors")
    assert bytes.fromhex(receipt["commitments"][row]) not in manifest
    assert bytes.fromhex(receipt["commitments"][str(records.ids[1])]) in manifest
    with pytest.raises(UnknownIds):
        keys_receipt(world.path / "keys", [row], owner_name=name)
    with pytest.raises(RequestError, match="without an owner"):
        keys_receipt(world.path / "keys", ["a", "b"])


def test_keys_and_certificates_load_no_torch() -> None:
    code = "import sys, expunge.audit.commands; sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
