"""Every method on language models in two processes gives what it gives in one, or says that it runs in one only."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import every_method
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

HERE = Path(__file__).parent
# Of the size of the weights' change (seen: at most 3.6e-6): sums in another order.
TOLERANCE = 1e-4
REFUSE = {"gradient_routing", "mend", "serac"}
LAUNCHES = {
    "data parallel": [*("torch.distributed.run", "--standalone", "--nproc-per-node", "2")],
    "fully sharded": [
        *("accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"),
        *("--dynamo_backend", "no", "--main_process_port", "29617", "--use_fsdp", "--fsdp_version", "2"),
    ],
}


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, Tensor] | str]:
    """What every method gives in one process; under ``before``, what it begins with."""
    on = every_method.problem()
    return {"before": every_method.weights(on.model.module)} | {n: every_method.run(n, on) for n in every_method.ALL}


def norm(tensors: list[Tensor]) -> float:
    return sum(float(t.pow(2).sum()) for t in tensors) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", LAUNCHES)
def test_two_processes_equal_one(name: str, alone: dict[str, dict[str, Tensor]], tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ACCELERATE_", "FSDP_"))}
    environment |= {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", *LAUNCHES[name], str(HERE / "every_method.py"), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=300, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"{name} 2" in done.stdout
    assert set(re.findall(r"(\w+) refused", done.stdout)) == REFUSE
    assert "in one process. Run it without accelerate" in done.stdout
    first, second = (load_file(str(tmp_path / f"rank-{rank}.safetensors")) for rank in (0, 1))
    assert {key.split("/")[0] for key in first} == {*every_method.ALL} - REFUSE
    for method in sorted({*every_method.ALL} - REFUSE):
        theirs = {k.partition("/")[2]: v for k, v in first.items() if k.startswith(f"{method}/")}
        assert set(theirs) == set(alone[method]), method
        assert all(torch.equal(v, second[f"{method}/{k}"]) for k, v in theirs.items()), method
        change = norm([v - alone["before"].get(k, torch.zeros_like(v)) for k, v in alone[method].items()])
        assert change > 0 or method == "do_nothing"
        assert norm([theirs[k] - v for k, v in alone[method].items()]) <= TOLERANCE * change, method
