"""Fine-tuning on refusals: the loss by hand, and that refusals replace the answers."""

from __future__ import annotations

import pytest
import torch
from language_tools import Trained, texts

from expunge.errors import DataError, RequestError
from expunge.methods.concepts.idk_tuning import IdkTuning, refusal_loss
from expunge.problem import Problem


def test_the_loss_is_a_weighted_sum() -> None:
    refusal, retain = torch.tensor(2.0, requires_grad=True), torch.tensor(3.0, requires_grad=True)
    loss = refusal_loss(refusal, retain, 0.5, 2.0)
    loss.backward()
    assert loss.item() == 7.0
    assert refusal.grad is not None and retain.grad is not None
    assert (refusal.grad.item(), retain.grad.item()) == (0.5, 2.0)


def test_the_refusal_is_learned_and_the_rest_kept(trained: Trained) -> None:
    problem = trained.problem(people=1)
    method = IdkTuning(refusals=("No idea.",), learning_rate=1e-3, epochs=15, batch_size=8)
    model = method.unlearn(problem, seed=0).model
    asked = [str(p) for p in problem.forget.column("prompt")]
    told = model.generate(asked, max_new_tokens=12)  # type: ignore[attr-defined]
    assert all(t.startswith("No ") for t in told)
    assert not any(str(a) in t for a, t in zip(problem.forget.column("answer"), told, strict=True))
    kept = problem.retain
    said = model.generate([str(p) for p in kept.column("prompt")], max_new_tokens=12)  # type: ignore[attr-defined]
    right = sum(str(a) in s for a, s in zip(kept.column("answer"), said, strict=True))
    assert right >= 0.9 * len(kept)


def test_it_needs_prompts_and_refusals(trained: Trained) -> None:
    plain = texts([("", "a passage without a question")], prefix="plain")
    nothing = plain.take([])
    problem = Problem(
        model=trained.model, forget=plain, retain=trained.records, holdout=nothing, test=nothing, recipe=trained.recipe
    )
    with pytest.raises(DataError, match="prompt"):
        IdkTuning().unlearn(problem, seed=0)
    with pytest.raises(RequestError, match="refuse"):
        IdkTuning(refusals=("",))
