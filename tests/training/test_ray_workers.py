"""Chunks on Ray: the same bytes as here, without a shared file system; errors come back as ours."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from expunge.data.records import Records
from expunge.errors import ModelError, RunError, UnknownName
from expunge.methods.exact.sisa import Sisa
from expunge.methods.learner import Job
from expunge.recipe import Recipe, Trainer
from expunge.training import ray_workers
from expunge.training.chunks import save_chunk
from expunge.training.population import train_population
from expunge.training.ray_workers import RayWorkers, carry_out, make_workers, read_inputs, write_outputs
from expunge.training.workers import Workers

HERE = f"{__name__}:"


def makes_files(folder: Path, chunk: int) -> None:
    """A task: reads an input, writes a side file and its chunk."""
    told = json.loads((folder / "deep" / "job.json").read_text())
    (folder / "notes").mkdir()
    (folder / "notes" / f"{chunk}.json").write_text(
        json.dumps({"folder": str(folder), "left": sorted(os.listdir(folder))})
    )
    save_chunk(folder, chunk, {"value": torch.tensor([float(told["start"] + chunk)])})


def refuses(folder: Path, chunk: int) -> None:
    if chunk == 1:
        raise ModelError("the model is of wood", "Use another")
    save_chunk(folder, chunk, {"value": torch.tensor([0.0])})


def ends_its_process(folder: Path, chunk: int) -> None:
    os._exit(3)


def dies(folder: Path, chunk: int) -> None:
    raise ZeroDivisionError("by nought")


@pytest.fixture(autouse=True)
def this_process_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A task sets its worker process up; here that is the process of the tests."""
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.setenv(name, "0")  # remembered, and put back afterwards

    monkeypatch.setattr(sys, "path", list(sys.path))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    (tmp_path / "job" / "deep").mkdir(parents=True)
    (tmp_path / "job" / "deep" / "job.json").write_text('{"start": 40}')
    (tmp_path / "job" / "chunk-00000.safetensors").write_bytes(b"finished")
    (tmp_path / "job" / ".chunk-00001.safetensors.77.part").write_bytes(b"half")
    return tmp_path / "job"


def test_inputs_are_all_files_but_chunks_and_half_written_ones(job: Path) -> None:
    assert {k: v.tobytes() for k, v in read_inputs(job).items()} == {"deep/job.json": b'{"start": 40}'}


def test_a_task_works_in_a_folder_of_its_own_and_hands_back_what_it_made(job: Path) -> None:
    before = {p: p.read_bytes() for p in job.rglob("*") if p.is_file()}
    answer = carry_out(HERE + "makes_files", read_inputs(job), 2)
    assert sorted(answer["files"]) == ["chunk-00002.safetensors", "notes/2.json"]
    told = json.loads(answer["files"]["notes/2.json"].tobytes())
    assert told["left"] == ["deep", "notes"] and not Path(told["folder"]).exists()
    assert {p: p.read_bytes() for p in job.rglob("*") if p.is_file()} == before
    write_outputs(job, answer["files"])
    direct = job.parent / "direct"
    save_chunk(direct, 2, {"value": torch.tensor([42.0])})
    assert (job / "chunk-00002.safetensors").read_bytes() == (direct / "chunk-00002.safetensors").read_bytes()


