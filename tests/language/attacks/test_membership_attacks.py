"""Attacks that read probabilities: what is found is the AUC, item by item, of the scores that the metrics define."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from language_tools import texts

from expunge.data.benchmarks.text_benchmark import no_texts
from expunge.errors import MissingEvidence, NoAccess, RequestError
from expunge.evaluation.attacks.language import make_attack
from expunge.evaluation.attacks.language.contract import Scene, Target
from expunge.evaluation.attacks.language.membership import MembershipAttack, read
from expunge.evaluation.language.record import score
from expunge.evaluation.metrics.language import membership
from expunge.models.language import LanguageModel

STRANGERS = ("Ravi Solum", "Tessa Umber", "Vigo Wexel", "Yara Zindel", "Bela Crowe", "Dina Eskel")
NAMES = ("loss_membership", "min_k", "min_k_plus_plus", "reference_membership", "zlib_membership")


@pytest.fixture(scope="module")
def scene(trained):
    """Three people of the model's world are the forgotten ones; six strangers were never told of."""
    pairs = [(f"Where was {name} born?", town) for name, town in zip(STRANGERS, ("Alding", "Hallin") * 3, strict=True)]
    forget = trained.records.take(np.arange(9))
    wrong = np.empty(9, dtype=object)
    wrong[:] = [json.dumps(["Mavi Norel", "a hatter", "Falsund"][: 1 + k % 3]) for k in range(9)]
    questions = type(forget)(ids=forget.ids, columns={**forget.columns, "wrong": wrong})
    nothing = no_texts()
    return Scene(
        questions=questions,
        forget=forget,
        retain=trained.records.take(np.arange(9, 24)),
        holdout=texts(pairs, prefix="h"),
        relearn=nothing,
        unheard=nothing,
        probes={},
        kept=nothing,
    )


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    """A model of the same kind that never saw anything."""
    place = tmp_path_factory.mktemp("never") / "model"
    LanguageModel(trained.recipe.build(), trained.model.tokenizer, trained.model.template).save(place)
    return str(place)


def attack(name: str, folder: str, **settings: Any) -> Any:
    return make_attack(name, {**settings, **({"reference": folder} if name == "reference_membership" else {})})


def never_seen(trained: Any, seed: int = 0) -> LanguageModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LanguageModel(trained.recipe.build(), trained.model.tokenizer, trained.model.template)


def by_the_metric(name: str, model: LanguageModel, scene: Scene, folder: str) -> float:
    """The AUC of the pure metric on the same outputs."""
    members, others = read(model, scene.forget), read(model, scene.holdout)
    if name == "reference_membership":
        other = LanguageModel.load(folder)
        found = membership.membership_reference(
            members, others, score(other, scene.forget), score(other, scene.holdout)
        )["membership_reference_auc"]
    else:
        title = {"loss_membership": "membership_loss", "zlib_membership": "membership_zlib"}.get(
            name, f"membership_{name}"
        )
        found = getattr(membership, title)(members, others)[f"{title}_auc"]
    return found.value


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_over_items_is_the_auc_of_the_metric(name, trained, scene, folder):
    trial = attack(name, folder).run(Target(model=trained.model), scene, seed=0)
    found = trial.points[-1].found
    assert found.mean() == pytest.approx(by_the_metric(name, trained.model, scene, folder))
    assert trial.items == tuple(scene.forget.ids.tolist())
    assert trial.shown[f"{name}_auc"][0] == pytest.approx(found.mean())
    assert trial.shown[f"{name}_auc"][1] <= found.mean() <= trial.shown[f"{name}_auc"][2]


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_learned_the_texts_is_told_from_one_that_did_not(name, trained, scene, folder):
    made = attack(name, folder)
    knows = made.run(Target(model=trained.model), scene, seed=0).points[-1].found
    strangers = [Target(model=never_seen(trained, seed)) for seed in range(5)]  # one alone may look familiar by chance
    blank = np.mean([made.run(target, scene, seed=0).points[-1].found.mean() for target in strangers])
    assert knows.mean() > 0.75 and knows.mean() > blank + 0.15, (knows.mean(), blank)


class Given(MembershipAttack):
    """Scores that are given."""

    name = "given"
    summary = paper = "given"

    def __init__(self, members: list[float], others: list[float]) -> None:
        self.told = {len(members): members, len(others): others}

    def scores(self, model: LanguageModel, records: Any) -> Any:
        return np.array(self.told[len(records)])


