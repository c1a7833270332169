"""A folder of keys, mode 0700 with files of mode 0600.

    trusted.json     the public keys, old ones included, and when each was in use; the last one signs now
    signing/ID.pem   the private key that signs now
    lookup.key       under which owners are looked up: no name of anybody stands in the folder
    owners.bin       64 bytes an owner: HMAC of the name under lookup.key, and 32 random bytes, the owner's key
    destroyed.jsonl  which owner keys were destroyed, and when

Owners' keys are random, never derived from a master: a derived key could be derived again after it was destroyed. To
destroy one is to overwrite its 64 bytes in place, which costs the same among ten owners and among a million.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from expunge.audit.note import check_name
from expunge.audit.signing import SigningKey
from expunge.audit.trust import TrustedKey, TrustedKeys, now, timestamp
from expunge.errors import RunError, TamperedEvidence, UnknownIds
from expunge.training.files import destroy, read_json

KEY_BYTES = 32
SLOT_BYTES = 2 * KEY_BYTES
EMPTY_SLOT = bytes(SLOT_BYTES)
WAIT_SECONDS = 60.0


def step(name: str) -> None:
    """The places between two writes, by name: where the tests kill the process."""


def owner(name: str) -> str:
    """The subject whose key an owner's rows are committed under."""
    return f"owner\x00{name}"


def record(record_id: str) -> str:
    """The subject of a record that nobody owns."""
    return f"record\x00{record_id}"


@dataclass(frozen=True, kw_only=True)
class Destroyed:
    """An owner's key that is no more.

    Args:
        key_id: digest of the key: whoever was given it before can recognise it, nobody can find the owner by it.
        at: when, UTC.
    """

    key_id: str
    at: str


