"""Files that are whole or not there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from expunge.errors import RunError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary neighbour of `path`, then rename it: a crash leaves the old file or the new one.

    Raises:
        RunError: the folder cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        raise RunError(
            f"cannot write {path} ({error.strerror or error})", "Choose a folder you may write to, with free space"
        ) from error
    finally:
        temporary.unlink(missing_ok=True) if temporary.exists() else None


def _flush_folder(folder: Path) -> None:
    """Let the rename itself reach the disk: what is destroyed next must not be all that a power cut leaves."""
    if os.name != "posix":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def write_json(path: Path, value: Any) -> None:
    """Write JSON that refuses NaN, atomically."""
    text = json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json_over(path: Path, value: Any) -> None:
    """`write_json`, after which the bytes that stood there before are overwritten with zeros.

    Killed between the two, the old bytes stay in blocks that no file names.
    """
    old = path.open("r+b") if path.exists() else None
    write_json(path, value)
    if old is not None:
        with old:
            old.write(b"\0" * os.fstat(old.fileno()).st_size)
            old.flush()
            os.fsync(old.fileno())


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        RunError: it is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"there is no file {path}", "Check the folder's name, or run the step that writes it") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(
            f"{path} is not valid JSON ({error})", "Remove it and run again: the step that writes it resumes"
        ) from error


def destroy(path: Path) -> None:
    """Overwrite a file with zeros, let them reach the disk, and remove it.

    What a file system or a disk keeps beyond that (snapshots, copy on write, worn blocks, backups) is out of reach.

    Raises:
        RunError: it is still there afterwards.
    """
    try:
        size = path.stat().st_size
        with path.open("r+b") as file:
            for start in range(0, size, 1 << 20):
                file.write(b"\0" * min(1 << 20, size - start))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunError(
            f"cannot destroy {path} ({error.strerror or error})",
            "Make it writable and run again: this step is repeated",
        ) from error
    if path.exists():
        raise RunError(f"{path} is still there after it was removed", "Look who writes to that folder")
