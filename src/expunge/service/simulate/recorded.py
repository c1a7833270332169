"""Requests that really came in, from a CSV: received_at, and if there are such columns regime and reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from expunge.errors import RequestError
from expunge.service.simulate.times import DAY, Times, from_moment
from expunge.service.simulate.traffic import Codes, Traffic

COLUMNS = ("received_at", "regime", "reason")


def read_traffic(path: Path, *, default_regime: str = "gdpr") -> Traffic:
    """The requests of a CSV with a header; other columns are not read.

    Args:
        path: ``received_at`` in ISO 8601 with its zone (2026-01-05T09:30:00Z), in any order; ``regime`` and ``reason``
            as words. default_regime: of rows that name none.

    Raises:
        RequestError: no such file or column, or a time that cannot be read.
    """
    from pyarrow import ArrowInvalid, csv, string, timestamp

    types = {"received_at": timestamp("us", tz="UTC"), "regime": string(), "reason": string()}
    try:
        with path.open(encoding="utf-8") as file:
            heads = [head.strip().strip('"') for head in file.readline().lstrip("\ufeff").split(",")]
        if "received_at" not in heads:
            raise RequestError(
                f"{path} has no column received_at", "Export the requests with `expunge requests export`"
            )
        present = [name for name in COLUMNS if name in heads]
        convert = csv.ConvertOptions(include_columns=present, column_types=types, strings_can_be_null=True)
        table = csv.read_csv(path, convert_options=convert)
    except OSError as error:
        raise RequestError(f"cannot read {path} ({error.strerror})", "Give the path of a CSV") from error
    except (ArrowInvalid, UnicodeDecodeError) as error:
        raise RequestError(
            f"{path} cannot be read ({error})", "Write times as 2026-01-05T09:30:00Z, with the zone"
        ) from error
    if not len(table) or table["received_at"].null_count:
        raise RequestError(f"{path} holds no requests, or some without received_at", "Correct the file")
    received = table["received_at"].to_numpy().astype("datetime64[us]").astype(np.int64)
    order = np.argsort(received, kind="stable")
    received = received[order]
    regimes, regime = _coded(table, "regime", default_regime)
    reasons, reason = _coded(table, "reason", "privacy")
    return Traffic(
        received=received,
        regime=regime[order],
        regimes=regimes,
        reason=reason[order],
        reasons=reasons,
        start=from_moment(int(received[0])).date(),
        days=_days(received),
    )


def _days(received: Times) -> int:
    return int(received[-1] // DAY - received[0] // DAY) + 1


def _coded(table: Any, name: str, default: str) -> tuple[tuple[str, ...], Codes]:
    if name not in table.column_names:
        return (default,), np.zeros(len(table), dtype=np.int8)
    column = table[name].fill_null(default).combine_chunks().dictionary_encode()
    words = [word or default for word in column.dictionary.to_pylist()]
    known = tuple(sorted(set(words)))
    if len(known) > 127:
        raise RequestError(f"{len(known)} different values of {name}", "That column holds something else")
    places = np.array([known.index(word) for word in words], dtype=np.int8)
    return known, places[column.indices.to_numpy()]
