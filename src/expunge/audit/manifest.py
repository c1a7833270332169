"""The sorted manifest of what a state learned from: a commitment to every row, under its owner's key.

For a record with its owner's key K (`expunge.audit.keys`):

    id commitment   HMAC-SHA256(K, "id" ‖ 0x00 ‖ id)
    row commitment  HMAC-SHA256(K, "row" ‖ 0x00 ‖ length of the id, 8 bytes ‖ id ‖ the columns' values)
    leaf            id commitment ‖ row commitment, 64 bytes

The leaves are sorted by id commitment and hashed into one RFC 6962 root. A plain digest of a row could be found by
guessing the row; a commitment says nothing to whoever has no key. Since the order is that of the commitments, two
leaves with adjacent indices show that nothing lies between them: *non*-membership is proved from a root and a size.

Destroying an owner's key leaves every proof as valid as it was, but nobody can compute the commitment of an id again,
so nobody can tell whose leaf it is, or show that a person is not among them.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from expunge.audit.encoding import from_hex, whole
from expunge.audit.merkle import EMPTY_ROOT, HASH_BYTES, Tree, verify_inclusion
from expunge.data.records import Records
from expunge.errors import RequestError, TamperedEvidence
from expunge.training.files import write_atomically

LEAF_BYTES = 2 * HASH_BYTES

Leaves = npt.NDArray[np.uint8]


HandOut = Callable[[Iterable[str]], list[bytes]]
"""The key of each subject (see `subjects`), 32 bytes: `KeyFolder.owner_keys`, which makes those that are missing, or
`KeyFolder.held_keys`, which does not."""


def id_commitment(key: bytes, record_id: str) -> bytes:
    return hmac.digest(key, b"id\x00" + record_id.encode(), "sha256")


def row_commitment(key: bytes, record_id: str, content: bytes) -> bytes:
    name = record_id.encode()
    return hmac.digest(key, b"row\x00" + len(name).to_bytes(8, "big") + name + content, "sha256")


def subjects(records: Records) -> list[str]:
    """Whose key each record is committed under: its owner's; a record that nobody owns is a subject of its own."""
    ids = records.ids.tolist()
    owners = [""] * len(ids) if records.owners is None else records.owners.tolist()
    return [f"owner\x00{owner}" if owner else f"record\x00{i}" for i, owner in zip(ids, owners, strict=True)]


def contents(records: Records) -> Iterator[bytes]:
    """The values of each row as bytes: for each column in the order of names, its name, type, shape and values.

    A function of the values alone: numbers little-endian, text as JSON, never numpy's fixed string width.
    """
    columns: list[tuple[bytes, Any]] = []
    for name in sorted(records.columns):
        column = records.columns[name]
        text = column.dtype.kind in "OUTS"
        kind = "text" if text else column.dtype.newbyteorder("<").str
        head = json.dumps([name, kind, list(column.shape[1:])]).encode()
        if text:
            values: Any = [json.dumps(row).encode() for row in column.astype(str).tolist()]
        else:
            packed = np.ascontiguousarray(column.astype(kind, copy=False)).reshape(len(column), -1).view(np.uint8)
            values = packed
        columns.append((head, values))
    for row in range(len(records)):
        parts = []
        for head, values in columns:
            value = bytes(values[row])
            parts += [len(head).to_bytes(8, "big"), head, len(value).to_bytes(8, "big"), value]
        yield b"".join(parts)


def commitments(records: Records, keys: HandOut) -> Leaves:
    """(n, 64) the leaf of each record, in the order of the records."""
    held = keys(subjects(records))
    packed = b"".join(
        id_commitment(key, i) + row_commitment(key, i, content)
        for key, i, content in zip(held, records.ids.tolist(), contents(records), strict=True)
    )
    return np.frombuffer(packed, dtype=np.uint8).reshape(-1, LEAF_BYTES)


@dataclass(frozen=True, kw_only=True)
class Membership:
    """That `leaf` is number `index` of a manifest.

    Args:
        leaf: 64 bytes. index: from 0. path: of an RFC 6962 inclusion proof.
    """

    leaf: bytes
    index: int
    path: tuple[bytes, ...]

    @property
    def id(self) -> bytes:
        return self.leaf[:HASH_BYTES]

    def holds(self, size: int, root: bytes) -> bool:
        return len(self.leaf) == LEAF_BYTES and verify_inclusion(self.leaf, self.index, size, self.path, root)

    def as_dict(self) -> dict[str, Any]:
        return {"leaf": self.leaf.hex(), "index": self.index, "path": [p.hex() for p in self.path]}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Membership:
        path = tuple(from_hex(p) for p in value["path"])
        return cls(leaf=from_hex(value["leaf"]), index=whole(value["index"]), path=path)


