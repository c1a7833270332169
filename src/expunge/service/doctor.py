"""What personal data a service holds, and a scan of its own files that looks for any it says it does not.

Names to look for are those of the owners in the targets that are registered, which the service itself never keeps, and
any that are given. A scan finds what is there in plain bytes; what is compressed, encrypted, or in blocks that a disk
has kept of overwritten files it cannot see, and says so.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from expunge.errors import ExpungeError
from expunge.service import tables
from expunge.service.clock import stamp

if TYPE_CHECKING:
    from expunge.service.registry import Target
    from expunge.service.service import Service

SHORTEST = 4  # a name of three letters is found in any file
CHUNK = 1 << 22
LIMITS = (
    "what is compressed or encrypted, and blocks that a disk keeps of files that were overwritten",
    "the models and files that are registered: they are searched by owner, and hold who is in them",
    "backups, replicas and the logs of other programs",
)
r = tables.request.c


def examine(service: Service, names: Sequence[str] = ()) -> dict[str, Any]:
    """The report: what is held, what is wrong, where a name was found.

    Args:
        names: to look for besides the owners of the registered targets.
    """
    known, unread = _owners(service)
    needles = {n for n in (*names, *known) if len(n) >= SHORTEST}
    short = len({*names, *known} - needles)
    found = scan(service, needles)
    faults = [*_modes(service), *_orphans(service), *(f"{t}: cannot be read ({why})" for t, why in unread)]
    return {
        "at": stamp(service.clock()),
        "holds": holdings(service),
        "faults": faults,
        "scan": {
            "names": len(needles),
            "too_short_to_look_for": short,
            "files": found["files"],
            "bytes": found["bytes"],
            "found": found["found"],
            "cannot_see": list(LIMITS),
        },
        "healthy": not faults and not found["found"],
    }


def holdings(service: Service) -> list[dict[str, Any]]:
    """Every kind of data about people, why it is kept, until when, and how much there is."""
    days = service.policy.retention
    with service.database.read() as connection:

        def count(table: Any, *conditions: Any) -> int:
            return int(connection.execute(select(func.count()).select_from(table).where(*conditions)).scalar_one())

        # by the moment of closing, which an index holds, and which is there if and only if the state is final
        open_ones = count(tables.request, r.closed_at.is_(None))
        closed = count(tables.request, r.closed_at.is_not(None), r.minimised_at.is_(None))
        minimised = count(tables.request, r.closed_at.is_not(None), r.minimised_at.is_not(None))
        rows = [
            ("requests, open", "keyed hash of the subject", "to answer them", "they are closed", open_ones),
            ("requests, closed", "keyed hash of the subject", "to show they were answered",
             f"{days.request_days:g} days after", closed),
            ("requests, minimised", "dates, regime, outcome", "statistics", "erased by hand", minimised),
            ("index of targets", "keyed hash of every owner", "to find who is where", "the target forgets them",
             count(tables.holding)),
            ("suppression list", "keyed hash", "against re-ingestion",
             "for ever" if days.suppression_days is None else f"{days.suppression_days:g} days after",
             count(tables.suppressed)),
            ("sealed words", "AES-256-GCM under a key of each request", "to tell a box",
             "the request is fulfilled, or its key destroyed", len(list(service.identities.seals.glob("*.key")))),
            ("owners' keys", "random, found by keyed hash", "to commit to rows",
             f"{days.identity_days:g} days after the request", service.keys.count),
            ("audit trail", "ids of keys and requests", "to show who did what", f"{days.log_days:g} days",
             count(tables.audit_trail)),
            ("webhooks", "addresses of systems", "to tell them", "they are removed", count(tables.webhook)),
        ]  # fmt: skip
    return [dict(zip(("what", "form", "why", "until", "count"), row, strict=True)) for row in rows]


def scan(service: Service, needles: Iterable[str]) -> dict[str, Any]:
    """Look for each name in every file of the service, and in every text of a database that lies elsewhere.

    Returns:
        files, bytes: looked at. found: file (or table) -> how many of the names; never the names.
    """
    patterns = _patterns({variant for n in needles for variant in (n.encode(), json.dumps(n)[1:-1].encode())})
    longest = max((len(n.encode()) * 6 for n in needles), default=0)
    files = size = 0
    found: dict[str, int] = {}
    for path in _files(service):
        files += 1
        size += path.stat().st_size
        hits = _hits(path, patterns, longest)
        if hits:
            found[str(path)] = len(hits)
    if not service.database.is_sqlite:
        for name, text in _texts(service):
            size += len(text)
            hits = {m.group() for p in patterns for m in p.finditer(text)}
            if hits:
                found[name] = found.get(name, 0) + len(hits)
    return {"files": files, "bytes": size, "found": found}


def _patterns(words: set[bytes]) -> list[re.Pattern[bytes]]:
    """Alternatives of at most a thousand names, with no letter or digit before or after."""
    ordered = sorted(words, key=len, reverse=True)
    return [
        re.compile(rb"(?<![A-Za-z0-9])(?:" + b"|".join(map(re.escape, ordered[k : k + 1000])) + rb")(?![A-Za-z0-9])")
        for k in range(0, len(ordered), 1000)
    ]


def _hits(path: Path, patterns: Sequence[re.Pattern[bytes]], longest: int) -> set[bytes]:
    hits: set[bytes] = set()
    with path.open("rb") as file:
        tail = b""
        while block := file.read(CHUNK):
            text = tail + block
            hits |= {m.group() for p in patterns for m in p.finditer(text)}
            tail = text[-longest - 2 :] if longest else b""
    return hits


def _files(service: Service) -> Iterator[Path]:
    """The service's own files; not those of targets that lie in its folder, nor runs, which hold ids of their data."""
    places = [Path(t.location).resolve() for t in service.registry.targets(retired=True)]
    roots = [service.home]
    if service.database.file is not None:
        roots.append(service.database.file.parent)
    seen: set[Path] = set()
    for root in roots:
        for path in sorted(root.rglob("*")):
            real = path.resolve()
            if path.is_file() and real not in seen and not any(p == real or p in real.parents for p in places):
                seen.add(real)
                yield path


