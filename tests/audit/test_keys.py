"""The key folder: secret, rotated, and destroyed one owner at a time."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from audit_tools import killed_at, places
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.audit import keys as keys_module
from expunge.audit.keys import SLOT_BYTES, KeyFolder, owner, record
from expunge.audit.note import verifier_key
from expunge.audit.signing import SigningKey
from expunge.audit.trust import TrustedKey, TrustedKeys, parse_time
from expunge.errors import RequestError, RunError, TamperedEvidence, UnknownIds

NAME = "example.com/forgetting"
NOON = datetime(2026, 5, 25, 12, tzinfo=UTC)
ADA, BOB = owner("Ada Lovelace"), owner("Bob Kahn")


@pytest.fixture
def keys(tmp_path: Path) -> KeyFolder:
    return KeyFolder.make(tmp_path / "keys", NAME, at=NOON)


def everything(folder: Path) -> bytes:
    """All bytes of all files, and all their names."""
    return b"".join(p.name.encode() + (p.read_bytes() if p.is_file() else b"") for p in sorted(folder.rglob("*")))


def test_nobody_else_may_read_it(keys: KeyFolder) -> None:
    keys.owner_keys([ADA])
    keys.rotate()
    for path in (keys.folder, *keys.folder.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    for path in ("owners.bin", "signing", "trusted.json"):
        (keys.folder / path).chmod(0o640)
        with pytest.raises(RunError, match="others may read"):
            KeyFolder(keys.folder)
        (keys.folder / path).chmod(0o700 if path == "signing" else 0o600)
    keys.folder.chmod(0o755)
    with pytest.raises(RunError, match="0755"):
        KeyFolder(keys.folder)


def test_no_name_stands_in_it_and_no_secret_is_shown(keys: KeyFolder) -> None:
    ada, bob = keys.owner_keys([ADA, BOB])
    content = everything(keys.folder)
    for name in (b"Ada", b"Lovelace", b"Bob", b"Kahn", b"owner\x00"):
        assert name not in content
    public = json.dumps(keys.trusted.as_dict())
    for shown in (repr(keys), public, repr(keys.signer), str(keys.key_id(ADA))):
        assert ada.hex() not in shown and bob.hex() not in shown and "PRIVATE" not in shown


def test_keys_are_random_kept_and_each_owners_own(keys: KeyFolder, tmp_path: Path) -> None:
    first = keys.owner_keys([ADA, BOB, ADA, record("Ada Lovelace")])
    assert first[0] == first[2] and len({*first}) == 3 and all(len(key) == 32 for key in first)
    assert KeyFolder(keys.folder).owner_keys([BOB, ADA]) == [first[1], first[0]]
    other = KeyFolder.make(tmp_path / "other", NAME)
    assert other.owner_keys([ADA]) != first[:1]
    assert (keys.folder / "owners.bin").stat().st_size == 3 * SLOT_BYTES


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(st.sampled_from(["make", "destroy", "reopen"]), st.integers(0, 5)), max_size=20))
def test_any_sequence_keeps_what_was_not_destroyed(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    keys = KeyFolder.make(tmp_path_factory.mktemp("k") / "keys", NAME)
    model: dict[str, bytes] = {}
    gone: list[bytes] = []
    for step, number in steps:
        subject = owner(f"person {number}")
        if step == "make":
            (key,) = keys.owner_keys([subject])
            assert key == model.setdefault(subject, key) and key not in gone
        elif step == "reopen":
            keys = KeyFolder(keys.folder)
        elif subject in model:
            gone.append(model.pop(subject))
            keys.destroy(subject)
        else:
            with pytest.raises(UnknownIds, match=f"person {number}"):
                keys.destroy(subject)
    assert KeyFolder(keys.folder).held_keys(model) == list(model.values())
    assert len(keys.destroyed) == len(gone)
    content = everything(keys.folder)
    assert not any(key in content for key in gone) and all(key in content for key in model.values())


def test_destroying_one_unlinks_one_and_is_recorded(keys: KeyFolder) -> None:
    ada, bob = keys.owner_keys([ADA, BOB])
    receipt = keys.key_id(ADA)
    slot = (keys.folder / "owners.bin").read_bytes()[:SLOT_BYTES]
    assert slot[32:] == ada
    gone = keys.destroy(ADA, at=NOON)
    assert gone.key_id == receipt and gone.at == "2026-05-25T12:00:00Z" and keys.destroyed == (gone,)
    content = everything(keys.folder)
    assert ada not in content and slot[:32] not in content and ada.hex().encode() not in content
    assert not keys.holds(ADA) and keys.holds(BOB) and keys.held_keys([BOB]) == [bob]
    with pytest.raises(UnknownIds, match="Ada Lovelace"):
        keys.destroy(ADA)
    with pytest.raises(UnknownIds):
        keys.held_keys([BOB, ADA])
    assert keys.owner_keys([ADA]) != [ada]


def test_another_process_sees_what_was_made_and_destroyed(keys: KeyFolder) -> None:
    other = KeyFolder(keys.folder)
    (ada,) = keys.owner_keys([ADA])
    assert other.owner_keys([ADA]) == [ada] and other.holds(ADA)
    (bob,) = other.owner_keys([BOB])
    assert keys.held_keys([ADA, BOB]) == [ada, bob]
    other.destroy(ADA)
    assert not keys.holds(ADA) and keys.held_keys([BOB]) == [bob]


def test_killed_while_a_key_is_destroyed_the_next_one_finishes(tmp_path: Path) -> None:
    def prepared(name: str) -> tuple[KeyFolder, bytes]:
        keys = KeyFolder.make(tmp_path / name, NAME)
        return keys, keys.owner_keys([ADA, BOB])[0]

    whole, _ = prepared("whole")
    names = places((keys_module,), lambda: whole.destroy(ADA))
    assert names == ["destruction recorded", "key overwritten"]
    for place in range(len(names)):
        keys, ada = prepared(str(place))
        assert killed_at(place, (keys_module,), lambda keys=keys: keys.destroy(ADA))
        again = KeyFolder(keys.folder)
        assert not again.holds(ADA) and again.holds(BOB) and ada not in everything(keys.folder)
        assert len(again.destroyed) == 1


def test_a_key_made_again_in_another_slot_is_not_destroyed_by_an_old_record(keys: KeyFolder) -> None:
    keys.owner_keys([ADA])
    keys.destroy(ADA)
    (fresh,) = keys.owner_keys([ADA])
    assert KeyFolder(keys.folder).held_keys([ADA]) == [fresh]


def test_half_a_slot_left_by_a_crash_is_written_over(keys: KeyFolder) -> None:
    (ada,) = keys.owner_keys([ADA])
    with (keys.folder / "owners.bin").open("ab") as file:
        file.write(b"torn")
    again = KeyFolder(keys.folder)
    assert again.held_keys([ADA]) == [ada]
    (bob,) = again.owner_keys([BOB])
    assert KeyFolder(keys.folder).held_keys([ADA, BOB]) == [ada, bob]
    assert (keys.folder / "owners.bin").stat().st_size == 2 * SLOT_BYTES


def test_after_a_rotation_the_old_key_is_trusted_and_gone(keys: KeyFolder) -> None:
    old, pem = keys.signer.public, keys.signer.pem
    trusted = keys.rotate(at=NOON + timedelta(days=1))
    new = keys.signer.public
    assert new != old and trusted.public == (old, new) == KeyFolder(keys.folder).trusted.public
    first, second = trusted.keys
    assert first.valid(NOON) and not second.valid(NOON)
    assert second.valid(NOON + timedelta(days=2)) and not first.valid(NOON + timedelta(days=2))
    assert not first.valid(NOON - timedelta(seconds=1))
    body = pem.split(b"\n")[1]
    assert body not in everything(keys.folder) and len(list((keys.folder / "signing").iterdir())) == 1


def test_killed_while_it_rotates_there_is_one_key_that_signs(tmp_path: Path) -> None:
    whole = KeyFolder.make(tmp_path / "whole", NAME)
    names = places((keys_module,), lambda: whole.rotate())
    assert names == ["new key written", "new key trusted"]
    for place, count in ((0, 1), (1, 2)):
        keys = KeyFolder.make(tmp_path / str(place), NAME)
        assert killed_at(place, (keys_module,), lambda keys=keys: keys.rotate())
        again = KeyFolder(keys.folder)
        assert len(again.trusted.keys) == count and again.signer.public == again.trusted.public[-1]
        assert len(list((keys.folder / "signing").iterdir())) == 1


def test_killed_while_they_are_made_they_can_be_made_again(tmp_path: Path) -> None:
    assert killed_at(0, (keys_module,), lambda: KeyFolder.make(tmp_path / "keys", NAME))
    with pytest.raises(RunError, match="no keys"):
        KeyFolder(tmp_path / "keys")
    keys = KeyFolder.make(tmp_path / "keys", NAME)
    assert keys.signer.public == keys.trusted.public[0]
    assert len(list((keys.folder / "signing").iterdir())) == 1


def test_keys_are_not_made_over_others(keys: KeyFolder) -> None:
    with pytest.raises(RunError, match="already"):
        KeyFolder.make(keys.folder, NAME)
    with pytest.raises(RequestError, match="cannot name a key"):
        KeyFolder.make(keys.folder.with_name("new"), "two words")
    assert not keys.folder.with_name("new").exists()


def test_a_damaged_signing_key_is_named(keys: KeyFolder) -> None:
    (pem,) = (keys.folder / "signing").iterdir()
    content = pem.read_bytes()
    pem.write_bytes(SigningKey.make().pem)
    with pytest.raises(TamperedEvidence, match="not the key that is trusted"):
        _ = keys.signer
    pem.write_bytes(content[:40])
    with pytest.raises(TamperedEvidence, match="damaged"):
        _ = keys.signer
    pem.unlink()
    with pytest.raises(TamperedEvidence, match="is gone"):
        _ = keys.signer


def test_public_keys_travel_as_json_and_as_lines(keys: KeyFolder, tmp_path: Path) -> None:
    keys.rotate(at=NOON + timedelta(days=1))
    trusted = keys.trusted
    path = tmp_path / "public"
    path.write_text(json.dumps(trusted.as_dict()))
    assert TrustedKeys.read(path) == trusted
    path.write_text("\n".join(verifier_key(NAME, key) for key in trusted.public) + "\n")
    lines = TrustedKeys.read(path)
    assert lines.public == trusted.public and lines.name == NAME and all(k.valid(NOON) for k in lines.keys)
    assert trusted.owns(NAME) and trusted.owns(f"{NAME}/log") and not trusted.owns(f"{NAME}log")
    path.write_text(verifier_key("a", trusted.public[0]) + "\n" + verifier_key("b", trusted.public[0]))
    with pytest.raises(RequestError, match="2 signers"):
        TrustedKeys.read(path)
    for text in ("", "{", "{}", '{"format": 1}', "nonsense", json.dumps({**trusted.as_dict(), "name": "other"})):
        path.write_text(text)
        with pytest.raises(RequestError):
            TrustedKeys.read(path)
    with pytest.raises(RequestError, match="cannot read"):
        TrustedKeys.read(tmp_path / "none")


def test_times_have_zones() -> None:
    assert parse_time("2026-05-25T12:00:00Z") == NOON
    assert parse_time("2026-05-25T14:00:00+02:00") == NOON
    for text in ("2026-05-25T12:00:00", "2026-05-25", "noon"):
        with pytest.raises(RequestError, match="no time with a zone"):
            parse_time(text)
    always = TrustedKey(key=SigningKey.make().public, valid_from=NOON)
    assert always.valid(NOON) and always.valid(NOON + timedelta(days=9999)) and not always.valid(NOON - timedelta(1))


def test_where_nothing_may_be_written_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot make"):
        KeyFolder.make(tmp_path / "file" / "keys", NAME)
