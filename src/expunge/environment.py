"""What a result depends on besides its inputs: versions, processor, threads. Two different ones prove nothing."""

from __future__ import annotations

import gc
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

NUMERIC = ("expunge", "numpy", "scipy", "scikit-learn", "torch")


@lru_cache(maxsize=1)
def environment() -> dict[str, str]:
    """Versions of what computes, the kind of processor and the number of threads; loads none of the libraries."""
    return {
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
        "processor": _processor(),
        "threads": os.environ.get("OMP_NUM_THREADS", "unset"),
        **{name: installed(name) for name in NUMERIC},
    }


def installed(name: str) -> str:
    """The version of an installed package, or "absent"."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


@contextmanager
def loading() -> Iterator[None]:
    """Import large libraries inside: what they define stays for good, so that nothing is searched for garbage.

    Python would look through all objects again and again as their number grows, which is a second of the five that
    torch and transformers take.
    """
    searched = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if searched:
            gc.enable()


def _processor() -> str:
    """The processor's model name: kernels are chosen by it, and another kernel may round differently."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
