"""Steering: directions, what is done to hidden states, and that a steered model is still a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from language_tools import Trained, mean_nll

from expunge.errors import DataError, ModelError, NothingChanged, RequestError, RunError
from expunge.guarantee import Suppressed
from expunge.methods.concepts.steering import SteeringAway, mean_difference, principal_direction
from expunge.models.language import LanguageModel
from expunge.models.language_roles import decoder_layers
from expunge.models.steering import Steering, attach, steered, steering_of, without_steering


def test_steered_by_hand() -> None:
    h = torch.tensor([[3.0, 4.0]])
    assert steered(h, torch.tensor([1.0, -1.0]), None).tolist() == [[4.0, 3.0]]
    assert steered(h, None, torch.tensor([[1.0, 0.0]])).tolist() == [[0.0, 4.0]]
    assert steered(h, torch.tensor([1.0, 0.0]), torch.tensor([[1.0, 0.0]])).tolist() == [[1.0, 4.0]]
    assert torch.equal(steered(h, None, None), h)


def test_mean_difference_by_hand() -> None:
    found = mean_difference(torch.tensor([[3.0, 0.0], [5.0, 0.0]]), torch.tensor([[0.0, 0.0]]))
    assert found.tolist() == [1.0, 0.0]
    with pytest.raises(DataError):
        mean_difference(torch.ones(2, 2), torch.ones(1, 2))


@pytest.mark.parametrize("seed", range(8))
def test_principal_direction_is_never_anti_aligned(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    negative = torch.randn(12, 6, generator=g)
    lead = torch.randn(6, generator=g)
    positive = negative + lead + torch.randn(12, 1, generator=g) * lead + 0.01 * torch.randn(12, 6, generator=g)
    v = principal_direction(positive, negative)
    mean = mean_difference(positive, negative)
    assert float(v.norm()) == pytest.approx(1)
    assert float(v @ mean) > 0.9
    assert torch.allclose(principal_direction(negative, positive), -v, atol=1e-4)


def test_the_centred_component_can_miss_the_mean_difference() -> None:
    """Why both are offered: what pairs differ by on average need not be what they differ in most."""
    wide = torch.tensor([-3.0, -1.0, 1.0, 3.0])
    negative = torch.zeros(4, 2)
    positive = torch.stack([torch.ones(4), wide], 1)
    assert abs(float(principal_direction(positive, negative) @ mean_difference(positive, negative))) < 1e-6


def test_pairs_are_needed() -> None:
    with pytest.raises(DataError):
        principal_direction(torch.ones(1, 2), torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("direction", "operator", "layer", "least"),
    [("mean", "project", 1, 0.01), ("mean", "add", 2, 0.15), ("pca", "add", 0, 0.05)],
)
def test_forgets_more_than_it_harms_and_says_suppressed(
    direction: str, operator: str, layer: int, least: float, trained: Trained
) -> None:
    problem = trained.problem()
    settings = {"direction": direction, "operator": operator, "layers": (layer,), "strength": 0.8}
    done = SteeringAway(**settings).unlearn(problem, seed=0)  # type: ignore[arg-type]
    gone = mean_nll(done.model, problem.forget) - mean_nll(trained.model, problem.forget)
    stays = mean_nll(done.model, problem.retain) - mean_nll(trained.model, problem.retain)
    assert gone > least
    assert stays < (gone / 4 if operator == "project" else gone)
    assert isinstance(done.guarantee, Suppressed)
    was = dict(trained.model.module.named_parameters())
    assert all(torch.equal(p, was[n]) for n, p in done.model.module.named_parameters())


def test_the_shift_points_away_from_the_forget_set(trained: Trained) -> None:
    problem = trained.problem()
    toward = SteeringAway(layers=(1,), strength=-0.5).unlearn(problem, seed=0).model
    away = SteeringAway(layers=(1,), strength=0.5).unlearn(problem, seed=0).model
    shifts = [steering_of(m.module).shifts[1] for m in (toward, away)]
    assert torch.allclose(shifts[0], -shifts[1])
    assert mean_nll(away, problem.forget) > mean_nll(toward, problem.forget)


def test_strength_zero_is_the_original(trained: Trained) -> None:
    with pytest.raises(NothingChanged):
        SteeringAway(strength=0.0).unlearn(trained.problem(), seed=0)
    model = trained.model.copy()
    attach(model.module, Steering({1: torch.zeros(64)}))
    assert mean_nll(model, trained.records) == mean_nll(trained.model, trained.records)


def test_steering_is_seen_by_hidden_states_copies_and_generation(trained: Trained) -> None:
    model = trained.model.copy()
    shift = torch.linspace(-4, 4, 64)
    attach(model.module, Steering({1: shift}))
    # What the layer above reads; transformers 4 records `hidden_states` before hooks run, 5 after them.
    read = []
    for m in (trained.model, model):
        handle = decoder_layers(m.module)[2].register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
        m.module(torch.tensor([[5, 6, 7]]))
        handle.remove()
    assert torch.allclose(read[1], read[0] + shift, atol=1e-5)
    plain = trained.model.module(torch.tensor([[5, 6, 7]])).logits
    prompts = [str(p) for p in trained.records.column("prompt")[:3]]
    assert model.copy().generate(prompts) == model.generate(prompts) != trained.model.generate(prompts)
    attach(model.module, Steering({1: -shift}))  # on top of what is there
    assert torch.allclose(model.module(torch.tensor([[5, 6, 7]])).logits, plain, atol=1e-3)


def test_it_can_be_taken_off_for_a_while(trained: Trained) -> None:
    model = trained.model.copy()
    attach(model.module, Steering({0: torch.ones(64)}, {2: torch.eye(64)[:1]}))
    with_it = mean_nll(model, trained.records)
    with without_steering(model.module):
        assert mean_nll(model, trained.records) == mean_nll(trained.model, trained.records)
        assert model.digest() == trained.model.digest()
    assert mean_nll(model, trained.records) == with_it


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_it_is_saved_and_loaded_as_json_and_safetensors(trained: Trained, tmp_path: Path) -> None:
    model = SteeringAway(layers=(0, 2), operator="add").unlearn(trained.problem(), seed=0).model
    attach(model.module, Steering({}, {1: torch.eye(64)[:2]}))
    model.save(tmp_path)
    assert json.loads((tmp_path / "steering.json").read_text())["shift"] == [0, 2]
    assert mean_nll(model, trained.records) == pytest.approx(mean_nll(LanguageModel.load(tmp_path), trained.records))
    from transformers import AutoModelForCausalLM

    bare = AutoModelForCausalLM.from_pretrained(str(tmp_path))
    assert set(bare.state_dict()) == set(trained.model.module.state_dict())
    trained.model.save(tmp_path)  # another model in the same folder is not steered
    assert not (tmp_path / "steering.json").exists()


def test_damaged_or_foreign_steering_is_refused(trained: Trained, tmp_path: Path) -> None:
    from expunge.models.steering import load_steering

    model = trained.model.copy()
    with pytest.raises(ModelError):
        attach(model.module, Steering({9: torch.zeros(64)}))
    with pytest.raises(ModelError):
        attach(model.module, Steering({0: torch.zeros(8)}))
    (tmp_path / "steering.json").write_text("{}")
    with pytest.raises(RunError):
        load_steering(tmp_path)
    for wrong in ({"direction": "x"}, {"operator": "x"}, {"layers": ()}):
        with pytest.raises(RequestError):
            SteeringAway(**wrong)  # type: ignore[arg-type]
