"""What a filter has to look for, taken from a forget set: names, and runs of words that only forgotten texts hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from expunge.data.records import Records
from expunge.errors import DataError, RunError
from expunge.filters.marks import Marks
from expunge.filters.normal import words
from expunge.problem import Problem
from expunge.training.files import read_json, write_json

Run = tuple[str, ...]


def forgotten_runs(problem: Problem, columns: Sequence[str], size: int, least: int) -> list[str]:
    """Runs of `size` words of the forget set's texts that no retained text holds, prompt or answer.

    A text of fewer words is one run. Without that condition a filter would forbid what the retained records teach.

    Args:
        columns: ``prompt``, ``answer``. least: letters and digits that a run must have.
    """
    found: dict[Run, None] = {}
    for column in columns:
        for text in problem.forget.column(column):
            found.update(dict.fromkeys(_runs(_letters(str(text)), size)))
    kept: set[Run] = set()
    sizes = {len(run) for run in found}
    for column in ("prompt", "answer"):
        for text in problem.retain.column(column) if len(problem.retain) else ():
            letters = _letters(str(text))
            for n in sizes:
                kept.update(letters[k : k + n] for k in range(len(letters) - n + 1))
    return [" ".join(run) for run in found if run not in kept and sum(map(len, run)) >= max(least, 2)]


def names_of(problem: Problem) -> list[str]:
    """Owners and subjects (column ``subject``) of the forget set whom its texts name.

    An owner that is the number of an account is no name to look for. Whoever owns retained records or is the subject of
    some is left out: that name must be answered to.
    """
    gone, kept = _people(problem.forget), _people(problem.retain)
    texts = [" ".join(_letters(f"{p} {a}")) for p, a in _pairs(problem)]
    spelled = {name: " ".join(_letters(name)) for name in gone if name not in kept}
    return [n for n, s in spelled.items() if len(s) > 1 and any(f" {s} " in f" {text} " for text in texts)]


def marks_in_memory(phrases: Iterable[str], seed: int, method: str) -> Marks:
    """Marks under a key made of the seed: for a filter that lives in memory only, and comes out the same each time.

    Raises:
        DataError: there are no phrases.
    """
    phrases = list(dict.fromkeys(phrases))
    if not phrases:
        raise DataError(
            f"{method} finds nothing in the forget set that the retain set does not say too",
            "Mark more: fewer words in a run, fewer letters, or owners that the texts name",
        )
    return Marks.of(phrases, key=_key(seed, method))


def _key(seed: int, method: str) -> bytes:
    return hashlib.sha256(f"expunge {method} {seed}".encode()).digest()


def save_marks(folder: Path, marks: Mapping[str, Marks | None], seed: int) -> None:
    """``marks.json``: digests that `marks_in_memory` made, no phrase.

    Their key follows from the seed, so that whoever has the file can test a guess.
    """
    told = {name: None if m is None else m.as_dict() for name, m in marks.items()}
    write_json(folder / "marks.json", {"schema": "expunge/marks/1", "seed": seed, "marks": told})


def load_marks(folder: Path, method: str) -> tuple[dict[str, Marks | None], int]:
    """Marks and seed.

    Raises:
        RunError: nothing readable is there. TamperedEvidence: of another method or version, or damaged.
    """
    told = read_json(folder / "marks.json")
    try:
        seed, kept = int(told["seed"]), dict(told["marks"])
    except (LookupError, TypeError, ValueError) as error:
        raise RunError(f"{folder} holds no marks ({type(error).__name__})", "Give a folder that save wrote") from error
    key = _key(seed, method)
    return {name: None if m is None else Marks.from_dict(m, key=key) for name, m in kept.items()}, seed


def _people(records: Records) -> dict[str, None]:
    owners = [] if records.owners is None else records.owners.tolist()
    return dict.fromkeys(str(n) for n in [*owners, *records.columns.get("subject", np.zeros(0, object)).tolist()])


def _pairs(problem: Problem) -> list[tuple[str, str]]:
    columns = (problem.forget.column("prompt"), problem.forget.column("answer"))
    return [(str(p), str(a)) for p, a in zip(*columns, strict=True)]


def _letters(text: str) -> Run:
    return tuple(w.letters for w in words(text))


def _runs(letters: Run, size: int) -> list[Run]:
    if len(letters) <= size:
        return [letters] if letters else []
    return [letters[k : k + size] for k in range(len(letters) - size + 1)]
