"""Noisy fine-tuning: the noise is what the drift needs, the start does not matter, and nothing of it survives."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from expunge.accounting import gaussian
from expunge.data.records import Records
from expunge.errors import ModelError, RequestError
from expunge.guarantee import Certified
from expunge.methods.certified import noisy_finetune
from expunge.methods.certified.noisy_finetune import MODEL, NoisyFinetune
from expunge.recipe import Recipe, Trainer

KEY = "a secret of some length"
RECIPE = Recipe(
    factory="expunge.models.architectures:mlp",
    kwargs={"features": 64, "classes": 10, "width": 8},
    trainer=Trainer(epochs=3, batch_size=16),
)


def learner(**settings: Any) -> NoisyFinetune:
    return NoisyFinetune(**{"recipe": RECIPE, "noise_key": KEY, **settings})


@pytest.fixture(scope="module")
def records(digits: dict[str, Records]) -> Records:
    return digits["train"].take(np.arange(60))


def drift(made: NoisyFinetune, apart: float) -> list[float]:
    """How far two runs come apart at most, step by step, without noise."""
    told, rho = [apart], 1 - made.learning_rate * made.regularisation
    for _ in range(made.steps):
        told.append(rho * told[-1] + 2 * made.learning_rate * made.grad_norm)
    return told


@pytest.mark.parametrize("settings", [{}, {"regularisation": 0.0}, {"steps": 1}, {"regularisation": 5.0, "steps": 20}])
def test_the_shifts_of_the_proof_hold(settings: dict[str, Any]) -> None:
    """Shifts a_t that end at no distance, never go below it, and whose squares sum to the sensitivity squared."""
    made = learner(**settings)
    rho, T = 1 - made.learning_rate * made.regularisation, made.steps
    D = drift(made, 2 * made.model_norm)[-1]
    scale = D / sum(rho ** (2 * k) for k in range(T))
    z, total = 2 * made.model_norm, 0.0
    for t in range(T):
        a = rho ** (T - 1 - t) * scale
        z = rho * z + 2 * made.learning_rate * made.grad_norm - a
        total += a * a
        assert z > -1e-9
    assert z == pytest.approx(0, abs=1e-9)
    assert math.sqrt(total) == pytest.approx(made.sensitivity(), rel=1e-9)
    # no other shifts do better: by Cauchy and Schwarz these are the least that reach D
    assert made.sensitivity() <= D + 1e-12


def test_noise_spends_the_budget_and_no_more() -> None:
    for epsilon, delta in ((1.0, 1e-5), (0.1, 1e-6), (8.0, 1e-3)):
        made = learner(epsilon=epsilon, delta=delta)
        spent = made.ledger().epsilon(notion="rdp")
        assert epsilon * 0.999 < spent <= epsilon
        # Rényi divergence cannot ask for less than the tight accountant of the same Gaussian
        assert made.noise >= gaussian.sigma(epsilon, delta, made.sensitivity())
        output = learner(epsilon=epsilon, delta=delta, way="output_perturbation", model_norm=2.0)
        assert output.noise == pytest.approx(gaussian.sigma(epsilon, delta, 4.0))
        assert output.ledger().epsilon() == pytest.approx(epsilon, rel=1e-6)


def test_one_step_that_keeps_nothing_is_output_perturbation_of_a_gradient() -> None:
    """ρ → 0: what is left of the start is nothing, and one clipped step has a sensitivity of 2ηC_1."""
    made = learner(learning_rate=0.01, regularisation=100 * (1 - 1e-12), grad_norm=3.0, steps=1)
    assert made.sensitivity() == pytest.approx(2 * 0.01 * 3.0, rel=1e-6)


@pytest.mark.parametrize("way", ["gradient_clipping", "output_perturbation"])
def test_two_starts_end_within_the_drift_and_the_noise_is_as_stated(
    way: Any, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = learner(way=way, recovery_epochs=0.0, steps=7, grad_norm=0.5, learning_rate=0.02, regularisation=20.0)
    state = made.fit(records)
    rest = records.take(np.arange(10, 60))
    flat = state.parts[MODEL]["flat"]
    starts = [{"flat": flat * 100}, {"flat": -flat * 100}, {"flat": np.full_like(flat, 3.0)}]
    ends = [made._unlearned(part, rest, 0)[0]["flat"].astype(float) for part in starts]
    most = 2 * made.model_norm if way == "output_perturbation" else drift(made, 2 * made.model_norm)[-1]
    distances = [np.linalg.norm(ends[0] - other) for other in ends[1:]]  # the same noise cancels
    assert 0.2 * most < max(distances) <= most * (1 + 1e-4)
    # without noise: the size of what is added to each parameter
    monkeypatch.setattr(noisy_finetune.NoisyFinetune, "noise", 0.0)
    quiet = made._unlearned(starts[0], rest, 0)[0]["flat"].astype(float)
    monkeypatch.undo()
    rho = 1 - 0.02 * 20.0
    powers = 1.0 if way == "output_perturbation" else math.sqrt(sum(rho ** (2 * k) for k in range(7)))
    assert np.linalg.norm(quiet) < np.linalg.norm(ends[0])
    if way == "output_perturbation":
        assert (ends[0] - quiet).std() == pytest.approx(made.noise, rel=0.15)
    else:  # gradients differ along the way, by no more than the clipping allows
        assert (ends[0] - quiet).std() == pytest.approx(made.noise * powers, rel=0.3)


def test_requests_are_certified_one_by_one(records: Records) -> None:
    made = learner()
    state = made.fit(records, seed=1)
    ids = records.ids.tolist()
    for request in (ids[:2], ids[2:3]):
        before = state.parts[MODEL]
        state, unlearned = made.forget(state, request)
        assert isinstance(unlearned.guarantee, Certified) and unlearned.guarantee.epsilon == 1.0
        assert unlearned.trace[0]["epsilon_of_this_model"] <= 1.0
        assert unlearned.trace[0]["constants"]["noise"] == made.noise
        assert state.facts["ledger"] == made.ledger().as_dict()
        assert not np.array_equal(before["flat"], state.parts[MODEL]["flat"])
    # 4 batches a pass over 57 records: 50 noisy steps are 12 passes and 2 batches, and 5 passes follow
    assert unlearned.cost.examples == 12 * 57 + 2 * 16 + 5 * 57
    again = made.fit(records, seed=1)
    again, _ = made.forget(again, ids[:2])
    again, _ = made.forget(again, ids[2:3])
    assert again.digest() == state.digest()
    other = dataclasses.replace(made, noise_key=KEY + "!")
    changed, _ = other.forget(other.fit(records, seed=1), ids[:2])
    changed, _ = other.forget(changed, ids[2:3])
    assert changed.part_digests() != state.part_digests()


def test_useful_after_recovery(digits: dict[str, Records]) -> None:
    made = learner(recipe=dataclasses.replace(RECIPE, kwargs={"features": 64, "classes": 10}))
    train, test = digits["train"], digits["test"]
    state, _ = made.forget(made.fit(train), train.ids[:50].tolist())
    assert (made.predict(state, test.x) == test.y).mean() > 0.85


def normalised() -> Any:
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))


def test_running_statistics_are_refused(records: Records) -> None:
    with pytest.raises(ModelError, match="running_mean"):
        learner(recipe=Recipe.of(normalised)).fit(records)


@pytest.mark.parametrize(
    "settings",
    [
        {"way": "model_clipping"},
        {"model_norm": 0.0},
        {"grad_norm": math.inf},
        {"learning_rate": -1.0},
        {"learning_rate": 0.002},
        {"regularisation": -1.0},
        {"regularisation": math.nan},
        {"steps": 0},
        {"steps": 1.5},
        {"epsilon": 0.0},
        {"delta": 0.0},
        {"delta": 1.0},
        {"recovery_epochs": -1.0},
        {"noise_key": "short"},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        learner(**settings)


def test_a_step_is_clipped_and_a_small_model_is_not_blown_up(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without noise and contraction one step moves by ηC_1 where the gradient is larger, from where the model is."""
    monkeypatch.setattr(noisy_finetune.NoisyFinetune, "noise", 0.0)
    made = learner(steps=1, recovery_epochs=0.0, regularisation=0.0, learning_rate=0.5, grad_norm=0.01, model_norm=1e6)
    part = made.fit(records).parts[MODEL]
    start = part["flat"].astype(float)
    moved = made._unlearned(part, records, 0)[0]["flat"].astype(float)
    assert np.linalg.norm(moved - start) == pytest.approx(0.5 * 0.01, rel=1e-3)
    shrunk = dataclasses.replace(made, model_norm=0.1)._unlearned(part, records, 0)[0]["flat"].astype(float)
    assert np.linalg.norm(shrunk - start * 0.1 / np.linalg.norm(start)) == pytest.approx(0.5 * 0.01, rel=1e-3)


def test_noise_is_fresh_for_every_set_of_records(records: Records) -> None:
    """Two models from one start on different remains must not share their noise: their difference would show."""
    made = learner(way="output_perturbation", recovery_epochs=0.0)
    part = made.fit(records).parts[MODEL]
    first, second = (made._unlearned(part, records.take(np.arange(k, 60)), 0)[0]["flat"] for k in (1, 2))
    assert (first - second).astype(float).std() == pytest.approx(made.noise * math.sqrt(2), rel=0.1)