@dataclass(frozen=True, kw_only=True)
class NonMembership:
    """That no leaf of a manifest begins with `id`: its two neighbours stand side by side.

    Args:
        id: 32 bytes. left, right: the nearest leaves below and above; None at an edge, both None in an empty manifest.
    """

    id: bytes
    left: Membership | None
    right: Membership | None

    def holds(self, size: int, root: bytes) -> bool:
        left, right = self.left, self.right
        if left is None and right is None:
            return size == 0 and root == EMPTY_ROOT
        if left is not None and not (left.holds(size, root) and left.id < self.id):
            return False
        if right is not None and not (right.holds(size, root) and self.id < right.id):
            return False
        below = -1 if left is None else left.index
        above = size if right is None else right.index
        return above == below + 1

    def as_dict(self) -> dict[str, Any]:
        sides = {"left": self.left, "right": self.right}
        return {"id": self.id.hex(), **{k: None if v is None else v.as_dict() for k, v in sides.items()}}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> NonMembership:
        sides = {k: None if value[k] is None else Membership.from_dict(value[k]) for k in ("left", "right")}
        return cls(id=from_hex(value["id"]), left=sides["left"], right=sides["right"])


class Manifest:
    """Leaves sorted by id commitment, and their tree.

    Args:
        leaves: (n, 64) bytes, in any order.

    Raises:
        RequestError: two leaves have the same id commitment.
    """

    def __init__(self, leaves: Leaves) -> None:
        words = np.ascontiguousarray(leaves[:, :HASH_BYTES]).view(">u8")
        self.leaves: Leaves = np.ascontiguousarray(leaves[np.lexsort(words.T[::-1])])
        if len(leaves) > 1 and bool((self.leaves[1:, :HASH_BYTES] == self.leaves[:-1, :HASH_BYTES]).all(axis=1).any()):
            raise RequestError("two rows of a manifest have the same id", "Give every record an id of its own")

    @classmethod
    def of(cls, records: Records, keys: HandOut) -> Manifest:
        return cls(commitments(records, keys))

    def __len__(self) -> int:
        return len(self.leaves)

    @cached_property
    def _tree(self) -> Tree:
        packed = self.leaves.tobytes()
        return Tree(packed[at : at + LEAF_BYTES] for at in range(0, len(packed), LEAF_BYTES))

    @property
    def root(self) -> bytes:
        return self._tree.root()

    def _position(self, commitment: bytes) -> int:
        """Index of the first leaf that is not below `commitment`."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self.leaves[middle, :HASH_BYTES].tobytes() < commitment:
                low = middle + 1
            else:
                high = middle
        return low

    def __contains__(self, commitment: bytes) -> bool:
        at = self._position(commitment)
        return at < len(self) and self.leaves[at, :HASH_BYTES].tobytes() == commitment

    def _member(self, index: int) -> Membership:
        path = tuple(self._tree.inclusion(index))
        return Membership(leaf=self.leaves[index].tobytes(), index=index, path=path)

    def membership(self, commitment: bytes) -> Membership:
        """
        Raises:
            RequestError: it is not in the manifest.
        """
        if commitment not in self:
            raise RequestError("the commitment is not in the manifest", "Ask for the proof that it is not")
        return self._member(self._position(commitment))

    def non_membership(self, commitment: bytes) -> NonMembership:
        """
        Raises:
            RequestError: it is in the manifest.
        """
        if commitment in self:
            raise RequestError("the commitment is in the manifest", "Forget the record before asking for this proof")
        at = self._position(commitment)
        return NonMembership(
            id=commitment,
            left=self._member(at - 1) if at else None,
            right=self._member(at) if at < len(self) else None,
        )

    def without(self, ids: Iterable[bytes]) -> Manifest:
        """The manifest of what remains; ids that are not here are no error."""
        keep = np.ones(len(self), dtype=bool)
        for commitment in ids:
            if commitment in self:
                keep[self._position(commitment)] = False
        return Manifest(self.leaves[keep])

    def including(self, leaves: Iterable[bytes]) -> Manifest:
        """This manifest with `leaves`, each 64 bytes; those that are here already are not added twice."""
        added = [np.frombuffer(leaf, np.uint8) for leaf in leaves if leaf[:HASH_BYTES] not in self]
        return Manifest(np.concatenate([self.leaves, np.array(added, np.uint8).reshape(-1, LEAF_BYTES)]))

    # --- files --------------------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        from safetensors.numpy import save_file

        write_atomically(path, lambda temporary: save_file({"leaves": self.leaves}, str(temporary)))

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """
        Raises:
            TamperedEvidence: the file is missing, unreadable or not in order.
        """
        from safetensors.numpy import load_file

        remedy = "Restore the file from a copy; a new one cannot stand for what was signed"
        try:
            leaves = load_file(str(path))["leaves"]
        except Exception as error:
            raise TamperedEvidence(f"cannot read the manifest {path} ({str(error).splitlines()[0]})", remedy) from error
        if leaves.dtype != np.uint8 or leaves.ndim != 2 or leaves.shape[1] != LEAF_BYTES:
            raise TamperedEvidence(f"{path} holds no manifest: {leaves.dtype} of shape {leaves.shape}", remedy)
        try:
            manifest = cls(leaves)
        except RequestError as error:
            raise TamperedEvidence(f"{path}: {error.cause}", remedy) from error
        if not np.array_equal(manifest.leaves, leaves):
            raise TamperedEvidence(f"the leaves of the manifest {path} are not in order", remedy)
        return manifest
