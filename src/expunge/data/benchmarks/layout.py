"""Where a benchmark's file lies: in a folder of JSON files, in the layout of the hub, or on the hub itself."""

from __future__ import annotations

import os
from pathlib import Path

from expunge.data.text_rows import HUB, JSON_SUFFIXES, Rows, read_rows
from expunge.errors import DataError, RequestError, UnknownName

Source = str | os.PathLike[str]


def find_rows(source: Source, config: str, split: str | None = None, *, optional: bool = False) -> Rows | None:
    """Rows of one configuration (and split) of a data set.

    In a folder that is ``CONFIG.json`` (or .jsonl, .parquet, .txt) or, with a split, ``CONFIG/SPLIT.json`` or the hub's
    ``CONFIG/SPLIT-00000-of-00001.parquet``; from ``hub:owner/name`` the configuration of that name.

    Args:
        optional: give None where the folder has no such file. A hub data set is asked only for what it must have.

    Raises:
        DataError: it is not there, or damaged.
    """
    text = os.fspath(source)
    if text.startswith(HUB):
        return None if optional else read_rows(text, config=config, split=split)
    folder = Path(text)
    if not folder.is_dir():
        raise DataError(f"there is no folder {text!r}", f"Give the folder of the files, or {HUB}owner/name for the hub")
    stem = folder / config if split is None else folder / config / split
    for suffix in (*JSON_SUFFIXES, ".parquet", ".txt"):
        file = stem.with_name(stem.name + suffix)
        if file.is_file():
            return read_rows(file)
    inside = folder / config
    if inside.is_dir() and (split is None or any(p.name.startswith(f"{split}-0") for p in inside.iterdir())):
        try:
            return read_rows(inside, split=split)
        except UnknownName:
            pass  # its files are of other splits
    if optional:
        return None
    there = ", ".join(sorted(p.name for p in folder.iterdir())[:12]) or "nothing"
    raise DataError(
        f"there is no {config}{'' if split is None else '/' + split} in {text!r}; it holds {there}",
        "Get the data set again, with its file names as published",
    )


def need_rows(source: Source, config: str, split: str | None = None) -> Rows:
    """As `find_rows`, and it must be there."""
    rows = find_rows(source, config, split)
    if rows is None:
        raise DataError(f"there is no {config} in {os.fspath(source)!r}", "Get the data set again")
    return rows


def need_path(source: Source | None, name: str, obtain: str) -> Source:
    """`source`, which these benchmarks cannot do without.

    Raises:
        RequestError: there is none.
    """
    if source is None:
        how = f"{obtain} (--data of expunge bench and evaluate, path= of load_records, source= of the loader)"
        raise RequestError(f"{name} does not come with expunge, and where it lies was not given", how)
    return source
