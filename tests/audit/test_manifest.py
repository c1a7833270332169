"""The manifest: what a commitment is, what a proof shows, and that nothing else is shown."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from audit_tools import flips
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.audit.keys import KeyFolder, owner, record
from expunge.audit.manifest import Manifest, Membership, NonMembership, commitments, contents, id_commitment, subjects
from expunge.audit.merkle import EMPTY_ROOT, Tree
from expunge.data.records import Records
from expunge.errors import RequestError, TamperedEvidence, UnknownIds


def plain_keys(wanted: Iterable[str]) -> list[bytes]:
    """Keys that a test can compute again."""
    return [hashlib.sha256(subject.encode()).digest() for subject in wanted]


def table(n: int, **changes: object) -> Records:
    columns = {"x": np.arange(2.0 * n).reshape(n, 2), "word": np.array([f"w{k}" for k in range(n)])}
    ids, owners = np.array([f"r{k}" for k in range(n)]), np.array([f"p{k // 2}" for k in range(n)])
    return Records(**{"ids": ids, "owners": owners, "columns": columns, **changes})  # type: ignore[arg-type]


def leaves(count: int) -> np.ndarray:
    packed = b"".join(hashlib.sha512(bytes([k])).digest() for k in range(count))
    return np.frombuffer(packed, np.uint8).reshape(-1, 64)


def test_a_leaf_is_two_macs_under_the_owners_key() -> None:
    rows = table(3)
    content = next(contents(rows.take([2])))
    key = hashlib.sha256(b"owner\x00p1").digest()
    wanted = hmac.digest(key, b"id\x00r2", "sha256")
    wanted += hmac.digest(key, b"row\x00" + (2).to_bytes(8, "big") + b"r2" + content, "sha256")
    assert commitments(rows, plain_keys)[2].tobytes() == wanted
    value = json.dumps("w2").encode()
    head = json.dumps(["word", "text", []]).encode()
    assert content.startswith(len(head).to_bytes(8, "big") + head + len(value).to_bytes(8, "big") + value)
    assert np.array([4.0, 5.0]).tobytes() in content


def test_every_value_name_type_and_owner_changes_the_row_and_only_that_row() -> None:
    rows = table(4)
    told = commitments(rows, plain_keys)
    x = rows.x.copy()
    x[1, 0] += 1
    for changed in (
        table(4, columns={**rows.columns, "x": x}),
        table(4, owners=np.array(["p0", "p9", "p1", "p1"])),
        table(4, columns={**rows.columns, "word": np.array(["w0", "other", "w2", "w3"])}),
    ):
        same = (commitments(changed, plain_keys) == told).all(axis=1)
        assert same.tolist() == [True, False, True, True]
    renamed = Records(ids=rows.ids, owners=rows.owners, columns={"z": rows.x, "word": rows.columns["word"]})
    single = table(4, columns={**rows.columns, "x": rows.x.astype(np.float32)})
    for changed in (renamed, single):
        assert not (commitments(changed, plain_keys) == told).all(axis=1).any()


def test_width_of_strings_and_order_of_bytes_do_not_matter() -> None:
    rows = table(3)
    wide = table(3, columns={"x": rows.x.astype(">f8"), "word": rows.columns["word"].astype("U90")})
    assert (commitments(wide, plain_keys) == commitments(rows, plain_keys)).all()


def test_equal_rows_of_two_owners_share_nothing() -> None:
    rows = Records(
        ids=np.array(["a", "b"]), owners=np.array(["p", "q"]), columns={"x": np.ones((2, 3)), "w": np.array(["v", "v"])}
    )
    first, second = commitments(rows, plain_keys)
    assert first[32:].tobytes() != second[32:].tobytes()


def test_a_record_without_an_owner_has_a_key_of_its_own() -> None:
    assert subjects(table(2, owners=None)) == [record("r0"), record("r1")]
    assert subjects(table(2, owners=np.array(["", "p"]))) == [record("r0"), owner("p")]
    assert owner("r0") != record("r0")


def test_the_manifest_is_a_function_of_the_set_of_rows() -> None:
    rows = table(9)
    whole = Manifest.of(rows, plain_keys)
    assert Manifest.of(rows.take(np.arange(9)[::-1]), plain_keys).root == whole.root
    gone = [id_commitment(plain_keys([owner("p1")])[0], i) for i in ("r2", "r3")]
    remaining = Manifest.of(rows.without(["r2", "r3"]), plain_keys)
    assert whole.without(gone).root == remaining.root != whole.root
    back = [whole.membership(i).leaf for i in gone]
    assert remaining.including(back).root == whole.including(back).root == whole.root
    assert remaining.without(gone).root == remaining.root


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 20), st.data())
def test_of_every_id_exactly_one_proof_holds(count: int, data: st.DataObject) -> None:
    chosen = data.draw(st.sets(st.integers(0, 30), min_size=count, max_size=count))
    every = leaves(31)
    manifest = Manifest(every[sorted(chosen)])
    root, size = manifest.root, len(manifest)
    for k in range(31):
        target = every[k, :32].tobytes()
        if k in chosen:
            proof = manifest.membership(target)
            assert proof.holds(size, root) and proof.leaf == every[k].tobytes()
            with pytest.raises(RequestError):
                manifest.non_membership(target)
        else:
            absent = manifest.non_membership(target)
            assert absent.holds(size, root)
            assert NonMembership.from_dict(json.loads(json.dumps(absent.as_dict()))) == absent
            with pytest.raises(RequestError):
                manifest.membership(target)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 12))
def test_no_pair_of_leaves_shows_the_absence_of_one_that_is_there(count: int) -> None:
    manifest = Manifest(leaves(count))
    members = [manifest.membership(leaf[:32].tobytes()) for leaf in manifest.leaves]
    for member in members:
        for left in (None, *members):
            for right in (None, *members):
                assert not NonMembership(id=member.id, left=left, right=right).holds(count, manifest.root)


def test_a_proof_of_absence_needs_both_neighbours_except_at_an_edge() -> None:
    manifest = Manifest(leaves(8))
    sides = [manifest.membership(leaf[:32].tobytes()) for leaf in manifest.leaves]
    between = bytes(31 * [0]) + b"\x01"
    middle = (int.from_bytes(sides[3].id, "big") + 1).to_bytes(32, "big")

    def holds(target: bytes, left: int | None, right: int | None) -> bool:
        pick = [None if k is None else sides[k] for k in (left, right)]
        return NonMembership(id=target, left=pick[0], right=pick[1]).holds(8, manifest.root)

    assert holds(middle, 3, 4)
    assert not any(holds(middle, *pair) for pair in ((3, None), (None, 4), (2, 4), (3, 5), (2, 3), (4, 3), (4, 5)))
    assert holds(between, None, 0) and not holds(between, None, 1) and not holds(between, 0, 1)
    above = bytes(32 * [255])
    assert holds(above, 7, None) and not holds(above, 6, None) and not holds(above, 6, 7)
    assert not holds(above, None, None)
    empty = NonMembership(id=above, left=None, right=None)
    assert empty.holds(0, EMPTY_ROOT) and not empty.holds(0, manifest.root) and not empty.holds(1, EMPTY_ROOT)


def test_a_neighbour_that_is_made_up_shows_nothing() -> None:
    manifest = Manifest(leaves(8))
    sides = [manifest.membership(leaf[:32].tobytes()) for leaf in manifest.leaves]
    target = sides[4].id  # it is there; a neighbour above or below it would hide it
    above = (int.from_bytes(target, "big") + 1).to_bytes(32, "big") + bytes(32)
    below = (int.from_bytes(target, "big") - 1).to_bytes(32, "big") + bytes(32)
    made_up = Membership(leaf=above, index=4, path=sides[4].path)
    assert not NonMembership(id=target, left=sides[3], right=made_up).holds(8, manifest.root)
    made_up = Membership(leaf=below, index=4, path=sides[4].path)
    assert not NonMembership(id=target, left=made_up, right=sides[5]).holds(8, manifest.root)


def test_a_proof_is_of_one_root_size_index_and_leaf() -> None:
    manifest = Manifest(leaves(9))
    proof = manifest.membership(manifest.leaves[4, :32].tobytes())
    assert proof.index == 4 and proof.holds(9, manifest.root)
    assert Membership.from_dict(json.loads(json.dumps(proof.as_dict()))) == proof
    assert not any(proof.holds(size, manifest.root) for size in (0, 4, 8, 17))
    assert not proof.holds(9, Manifest(leaves(10)).root)
    short = Membership(leaf=bytes(32), index=0, path=())
    assert not short.holds(1, Tree([bytes(32)]).root()), "a leaf of another length is no leaf of a manifest"
    other_row = proof.leaf[:32] + bytes(32)
    for leaf, index in ((other_row, 4), (proof.leaf, 5), (proof.leaf + b"\x00", 4), (proof.leaf[:32], 4)):
        assert not Membership(leaf=leaf, index=index, path=proof.path).holds(9, manifest.root)


def test_one_id_twice_is_refused() -> None:
    twice = np.concatenate([leaves(2), leaves(1)])
    with pytest.raises(RequestError, match="same id"):
        Manifest(twice)


def test_it_is_sorted_by_every_byte_of_the_id() -> None:
    """Ids that differ in the last byte, or end in zeros, which numpy's own strings would drop."""
    ids = [bytes(31) + b"\x02", bytes(32), bytes(31) + b"\x01", b"\xff" + bytes(31), b"\x7f" * 32]
    packed = np.frombuffer(b"".join(i + bytes(32) for i in ids), np.uint8).reshape(-1, 64)
    assert [row[:32].tobytes() for row in Manifest(packed).leaves] == sorted(ids)


