"""What `expunge verify` and `expunge keys …` do, as functions of paths and words that return JSON values."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from expunge.audit.checks import Verdict
from expunge.audit.keys import KeyFolder, owner, record
from expunge.audit.layers import is_layer, verify_layer
from expunge.audit.manifest import id_commitment
from expunge.audit.trust import TrustedKeys
from expunge.audit.verify import TOLERANCE, verify
from expunge.errors import RequestError, RunError
from expunge.training.files import read_json

if TYPE_CHECKING:
    from expunge.methods.learner import Job


def verify_certificate(
    certificate: Path,
    *,
    folder: Path | None = None,
    public_key: Path | None = None,
    keys: Path | None = None,
    replay: bool = False,
    tolerance: float = TOLERANCE,
    job: Job | None = None,
) -> Verdict:
    """`expunge verify CERT [--folder F] [--public-key P] [--keys K] [--replay]`; exit with `Verdict.exit_code`.

    Args:
        folder: of the learner; by default the one in whose ``audit/certificates`` the certificate lies, if it does.
        public_key: the signer's keys, from `keys_show` or a ``trusted.json``. Without it, and without `keys`, the
            outcome is at best inconclusive: keys that lie beside what they signed prove nothing.
        keys: the key folder, for whoever holds it: its signer is believed, and the manifest is checked to commit to the
            rows in the folder.

    Raises:
        RunError, RequestError: a file is missing or no keys.
    """
    held = None if keys is None else KeyFolder(keys)
    trusted = held.trusted if held else None
    if public_key is not None:
        trusted = TrustedKeys.read(public_key)
    layer = layer_of(certificate)
    if layer is not None:
        if replay:
            raise RequestError("the certificate of a layer has nothing to replay", "Replay the learner's certificate")
        return verify_layer(layer, keys=trusted, folder=folder or service_of(certificate))
    return verify(
        certificate,
        folder=folder if folder is not None else folder_of(certificate),
        keys=trusted,
        owner_keys=held,
        replay=replay,
        tolerance=tolerance,
        job=job,
    )


def layer_of(certificate: Path) -> dict[str, Any] | None:
    """The JSON of a certificate that a service filed for a layer; None for any other file."""
    try:
        value = read_json(certificate) if certificate.exists() else None
    except RunError:
        return None
    return value if isinstance(value, dict) and is_layer(value) else None


def service_of(certificate: Path) -> Path | None:
    """The folder of the service in which a layer's certificate lies, or None."""
    home = certificate.absolute().parents[1]
    return home if certificate.absolute().parent.name == "certificates" and (home / "log").exists() else None


def folder_of(certificate: Path) -> Path | None:
    """The learner's folder in which a certificate lies, or None."""
    parents = certificate.absolute().parents
    if len(parents) > 2 and (parents[0].name, parents[1].name) == ("certificates", "audit"):
        return parents[2] if (parents[2] / "state.json").exists() else None
    return None


def keys_make(folder: Path, name: str) -> dict[str, Any]:
    """`expunge keys make FOLDER NAME`: new keys, and what `keys_show` says of them."""
    KeyFolder.make(folder, name)
    return keys_show(folder)


def keys_show(folder: Path) -> dict[str, Any]:
    """`expunge keys show FOLDER`: the public keys in the form that `--public-key` reads, and nothing secret."""
    return KeyFolder(folder).trusted.as_dict()


def keys_status(folder: Path) -> dict[str, Any]:
    """For `expunge keys show` without ``--json``: signer, current key, number of owners, destroyed keys."""
    keys = KeyFolder(folder)
    trusted = keys.trusted
    return {
        "name": trusted.name,
        "keyId": trusted.keys[-1].key.id,
        "publicKeys": trusted.as_dict()["keys"],
        "ownerKeys": keys.count,
        "destroyed": [{"keyId": gone.key_id, "at": gone.at} for gone in keys.destroyed],
    }


def keys_rotate(folder: Path) -> dict[str, Any]:
    """`expunge keys rotate FOLDER`: a new signing key, and what `keys_show` says now."""
    KeyFolder(folder).rotate()
    return keys_show(folder)


def keys_destroy(folder: Path, *, owner_name: str | None = None, record_id: str | None = None) -> dict[str, Any]:
    """`expunge keys destroy FOLDER --owner NAME | --record ID`: the id of the key that is gone, and when.

    Raises:
        RequestError: neither or both are named. UnknownIds: there is no such key.
    """
    subject = _subject(owner_name, record_id)
    gone = KeyFolder(folder).destroy(subject)
    return {"keyId": gone.key_id, "at": gone.at}


def keys_receipt(folder: Path, ids: list[str], *, owner_name: str | None = None) -> dict[str, Any]:
    """What to hand to an owner while the key is there: its id and the commitments to their records' ids.

    With them an owner finds the own rows in certificates and manifests, now and after the key is destroyed, and nobody
    else can. A record that nobody owns is named by its id alone, one at a time.

    Raises:
        UnknownIds: there is no key.
    """
    if owner_name is None and len(ids) != 1:
        raise RequestError(f"{len(ids)} records without an owner", "Name one, or name their owner")
    subject = owner(owner_name) if owner_name is not None else record(ids[0])
    keys = KeyFolder(folder)
    (key,) = keys.held_keys([subject])
    return {"keyId": keys.key_id(subject), "commitments": {i: id_commitment(key, i).hex() for i in ids}}


def _subject(owner_name: str | None, record_id: str | None) -> str:
    if (owner_name is None) == (record_id is None):
        raise RequestError("name an owner or a record, one of them", "Give `--owner NAME` or `--record ID`")
    return owner(owner_name) if owner_name is not None else record(str(record_id))
