"""OpenDSR's signature of an answer, where the operator has a certificate for it."""

from __future__ import annotations

import base64
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from expunge.errors import RunError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    from expunge.service.api.settings import OpenDsrPart


def signed_headers(part: OpenDsrPart, body: bytes) -> dict[str, str]:
    """``X-OpenDSR-Processor-Domain``, and ``X-OpenDSR-Signature`` where there is a key.

    The signature is of the SHA-256 digest of the body: RSA (PKCS #1 v1.5) or ECDSA, base64.

    Raises:
        RunError: the key's file cannot be used.
    """
    headers = {"X-OpenDSR-Processor-Domain": part.domain}
    if part.key is not None:
        headers["X-OpenDSR-Signature"] = base64.b64encode(_sign(_read(part.key), body)).decode()
    return headers


def _sign(key: RSAPrivateKey | EllipticCurvePrivateKey, body: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256

    if isinstance(key, RSAPrivateKey):
        return key.sign(body, PKCS1v15(), SHA256())
    return key.sign(body, ECDSA(SHA256()))


@lru_cache(maxsize=4)
def _read(path: str) -> RSAPrivateKey | EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(Path(path).read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise RunError(
            f"cannot read the key of OpenDSR ({type(error).__name__})", "Give an RSA or EC key as PEM"
        ) from None
    if not isinstance(key, RSAPrivateKey | EllipticCurvePrivateKey):
        raise RunError("the key of OpenDSR is neither RSA nor EC", "Give one that is")
    return key
