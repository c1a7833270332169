"""An append-only log in a folder: entries, and a signed checkpoint of their RFC 6962 tree.

    entries.jsonl   an entry a line, base64 in JSON
    checkpoint      origin, size and root as a C2SP signed note: what it does not count has not been appended

An append writes the entry, lets it reach the disk, and then replaces the checkpoint: the one step that commits. Killed
anywhere, the log is as before or as after; an entry or half a line beyond the checkpoint is removed by the next append.
Before it appends, a log is verified whole: one that was altered is never signed again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection
from pathlib import Path

from filelock import FileLock, Timeout

from expunge.audit.encoding import from_base64, to_base64
from expunge.audit.merkle import Tree
from expunge.audit.note import Checkpoint, check_name, sign, split, verify
from expunge.audit.signing import PublicKey, SigningKey
from expunge.errors import RunError, TamperedEvidence
from expunge.training.files import write_atomically

WAIT_SECONDS = 60.0


def step(name: str) -> None:
    """The places between two writes, by name: where the tests kill the process."""


class Log:
    """The log in `folder`.

    Args:
        folder: made by `create`. keys: public keys that may have signed its checkpoint, rotated ones included.

    Raises:
        TamperedEvidence: entries, checkpoint and keys do not agree. RunError: there is no log.
    """

    def __init__(self, folder: Path, keys: Collection[PublicKey]) -> None:
        self.folder, self._keys = Path(folder), tuple(keys)
        self._load()

    @classmethod
    def create(cls, folder: Path, origin: str, key: SigningKey, keys: Collection[PublicKey] = ()) -> Log:
        """The log in `folder`, empty if there was none.

        Raises:
            RequestError: `origin` cannot name a log. TamperedEvidence: entries without a checkpoint.
        """
        folder = Path(folder)
        path = folder / "checkpoint"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            entries = folder / "entries.jsonl"
            if entries.exists() and entries.stat().st_size:
                raise TamperedEvidence(f"the log in {folder} has entries and no checkpoint", _RESTORE)
            head = Checkpoint(origin=check_name(origin), size=0, root=Tree().root())
            _write(entries, b"")
            step("entries made")
            _write(path, sign(head.text, origin, key).encode())
            step("log made")
        return cls(folder, {key.public, *keys})

    # --- reading ------------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        note = read_checkpoint(self.folder)
        head = Checkpoint.parse(split(note)[0])
        verify(note, head.origin, self._keys)
        self.head, self.note = head, note
        lines = complete_lines(self.folder)
        if len(lines) < head.size:
            raise TamperedEvidence(
                f"the log in {self.folder} has {len(lines)} entries and its checkpoint counts {head.size}: "
                f"entries were dropped",
                _RESTORE,
            )
        self.entries = [decode_entry(line, number) for number, line in enumerate(lines[: head.size])]
        self._committed_bytes = sum(len(line) + 1 for line in lines[: head.size])
        self.tree = Tree(self.entries)
        if self.tree.root() != head.root:
            raise TamperedEvidence(
                f"the {head.size} entries of the log in {self.folder} do not have the root of its checkpoint: "
                f"an entry was changed, moved or replaced",
                _RESTORE,
            )

    def __len__(self) -> int:
        return self.head.size

    @property
    def origin(self) -> str:
        return self.head.origin

    def find(self, entry: bytes) -> int | None:
        """Index of an entry, or None."""
        return self.entries.index(entry) if entry in self.entries else None

    def inclusion(self, index: int, size: int | None = None) -> list[bytes]:
        return self.tree.inclusion(index, size)

    def consistency(self, old: int, new: int | None = None) -> list[bytes]:
        return self.tree.consistency(old, new)

    def checkpoint_at(self, size: int, key: SigningKey) -> str:
        """The signed checkpoint that the log had at `size`; it is consistent with every other of this log."""
        return sign(Checkpoint(origin=self.origin, size=size, root=self.tree.root(size)).text, self.origin, key)

    # --- writing ------------------------------------------------------------------------------------------------------

    def append(self, entry: bytes, key: SigningKey) -> int:
        """Index of `entry`, appended unless it is there already: repeating an append changes nothing.

        Raises:
            TamperedEvidence: the log was altered; nothing is written. RunError: another process is writing.
        """
        return self.append_made(lambda log: entry, key)

    def append_made(self, make: Callable[[Log], bytes], key: SigningKey) -> int:
        """As `append`, of what `make` makes of the log while nobody else can write to it."""
        lock = FileLock(self.folder / "lock")
        try:
            lock.acquire(timeout=WAIT_SECONDS)
        except Timeout:
            raise RunError(
                f"another process has been writing to the log in {self.folder} for {WAIT_SECONDS:g} seconds",
                "Wait until it has finished",
            ) from None
        try:
            self._keys = tuple({*self._keys, key.public})
            self._load()
            entry = make(self)
            found = self.find(entry)
            return self._append(entry, key) if found is None else found
        finally:
            lock.release()

    def _append(self, entry: bytes, key: SigningKey) -> int:
        index = len(self)
        with (self.folder / "entries.jsonl").open("r+b") as file:
            file.truncate(self._committed_bytes)
            file.seek(self._committed_bytes)
            step("truncated")
            line = encode_entry(entry)
            file.write(line[: len(line) // 2])
            file.flush()
            step("half a line")
            file.write(line[len(line) // 2 :])
            file.flush()
            os.fsync(file.fileno())
        step("entry written")
        self.tree.append(entry)
        self.entries.append(entry)
        head = Checkpoint(origin=self.origin, size=index + 1, root=self.tree.root())
        note = sign(head.text, self.origin, key)
        _write(self.folder / "checkpoint", note.encode())
        self.head, self.note = head, note
        self._committed_bytes += len(line)
        step("checkpoint written")
        return index


_RESTORE = "Restore the log from a copy: an altered log is not continued"


def read_checkpoint(folder: Path) -> str:
    """The checkpoint's note, unverified.

    Raises:
        RunError: there is no log. TamperedEvidence: it is no text.
    """
    try:
        return (folder / "checkpoint").read_bytes().decode()
    except FileNotFoundError:
        if (folder / "entries.jsonl").exists() and (folder / "entries.jsonl").stat().st_size:
            raise TamperedEvidence(f"the log in {folder} has entries and no checkpoint", _RESTORE) from None
        raise RunError(f"there is no log in {folder}", "Name the folder that holds `entries.jsonl`") from None
    except UnicodeDecodeError:
        raise TamperedEvidence(f"the checkpoint in {folder} is no text", _RESTORE) from None


def complete_lines(folder: Path) -> list[bytes]:
    """The lines of the entries' file; what follows the last newline was torn off by a crash and is none.

    Raises:
        TamperedEvidence: the file is missing.
    """
    try:
        return (folder / "entries.jsonl").read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        raise TamperedEvidence(f"the entries of the log in {folder} are gone", _RESTORE) from None


def encode_entry(entry: bytes) -> bytes:
    return json.dumps(to_base64(entry)).encode() + b"\n"


def decode_entry(line: bytes, number: int) -> bytes:
    """
    Raises:
        TamperedEvidence: the line is not what `encode_entry` writes.
    """
    try:
        entry = from_base64(json.loads(line))
    except (ValueError, TypeError):
        entry = None
    if entry is None or encode_entry(entry) != line + b"\n":
        raise TamperedEvidence(f"entry {number} of the log cannot be read: it was changed", _RESTORE)
    return entry


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, lambda temporary: temporary.write_bytes(content))
