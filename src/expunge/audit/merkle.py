"""Merkle trees of RFC 6962, section 2.1, and their proofs.

A tree commits to a list of byte strings, its leaves: SHA-256 of 0x00 and the leaf, SHA-256 of 0x01 and two children;
the left child holds the largest power of two of leaves that leaves something for the right. An *inclusion proof* shows
that a leaf stands at an index, a *consistency proof* that an earlier tree is the beginning of a later one. Both are
verified by the algorithms of RFC 9162, sections 2.1.3.2 and 2.1.4.2, from roots and sizes alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from expunge.errors import RequestError

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(leaf: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


class Tree:
    """A tree that grows at its end.

    Every hash of a perfect subtree is kept, 32 bytes each and at most two a leaf, so that an append costs one hash on
    average and a root or a proof of any earlier size a logarithm.

    Args:
        leaves: the first leaves, in order.
    """

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        self._levels: list[bytearray] = [bytearray()]
        self.extend(leaves)

    def __len__(self) -> int:
        return len(self._levels[0]) // HASH_BYTES

    def append(self, leaf: bytes) -> None:
        self.extend((leaf,))

    def extend(self, leaves: Iterable[bytes]) -> None:
        sha256, level = hashlib.sha256, self._levels[0]
        for leaf in leaves:
            level += sha256(b"\x00" + leaf).digest()
        height = 0
        while len(self._levels[height]) >= 2 * HASH_BYTES:
            below = self._levels[height]
            if height + 1 == len(self._levels):
                self._levels.append(bytearray())
            above = self._levels[height + 1]
            pairs = len(below) // (2 * HASH_BYTES)
            for at in range(2 * len(above), 2 * HASH_BYTES * pairs, 2 * HASH_BYTES):
                above += sha256(b"\x01" + below[at : at + 2 * HASH_BYTES]).digest()
            height += 1

    def root(self, size: int | None = None) -> bytes:
        """The root of the first `size` leaves, of all by default.

        Raises:
            RequestError: the tree is not that large.
        """
        size = self._size(size)
        return self._subtree(0, size) if size else EMPTY_ROOT

    def inclusion(self, index: int, size: int | None = None) -> list[bytes]:
        """PATH(index, D[size]): the hashes that lead from a leaf to the root, the nearest first.

        Raises:
            RequestError: there is no such leaf or size.
        """
        size = self._size(size)
        if not 0 <= index < size:
            raise RequestError(f"there is no leaf {index} in a tree of {size}", "Ask for a leaf that it has")
        path: list[bytes] = []
        start, end = 0, size
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                path.append(self._subtree(middle, end))
                end = middle
            else:
                path.append(self._subtree(start, middle))
                start = middle
        return path[::-1]

    def consistency(self, old: int, new: int | None = None) -> list[bytes]:
        """PROOF(old, D[new]): empty if either nothing was there or nothing was added.

        Raises:
            RequestError: `old` is larger than `new`, or the tree is not that large.
        """
        new = self._size(new)
        if not 0 <= old <= new:
            raise RequestError(f"a tree of {old} is no beginning of a tree of {new}", "Name the smaller size first")
        if old in (0, new):
            return []
        proof: list[bytes] = []
        start, end, whole = 0, new, True
        while old != end:
            middle = start + _split(end - start)
            if old <= middle:
                proof.append(self._subtree(middle, end))
                end = middle
            else:
                proof.append(self._subtree(start, middle))
                start, whole = middle, False
        if not whole:
            proof.append(self._subtree(start, end))
        return proof[::-1]

    def _size(self, size: int | None) -> int:
        if size is None:
            return len(self)
        if not 0 <= size <= len(self):
            raise RequestError(f"a tree of {len(self)} leaves never had {size}", "Ask for a size that it had")
        return size

    def _subtree(self, start: int, end: int) -> bytes:
        """MTH(D[start:end]), where `start` is a multiple of the largest power of two in ``end - start``."""
        parts = []
        while start < end:
            height = (end - start).bit_length() - 1
            at = (start >> height) * HASH_BYTES
            parts.append(bytes(self._levels[height][at : at + HASH_BYTES]))
            start += 1 << height
        digest = parts.pop()
        while parts:
            digest = node_hash(parts.pop(), digest)
        return digest


def _split(n: int) -> int:
    """The largest power of two smaller than `n`, n ≥ 2."""
    return 1 << (n - 1).bit_length() - 1


def root(leaves: Iterable[bytes]) -> bytes:
    """MTH of the leaves."""
    return Tree(leaves).root()


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether `path` shows that `leaf` is number `index` of the `size` leaves under `root`: RFC 9162, 2.1.3.2."""
    if not 0 <= index < size:
        return False
    fn, sn, r = index, size - 1, leaf_hash(leaf)
    for p in path:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            r = node_hash(p, r)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node_hash(r, p)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and r == root


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether `proof` shows that the `old` leaves under `old_root` begin the `new` under `new_root`: RFC 9162, 2.1.4.2.

    Of nothing everything is a continuation, and of itself a tree only with the same root: both by an empty proof.
    """
    if not 0 <= old <= new:
        return False
    if old == new:
        return not proof and old_root == new_root
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    if not proof:
        return False
    rest = list(proof)
    if old & (old - 1) == 0:
        rest.insert(0, old_root)
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = rest[0]
    for c in rest[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = node_hash(c, fr), node_hash(c, sr)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node_hash(sr, c)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and fr == old_root and sr == new_root
