"""Ed25519 through securesystemslib, loaded when first used."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from expunge.errors import TamperedEvidence

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner, SSlibKey


@dataclass(frozen=True)
class PublicKey:
    """An Ed25519 public key.

    Args:
        raw: 32 bytes, RFC 8032.
    """

    raw: bytes

    def library_key(self) -> SSlibKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from securesystemslib.signer import SSlibKey

        return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(self.raw))

    @property
    def id(self) -> str:
        """SHA-256 of the key's canonical JSON, as in-toto and TUF name keys, hexadecimal."""
        return str(self.library_key().keyid)

    def verify(self, signature: bytes, data: bytes) -> bool:
        from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
        from securesystemslib.signer import Signature

        key = self.library_key()
        try:
            key.verify_signature(Signature(key.keyid, signature.hex()), data)
        except (UnverifiedSignatureError, VerificationError):
            return False
        return True


class SigningKey:
    """An Ed25519 key pair; its representation shows the public half only."""

    def __init__(self, signer: CryptoSigner) -> None:
        self._signer = signer

    @classmethod
    def make(cls) -> SigningKey:
        from securesystemslib.signer import CryptoSigner

        return cls(CryptoSigner.generate_ed25519())

    @classmethod
    def from_pem(cls, pem: bytes) -> SigningKey:
        """
        Raises:
            TamperedEvidence: it is no Ed25519 private key; the message does not quote it.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
        from securesystemslib.signer import CryptoSigner

        try:
            private = load_pem_private_key(pem, None)
        except (ValueError, TypeError):
            private = None
        if not isinstance(private, Ed25519PrivateKey):
            # from None: the cause's text might quote the key
            raise TamperedEvidence("the signing key is damaged", "Restore the key folder from a copy") from None
        return cls(CryptoSigner(private))

    @property
    def pem(self) -> bytes:
        """The private half, PKCS #8: for the key folder and nobody else."""
        return bytes(self._signer.private_bytes)

    @cached_property
    def public(self) -> PublicKey:
        return PublicKey(bytes.fromhex(self._signer.public_key.keyval["public"]))

    def sign(self, data: bytes) -> bytes:
        return bytes.fromhex(self._signer.sign(data).signature)

    def __repr__(self) -> str:
        return f"SigningKey(public={self.public.raw.hex()})"
