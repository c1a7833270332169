"""The same work on Ray: chunks become tasks of a cluster, files travel through its object store.

No file system is shared: a task gets what stands in the job's folder but for finished chunks, works in a temporary
folder of its own node, which is removed afterwards, and hands back the files it has made. Ray itself serialises the
calls (it cannot do without pickle); what it carries are names, numbers and the bytes of safetensors and JSON files.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from expunge.errors import RunError, UnknownName
from expunge.training.files import write_atomically
from expunge.training.workers import Workers, call_task, describe_error, rebuild_error

Files = dict[str, npt.NDArray[np.uint8]]
"""Path within the folder -> bytes; arrays, because the object store hands those out without copying."""


def make_workers(engine: Literal["process", "ray"] | str = "process", count: int = 1) -> Workers:
    """`count` workers: processes of this machine, or tasks on Ray.

    Raises:
        UnknownName: another engine. RunError: fewer than one worker, or Ray is not installed.
    """
    if engine not in ("process", "ray"):
        raise UnknownName("worker engine", engine, ["process", "ray"])
    return Workers(count) if engine == "process" else RayWorkers(count)


class RayWorkers(Workers):
    """Up to `count` Ray tasks at a time, each on one processor.

    A Ray that this process is connected to already is used as it is; otherwise one is connected to or started at the
    first piece of work, and left when the context ends.

    Args:
        count: tasks at a time. address: of a cluster, as `ray.init` takes it; by default the environment variable
            ``RAY_ADDRESS``, and without that a Ray of `count` processors is started on this machine.

    Raises:
        RunError: Ray is not installed, or fewer than one worker.
    """

    def __init__(self, count: int = 1, *, address: str | None = None) -> None:
        super().__init__(count)
        self.address = address or os.environ.get("RAY_ADDRESS") or "local"
        self._ours = False
        # Ray reports its use to its makers unless told not to; whoever wants that sets the variable.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            self._ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise RunError(f"Ray cannot be imported ({error})", "Install it: pip install 'expunge[ray]'") from error

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ours:
            self._ray.shutdown()
            self._ours = False

    def _connect(self) -> None:
        if self._ray.is_initialized():
            return
        local = {"num_cpus": self.count, "include_dashboard": False} if self.address == "local" else {}
        try:
            self._ray.init(address=self.address, logging_level=logging.ERROR, log_to_driver=False, **local)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise RunError(
                f"Ray cannot be reached at {self.address!r} ({str(error).splitlines()[0]})",
                "Start it (`ray start --head`), correct RAY_ADDRESS, or unset it to run on this machine",
            ) from error
        self._ours = True

    def run(self, task: str, folder: Path, chunks: Sequence[int], on_done: Callable[[int], None]) -> None:
        """Run `task` for every chunk, calling `on_done` here as each one ends and its files stand in `folder`.

        Raises:
            ExpungeError: what a task raised, with its cause and remedy. RunError: Ray or a worker failed.
        """
        if not chunks:
            return
        self._connect()
        remote = self._ray.remote(carry_out).options(num_cpus=1)
        inputs = self._ray.put(read_inputs(folder))
        waiting = list(chunks)
        running: dict[Any, int] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self.count:
                    chunk = waiting.pop(0)
                    running[remote.remote(task, inputs, chunk, search_paths())] = chunk
                (done,), _ = self._ray.wait(list(running), num_returns=1)
                chunk = running.pop(done)
                answer = self._answer(done, chunk)
                if "error" in answer:
                    raise rebuild_error(answer["error"])
                write_outputs(folder, answer["files"])
                on_done(chunk)
        finally:
            for reference in running:
                self._ray.cancel(reference, force=True)

    def _answer(self, reference: Any, chunk: int) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            raise RunError(
                f"Ray lost chunk {chunk} ({type(error).__name__}: {str(error).splitlines()[0]})",
                "Run again: what is done is kept (out of memory? lower --stack or --processes)",
            ) from error
        return answer


def carry_out(task: str, inputs: Files, chunk: int, paths: Sequence[str] = ()) -> dict[str, Any]:
    """A task on its node: ``{"files": …}`` it has made, or ``{"error": …}`` as `describe_error` tells it."""
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive")
    sys.path += [path for path in paths if path not in sys.path and Path(path).is_dir()]
    import torch

    torch.set_num_threads(1)
    with TemporaryDirectory(prefix="expunge-") as name:
        folder = Path(name)
        try:
            for path, content in inputs.items():
                place = folder / path
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content.tobytes())
            call_task(task, folder, chunk)
            made = {path: content for path, content in _files(folder) if not _same(inputs.get(path), content)}
        except Exception as error:
            return {"error": describe_error(error)}
    return {"files": made}


def read_inputs(folder: Path) -> Files:
    """All files of a job's folder but for finished chunks and half-written files."""
    return {path: content for path, content in _files(folder) if not Path(path).name.startswith("chunk-")}


def write_outputs(folder: Path, files: Files) -> None:
    """Put the files of a task into the job's folder, chunks last: a chunk's file says that the chunk is done."""
    for path in sorted(files, key=lambda p: (Path(p).name.startswith("chunk-"), p)):
        content = files[path].tobytes()
        write_atomically(folder / path, lambda temporary, content=content: temporary.write_bytes(content))  # type: ignore[misc]


def search_paths() -> list[str]:
    """Where this process imports from: factories named by a recipe must be found by a worker of this machine too."""
    return [str(Path(path).resolve()) for path in sys.path if path]


def _files(folder: Path) -> list[tuple[str, npt.NDArray[np.uint8]]]:
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.endswith(".part"))
    return [(p.relative_to(folder).as_posix(), np.fromfile(p, np.uint8)) for p in paths]


def _same(before: npt.NDArray[np.uint8] | None, now: npt.NDArray[np.uint8]) -> bool:
    return before is not None and np.array_equal(before, now)
