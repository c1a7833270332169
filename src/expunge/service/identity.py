"""Who somebody is, as a keyed hash, and short texts sealed under keys that can be destroyed.

    home/identities/0001.key   32 random bytes; the last one is used for what is new, the others still find what is old
    home/seals/ID.key          32 random bytes for one request's sealed text; destroyed with it

A keyed hash finds the same person again, blocks re-ingestion and shows a duplicate; without the key it tells nothing,
not even to somebody who can list everybody there is. It is no anonymisation: whoever has the key and a guess can test
it, so the keys are as secret as a list of names.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
import unicodedata
from pathlib import Path

from expunge.audit.encoding import from_base64, to_base64
from expunge.errors import NotFound, RequestError, RunError, TamperedEvidence
from expunge.training.files import destroy

KEY_BYTES = 32
NONCE_BYTES = 12
LONGEST = 1000


class Identities:
    """The keys in `folder`; made where there are none.

    Raises:
        RunError: others may read them, or they cannot be made. TamperedEvidence: a key is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.lookups = self.folder / "identities"
        self.seals = self.folder / "seals"
        try:
            for path in (self.lookups, self.seals):
                path.mkdir(parents=True, exist_ok=True, mode=0o700)
                if path.stat().st_mode & 0o077:
                    raise RunError(f"{path} may be read by others", f"Forbid it (`chmod -R go= {path}`)")
            if not self._files():
                _write_key(self.lookups / "0001.key")
        except OSError as error:
            raise RunError(f"cannot keep keys in {self.folder} ({error.strerror})", "Choose another folder") from error
        self._keys = self._read()

    def __repr__(self) -> str:
        return f"Identities({str(self.folder)!r})"

    def _files(self) -> list[Path]:
        return sorted(self.lookups.glob("*.key"))

    def _read(self) -> list[tuple[str, bytes]]:
        found = []
        for path in self._files():
            key = path.read_bytes()
            if len(key) != KEY_BYTES:
                raise TamperedEvidence(f"the lookup key {path} is damaged", "Restore it from a copy")
            found.append((path.stem, key))
        return found[::-1]

    def rotate(self) -> None:
        """A new key for what comes; the old ones still find what they were used for."""
        number = int(self._files()[-1].stem) + 1
        _write_key(self.lookups / f"{number:04d}.key")
        self._keys = self._read()

    def token(self, identity: str) -> str:
        """Under the newest key: ``k0001:`` and 64 hexadecimal digits."""
        return self.tokens(identity)[0]

    def tokens(self, identity: str) -> list[str]:
        """One a key, the newest first. White space around makes no difference; letters' case does, for two accounts
        may differ in nothing else, and to forget the wrong one is not mended by anything.

        Raises:
            RequestError: there is nothing in it, or too much.
        """
        plain = unicodedata.normalize("NFC", identity).strip()
        if not plain or len(plain) > LONGEST:
            raise RequestError("an identity has between 1 and 1000 characters", "Give the account's id or address")
        return self._hashes("owner", plain)

    def record_tokens(self, record_id: str) -> list[str]:
        """The same of a record's id, exactly as it is written."""
        return self._hashes("record", record_id)

    def _hashes(self, kind: str, text: str) -> list[str]:
        message = f"{kind}\x00{text}".encode()
        return [f"k{name}:{hmac.digest(key, message, 'sha256').hex()}" for name, key in self._keys]

    # --- sealed text --------------------------------------------------------------------------------------------------

    def seal(self, name: str, text: str) -> str:
        """`text` under the key of `name`, made where there is none: AES-256-GCM, base64."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        path = self._seal(name)
        if not path.exists():
            _write_key(path)
        nonce = secrets.token_bytes(NONCE_BYTES)
        return to_base64(nonce + AESGCM(path.read_bytes()).encrypt(nonce, text.encode(), name.encode()))

    def unseal(self, name: str, sealed: str) -> str:
        """
        Raises:
            NotFound: the key was destroyed. TamperedEvidence: it is not what was sealed.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        path = self._seal(name)
        if not path.exists():
            raise NotFound("key: what it sealed is gone")
        raw = from_base64(sealed) or b""
        try:
            return AESGCM(path.read_bytes()).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], name.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise TamperedEvidence("what was sealed has been changed", "Restore it from a copy") from error

    def destroy(self, name: str) -> bool:
        """Overwrite and remove the key of `name`; False where there is none (any more)."""
        path = self._seal(name)
        if not path.exists():
            return False
        destroy(path)
        return True

    def _seal(self, name: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,80}", name):
            raise ValueError(f"{name!r} is no name of a seal")
        return self.seals / f"{name}.key"


def _write_key(path: Path) -> None:
    """32 random bytes, readable by the owner alone; a file that is there already stays."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(secrets.token_bytes(KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)  # unlike a rename it does not replace what another process has just made
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