def test_files_come_back_and_one_changed_byte_is_found(tmp_path: Path) -> None:
    manifest = Manifest(leaves(6))
    path = tmp_path / "manifest.safetensors"
    manifest.save(path)
    assert Manifest.read(path).root == manifest.root
    content = path.read_bytes()
    for changed in flips(content, 80):
        path.write_bytes(changed)
        with contextlib.suppress(TamperedEvidence):
            assert Manifest.read(path).root != manifest.root
    with pytest.raises(TamperedEvidence, match="cannot read"):
        Manifest.read(tmp_path / "none.safetensors")


def test_leaves_out_of_order_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"leaves": np.ascontiguousarray(Manifest(leaves(4)).leaves[::-1])}, str(tmp_path / "m"))
    with pytest.raises(TamperedEvidence, match="not in order"):
        Manifest.read(tmp_path / "m")
    save_file({"leaves": np.zeros((2, 63), np.uint8)}, str(tmp_path / "m"))
    with pytest.raises(TamperedEvidence, match="holds no manifest"):
        Manifest.read(tmp_path / "m")


def test_what_a_destroyed_key_leaves(tmp_path: Path) -> None:
    """The proofs hold as before; the commitments can neither be computed again nor told from others."""
    keys = KeyFolder.make(tmp_path / "keys", "example.com")
    rows = table(6)
    before = Manifest.of(rows, keys.owner_keys)
    commitment = id_commitment(keys.owner_keys([owner("p1")])[0], "r2")
    member, after = before.membership(commitment), before.without([commitment])
    absent = after.non_membership(commitment)
    keys.destroy(owner("p1"))
    assert member.holds(6, before.root) and absent.holds(5, after.root)
    with pytest.raises(UnknownIds, match="p1"):
        Manifest.of(rows, keys.held_keys)
    again = id_commitment(keys.owner_keys([owner("p1")])[0], "r2")
    assert again not in before
