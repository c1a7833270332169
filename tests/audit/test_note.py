"""Signed notes and checkpoints: the published vector, and everything that is not a note."""

from __future__ import annotations

import base64
import hashlib

import pytest

from expunge.audit.note import Checkpoint, key_hash, parse_verifier_key, sign, split, verifier_key, verify
from expunge.audit.signing import PublicKey, SigningKey
from expunge.errors import RequestError, TamperedEvidence

# The key and the note of golang.org/x/mod/sumdb/note (note_test.go). Ed25519 is deterministic: same seed, same bytes.
VERIFIER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
NOTE = (
    f"{TEXT}\n— PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


def key_of(seed: bytes) -> SigningKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from securesystemslib.signer import CryptoSigner

    return SigningKey(CryptoSigner(Ed25519PrivateKey.from_private_bytes(seed)))


def test_the_published_note_verifies_and_is_signed_again_byte_for_byte() -> None:
    name, key = parse_verifier_key(VERIFIER)
    assert name == "PeterNeumann" and key_hash(name, key).hex() == "c74f20a3"
    assert verify(NOTE, name, [key]) == (TEXT, key)
    signer = key_of(SEED)
    assert signer.public == key and verifier_key(name, signer.public) == VERIFIER
    assert sign(TEXT, name, signer) == NOTE


def test_ed25519_is_rfc_8032s() -> None:
    """Its first test vector: the empty message."""
    key = key_of(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
    assert key.public.raw.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    signature = key.sign(b"")
    assert signature.hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555"
        "fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )
    assert key.public.verify(signature, b"") and not key.public.verify(signature, b" ")
    assert not key.public.verify(b"", b"") and not key.public.verify(signature[:-1], b"")


def test_every_flipped_bit_of_a_note_is_found() -> None:
    name, key = parse_verifier_key(VERIFIER)
    content = NOTE.encode()
    for at in range(len(content)):
        changed = bytearray(content)
        changed[at] ^= 1
        try:
            text = changed.decode()
        except UnicodeDecodeError:
            continue
        with pytest.raises(TamperedEvidence):
            verify(text, name, [key])


def test_other_keys_and_names_are_ignored_and_a_known_one_must_fit() -> None:
    name, key = parse_verifier_key(VERIFIER)
    stranger = SigningKey.make()
    line = sign(TEXT, "stranger.example", stranger).split("\n\n")[1]
    assert verify(NOTE + line, name, [key]) == (TEXT, key)
    assert verify(f"{TEXT}\n{line}" + NOTE.split("\n\n")[1], name, [stranger.public, key]) == (TEXT, key)
    with pytest.raises(TamperedEvidence, match="none of the trusted keys"):
        verify(f"{TEXT}\n{line}", name, [key])
    with pytest.raises(TamperedEvidence, match="none of the trusted keys"):
        verify(NOTE, name, [stranger.public])
    with pytest.raises(TamperedEvidence, match="none of the trusted keys"):
        verify(NOTE, "other", [key])
    forged = base64.b64encode(key_hash(name, key) + stranger.sign(TEXT.encode())).decode()
    with pytest.raises(TamperedEvidence, match="does not fit"):
        verify(f"{TEXT}\n— {name} {forged}\n", name, [key])


def test_the_text_ends_at_the_last_empty_line() -> None:
    key = SigningKey.make()
    text = "a\n\nb\n"
    assert split(sign(text, "n", key))[0] == text
    assert verify(sign(text, "n", key), "n", [key.public])[0] == text


@pytest.mark.parametrize(
    "note",
    [
        "",
        TEXT,
        NOTE.rstrip("\n"),
        NOTE.replace("—", "-"),
        NOTE.replace("\n\n", "\n"),
        NOTE + "\n",
        NOTE.replace("x08go", "!!!!!"),
        NOTE.replace("=", ""),
        NOTE.replace("If", "I\tf"),
        f"{TEXT}\n— PeterNeumann AAAA\n",
        f"{TEXT}\n—  x08go/Y=\n",
        f"{TEXT}\n" + "— n AAAAAAAA\n" * 101,
    ],
)
def test_what_is_no_note_is_refused(note: str) -> None:
    with pytest.raises(TamperedEvidence):
        split(note)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\u2003b", "a\x01b"])
def test_names_that_would_break_a_line_are_refused(name: str) -> None:
    with pytest.raises(RequestError, match="cannot name a key"):
        sign("t\n", name, SigningKey.make())


@pytest.mark.parametrize("text", ["", "no newline", "a\tb\n", "a\rb\n"])
def test_texts_that_cannot_be_signed_are_refused(text: str) -> None:
    with pytest.raises(RequestError, match="must end in a newline"):
        sign(text, "n", SigningKey.make())


def test_a_verifier_key_is_refused_when_any_character_is_changed_or_missing() -> None:
    for at in range(len(VERIFIER)):
        for changed in (
            VERIFIER[:at] + VERIFIER[at + 1 :],
            VERIFIER[:at] + chr(ord(VERIFIER[at]) + 1) + VERIFIER[at + 1 :],
        ):
            with pytest.raises(RequestError):
                parse_verifier_key(changed)
    _, key = parse_verifier_key(VERIFIER)
    ecdsa = b"\x02" + key.raw
    stated = hashlib.sha256(b"PeterNeumann\n" + ecdsa).digest()[:4].hex()
    with pytest.raises(RequestError, match="not an Ed25519"):
        parse_verifier_key(f"PeterNeumann+{stated}+{base64.b64encode(ecdsa).decode()}")


def test_checkpoints_are_read_as_the_specification_writes_them() -> None:
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    head = Checkpoint.parse(text)
    assert (head.origin, head.size) == ("example.com/behind-the-sofa", 20852163)
    assert head.root == base64.b64decode("CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=") and head.text == text
    assert Checkpoint.parse(text + "extension\n") == head
    assert Checkpoint.parse(text.replace("20852163", "0")).size == 0


@pytest.mark.parametrize(
    "text",
    [
        "o\n1\n",
        "\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        "o\n01\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        "o\n-1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        "o\n+1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        "o\n١\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        "o\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I\n",
        "o\n1\nAAAA\n",
        "o\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\nx\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(TamperedEvidence):
        Checkpoint.parse(text)


def test_a_signing_key_shows_its_public_half_only() -> None:
    key = SigningKey.make()
    assert SigningKey.from_pem(key.pem).public == key.public
    assert "PRIVATE" in key.pem.decode() and "PRIVATE" not in repr(key)
    assert repr(key) == f"SigningKey(public={key.public.raw.hex()})"
    with pytest.raises(TamperedEvidence) as raised:
        SigningKey.from_pem(key.pem.replace(b"PRIVATE KEY", b"PRIVATE BEE"))
    assert raised.value.__cause__ is None and key.pem.decode().split("\n")[1] not in str(raised.value)
    assert PublicKey(key.public.raw).id == key.public.id and len(key.public.id) == 64
