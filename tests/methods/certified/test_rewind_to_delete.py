"""Rewind-to-Delete: the distance to a retraining is within the proof; no network with ReLU is called certified."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from expunge.accounting import gaussian
from expunge.data.records import Records
from expunge.errors import ModelError, RequestError
from expunge.guarantee import Certified, Empirical
from expunge.methods.certified.rewind_to_delete import CHECKPOINT, MODEL, RewindToDelete
from expunge.recipe import Recipe

KEY = "a secret of some length"


def recipe(name: str = "softmax_regression", features: Any = 64, classes: int = 10) -> Recipe:
    return Recipe(factory=f"expunge.models.architectures:{name}", kwargs={"features": features, "classes": classes})


def learner(**settings: Any) -> RewindToDelete:
    return RewindToDelete(**{"recipe": recipe(), "noise_key": KEY, "steps": 20, "rewind": 8, "removals": 6, **settings})


@pytest.fixture(scope="module")
def records(digits: dict[str, Records]) -> Records:
    return digits["train"].take(np.arange(60))


def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish the weights themselves."""
    monkeypatch.setattr(gaussian, "sigma", lambda *_: 0.0)


@pytest.mark.parametrize("seed", range(6))
def test_distance_to_a_retraining_is_within_the_bound(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random rows of any size and labels against them, several requests, largest steps."""
    quiet(monkeypatch)
    rng = np.random.default_rng(seed)
    rows, clip = 40, float(rng.uniform(0.3, 3.0))
    data = Records(
        ids=np.array([f"r{k:02d}" for k in range(rows)]),
        columns={"x": rng.normal(size=(rows, 5)) * rng.exponential(3, (rows, 1)), "y": rng.integers(0, 3, rows)},
    )
    made = learner(recipe=recipe(features=5, classes=3), clip_norm=clip, learning_rate=4 / (clip**2 + 1))
    state, worst = made.fit(data, seed=seed), 0.0
    gone: list[str] = []
    for request in (["r00"], ["r01", "r02"], ["r03", "r04", "r05"]):
        gone += request
        state, unlearned = made.forget(state, request)
        retrained = made.fit(data.without(gone), seed=seed)
        distance = np.linalg.norm(state.parts[MODEL]["flat"] - retrained.parts[MODEL]["flat"])
        bound = made.sensitivity(len(gone), rows)
        assert unlearned.trace[0]["sensitivity"] == bound
        assert 0 < distance <= bound
        worst = max(worst, distance / bound)
    assert worst > 0.02


def test_the_bound_is_met_to_a_fifth_on_the_worst_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """One class in every row but the forgotten one, at the same place: its gradient stands against all others."""
    quiet(monkeypatch)
    rows = 40
    x = np.tile(np.array([3.0, 0.0]), (rows, 1))
    y = np.zeros(rows, np.int64)
    y[0] = 1
    data = Records(ids=np.array([f"r{k:02d}" for k in range(rows)]), columns={"x": x, "y": y})
    made = learner(recipe=recipe(features=2, classes=2), clip_norm=3.0, learning_rate=0.01, steps=20, rewind=1)
    state, _ = made.forget(made.fit(data), ["r00"])
    retrained = made.fit(data.without(["r00"]))
    distance = np.linalg.norm(state.parts[MODEL]["flat"] - retrained.parts[MODEL]["flat"])
    assert 0.2 * made.sensitivity(1, rows) < distance <= made.sensitivity(1, rows)


@pytest.mark.parametrize("seed", range(3))
def test_constants_hold_for_any_weights(seed: int) -> None:
    made, generator = learner(clip_norm=2.0), torch.Generator().manual_seed(seed)
    weights = torch.randn(3, 6, generator=generator, dtype=torch.float64) * 3
    row = torch.randn(5, generator=generator, dtype=torch.float64)
    z = torch.cat([row / row.norm() * 2.0, torch.ones(1, dtype=torch.float64)])

    def loss(w: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy((w.view(3, 6) @ z)[None], torch.tensor([0]))

    flat = weights.reshape(-1).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(flat), flat)
    assert float(gradient.norm()) <= made.gradient_bound
    hessian = torch.autograd.functional.hessian(loss, flat.detach())
    assert float(torch.linalg.eigvalsh(hessian)[-1]) <= made.smoothness
    # the largest eigenvalue is met where two classes share all probability
    even = torch.zeros(2, 6, dtype=torch.float64).reshape(-1)
    top = torch.linalg.eigvalsh(
        torch.autograd.functional.hessian(
            lambda w: torch.nn.functional.cross_entropy((w.view(2, 6) @ z)[None], torch.tensor([0])), even
        )
    )[-1]
    assert float(top) == pytest.approx(made.smoothness)


def test_going_back_to_the_start_is_retraining(records: Records) -> None:
    made = learner(rewind=20)
    assert made.sensitivity(6, 60) == 0 and made.fit(records).facts["constants"]["noise"] == 0
    state, _ = made.forget(made.fit(records), records.ids[:2].tolist())
    fresh = made.fit(records.take(np.arange(2, 60)))
    np.testing.assert_array_equal(state.parts[MODEL]["flat"], fresh.parts[MODEL]["flat"])


def test_noise_is_the_gaussian_mechanisms_and_fresh(records: Records) -> None:
    made = learner()
    state = made.fit(records)
    constants = state.facts["constants"]
    assert constants["sensitivity"] == pytest.approx(1.0 * 2 * 6 * 2.0 / 60 * 12)
    assert constants["noise"] == gaussian.sigma(1.0, 1e-5, constants["sensitivity"])
    after, unlearned = made.forget(state, records.ids[:6].tolist())
    assert isinstance(unlearned.guarantee, Certified)
    assert unlearned.trace[0]["epsilon_of_this_model"] == pytest.approx(1.0, rel=1e-6)
    difference = (after.parts[MODEL]["flat"] - state.parts[MODEL]["flat"]).astype(float)
    assert difference.std() == pytest.approx(constants["noise"] * math.sqrt(2), rel=0.1)
    assert after.parts[CHECKPOINT] is state.parts[CHECKPOINT]
    assert np.abs(after.parts[CHECKPOINT]["flat"]).max() < 1 < np.abs(after.parts[MODEL]["flat"]).max()
    one, _ = made.forget(made.fit(records), records.ids[:1].tolist())
    spent = one.facts["ledger"]["charges"][0]
    assert spent["sensitivity"] == pytest.approx(constants["sensitivity"] / 6)


def test_beyond_its_removals_it_trains_again(records: Records) -> None:
    made = learner()
    state, first = made.forget(made.fit(records, seed=2), records.ids[:5].tolist())
    assert first.cost.examples == 55 * 8 and not first.trace[0]["retrained"]
    state, second = made.forget(state, records.ids[5:7].tolist())
    assert second.trace[0]["retrained"] and "7 records" in second.trace[0]["why"]
    fresh = made.fit(records.take(np.arange(7, 60)), seed=2)
    assert state.part_digests() == fresh.part_digests() and state.facts["removed"] == 0
    assert state.facts["ledger"]["retrains"] == 1 and state.facts["constants"]["rows"] == 53
    state, third = made.forget(state, records.ids[7:8].tolist())
    assert not third.trace[0]["retrained"] and state.facts["ledger"]["retrains"] == 1


def test_networks_with_relu_are_empirical_and_say_so(records: Records) -> None:
    for name, features in (("mlp", 64), ("small_cnn", [1, 8, 8])):
        made = learner(recipe=recipe(name, features), noise=0.01, learning_rate=0.3)
        state, unlearned = made.forget(made.fit(records), records.ids[:1].tolist())
        assert isinstance(unlearned.guarantee, Empirical)
        assert "not bounded" in unlearned.trace[0]["why_empirical"] and not state.facts["ledger"]["charges"]
        assert "epsilon_of_this_model" not in unlearned.trace[0]
    with pytest.raises(RequestError, match="empirical"):
        learner(recipe=recipe("mlp")).fit(records)
    with pytest.raises(RequestError, match="follows"):
        learner(noise=0.1).fit(records)
    with pytest.raises(RequestError, match="smooth"):
        learner(learning_rate=2.001).fit(records)


def test_rows_are_clipped_for_training_and_prediction_alike(records: Records) -> None:
    made = learner(clip_norm=0.5)
    x = records.x.reshape(60, -1).astype(float)
    small = x * np.minimum(1, 0.5 / np.linalg.norm(x, axis=1, keepdims=True))
    already = Records(ids=records.ids, columns={"x": small, "y": records.y}, classes=records.classes)
    large = Records(ids=records.ids, columns={"x": x * 1000, "y": records.y}, classes=records.classes)
    first, second = made.fit(already), made.fit(large)
    np.testing.assert_allclose(first.parts[CHECKPOINT]["flat"], second.parts[CHECKPOINT]["flat"], atol=1e-6)
    np.testing.assert_allclose(made.scores(first, small), made.scores(first, x * 1000), atol=1e-5)


def normalised() -> Any:
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))


def test_running_statistics_are_refused(records: Records) -> None:
    with pytest.raises(ModelError, match="running_mean"):
        learner(recipe=Recipe.of(normalised), noise=0.1).fit(records)


@pytest.mark.parametrize(
    "settings",
    [
        {"learning_rate": 0.0},
        {"clip_norm": math.inf},
        {"steps": 0},
        {"rewind": 21},
        {"rewind": 0},
        {"removals": 0},
        {"removals": 1.5},
        {"epsilon": math.nan},
        {"delta": 0.0},
        {"noise": 0.0},
        {"noise": math.nan},
        {"noise_key": "short"},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        learner(**settings)
