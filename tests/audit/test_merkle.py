"""RFC 6962 trees: the reference's vectors, the definition written out again, and every proof against every lie."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.audit.merkle import EMPTY_ROOT, Tree, leaf_hash, node_hash, root, verify_consistency, verify_inclusion
from expunge.errors import RequestError

# The leaves, roots and paths of the certificate-transparency reference tests (merkle_tree_test).
LEAVES = [
    bytes.fromhex(x)
    for x in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
PATHS = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
CONSISTENCY = {
    (1, 1): [],
    (1, 8): PATHS[0, 8],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}


@pytest.mark.parametrize("size", range(9))
def test_roots_are_the_references(size: int) -> None:
    assert root(LEAVES[:size]).hex() == ROOTS[size]
    assert Tree(LEAVES).root(size).hex() == ROOTS[size]


@pytest.mark.parametrize(("index", "size"), PATHS)
def test_inclusion_proofs_are_the_references(index: int, size: int) -> None:
    path = Tree(LEAVES).inclusion(index, size)
    assert [p.hex() for p in path] == PATHS[index, size]
    assert verify_inclusion(LEAVES[index], index, size, path, bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(("old", "new"), CONSISTENCY)
def test_consistency_proofs_are_the_references(old: int, new: int) -> None:
    proof = Tree(LEAVES).consistency(old, new)
    assert [p.hex() for p in proof] == CONSISTENCY[old, new]
    assert verify_consistency(old, new, bytes.fromhex(ROOTS[old]), bytes.fromhex(ROOTS[new]), proof)


def test_the_example_of_rfc_6962() -> None:
    """Section 2.1.3: seven leaves, the proofs given by the names of the nodes."""
    leaves = [f"d{i}".encode() for i in range(7)]
    a, b, c, d, e, f, j = map(leaf_hash, leaves)
    g, h, i = node_hash(a, b), node_hash(c, d), node_hash(e, f)
    k, l_ = node_hash(g, h), node_hash(i, j)
    tree = Tree(leaves)
    assert tree.root() == node_hash(k, l_)
    assert tree.inclusion(0) == [b, h, l_]
    assert tree.inclusion(3) == [c, g, l_]
    assert tree.inclusion(4) == [f, j, k]
    assert tree.inclusion(6) == [i, k]
    assert tree.consistency(3) == [c, d, g, l_]
    assert tree.consistency(4) == [l_]
    assert tree.consistency(6) == [i, j, k]


def plain_root(leaves: list[bytes]) -> bytes:
    """MTH by its recursive definition."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + plain_root(leaves[:k]) + plain_root(leaves[k:])).digest()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.binary(max_size=4), max_size=40), st.data())
def test_a_tree_grown_in_pieces_has_the_root_of_its_definition(leaves: list[bytes], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(leaves)))
    tree = Tree(leaves[:cut])
    for leaf in leaves[cut:]:
        tree.append(leaf)
    whole = Tree()
    whole.extend(iter(leaves))
    assert len(tree) == len(leaves)
    assert tree.root() == whole.root() == plain_root(leaves)
    assert tree.root(cut) == plain_root(leaves[:cut])


def test_every_proof_up_to_size_20_holds_and_no_other_index_size_or_root_does() -> None:
    leaves = [bytes([i]) for i in range(20)]
    tree = Tree(leaves)
    roots = [tree.root(n) for n in range(21)]
    for n in range(1, 21):
        for i in range(n):
            path = tree.inclusion(i, n)
            for j in range(21):
                assert verify_inclusion(leaves[i], j, n, path, roots[n]) is (j == i)
                assert verify_inclusion(leaves[i], i, n, path, roots[j]) is (j == n)
            assert not verify_inclusion(b"other", i, n, path, roots[n])
            assert not verify_inclusion(leaves[i], i, n, [*path, roots[1]], roots[n])
            if path:
                assert not verify_inclusion(leaves[i], i, n, path[:-1], roots[n])
        for m in range(n + 1):
            proof = tree.consistency(m, n)
            for other in range(21):
                assert verify_consistency(m, n, roots[other], roots[n], proof) is (other == m)
                assert verify_consistency(m, n, roots[m], roots[other], proof) is (other == n or m == 0 == len(proof))
            assert not verify_consistency(m, n, roots[m], roots[n], [*proof, roots[1]])
            if proof:
                assert not verify_consistency(m, n, roots[m], roots[n], proof[:-1])
                assert not verify_consistency(n, m, roots[n], roots[m], proof)


@settings(deadline=None, max_examples=80)
@given(st.integers(2, 70), st.data())
def test_one_flipped_bit_of_a_proof_is_found(n: int, data: st.DataObject) -> None:
    tree = Tree(i.to_bytes(2, "big") for i in range(n))
    old = data.draw(st.integers(1, n - 1))
    for proof, holds in (
        (tree.inclusion(old), lambda p: verify_inclusion(old.to_bytes(2, "big"), old, n, p, tree.root())),
        (tree.consistency(old), lambda p: verify_consistency(old, n, tree.root(old), tree.root(), p)),
    ):
        assert holds(proof)
        at, bit = data.draw(st.integers(0, len(proof) - 1)), data.draw(st.integers(0, 255))
        flipped = bytearray(proof[at])
        flipped[bit // 8] ^= 1 << bit % 8
        assert not holds([*proof[:at], bytes(flipped), *proof[at + 1 :]])


def test_a_leaf_is_never_taken_for_a_node() -> None:
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert root([left + right]) != root([b"a", b"b"])
    assert not verify_inclusion(left + right, 0, 1, [], root([b"a", b"b"]))


def test_what_a_tree_does_not_have_is_refused() -> None:
    tree = Tree(LEAVES)
    assert Tree().root() == EMPTY_ROOT
    for call in (
        lambda: tree.root(9),
        lambda: tree.inclusion(8),
        lambda: tree.inclusion(-1),
        lambda: tree.inclusion(3, 3),
        lambda: tree.consistency(9),
        lambda: tree.consistency(3, 2),
    ):
        with pytest.raises(RequestError):
            call()
