"""Who has the model before and the model after learns what was deleted, retraining or not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from language_tools import Trained, mean_nll, texts
from weight_attack_tools import retrained, small_scene

from expunge.errors import MissingEvidence, NoAccess, RequestError
from expunge.evaluation.attacks.language import make_attack
from expunge.evaluation.attacks.language.before_after import mean_log_probs, share_below
from expunge.evaluation.attacks.language.before_after_extraction import BeforeAfterExtraction, guided
from expunge.evaluation.attacks.language.contract import Scene, Target, answered
from expunge.models.language import LanguageModel

PAIR = ("before_after", "before_after_extraction")


@pytest.fixture(scope="module")
def scene(trained: Trained) -> Scene:
    return small_scene(trained.records)


@pytest.fixture(scope="module")
def after(trained: Trained) -> LanguageModel:
    return retrained(trained)


@pytest.mark.parametrize("name", PAIR)
def test_both_models_are_needed(name: str, trained: Trained, scene: Scene) -> None:
    with pytest.raises(NoAccess, match=name):
        make_attack(name).run(Target(model=trained.model), scene, seed=0)


@pytest.mark.parametrize("name", PAIR)
def test_it_is_a_function_and_writes_nothing(name: str, trained: Trained, after: LanguageModel, scene: Scene) -> None:
    kept = trained.model.digest(), after.digest()
    target = Target(model=after, before=trained.model)
    one, two = (make_attack(name).run(target, scene, seed=0) for _ in range(2))
    assert [p.found.tolist() for p in one.points] == [p.found.tolist() for p in two.points]
    assert (trained.model.digest(), after.digest()) == kept


def test_a_model_that_did_not_change_tells_nothing(trained: Trained, scene: Scene) -> None:
    trial = make_attack("before_after").run(Target(model=trained.model, before=trained.model), scene, seed=0)
    assert set(trial.points[0].found.tolist()) == {0.5}
    assert trial.items == tuple(scene.forget.ids.tolist())


def test_retraining_tells_what_was_deleted_and_the_other_way_round_nothing(
    trained: Trained, after: LanguageModel, scene: Scene
) -> None:
    attack = make_attack("before_after")
    found = attack.run(Target(model=after, before=trained.model), scene, seed=0).points[0].found
    assert found.mean() > 0.95
    turned = attack.run(Target(model=trained.model, before=after), scene, seed=0).points[0].found
    assert np.allclose(turned, 1 - found)


def test_it_needs_texts_never_trained_on(trained: Trained, scene: Scene) -> None:
    bare = dataclasses.replace(scene, holdout=scene.holdout.take([]))
    with pytest.raises(MissingEvidence, match="holdout"):
        make_attack("before_after").run(Target(model=trained.model, before=trained.model), bare, seed=0)


def test_means_of_log_probabilities(trained: Trained, scene: Scene) -> None:
    found = mean_log_probs(trained.model, scene.holdout)
    each = [-mean_nll(trained.model, scene.holdout.take([k])) for k in range(len(scene.holdout))]
    assert np.allclose(found, each, atol=1e-4)


def test_texts_longer_than_the_context_are_one_item(trained: Trained) -> None:
    model = trained.model.copy()
    model.module.config.max_position_embeddings = 24
    line = " ".join(["Aro Belin is a baker."] * 8)
    short, long = texts([("", "Aro Belin is a baker.")]), texts([("", line)], prefix="long")
    pieces = model.pieces(long)
    assert len(pieces) > 1
    both = texts([("", "Aro Belin is a baker."), ("", line)])
    found = mean_log_probs(model, both)
    assert np.allclose(found[0], mean_log_probs(model, short)[0], atol=1e-4)
    assert np.isclose(found[1], -mean_nll(model, pieces), atol=1e-4)  # a mean over all of its tokens


@settings(deadline=None, max_examples=50)
@given(
    values=st.lists(st.integers(0, 5), min_size=1, max_size=8),
    others=st.lists(st.integers(0, 5), min_size=1, max_size=8),
)
def test_share_below_counts_ties_half(values: list[int], others: list[int]) -> None:
    plain = [sum((o < v) + 0.5 * (o == v) for o in others) / len(others) for v in values]
    assert np.allclose(share_below(np.array(values, float), np.array(others, float)), plain)


def test_guidance_is_the_one_or_the_other_model_at_its_ends() -> None:
    before, after = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(guided(before, after, 1.0, 0.0), before.log_softmax(-1), atol=1e-6)
    assert torch.allclose(guided(before, after, 0.0, 0.0), after.log_softmax(-1), atol=1e-6)
    half = guided(before, after, 0.5, 0.0)
    assert torch.allclose(half, 0.5 * (before.log_softmax(-1) + after.log_softmax(-1)), atol=1e-6)


def test_guidance_says_what_only_the_model_before_finds_likely() -> None:
    before = torch.log(torch.tensor([[0.6, 0.39, 0.01]]))
    after = torch.log(torch.tensor([[0.9, 0.099999, 0.000001]]))
    assert int(guided(before, after, 1.0, 0.0).argmax()) == 0  # alone it says the usual
    assert int(guided(before, after, 2.0, 0.05).argmax()) == 1  # what was deleted
    assert int(guided(before, after, 2.0, 0.0).argmax()) == 2  # unfiltered: noise
    assert guided(before, after, 2.0, 0.05)[0, 2] == -torch.inf


def test_at_its_ends_it_says_what_the_models_say(trained: Trained, after: LanguageModel, scene: Scene) -> None:
    asked = [str(p) for p in scene.questions.column("prompt")]
    attack = BeforeAfterExtraction(least_share=0.0)
    for scale, model in ((1.0, trained.model), (0.0, after)):
        said = attack.say(trained.model, after, scene.questions, scale, 14)
        assert said == model.generate(asked, max_new_tokens=14)


def test_the_curve_of_extraction(trained: Trained, after: LanguageModel, scene: Scene) -> None:
    target = Target(model=after, before=trained.model)
    trial = make_attack("before_after_extraction", {"scales": (0.0, 1.0, 2.0)}).run(target, scene, seed=0)
    found = [float(p.found.mean()) for p in trial.points]
    assert found[0] == float(answered(after, scene.questions).mean()) == 0.0
    assert found[1] == found[2] == 1.0
    for wrong in ({"scales": (2.0, 1.0)}, {"scales": (-1.0,)}, {"least_share": 2.0}):
        with pytest.raises(RequestError):
            make_attack("before_after_extraction", wrong)
