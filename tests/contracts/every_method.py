"""Every method on language models, alone or as one of several processes: imported by a test, launched as a program.

torchrun --nproc-per-node 2 every_method.py FOLDER      (or: accelerate launch …)
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

import torch
from language_examples import quick, tiny_problem
from safetensors.torch import save_file
from torch import Tensor

from expunge.errors import RequestError
from expunge.methods import LANGUAGE_METHODS, make_language_method
from expunge.problem import Problem
from expunge.training.text_loop import TextJob

ALL = sorted(LANGUAGE_METHODS)


def weights(module: torch.nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers, what steers and what remembers included."""
    return {name: value.detach().float().clone().contiguous() for name, value in module.state_dict().items()}


def problem() -> Problem:
    """Trained by each process for itself: what is compared begins with equal bytes."""
    world = os.environ.pop("WORLD_SIZE", None)
    try:
        return tiny_problem()
    finally:
        if world is not None:
            os.environ["WORLD_SIZE"] = world


def run(name: str, on: Problem) -> dict[str, Tensor] | str:
    """What came out, or why it refused."""
    fields = {f.name for f in dataclasses.fields(LANGUAGE_METHODS[name])}  # type: ignore[arg-type]
    try:
        done = make_language_method(name, quick(name, fields)).unlearn(on, seed=3)
    except RequestError as error:
        return str(error)
    return weights(done.model.module)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    on, job, found = problem(), TextJob(), {}
    rank = job.distribution.rank
    print(job.distribution.name, job.distribution.world, flush=True)
    for name in ALL:
        came = run(name, on)
        if isinstance(came, str):
            print(f"{name} refused: {came}", flush=True)
        else:
            found |= {f"{name}/{parameter}": value for parameter, value in came.items()}
    save_file(found, str(folder / f"rank-{rank}.safetensors"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
