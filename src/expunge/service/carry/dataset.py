"""A file of rows: CSV, JSON lines or Parquet. Rows are taken out, the old file is overwritten and removed.

options: owner: name of the owners' column; id: name of the ids' column, the row's number where there is none.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from expunge.errors import Conflict, RequestError
from expunge.service.carry.contract import Hands, Outcome, Work, every, matching
from expunge.service.registry import Index
from expunge.service.words import Stage
from expunge.training.files import destroy, write_atomically

if TYPE_CHECKING:
    from expunge.service.registry import Target

OUTSIDE = (
    "copies of the file elsewhere: backups, snapshots, downloads, and what a disk keeps of overwritten blocks",
    "models trained from the file that are not registered",
)
Rows = list[tuple[str, str | None]]


class Dataset:
    """See the module."""

    kind = "dataset"

    def index(self, target: Target) -> Index:
        rows = self._rows(target)
        owners: dict[str, int] = {}
        for _, owner in rows:
            if owner:
                owners[owner] = owners.get(owner, 0) + 1
        if not owners:
            raise RequestError(f"{target.id}: no row has an owner", "Name the column (option owner)")
        return Index(
            owners=owners,
            digest=_digest(Path(target.location)),
            rows=len(rows),
            options={"guarantee": {"exact": "exact"}},
        )

    def stages(self, target: Target) -> tuple[tuple[Stage, ...], dict[str, str]]:
        return ("exact",), {}

    def carry_out(self, hands: Hands, target: Target, stage: Stage, batch_id: str, works: Sequence[Work]) -> Outcome:
        path = Path(target.location)
        with FileLock(path.with_name(f".{path.name}.lock")):
            old = path.with_name(f".{path.name}.superseded")
            destroy(old)  # of a process that was killed after the rename
            found = matching(hands.identities, works, self._rows(target))
            gone = every(found)
            if gone:
                os.link(path, old)
                _FORMS[_suffix(path)][1](path, target, set(gone))
                destroy(old)
        return Outcome(
            guarantee={"class": "exact", "equality": "bitwise"},
            rows={k: len(v) for k, v in found.items()},
            evidence=(("the file as it is now", str(path), _digest(path)),),
            outside=OUTSIDE,
        )

    def check(
        self, hands: Hands, target: Target, stage: Stage, works: Sequence[Work], outcome: Outcome
    ) -> dict[str, Any]:
        rows = self._rows(target)
        left = every(matching(hands.identities, works, rows))
        if left:
            raise Conflict(f"{len(left)} rows of the subjects are in {target.id} again", "Retry: they are removed too")
        return {"rows left of the subjects": 0, "rows": len(rows)}

    @staticmethod
    def _rows(target: Target) -> Rows:
        path = Path(target.location)
        if not path.exists():
            raise RequestError(f"{target.id}: the file is not there", "Correct its location")
        form = _FORMS.get(_suffix(path))
        if form is None:
            raise RequestError(f"{target.id}: {path.suffix!r} is no form of rows", f"One of: {', '.join(_FORMS)}")
        if not target.options.get("owner"):
            raise RequestError(f"{target.id}: the column of owners is not named", "Give the option owner")
        return form[0](path, target)


def _suffix(path: Path) -> str:
    return path.suffix.lower()


def _digest(path: Path) -> str:
    h = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            h.update(block)
    return h.hexdigest()


def _pair(target: Target, row: dict[str, Any], number: int) -> tuple[str, str | None]:
    owner_column, id_column = target.options["owner"], target.options.get("id")
    if owner_column not in row or (id_column and id_column not in row):
        missing = owner_column if owner_column not in row else id_column
        raise RequestError(f"{target.id}: row {number} has no column {missing!r}", "Correct the options owner and id")
    owner = row[owner_column]
    return str(row[id_column]) if id_column else str(number), None if owner is None else str(owner)


def _read_csv(path: Path, target: Target) -> Rows:
    with path.open(newline="", encoding="utf-8") as file:
        return [_pair(target, row, n) for n, row in enumerate(csv.DictReader(file))]


def _write_csv(path: Path, target: Target, gone: Collection[str]) -> None:
    def write(temporary: Path) -> None:
        with (
            path.open(newline="", encoding="utf-8") as source,
            temporary.open("w", newline="", encoding="utf-8") as out,
        ):
            first = source.readline()
            out.write(first)
            ending = "\r\n" if first.endswith("\r\n") else "\n"
            names = next(csv.reader(io.StringIO(first)))
            writer = csv.writer(out, lineterminator=ending)
            for number, cells in enumerate(csv.reader(source)):
                if cells and _pair(target, dict(zip(names, cells, strict=False)), number)[0] not in gone:
                    writer.writerow(cells)

    write_atomically(path, write)


def _read_lines(path: Path, target: Target) -> Rows:
    with path.open(encoding="utf-8") as file:
        return [_pair(target, json.loads(line), n) for n, line in enumerate(file) if line.strip()]


def _write_lines(path: Path, target: Target, gone: Collection[str]) -> None:
    def write(temporary: Path) -> None:
        with path.open(encoding="utf-8") as source, temporary.open("w", encoding="utf-8") as out:
            for number, line in enumerate(source):
                if line.strip() and _pair(target, json.loads(line), number)[0] not in gone:
                    out.write(line if line.endswith("\n") else line + "\n")

    write_atomically(path, write)


def _read_parquet(path: Path, target: Target) -> Rows:
    import pyarrow.parquet as pq

    names = [n for n in (target.options["owner"], target.options.get("id")) if n]
    held = pq.read_schema(path).names
    missing = [n for n in names if n not in held]
    if missing:
        raise RequestError(f"{target.id}: there is no column {missing[0]!r}", "Correct the options owner and id")
    return [_pair(target, row, n) for n, row in enumerate(pq.read_table(path, columns=names).to_pylist())]


def _write_parquet(path: Path, target: Target, gone: Collection[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    kept = pa.array([i not in gone for i, _ in _read_parquet(path, target)])
    write_atomically(path, lambda temporary: pq.write_table(table.filter(kept), temporary))


_FORMS: dict[str, tuple[Callable[[Path, Target], Rows], Callable[[Path, Target, Collection[str]], None]]] = {
    ".csv": (_read_csv, _write_csv),
    ".jsonl": (_read_lines, _write_lines),
    ".parquet": (_read_parquet, _write_parquet),
}
