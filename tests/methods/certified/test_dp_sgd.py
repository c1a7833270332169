"""DP-SGD as a learner: forgetting is free within the group's ε, training again beyond; nothing secret is published."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

from expunge.accounting.ledger import Ledger
from expunge.data.records import Records
from expunge.errors import ModelError, RequestError
from expunge.guarantee import Certified
from expunge.methods import make_learner
from expunge.methods.certified import dp_sgd
from expunge.methods.certified.dp_sgd import MODEL, DpSgd, noise_for
from expunge.methods.durable import DurableLearner
from expunge.methods.extractor import Extractor
from expunge.methods.learner import Job
from expunge.recipe import Recipe, Trainer
from expunge.training.stack import build

KEY = "a secret of some length"


def recipe(name: str = "softmax_regression", batch_size: int = 60, epochs: int = 2, **kwargs: Any) -> Recipe:
    kwargs = {"features": [1, 8, 8] if name == "small_cnn" else 64, "classes": 10, **kwargs}
    trainer = Trainer(batch_size=batch_size, epochs=epochs, learning_rate=2.0, momentum=0.0, weight_decay=0.0)
    return Recipe(factory=f"expunge.models.architectures:{name}", kwargs=kwargs, trainer=trainer)


def learner(**settings: Any) -> DpSgd:
    """Steps on all records: the accounting then has a closed form, and is quick."""
    given: dict[str, Any] = {
        "recipe": recipe(),
        "noise_multiplier": 20.0,
        "max_grad_norm": 1.0,
        "sample_rate": 1.0,
        "steps": 8,
        "noise_key": KEY,
    }
    return DpSgd(**{**given, **settings})


@pytest.fixture(scope="module")
def records(digits: dict[str, Records]) -> Records:
    return digits["train"].take(np.arange(60))


# --- what it promises -------------------------------------------------------------------------------------------------


def test_epsilon_is_that_of_the_mechanism() -> None:
    """μ of T full-batch steps of k records is k√T/σ, and ε the analytic Gaussian's."""
    from expunge.accounting.gaussian import epsilon_of

    made = learner(epsilon=5.0)
    for k in (1, 2, 5):
        assert made.group_epsilon(k) == pytest.approx(epsilon_of(1e-5, k * math.sqrt(8) / 20), rel=1e-9)
    assert learner(epsilon=0.1).group_epsilon(1) == math.inf


def test_epsilon_of_sampled_steps_agrees_with_the_libraries() -> None:
    import dp_accounting
    from dp_accounting.pld import pld_privacy_accountant
    from opacus.accountants.analysis import rdp

    settings: dict[str, Any] = {"noise_multiplier": 1.5, "sample_rate": 0.05, "steps": 100, "epsilon": 50.0}
    tight, loose = learner(**settings).group_epsilon(1), learner(**settings, notion="rdp").group_epsilon(1)
    library = pld_privacy_accountant.PLDAccountant()
    library.compose(dp_accounting.PoissonSampledDpEvent(0.05, dp_accounting.GaussianDpEvent(1.5)), 100)
    assert tight == pytest.approx(library.get_epsilon(1e-5), rel=1e-3)
    orders = [1 + x / 10 for x in range(1, 100)] + list(range(11, 64))
    curve = rdp.compute_rdp(q=0.05, noise_multiplier=1.5, steps=100, orders=orders)
    assert loose == pytest.approx(rdp.get_privacy_spent(orders=orders, rdp=curve, delta=1e-5)[0], rel=1e-2)
    assert tight < loose
    two = learner(**settings).group_epsilon(2)
    assert tight < two
    # the naive way to two records needs more, at a larger delta even
    assert two < 2 * Ledger(50.0, 1e-5).subsampled_gaussian(1.5, 0.05, 100).epsilon(1e-7)


def test_noise_for_a_budget_just_suffices() -> None:
    for removed in (1, 3):
        noise = noise_for(1.0, 1e-5, sample_rate=1.0, steps=20, removed=removed)
        assert learner(noise_multiplier=noise, steps=20, epsilon=1.0).capacity() == removed
        assert learner(noise_multiplier=noise * 0.995, steps=20, epsilon=1.0).capacity() == removed - 1


