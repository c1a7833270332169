"""The check of a certificate by upload: each thing that was looked at, and what was found."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.responses import Response

from expunge.audit.checks import Verdict
from expunge.audit.commands import verify_certificate
from expunge.audit.layers import is_layer, verify_layer
from expunge.audit.trust import TrustedKeys
from expunge.errors import ExpungeError, RequestError
from expunge.service.dashboard.frame import PageOf, Visit

CHECKS = {
    "certificate": "The certificate can be read",
    "signature": "It is signed with a key that is believed",
    "checkpoint": "The log's head is signed too",
    "log inclusion": "The statement stands in the log",
    "log history": "The log was only ever added to",
    "evidence": "The files are those that it names",
}


def ask(visit: Visit) -> Response:
    return _page(visit)


def _page(visit: Visit, *, status: int = 200, **told: Any) -> Response:
    trusted = visit.service.keys.trusted
    return visit.page(
        "certificate.html.j2",
        status=status,
        **{"verdict": None, "wrong": "", "own": True, "signer": trusted.name, "names": CHECKS, **told},
    )


def verify(visit: Visit) -> Response:
    """It changes nothing, so the answer is the page itself: sent again, it says the same."""
    try:
        value = _json(visit.sent_file("certificate") or visit.sent("pasted").encode(), "certificate")
        given = visit.sent_file("keys")
        trusted = visit.service.keys.trusted if given is None else TrustedKeys.from_dict(_json(given, "file of keys"))
        verdict = check(value, trusted, visit.service.home if given is None else None)
    except ExpungeError as error:
        return _page(visit, status=422, wrong=f"{error.cause}. {error.remedy}.")
    return _page(visit, verdict=verdict, own=given is None, says=_says(verdict.says))


def _json(content: bytes, name: str) -> dict[str, Any]:
    """
    Raises:
        RequestError: nothing was chosen, or it is no JSON object.
    """
    if not content:
        raise RequestError(f"no {name} was given", "Choose a file, or paste its text")
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise RequestError(f"this is no {name}: it is not a JSON object", "Choose the file as it was downloaded")
    return value


def check(value: Mapping[str, Any], trusted: TrustedKeys, home: Path | None) -> Verdict:
    """
    Args:
        home: of the service that filed it; None: the certificate is checked by itself.

    Raises:
        RequestError: it is no certificate.
    """
    try:
        if not is_layer(value):
            with tempfile.TemporaryDirectory(prefix="expunge-check-") as folder:
                path, keys = Path(folder) / "certificate.json", Path(folder) / "trusted.json"
                path.write_text(json.dumps(value), encoding="utf-8")
                keys.write_text(json.dumps(trusted.as_dict()), encoding="utf-8")
                return verify_certificate(path, public_key=keys)
        verdict = verify_layer(value, keys=trusted)
        # a statement names the files to compare, and nobody but the signer may choose which of ours these are
        if home is not None and verdict.outcome == "pass":
            return verify_layer(value, keys=trusted, folder=home)
        return verdict
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError):
        raise RequestError("this is no certificate", "Choose the file as it was downloaded") from None


def _says(says: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """What the certificate states, as lines of text."""

    def lines(value: Any) -> list[str]:
        if isinstance(value, Mapping):
            return [f"{name}: {'; '.join(lines(inner))}" for name, inner in value.items()]
        if isinstance(value, (list, tuple)):
            return [text for inner in value for text in lines(inner)]
        return [str(value)]

    return [(_spaced(name), lines(value)) for name, value in says.items() if value not in ("", None, [], {})]


def _spaced(name: str) -> str:
    text = "".join(f" {c.lower()}" if c.isupper() else c for c in name)
    return text[:1].upper() + text[1:]


PAGES = (
    PageOf("GET", "/certificates", "see_certificate", ask),
    PageOf("POST", "/certificates", "see_certificate", verify),
)
