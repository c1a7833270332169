"""Templates, and the files beside them, each served under the digest of its bytes for as long as a browser likes."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from expunge.service.dashboard import wording

HERE = Path(__file__).parent
MEDIA = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


@dataclass(frozen=True, kw_only=True)
class Static:
    """A file that a page loads.

    Args:
        integrity: what the page says its digest is, so that a browser refuses another.
    """

    name: str
    content: bytes
    media: str
    integrity: str

    @property
    def version(self) -> str:
        return hashlib.sha256(self.content).hexdigest()[:16]


@lru_cache(maxsize=1)
def static_files() -> dict[str, Static]:
    """Name -> file."""
    found = {}
    for path in sorted((HERE / "static").iterdir()):
        if path.suffix in MEDIA:
            content = path.read_bytes()
            digest = base64.b64encode(hashlib.sha384(content).digest()).decode()
            found[path.name] = Static(
                name=path.name, content=content, media=MEDIA[path.suffix], integrity=f"sha384-{digest}"
            )
    return found


@lru_cache(maxsize=1)
def templates() -> Environment:
    """All templates; what is put into them is escaped, and a name that is missing is an error."""
    found = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    found.globals["words"] = wording
    found.globals["static"] = static_files()
    for name in ("plain", "moment", "span", "number", "share", "badge", "chip", "short", "day"):
        found.filters[name] = getattr(wording, name)
    return found