class KeyFolder:
    """The keys in `folder`.

    Args:
        folder: made by `make`.

    Raises:
        RunError: there are none, or others may read them. TamperedEvidence: a key is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / "trusted.json").exists():
            raise RunError(f"there are no keys in {self.folder}", "Make them first (`expunge keys make`)")
        self._check_modes()
        self._slots: dict[bytes, int] = {}
        self._keys: dict[bytes, bytes] = {}
        self._read_bytes = 0
        self._seen: tuple[int, int] | None = None
        self._lookup = (self.folder / "lookup.key").read_bytes()
        if len(self._lookup) != KEY_BYTES:
            raise TamperedEvidence(f"the lookup key in {self.folder} is damaged", "Restore the folder from a copy")
        self._finish()

    @classmethod
    def make(cls, folder: str | Path, name: str, *, at: datetime | None = None) -> KeyFolder:
        """New keys for the signer `name`, such as ``example.com/forgetting``.

        Raises:
            RequestError: the name cannot stand in a note. RunError: there are keys already.
        """
        path = Path(folder)
        check_name(name)
        if (path / "trusted.json").exists():
            raise RunError(f"there are keys in {path} already", "Rotate them, or choose another folder")
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.chmod(0o700)
            (path / "signing").mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise RunError(f"cannot make {path} ({error.strerror})", "Choose a folder you may write to") from error
        _write_private(path / "lookup.key", secrets.token_bytes(KEY_BYTES))
        _write_private(path / "owners.bin", b"")
        _write_private(path / "destroyed.jsonl", b"")
        key = SigningKey.make()
        _write_private(path / "signing" / f"{key.public.id[:16]}.pem", key.pem)
        step("key made")
        trusted = TrustedKeys(name=name, keys=(TrustedKey(key=key.public, valid_from=at or now()),))
        _write_trusted(path, trusted)
        return cls(path)

    def __repr__(self) -> str:
        return f"KeyFolder({str(self.folder)!r})"

    # --- signing ------------------------------------------------------------------------------------------------------

    @property
    def trusted(self) -> TrustedKeys:
        """What to hand to auditors."""
        return TrustedKeys.from_dict(read_json(self.folder / "trusted.json"))

    @property
    def name(self) -> str:
        return self.trusted.name

    @property
    def signer(self) -> SigningKey:
        """The key that signs now.

        Raises:
            TamperedEvidence: its file is missing, damaged or of another key.
        """
        public = self.trusted.keys[-1].key
        path = self._pem(public.id)
        if not path.exists():
            raise TamperedEvidence(f"the signing key {path} is gone", "Restore it from a copy, or make new keys")
        key = SigningKey.from_pem(path.read_bytes())
        if key.public != public:
            raise TamperedEvidence(f"{path} is not the key that is trusted", "Restore the folder from a copy")
        return key

    def rotate(self, *, at: datetime | None = None) -> TrustedKeys:
        """A new signing key; the old public key stays trusted for what it signed, the private one is destroyed."""
        moment = at or now()
        with self._locked():
            old = self.trusted
            key = SigningKey.make()
            _write_private(self._pem(key.public.id), key.pem)
            step("new key written")
            ended = TrustedKey(key=old.keys[-1].key, valid_from=old.keys[-1].valid_from, valid_until=moment)
            started = TrustedKey(key=key.public, valid_from=moment)
            _write_trusted(self.folder, TrustedKeys(name=old.name, keys=(*old.keys[:-1], ended, started)))
            step("new key trusted")
        self._finish()
        return self.trusted

    def _pem(self, key_id: str) -> Path:
        return self.folder / "signing" / f"{key_id[:16]}.pem"

    # --- owners -------------------------------------------------------------------------------------------------------

    def owner_keys(self, subjects: Iterable[str]) -> list[bytes]:
        """The key of each subject (see `owner` and `record`), made and on disk when it had none: 32 bytes each."""
        tags = [self._tag(subject) for subject in subjects]
        self._refresh()
        if any(tag not in self._keys for tag in tags):
            with self._locked():
                self._refresh()
                fresh = [tag for tag in dict.fromkeys(tags) if tag not in self._keys]
                random = secrets.token_bytes(KEY_BYTES * len(fresh))
                slots = b"".join(tag + random[KEY_BYTES * i : KEY_BYTES * (i + 1)] for i, tag in enumerate(fresh))
                with (self.folder / "owners.bin").open("r+b") as file:
                    file.seek(self._read_bytes)  # over half a slot that a crash may have left: it was never used
                    file.write(slots)
                    file.flush()
                    os.fsync(file.fileno())
                step("owner keys written")
                self._refresh()
        return [self._keys[tag] for tag in tags]

    def held_keys(self, subjects: Iterable[str]) -> list[bytes]:
        """The key of each subject, all of which have one.

        Raises:
            UnknownIds: a key was never made, or is destroyed.
        """
        wanted = list(subjects)
        self._refresh()
        missing = sorted({subject for subject in wanted if self._tag(subject) not in self._keys})
        if missing:
            raise UnknownIds("keys", [name.partition("\x00")[2] for name in missing], "the key folder")
        return [self._keys[self._tag(subject)] for subject in wanted]

    def holds(self, subject: str) -> bool:
        """Whether the subject has a key."""
        self._refresh()
        return self._tag(subject) in self._keys

    @property
    def count(self) -> int:
        """How many subjects have a key."""
        self._refresh()
        return len(self._keys)

    def key_id(self, subject: str) -> str:
        """What `destroy` will record: for the owner to keep.

        Raises:
            UnknownIds: there is no such key.
        """
        self._need(subject)
        return _key_id(self._keys[self._tag(subject)])

    def tag(self, subject: str) -> str:
        """What stands for a subject in the folder, hexadecimal: for who must destroy a key later and keep no name.

        Raises:
            UnknownIds: there is no such key.
        """
        self._need(subject)
        return self._tag(subject).hex()

    def destroy(self, subject: str, *, at: datetime | None = None) -> Destroyed:
        """Overwrite the subject's key: what was committed under it can no longer be linked to anybody.

        What a file system or a disk keeps beyond that (snapshots, copy on write, worn blocks, backups) is out of reach.

        Raises:
            UnknownIds: there is no such key, or not any more. RunError: it can still be read afterwards.
        """
        self._need(subject)
        return self.destroy_tag(self._tag(subject).hex(), at=at)

    def destroy_tag(self, tag_digits: str, *, at: datetime | None = None) -> Destroyed:
        """`destroy`, by what `tag` told.

        Raises:
            UnknownIds: there is no such key, or not any more. RunError: it can still be read afterwards.
        """
        with self._locked():
            tag = bytes.fromhex(tag_digits)
            self._refresh()
            if tag not in self._keys:
                raise UnknownIds("keys", [tag_digits[:8]], "the key folder")
            gone = Destroyed(key_id=_key_id(self._keys[tag]), at=timestamp(at or now()))
            line = json.dumps({"key": gone.key_id, "slot": self._slots[tag], "at": gone.at}).encode() + b"\n"
            with (self.folder / "destroyed.jsonl").open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            step("destruction recorded")
        self._finish()
        self._refresh()
        if tag in self._keys:
            raise RunError(f"a key in {self.folder} is still there", "Run it again: this step is repeated")
        return gone

    @property
    def destroyed(self) -> tuple[Destroyed, ...]:
        """Every owner key that was destroyed."""
        return tuple(Destroyed(key_id=entry["key"], at=entry["at"]) for entry in self._records())

    def _records(self) -> list[dict[str, Any]]:
        lines = (self.folder / "destroyed.jsonl").read_bytes().split(b"\n")
        return [json.loads(line) for line in lines[:-1] if line]

    def _need(self, subject: str) -> None:
        if not self.holds(subject):
            kind, _, name = subject.partition("\x00")
            raise UnknownIds(f"{kind} keys", [name], "the key folder")

    def _tag(self, subject: str) -> bytes:
        return hmac.digest(self._lookup, subject.encode(), "sha256")

    def _refresh(self) -> None:
        """Read the slots that another process has added or destroyed."""
        path = self.folder / "owners.bin"
        status = path.stat()
        if self._seen == (status.st_size, status.st_mtime_ns):
            return
        content = path.read_bytes()
        self._seen = (status.st_size, status.st_mtime_ns)
        whole = len(content) - len(content) % SLOT_BYTES
        self._slots, self._keys, self._read_bytes = {}, {}, whole
        for at in range(0, whole, SLOT_BYTES):
            slot = content[at : at + SLOT_BYTES]
            if slot != EMPTY_SLOT:
                tag = slot[:KEY_BYTES]
                self._slots[tag], self._keys[tag] = at // SLOT_BYTES, slot[KEY_BYTES:]

    # --- files --------------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Carry out what was recorded and interrupted: an owner key to be destroyed, a signing key to be replaced."""
        with self._locked():
            current = self._pem(self.trusted.keys[-1].key.id)
            if current.exists():
                for path in (self.folder / "signing").iterdir():
                    if path != current:
                        destroy(path)
            last = next(iter(self._records()[::-1]), None)
            if last is None:
                return
            at = last["slot"] * SLOT_BYTES
            with (self.folder / "owners.bin").open("r+b") as file:
                file.seek(at)
                slot = file.read(SLOT_BYTES)
                if slot != EMPTY_SLOT and _key_id(slot[KEY_BYTES:]) == last["key"]:
                    file.seek(at)
                    file.write(EMPTY_SLOT)
                    file.flush()
                    os.fsync(file.fileno())
                    self._seen = None
                    step("key overwritten")

    def _check_modes(self) -> None:
        if os.name != "posix":
            return
        for path in (self.folder, *self.folder.rglob("*")):
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & 0o077:
                raise RunError(
                    f"{path} has mode {mode:04o}: others may read or write it",
                    f"Forbid it (`chmod -R go= {self.folder}`), and rotate the keys if somebody may have read them",
                )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = FileLock(self.folder / "lock", mode=0o600)
        try:
            lock.acquire(timeout=WAIT_SECONDS)
        except Timeout:
            raise RunError(
                f"another process has been writing to {self.folder} for {WAIT_SECONDS:g} seconds",
                "Wait until it has finished",
            ) from None
        try:
            yield
        finally:
            lock.release()


def _key_id(key: bytes) -> str:
    return hashlib.sha256(b"expunge owner key\x00" + key).hexdigest()[:32]


def _write_trusted(folder: Path, trusted: TrustedKeys) -> None:
    _write_private(folder / "trusted.json", (json.dumps(trusted.as_dict(), indent=1) + "\n").encode())


def _write_private(path: Path, content: bytes) -> None:
    """Write a file that nobody else can read at any moment, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise RunError(
            f"cannot write {path} ({error.strerror or error})", "Choose a folder you may write to, with free space"
        ) from error
