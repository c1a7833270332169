"""Which program this is: a digest of its sources and one of everything installed beside it."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.metadata import distributions
from pathlib import Path

from expunge.audit.encoding import canonical, sha256


@lru_cache(maxsize=1)
def code_digest() -> str:
    """SHA-256 over the names and bytes of every source file of the package, hexadecimal."""
    package = Path(__file__).parents[1]
    h = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        content = path.read_bytes()
        h.update(canonical([path.relative_to(package).as_posix(), len(content)]) + content)
    return h.hexdigest()


@lru_cache(maxsize=1)
def lock_digest() -> str:
    """SHA-256 over name and version of every installed package, hexadecimal."""
    found = {f"{d.name.lower().replace('_', '-')}=={d.version}" for d in distributions() if d.name}
    return sha256(canonical(sorted(found)))
