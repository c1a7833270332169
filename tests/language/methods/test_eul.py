"""EUL: the objective, and the fusion of adapters by least squares."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from expunge.errors import DataError
from expunge.methods.concepts.eul import Eul, eul_loss, fused


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_objective_by_hand() -> None:
    parts = [torch.tensor(v) for v in (1.0, 2.0, 3.0, 4.0)]
    assert float(eul_loss(*parts, (0.8, 1.0, 0.2))) == pytest.approx(1 - 1.6 + 3 - 0.8)
    assert float(eul_loss(*parts, (0.0, 0.0, 0.0))) == 1.0


def test_one_deletion_is_itself() -> None:
    change, x = draw(3, 5, seed=0), draw(5, 2, seed=1)
    torch.testing.assert_close(fused([change], [x @ x.T]), change)


def test_fusion_solves_the_least_squares() -> None:
    changes = [draw(3, 4, seed=k) for k in (0, 1)]
    inputs = [draw(4, 30, seed=k) for k in (2, 3)]
    found = fused(changes, [x @ x.T for x in inputs], ridge=0.0)
    # the same problem, stacked: W [X1 X2] = [W1 X1, W2 X2]
    left = torch.cat(inputs, 1).T
    right = torch.cat([c @ x for c, x in zip(changes, inputs, strict=True)], 1).T
    torch.testing.assert_close(found, torch.linalg.lstsq(left, right, driver="gelsd").solution.T)


def test_deletions_that_share_no_inputs_do_not_disturb_each_other() -> None:
    """Each adapter is kept where its own texts lie, and their mean where none does."""
    changes = [draw(2, 3, seed=k) for k in (0, 1)]
    grams = [torch.diag(torch.tensor([1.0, 0.0, 0.0])).double(), torch.diag(torch.tensor([0.0, 1.0, 0.0])).double()]
    found = fused(changes, grams)
    torch.testing.assert_close(found[:, 0], changes[0][:, 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(found[:, 1], changes[1][:, 1], rtol=0, atol=1e-5)
    torch.testing.assert_close(found[:, 2], (changes[0] + changes[1])[:, 2] / 2)


def test_owners_are_deleted_one_after_the_other(trained) -> None:
    problem = trained.problem(people=2)
    method = Eul(deletions="owner", epochs=2, learning_rate=1e-3, rank=2, batch_size=3)
    done = method.unlearn(problem, seed=0)
    assert [e["deletions"] for e in done.trace if e.get("stage") == "fuse"] == [2]
    assert sum(e.get("stage") == "descend" for e in done.trace) == 2
    changed = {
        n
        for (n, p), q in zip(problem.model.module.named_parameters(), done.model.module.parameters(), strict=True)
        if not torch.equal(p, q)
    }
    assert changed == {f"model.layers.{k}.mlp.down_proj.weight" for k in range(3)}
    assert not done.model.adapted


def test_owners_must_be_known(trained) -> None:
    problem = trained.problem()
    nobody = dataclasses.replace(problem.forget, owners=None)
    with pytest.raises(DataError, match="owners"):
        Eul(deletions="owner").unlearn(dataclasses.replace(problem, forget=nobody), seed=0)