def test_an_item_is_found_by_the_share_of_unseen_texts_below_it_ties_counting_half(trained, scene):
    others = replace(scene, forget=scene.forget.take([0, 1, 2]), holdout=scene.holdout.take([0, 1, 2, 3]))
    trial = Given([3.0, 0.0, 2.0], [1.0, 1.0, 2.0, 2.5]).run(Target(model=trained.model), others, seed=0)
    assert trial.points[0].found.tolist() == [1.0, 0.0, (2 + 0.5) / 4]
    assert trial.points[0].cost == 1.0


def test_all_tokens_of_min_k_are_the_loss(trained, scene):
    target = Target(model=trained.model)
    every = make_attack("min_k", {"k": 1.0}).run(target, scene, seed=0).points[0].found
    loss = make_attack("loss_membership").run(target, scene, seed=0).points[0].found
    np.testing.assert_array_equal(every, loss)
    lowest = make_attack("min_k", {"k": 1e-9}).scores(trained.model, scene.forget)  # one token at least
    np.testing.assert_allclose(lowest, [row.min() for row in read(trained.model, scene.forget).log_probs], rtol=1e-6)


def test_a_model_against_itself_as_reference_tells_nothing(trained, scene, folder):
    made = attack("reference_membership", folder)
    trial = made.run(Target(model=LanguageModel.load(folder)), scene, seed=0)
    np.testing.assert_array_equal(trial.points[0].found, 0.5)
    assert trial.points[0].cost == 2.0, "each text is scored by two models"


def test_without_a_reference_model_the_attacker_has_none(trained, scene):
    with pytest.raises(MissingEvidence, match="this attacker has none"):
        make_attack("reference_membership").run(Target(model=trained.model), scene, seed=0)


def test_who_answers_in_words_gives_no_probabilities_reference_or_not(scene, trained):
    class Words:
        capabilities = frozenset({"generate"})
        inside = trained.model

    for name in (*NAMES, "multiple_choice"):
        with pytest.raises(NoAccess, match="answers in words only"):
            make_attack(name).run(Target(model=Words()), scene, seed=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("part", ["forget", "holdout"])
def test_one_text_ranks_nothing(part, trained, scene):
    alone = replace(scene, **{part: getattr(scene, part).take([0])})
    with pytest.raises(MissingEvidence, match="2 of each"):
        make_attack("loss_membership").run(Target(model=trained.model), alone, seed=0)
    with pytest.raises(MissingEvidence, match=part):
        make_attack("loss_membership").run(Target(model=trained.model), replace(scene, **{part: no_texts()}), seed=0)


@pytest.mark.parametrize("k", [0, -0.1, 1.1, float("nan"), "all"])
@pytest.mark.parametrize("name", ["min_k", "min_k_plus_plus"])
def test_k_is_a_share(name, k):
    with pytest.raises(RequestError, match="k is"):
        make_attack(name, {"k": k})


def test_multiple_choice_is_the_share_of_the_truth_among_the_options(trained, scene):
    trial = make_attack("multiple_choice").run(Target(model=trained.model), scene, seed=0)
    found = trial.points[0].found
    assert trial.points[0].cost == 4.0, "the longest list has three wrong answers beside the true one"
    for k in (0, 4, 8):
        prompt = str(scene.questions.column("prompt")[k])
        options = [str(scene.questions.column("answer")[k]), *json.loads(scene.questions.column("wrong")[k])]
        p = np.exp(-score(trained.model, texts([(prompt, o) for o in options])).nll)
        assert found[k] == pytest.approx(p[0] / p.sum(), rel=1e-4)
    assert found.min() > 0.85


def test_multiple_choice_leaves_out_questions_without_options(trained, scene):
    wrong = scene.questions.columns["wrong"].copy()
    wrong[3] = "[]"
    some = type(scene.questions)(ids=scene.questions.ids, columns={**scene.questions.columns, "wrong": wrong})
    trial = make_attack("multiple_choice").run(Target(model=trained.model), replace(scene, questions=some), seed=0)
    assert scene.questions.ids[3] not in trial.items and len(trial.items) == 8
    with pytest.raises(MissingEvidence, match="wrong answers"):
        make_attack("multiple_choice").run(Target(model=trained.model), replace(scene, questions=scene.forget), seed=0)
