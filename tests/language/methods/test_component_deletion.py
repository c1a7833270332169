"""Attributions of neurons and heads, and what deleting the strongest does."""

from __future__ import annotations

import pytest
import torch
from language_tools import Trained, mean_nll

from expunge.errors import RequestError
from expunge.methods.concepts.component_deletion import (
    ComponentDeletion,
    integrated_gradients,
    most_sparing,
    strongest,
)
from expunge.models.language_roles import attention_output, down_projection
from expunge.training.text_batches import TextTable
from expunge.training.text_loop import TextLoop
from expunge.training.text_net import Net
from expunge.training.text_probe import watch


def test_strongest_by_hand() -> None:
    scores = torch.tensor([[0.1, 3.0, -1.0], [2.0, 0.0, 5.0]])
    assert strongest(scores, 0.5).tolist() == [[0, 1], [1, 0], [1, 2]]
    assert strongest(scores, 0.01).tolist() == [[1, 2]]
    assert strongest(-scores.abs(), 0.5).tolist() == []


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("find", [down_projection, attention_output])
def test_attributions_add_up_to_the_difference_from_silence(find: object, layout: str, trained: Trained) -> None:
    """Completeness: Σ_i A_i → F(a) − F(0)."""
    module = trained.model.module
    table = TextLoop(module, 0).table(trained.model.encode(trained.records.take([0, 1, 4])), "some")
    net, batch, place = Net(module, layout), table.batch([0, 1, 2]), find(module, 1)  # type: ignore[arg-type, operator]
    with torch.no_grad():
        whole = -net(batch).nll
        with watch({0: place.module}, lambda _, x: torch.zeros_like(x), "input"):
            silent = -net(batch).nll
    found = integrated_gradients(net, batch, place, 200).sum(1)
    assert torch.allclose(found, whole - silent, atol=0.02)


def test_one_step_is_activation_times_gradient(trained: Trained) -> None:
    module = trained.model.copy().module
    table = TextLoop(module, 0).table(trained.model.encode(trained.records.take([0])), "some")
    net, batch, place = Net(module, "packed"), table.batch([0]), down_projection(module, 0)
    place.parameter.requires_grad_(True)
    (-net(batch).nll.sum()).backward()
    # Σ_t a_i ∂F/∂a_i = Σ_o W_oi ∂F/∂W_oi: both are the sum over tokens of a_i Σ_o W_oi ∂F/∂y_o
    expected = (place.weight * place.parameter.grad).sum(0)  # type: ignore[operator]
    assert torch.allclose(integrated_gradients(net, batch, place, 1)[0], expected, atol=1e-5)


def test_deleted_neurons_take_the_forgotten_answers_with_them(trained: Trained) -> None:
    problem = trained.problem()
    done = ComponentDeletion(fraction=0.03, integration=10).unlearn(problem, seed=0)
    gone = mean_nll(done.model, problem.forget) - mean_nll(trained.model, problem.forget)
    stays = mean_nll(done.model, problem.retain) - mean_nll(trained.model, problem.retain)
    assert gone > 0.1
    assert stays < gone / 3
    deleted = done.trace[1]["deleted"]
    assert len(deleted) == 12  # ⌈3% of 3 · 128⌉
    for layer, number in deleted:
        assert not bool(down_projection(done.model.module, layer).weight[:, number].any())
    zeroed = sum(int((down_projection(done.model.module, n).weight == 0).all(0).sum()) for n in range(3))
    assert zeroed == 12


def test_the_retain_set_spares_what_it_needs(trained: Trained) -> None:
    problem = trained.problem()
    harm = []
    for weight in (1.0, 0.0):
        done = ComponentDeletion(fraction=0.03, integration=4, retain_weight=weight).unlearn(problem, seed=0)
        harm.append(mean_nll(done.model, problem.retain))
    assert harm[0] < harm[1]


def test_heads_are_slices_of_the_attention_output(trained: Trained) -> None:
    problem = trained.problem()
    done = ComponentDeletion(component="heads", fraction=0.1, integration=2).unlearn(problem, seed=0)
    deleted = done.trace[1]["deleted"]
    assert done.trace[1]["of"] == 12
    for layer in range(3):
        empty = (attention_output(done.model.module, layer).weight == 0).all(0).view(4, 16)
        assert [n for n in range(4) if bool(empty[n].all())] == [n for at, n in deleted if at == layer]
        assert not bool(empty.any(1)[[n for n in range(4) if [layer, n] not in deleted]].any())


@pytest.mark.parametrize("wrong", [{"component": "layers"}, {"fraction": 0.0}, {"fraction": 1.0}, {"integration": 0}])
def test_wrong_settings_of_deletion_are_refused(wrong: dict) -> None:
    with pytest.raises(RequestError):
        ComponentDeletion(**wrong)


def test_the_weight_below_which_something_is_left_to_delete() -> None:
    owed, spared = torch.tensor([[1.0, 3.0], [-1.0, 2.0]]), torch.tensor([[2.0, 2.0], [-5.0, 4.0]])
    assert most_sparing(owed, spared) == pytest.approx(1.5)
    assert not len(strongest(owed - 1.5 * spared.abs(), 0.5))
    assert strongest(owed - 1.49 * spared.abs(), 0.5).tolist() == [[0, 1]]
    assert most_sparing(-owed.abs(), spared) == 0.0
    assert most_sparing(owed, -spared) == float("inf")


def test_too_high_a_retain_weight_is_refused_and_told_what_would_do(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where every head does something for the kept answers, a high weight leaves no score above 0."""
    owed = torch.linspace(0.1, 1.2, 12, dtype=torch.float64).view(3, 4)

    def attributions(self: object, work: object, table: TextTable, *_: object) -> torch.Tensor:
        return owed.clone() if table.name == "forget" else torch.ones(3, 4, dtype=torch.float64)

    monkeypatch.setattr(ComponentDeletion, "_attributions", attributions)
    problem = trained.problem()
    with pytest.raises(RequestError, match=r"none of the heads does 2\.17 times as much") as refused:
        ComponentDeletion(component="heads", fraction=0.01, retain_weight=2.17).unlearn(problem, seed=0)
    assert "below 1.2," in refused.value.remedy
    done = ComponentDeletion(component="heads", fraction=0.01, retain_weight=1.19).unlearn(problem, seed=0)
    assert done.trace[1]["deleted"] == [[2, 3]]
    owed = -owed
    with pytest.raises(RequestError, match="owe nothing") as refused:
        ComponentDeletion(component="heads", retain_weight=0.0).unlearn(problem, seed=0)
    assert refused.value.remedy == "Try neurons"