def _texts(service: Service) -> Iterator[tuple[str, bytes]]:
    """Every row of every table as JSON text."""
    for table in tables.metadata.sorted_tables:
        with service.database.read() as connection:
            for row in connection.execute(select(table)):
                yield f"table {table.name}", json.dumps(list(row), ensure_ascii=False, default=str).encode()


def _owners(service: Service) -> tuple[set[str], list[tuple[str, str]]]:
    """Names of all owners in the registered targets, and the targets that cannot be read."""
    known: set[str] = set()
    unread: list[tuple[str, str]] = []
    for target in service.registry.targets():
        if target.kind in service.registry.kinds:
            known |= _owners_of(service, target, unread)
    return known, unread


def _owners_of(service: Service, target: Target, unread: list[tuple[str, str]]) -> set[str]:
    try:
        return set(service.registry.kinds[target.kind].index(target).owners)
    except ExpungeError as error:
        unread.append((target.id, error.cause))
        return set()


def _modes(service: Service) -> list[str]:
    told = []
    for folder in (service.home / "keys", service.identities.lookups, service.identities.seals):
        for path in (folder, *folder.rglob("*")):
            if stat.S_IMODE(path.stat().st_mode) & 0o077:
                told.append(f"{path} can be read by others: chmod go= it")
    return told


def _orphans(service: Service) -> list[str]:
    """Seals whose request is closed long enough or not there: they should have been destroyed."""
    told = []
    with service.database.read() as connection:
        for path in service.identities.seals.glob("req_*.key"):
            row = connection.execute(select(r.status).where(r.id == path.stem)).first()
            if row is None or row.status == "fulfilled":
                told.append(f"{path} seals words of a request that needs them no more: `expunge requests maintain`")
    return told
