"""C2SP signed notes and checkpoints: a text, an empty line, and a line for each signature.

    — NAME base64(key hash, 4 bytes ‖ Ed25519 signature of the text, 64 bytes)

The key hash is the beginning of SHA-256(name ‖ "\\n" ‖ 0x01 ‖ public key). A checkpoint is a note whose text is a log's
origin, size and root. Sources: c2sp.org/signed-note, c2sp.org/tlog-checkpoint.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass

from expunge.audit.encoding import from_base64, to_base64
from expunge.audit.signing import PublicKey, SigningKey
from expunge.errors import RequestError, TamperedEvidence

ED25519 = b"\x01"
DASH = "—"
MOST_SIGNATURES = 100  # a note of more is refused unread, as by Go's sumdb/note

_REMEDY = "Restore it from a copy, or ask whoever signed it for the one that was signed"


def check_name(name: str) -> str:
    """A key name or origin: not empty, without spaces, plus signs and control characters.

    Raises:
        RequestError: it is not.
    """
    if not name or "+" in name or any(c.isspace() or ord(c) < 0x20 for c in name):
        raise RequestError(
            f"{name!r} cannot name a key: spaces, plus signs and control characters are not allowed",
            "Choose a name like example.com/forgetting",
        )
    return name


def key_hash(name: str, key: PublicKey) -> bytes:
    """The four bytes that stand before a signature."""
    return hashlib.sha256(name.encode() + b"\n" + ED25519 + key.raw).digest()[:4]


def verifier_key(name: str, key: PublicKey) -> str:
    """``NAME+HASH+KEY``: the one line by which a public key is handed to others."""
    return f"{name}+{key_hash(name, key).hex()}+{to_base64(ED25519 + key.raw)}"


def parse_verifier_key(text: str) -> tuple[str, PublicKey]:
    """The name and the key of ``NAME+HASH+KEY``.

    Raises:
        RequestError: it is not one, or its hash is not its own.
    """
    remedy = "Copy the whole line that `expunge keys show` prints"
    fields = text.strip().split("+", 2)
    if len(fields) != 3:
        raise RequestError(f"{text[:80]!r} is no public key of the form NAME+HASH+KEY", remedy)
    name, stated, encoded = fields
    raw = from_base64(encoded)
    if raw is None or len(raw) != 33 or raw[:1] != ED25519:
        raise RequestError(f"the key of {name!r} is not an Ed25519 public key in base64", remedy)
    key = PublicKey(raw[1:])
    if key_hash(check_name(name), key).hex() != stated:
        raise RequestError(f"the key of {name!r} does not have the hash that stands beside it", remedy)
    return name, key


def sign(text: str, name: str, key: SigningKey) -> str:
    """The note: `text` and its signature.

    Raises:
        RequestError: the text does not end in a newline or holds control characters, or the name is none.
    """
    if not text.endswith("\n") or re.search(r"[\x00-\x09\x0b-\x1f]", text):
        raise RequestError("the text of a note must end in a newline and hold no control characters", "Correct it")
    blob = key_hash(check_name(name), key.public) + key.sign(text.encode())
    return f"{text}\n{DASH} {name} {to_base64(blob)}\n"


def split(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    """The text of a note and its signatures (name, bytes), unverified.

    Raises:
        TamperedEvidence: it is not a note.
    """
    text, mark, lines = note.rpartition("\n\n")
    text += "\n"
    signatures = []
    if mark and lines.endswith("\n") and not re.search(r"[\x00-\x09\x0b-\x1f]", note):
        for line in lines.removesuffix("\n").split("\n"):
            found = re.fullmatch(rf"{DASH} ([^\s+]+) (\S+)", line)
            blob = from_base64(found[2]) if found else None
            if found is None or blob is None or len(blob) < 5:
                raise TamperedEvidence(f"a signature line of the note is malformed: {line[:60]!r}", _REMEDY)
            signatures.append((found[1], blob))
    if not 0 < len(signatures) <= MOST_SIGNATURES:
        raise TamperedEvidence("the note is not a text, an empty line and signatures", _REMEDY)
    return text, signatures


def verify(note: str, name: str, keys: Collection[PublicKey]) -> tuple[str, PublicKey]:
    """The text of a note signed under `name` by one of `keys`, and that key. Other names and keys are ignored.

    Raises:
        TamperedEvidence: no such signature, or one that does not fit the text.
    """
    text, signatures = split(note)
    known = {key_hash(name, key): key for key in keys}
    for signer, blob in signatures:
        key = known.get(blob[:4]) if signer == name else None
        if key is not None:
            if not key.verify(blob[4:], text.encode()):
                raise TamperedEvidence(f"the signature of {name} does not fit the note", _REMEDY)
            return text, key
    raise TamperedEvidence(f"none of the trusted keys signed the note as {name}", _REMEDY)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The head of a log.

    Args:
        origin: which log. size: its entries. root: RFC 6962 root, 32 bytes.
    """

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{to_base64(self.root)}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Extension lines are ignored.

        Raises:
            TamperedEvidence: it is no checkpoint.
        """
        lines = text.removesuffix("\n").split("\n")
        root = from_base64(lines[2]) if len(lines) >= 3 else None
        if not all(lines) or root is None or len(root) != 32 or not re.fullmatch(r"0|[1-9][0-9]{0,18}", lines[1]):
            raise TamperedEvidence("the note is no checkpoint of origin, size and root", _REMEDY)
        return cls(origin=lines[0], size=int(lines[1]), root=root)