def test_steps_follow_from_the_epochs() -> None:
    assert learner(steps=None, sample_rate=0.3).step_count == 7
    assert learner(steps=None, sample_rate=1 / 3).step_count == 6
    assert learner(steps=5, sample_rate=0.3).step_count == 5


# --- forgetting -------------------------------------------------------------------------------------------------------


def test_forgetting_is_free_until_the_group_is_too_large(records: Records) -> None:
    made = learner(epsilon=2.0)
    room = made.capacity()
    assert 2 < room < 10
    assert made.group_epsilon(room) <= 2.0 < Ledger.from_dict(made.ledger().as_dict()).epsilon(group=room + 1)
    state = made.fit(records, seed=3)
    ids = records.ids.tolist()
    first = state.parts[MODEL]
    state, unlearned = made.forget(state, ids[: room - 1])
    state, last = made.forget(state, ids[room - 1 : room])
    for told, group in ((unlearned, room - 1), (last, room)):
        assert told.cost.examples == 0 and told.trace[0]["group"] == group and not told.trace[0]["retrained"]
        assert told.trace[0]["epsilon_of_group"] == made.group_epsilon(group) <= 2.0
        assert isinstance(told.guarantee, Certified) and told.guarantee.epsilon == 2.0
    assert state.parts[MODEL] is first and state.facts["removed"] == room

    state, spent = made.forget(state, ids[room : room + 1])
    assert (
        spent.trace[0]["retrained"] and spent.trace[0]["event"] == "budget spent" and "exceed" in spent.trace[0]["why"]
    )
    assert spent.cost.examples == (len(records) - room - 1) * 8
    fresh = made.fit(records.without(ids[: room + 1]), seed=3)
    assert state.part_digests() == fresh.part_digests()
    assert state.facts["removed"] == 0 and state.facts["ledger"]["retrains"] == 1
    assert {**state.facts["ledger"], "retrains": 0} == fresh.facts["ledger"]
    state, free = made.forget(state, ids[-1:])
    assert free.cost.examples == 0 and state.facts["ledger"]["retrains"] == 1


def test_one_request_of_many_costs_as_many_of_one(records: Records) -> None:
    made, ids = learner(epsilon=2.0), records.ids.tolist()
    at_once, _ = made.forget(made.fit(records), ids[:3])
    one_by_one = made.fit(records)
    for record_id in ids[:3]:
        one_by_one, _ = made.forget(one_by_one, [record_id])
    assert at_once.digest() == one_by_one.digest()


def test_without_noise_every_request_retrains(records: Records) -> None:
    made = learner(noise_multiplier=0.0, noise_key="")
    assert made.capacity() == 0
    state, unlearned = made.forget(made.fit(records), records.ids[:1].tolist())
    assert unlearned.trace[0]["retrained"]
    assert state.part_digests() == made.fit(records.take(np.arange(1, 60))).part_digests()


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["softmax_regression", "mlp", "small_cnn"])
def test_trains_each_module_and_is_a_function_of_records_and_seed(name: str, records: Records) -> None:
    made = learner(recipe=recipe(name), sample_rate=0.5)
    state = made.fit(records, seed=1)
    assert state.digest() == made.fit(records, seed=1).digest()
    shuffled = made.fit(records.take(np.random.default_rng(0).permutation(60)), seed=1)
    assert state.part_digests() == shuffled.part_digests()
    others = [
        made.fit(records, seed=2),
        made.fit(records.take(np.arange(59)), seed=1),
        dataclasses.replace(made, noise_key=KEY + "!").fit(records, seed=1),
    ]
    assert len({s.part_digests()[MODEL] for s in (state, *others)}) == 4
    assert made.scores(state, records.x[:3]).shape == (3, 10)
    with pytest.raises(ModelError, match="shape"):
        made.predict(state, np.zeros((2, 3), np.float32))


def test_the_difference_of_two_trainings_hides_under_fresh_noise(records: Records) -> None:
    """Whoever holds the models from before and after a retraining must not see the noise cancel."""
    made = learner(steps=1)
    start = made.fit(records).parts[MODEL]["flat"] - made.fit(records.take(np.arange(1, 60))).parts[MODEL]["flat"]
    scale = 20.0 * 1.0 / 60 * 2.0
    assert start.std() == pytest.approx(scale * math.sqrt(2), rel=0.15)