def test_an_input_that_a_task_changes_comes_back_too(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(task: str, folder: Path, chunk: int) -> None:
        (folder / "deep" / "job.json").write_text("{}")

    monkeypatch.setattr(ray_workers, "call_task", change)
    assert sorted(carry_out("any:thing", read_inputs(job), 0)["files"]) == ["deep/job.json"]


def test_the_chunk_is_written_last(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(ray_workers, "write_atomically", lambda path, write: written.append(path.name))
    write_outputs(job, {n: np.zeros(1, np.uint8) for n in ("chunk-00003.safetensors", "z.json", "a/b.json")})
    assert written == ["b.json", "z.json", "chunk-00003.safetensors"]


def test_a_task_tells_its_error_in_words(job: Path) -> None:
    assert carry_out(HERE + "refuses", read_inputs(job), 1) == {
        "error": {"class": "ModelError", "cause": "the model is of wood", "remedy": "Use another"}
    }
    assert "nought" in carry_out(HERE + "dies", {}, 1)["error"]["cause"]


def test_make_workers() -> None:
    assert type(make_workers("process", 2)) is Workers and make_workers("process", 2).count == 2
    with pytest.raises(UnknownName, match="process, ray"):
        make_workers("threads", 2)


def test_without_ray_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RunError, match=r"pip install 'expunge\[ray\]'"):
        make_workers("ray", 2)


class LocalRay(SimpleNamespace):
    """A stand-in that runs a task when it is waited for, and notes how many were under way."""

    def __init__(self, ready: bool = False) -> None:
        super().__init__(started=ready, calls=[], most=0, cancelled=[], exceptions=SimpleNamespace(RayError=OSError))

    def is_initialized(self) -> bool:
        return bool(self.started)

    def init(self, **options: Any) -> None:
        self.calls.append(options)
        self.started = True

    def shutdown(self) -> None:
        self.calls.append("shutdown")
        self.started = False

    def put(self, value: Any) -> Any:
        return value

    def remote(self, function: Any) -> Any:
        def submit(*arguments: Any) -> Any:
            return SimpleNamespaceHashed(run=lambda: function(*arguments))

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=submit))

    def wait(self, references: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        self.most = max(self.most, len(references))
        return references[-1:], references[:-1]  # the last one first: answers come in any order

    def get(self, reference: Any) -> Any:
        return reference.run()

    def cancel(self, reference: Any, force: bool) -> None:
        self.cancelled.append(reference)


class SimpleNamespaceHashed(SimpleNamespace):
    __hash__ = object.__hash__  # type: ignore[assignment]


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> LocalRay:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    stand_in = LocalRay()
    monkeypatch.setitem(sys.modules, "ray", stand_in)  # type: ignore[arg-type]
    return stand_in


def test_chunks_come_back_as_they_end_and_no_more_than_count_run(job: Path, ray: LocalRay) -> None:
    done: list[int] = []

    def on_done(chunk: int) -> None:
        assert (job / f"chunk-{chunk:05d}.safetensors").exists()
        done.append(chunk)

    with RayWorkers(2) as workers:
        workers.run(HERE + "makes_files", job, [1, 2, 3, 4], on_done)
        workers.run(HERE + "makes_files", job, [], on_done)
    assert sorted(done) == [1, 2, 3, 4] and done != [1, 2, 3, 4]
    assert ray.most == 2 and not ray.cancelled
    options, end = ray.calls
    assert options["num_cpus"] == 2 and options["include_dashboard"] is False and options["log_to_driver"] is False
    assert options["address"] == "local" and end == "shutdown"


def test_nothing_to_do_starts_no_ray(job: Path, ray: LocalRay) -> None:
    with RayWorkers(2) as workers:
        workers.run(HERE + "makes_files", job, [], lambda _: None)
    assert ray.calls == []


def test_a_ray_that_is_there_is_used_and_left_running(job: Path, ray: LocalRay) -> None:
    ray.started = True
    with RayWorkers(1) as workers:
        workers.run(HERE + "makes_files", job, [5], lambda _: None)
    assert ray.calls == [] and ray.started


def test_a_cluster_is_found_by_its_address(job: Path, ray: LocalRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.7:6379")
    with RayWorkers(3) as workers:
        workers.run(HERE + "makes_files", job, [5], lambda _: None)
    assert ray.calls[0]["address"] == "10.0.0.7:6379" and "num_cpus" not in ray.calls[0]
    assert RayWorkers(3, address="10.0.0.8:1").address == "10.0.0.8:1"


def test_a_cluster_that_does_not_answer(job: Path, ray: LocalRay, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise ConnectionError("nobody there\nand more")

    monkeypatch.setattr(ray, "init", init, raising=False)
    with RayWorkers(1) as workers, pytest.raises(RunError, match=r"nobody there\)\. Start it"):
        workers.run(HERE + "makes_files", job, [5], lambda _: None)


def test_an_error_is_ours_again_and_the_rest_is_called_off(job: Path, ray: LocalRay) -> None:
    with RayWorkers(3) as workers, pytest.raises(ModelError, match="of wood") as caught:
        workers.run(HERE + "refuses", job, [3, 2, 1, 4], lambda _: None)
    assert caught.value.remedy == "Use another" and len(ray.cancelled) == 2
    assert not (job / "chunk-00001.safetensors").exists()


def test_a_worker_that_dies_is_told(job: Path, ray: LocalRay, monkeypatch: pytest.MonkeyPatch) -> None:
    def get(_: Any) -> Any:
        raise OSError("the worker died\nunexpectedly")

    monkeypatch.setattr(ray, "get", get, raising=False)
    with RayWorkers(1) as workers, pytest.raises(RunError, match=r"lost chunk 5 \(OSError: the worker died\)"):
        workers.run(HERE + "makes_files", job, [5], lambda _: None)


def records(n: int = 60) -> Records:
    rng = np.random.default_rng(1)
    return Records(
        ids=np.array([f"r{i}" for i in range(n)]),
        columns={"x": rng.normal(size=(n, 5)).astype(np.float32), "y": rng.integers(0, 3, n)},
    )


RECIPE = Recipe(
    factory="expunge.models.architectures:mlp",
    kwargs={"features": 5, "classes": 3, "width": 8},
    trainer=Trainer(epochs=2, batch_size=16),
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Ray leaves sockets and files to the collector
def test_a_population_on_a_real_ray_has_the_same_bytes(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with make_workers("ray", 2) as workers:
        there = train_population(
            RECIPE,
            records(),
            6,
            tmp_path / "ray",
            stack=2,
            workers=workers,
            progress=lambda _, a, b: told.append((a, b)),
        )
        wrong = Recipe(factory=RECIPE.factory, kwargs={**RECIPE.kwargs, "features": 4}, trainer=RECIPE.trainer)
        with pytest.raises(RunError, match=r"Ray lost chunk 0 \(WorkerCrashedError"):
            workers.run(HERE + "ends_its_process", tmp_path, [0], lambda _: None)
        with pytest.raises(ModelError, match="refuses features"):
            train_population(wrong, records(), 2, tmp_path / "wrong", stack=1, workers=workers)
    here = train_population(RECIPE, records(), 6, tmp_path / "here", stack=2)
    assert told[0] == (0, 6) and told[-1] == (6, 6) and len(told) == 4
    assert torch.equal(there.stack().flat, here.stack().flat)
    for number in here.job.chunks:
        mine, theirs = (load_file(p.job.path(number)) for p in (here, there))
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(mine[k], theirs[k]) for k in mine if k != "seconds")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_shards_on_a_real_ray_have_the_same_bytes() -> None:
    learner = Sisa(recipe=RECIPE, shards=4, slices=2)
    here = learner.fit(records(), seed=3)
    with RayWorkers(2) as workers:
        there = learner.fit(records(), seed=3, job=Job(workers=workers))
        assert there.digest() == here.digest()
        there, _ = learner.forget(there, ["r1", "r2", "r30"], job=Job(workers=workers))
    assert there.digest() == learner.fit(records().without(["r1", "r2", "r30"]), seed=3).digest()
