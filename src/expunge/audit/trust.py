"""Which public keys are believed, and for which time: what an auditor holds, and nothing secret."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from expunge.audit.note import check_name, parse_verifier_key, verifier_key
from expunge.audit.signing import PublicKey
from expunge.errors import RequestError

FORMAT = 1


def now() -> datetime:
    """The time in UTC, to the second."""
    return datetime.now(UTC).replace(microsecond=0)


def timestamp(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    """
    Raises:
        RequestError: it is no time with its zone.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = datetime.min
    if time.tzinfo is None:
        raise RequestError(f"{text!r} is no time with a zone", "Write it like 2026-05-25T12:00:00Z")
    return time


@dataclass(frozen=True, kw_only=True)
class TrustedKey:
    """A public key and when it signed.

    Args:
        valid_from: the first second. valid_until: the last one; None while it is in use.
    """

    key: PublicKey
    valid_from: datetime
    valid_until: datetime | None = None

    def valid(self, at: datetime) -> bool:
        return self.valid_from <= at and (self.valid_until is None or at <= self.valid_until)


@dataclass(frozen=True, kw_only=True)
class TrustedKeys:
    """The keys of one signer, rotated ones included.

    Args:
        name: of the signer, as in its notes: ``example.com/forgetting``; its logs are called ``NAME/…``.
        keys: the newest last.
    """

    name: str
    keys: tuple[TrustedKey, ...]

    @property
    def public(self) -> tuple[PublicKey, ...]:
        return tuple(entry.key for entry in self.keys)

    def owns(self, origin: str) -> bool:
        """Whether a log of that origin is this signer's."""
        return origin == self.name or origin.startswith(f"{self.name}/")

    def as_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "name": self.name,
            "keys": [
                {
                    "key": verifier_key(self.name, entry.key),
                    "keyId": entry.key.id,
                    "validFrom": timestamp(entry.valid_from),
                    "validUntil": None if entry.valid_until is None else timestamp(entry.valid_until),
                }
                for entry in self.keys
            ],
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> TrustedKeys:
        """
        Raises:
            RequestError: it is not what `as_dict` gives.
        """
        try:
            if value["format"] != FORMAT:
                raise KeyError("format")
            name, keys = check_name(value["name"]), []
            for entry in value["keys"]:
                signer, key = parse_verifier_key(entry["key"])
                if signer != name:
                    raise KeyError("name")
                until = entry["validUntil"]
                keys.append(
                    TrustedKey(
                        key=key,
                        valid_from=parse_time(entry["validFrom"]),
                        valid_until=None if until is None else parse_time(until),
                    )
                )
        except (KeyError, TypeError, AttributeError) as error:
            raise RequestError(
                f"the public keys cannot be read ({error})", "Give the file that `expunge keys show` writes"
            ) from error
        if not keys:
            raise RequestError("the file holds no public key", "Give the file that `expunge keys show` writes")
        return cls(name=name, keys=tuple(keys))

    @classmethod
    def read(cls, path: Path) -> TrustedKeys:
        """A JSON file as above, or a text file with a line ``NAME+HASH+KEY`` a key, trusted for all time.

        Raises:
            RequestError: it is neither, or its keys have different names.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(f"cannot read the public keys in {path} ({error})", "Check the file's name") from error
        if text.lstrip().startswith("{"):
            try:
                value = json.loads(text)
            except json.JSONDecodeError as error:
                raise RequestError(f"{path} is not valid JSON ({error})", "Fetch the file again") from error
            return cls.from_dict(value)
        parsed = [parse_verifier_key(line) for line in text.splitlines() if line.strip()]
        names = {name for name, _ in parsed}
        if len(names) != 1:
            raise RequestError(
                f"{path} holds keys of {len(names)} signers ({', '.join(sorted(names))})", "Give one signer's keys"
            )
        always = datetime.min.replace(tzinfo=UTC)
        return cls(name=names.pop(), keys=tuple(TrustedKey(key=key, valid_from=always) for _, key in parsed))