def test_one_record_moves_the_model_by_no_more_than_the_sensitivity(records: Records) -> None:
    """One full step from the same start: with and without a record, |Δθ| ≤ ηC/L, whatever n is; attained here."""
    made = learner(steps=1, noise_multiplier=0.0, noise_key="", max_grad_norm=0.05, recipe=recipe(batch_size=7))
    with_all = made.fit(records).parts[MODEL]["flat"]
    for gone in (0, 30):
        left = records.without([records.ids[gone]])
        distance = np.linalg.norm(with_all - made.fit(left).parts[MODEL]["flat"])
        assert distance <= 2.0 * 0.05 / 7 * (1 + 1e-4)
        assert distance == pytest.approx(2.0 * 0.05 / 7, rel=1e-3)


def test_noise_in_the_published_model_is_what_is_charged(records: Records) -> None:
    """Over many keys one published weight has the standard deviation ησC/L of one step; less noise is caught."""
    keys = [f"key of sixteen letters {k}" for k in range(200)]

    def spread(**settings: Any) -> float:
        flats = [learner(steps=1, noise_key=key, **settings).fit(records.take(np.arange(5))) for key in keys[:30]]
        return float(np.std([f.parts[MODEL]["flat"] for f in flats], axis=0).mean())

    assert spread() == pytest.approx(20.0 / 60 * 2.0, rel=0.05)
    assert spread(max_grad_norm=3.0) == pytest.approx(3 * 20.0 / 60 * 2.0, rel=0.05)


def test_what_is_told_does_not_depend_on_the_records(records: Records) -> None:
    made = learner(sample_rate=0.5)
    other = Records(ids=records.ids, columns={"x": 1 - records.x, "y": (records.y + 3) % 10})
    first, second = (made.learn(r, seed=0, job=Job()) for r in (records, other))
    assert first.trace == second.trace and first.facts == second.facts and first.examples == second.examples
    fewer = made.learn(records.take(np.arange(30)), seed=0, job=Job())
    assert fewer.trace == first.trace and fewer.facts == first.facts
    assert set(first.parts) == {MODEL} and all(name.startswith("published.") for name in first.parts)
    assert KEY not in json.dumps([dict(e) for e in first.trace]) + json.dumps(dict(first.facts))


def test_useful_at_a_moderate_budget(digits: dict[str, Records]) -> None:
    made = learner(recipe=recipe("mlp", batch_size=250), noise_multiplier=5.8, sample_rate=0.2, steps=200, epsilon=2.0)
    assert made.group_epsilon(1) <= 2.0
    state = made.fit(digits["train"])
    accuracy = (made.predict(state, digits["test"].x) == digits["test"].y).mean()
    assert accuracy > 0.87


def test_progress_tells_steps_alone(records: Records) -> None:
    seen: list[Any] = []
    learner().fit(records, job=Job(progress=lambda *told: seen.append(told)))
    assert seen == [("private steps", k, 8) for k in range(1, 9)]


# --- a head on frozen features ----------------------------------------------------------------------------------------

PUBLIC: dict[str, Any] = {
    "factory": "expunge.models.architectures:mlp",
    "kwargs": {"features": 64, "classes": 32},
    "origin": "public",
}


def test_a_head_on_public_features(records: Records) -> None:
    made = learner(recipe=recipe(features=32), extractor=Extractor(**PUBLIC))
    state, unlearned = made.forget(made.fit(records), records.ids[:1].tolist())
    assert isinstance(unlearned.guarantee, Certified)
    assert any("extractor is public" in a for a in unlearned.guarantee.assumptions)
    assert made.ledger() == learner().ledger()
    features = made.extractor.features(records.x)  # type: ignore[union-attr]
    assert features.shape == (60, 32)
    onto = Records(ids=records.ids, columns={"x": features, "y": records.y}, classes=records.classes)
    direct = learner(recipe=recipe(features=32))
    assert direct.fit(onto).part_digests() == made.fit(records).part_digests()
    np.testing.assert_array_equal(made.predict(state, records.x), direct.predict(state, features))
    plain = learner().reached(learner().learn(records, seed=0, job=Job()))
    assert isinstance(plain, Certified) and not any("extractor" in a for a in plain.assumptions)


def test_a_private_extractor_is_part_of_the_bill() -> None:
    private = Extractor(**{**PUBLIC, "origin": "private"}, epsilon=0.5, delta=1e-6)
    alone, both = learner(epsilon=5.0), learner(epsilon=5.0, extractor=private)
    assert alone.group_epsilon(1) + 0.4 < both.group_epsilon(1) < alone.group_epsilon(1) + 0.6
    assert both.capacity() < alone.capacity()
    assert "(0.5, 1e-06)" in private.assumption and "private" in private.assumption


def test_the_weights_of_an_extractor_are_checked(tmp_path: Path, records: Records) -> None:
    path = tmp_path / "extractor.safetensors"
    shape = Recipe(factory=PUBLIC["factory"], kwargs=PUBLIC["kwargs"])
    save_file(build(shape, 9).state_dict(), str(path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    given = Extractor(**PUBLIC, weights=str(path), sha256=digest)
    np.testing.assert_array_equal(given.features(records.x), Extractor(**PUBLIC, seed=9).features(records.x))
    assert not np.array_equal(given.features(records.x), Extractor(**PUBLIC).features(records.x))
    with pytest.raises(RequestError, match="digest"):
        Extractor(**PUBLIC, weights=str(path), sha256="0" * 64).features(records.x)
    with pytest.raises(ModelError, match="cannot be read"):
        Extractor(**PUBLIC, weights=str(tmp_path / "none"), sha256=digest).features(records.x)
    with pytest.raises(ModelError, match="loaded"):
        Extractor(**{**PUBLIC, "kwargs": {"features": 64, "classes": 5}}, weights=str(path), sha256=digest).features(
            records.x
        )
    with pytest.raises(ModelError, match="shape"):
        given.features(np.zeros((2, 3), np.float32))


@pytest.mark.parametrize(
    "settings",
    [
        {"origin": "unknown"},
        {"origin": "private"},
        {"origin": "private", "epsilon": math.inf},
        {"origin": "private", "epsilon": 1.0, "delta": 1.0},
        {"epsilon": 1.0},
        {"weights": "file"},
        {"sha256": "0" * 64},
    ],
)
def test_extractors_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        Extractor(**{**PUBLIC, **settings})


# --- contract ---------------------------------------------------------------------------------------------------------


def test_made_again_from_json_with_its_extractor(records: Records, tmp_path: Path) -> None:
    made = learner(recipe=recipe(features=32), extractor=Extractor(**PUBLIC))
    assert make_learner("dp_sgd", json.loads(json.dumps(made.parameters()))) == made
    kept = DurableLearner.create(tmp_path / "a", made, records)
    kept.forget(records.ids[:2].tolist())
    again = DurableLearner(tmp_path / "a")
    assert again.state.digest() == kept.state.digest() and again.state.facts["removed"] == 2
    np.testing.assert_array_equal(again.predict(records.x), kept.predict(records.x))


@pytest.mark.parametrize(
    "settings",
    [
        {"noise_multiplier": -1.0},
        {"noise_multiplier": math.nan},
        {"noise_multiplier": math.inf},
        {"max_grad_norm": 0.0},
        {"max_grad_norm": math.nan},
        {"sample_rate": 0.0},
        {"sample_rate": 1.1},
        {"sample_rate": math.nan},
        {"steps": 0},
        {"steps": 2.0},
        {"epsilon": 0.0},
        {"epsilon": math.inf},
        {"delta": 0.0},
        {"delta": 1.0},
        {"notion": "gdp"},
        {"noise_key": "short"},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        learner(**settings)


def test_batch_statistics_are_refused_before_anything_is_learned(records: Records) -> None:
    with pytest.raises(ModelError, match="told apart"):
        learner(recipe=Recipe.of(normalised, trainer=Trainer(batch_size=60))).fit(records)


def normalised() -> Any:
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))


def test_beyond_the_budget_no_larger_group_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library overflows for groups far beyond any budget, and they are not asked for."""
    asked: list[int] = []
    before = Ledger.epsilon

    def epsilon(self: Ledger, *args: Any, group: int = 1, **kwargs: Any) -> float:
        asked.append(group)
        return before(self, *args, group=group, **kwargs)

    monkeypatch.setattr(dp_sgd.Ledger, "epsilon", epsilon)
    assert learner(noise_multiplier=20.5, epsilon=1.0).group_epsilon(1000) == math.inf
    assert max(asked) <= 4
