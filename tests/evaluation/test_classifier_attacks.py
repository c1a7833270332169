"""Attacks on classifiers: one contract for all, closed forms, and effects on digits."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from expunge.data.records import Records
from expunge.errors import DataError, MissingEvidence, NoAccess, RequestError, RunError, UnknownName
from expunge.evaluation.attacks.classifier import CLASSIFIER_ATTACKS, make_classifier_attack
from expunge.evaluation.attacks.classifier.contract import (
    ClassifierAttack,
    ClassifierScene,
    ClassifierTarget,
    halves,
    margins,
)
from expunge.evaluation.attacks.classifier.reconstruction import linear_weights
from expunge.evaluation.attacks.classifier.rmia import _doubling
from expunge.evaluation.attacks.language.contract import ACCESSES, Trial
from expunge.evaluation.attacks.membership import population_loss
from expunge.evaluation.attacks.on_classifiers import attack_bench, attack_classifiers, classifier_attacks
from expunge.evaluation.benchmarks.challenge import Challenge, run_challenge
from expunge.evaluation.metrics.roc import auc
from expunge.models.classifier import Classifier
from expunge.recipe import Recipe, Trainer
from expunge.training.fit import fit

EVERY = [pytest.param(a, id=n) for n, a in CLASSIFIER_ATTACKS.items()]
DOCS = Path(__file__).resolve().parents[2] / "docs" / "attacks"
BAD: dict[str, dict[str, Any]] = {
    "relearn_classifier": {"steps": (0, 1)},
    "rmia": {"gamma": 0.5},
    "lira": {"prior_degrees": -1.0},
    "reconstruction": {"directions": -1},
}
LINEAR = Recipe(
    factory="expunge.models.architectures:softmax_regression",
    kwargs={"features": [1, 8, 8], "classes": 10},
    trainer=Trainer(epochs=20, batch_size=32, learning_rate=0.1),
)


def trained(records: Records, seeds: list[int]) -> list[Classifier]:
    stack = fit(LINEAR, records, seeds).stack
    return [Classifier(stack.module(k)) for k in range(len(seeds))]


@pytest.fixture(scope="module")
def parts(digits) -> dict[str, Records]:
    """Few records of many features: what is trained on is answered better than what is not."""
    train = digits["train"].take(np.arange(140))
    return {
        "forget": train.take(np.arange(40)),
        "retain": train.take(np.arange(40, 140)),
        "train": train,
        "holdout": digits["test"].take(np.arange(200)),
    }


@pytest.fixture(scope="module")
def models(parts) -> dict[str, list[Classifier]]:
    never, holds = trained(parts["retain"], [1, 2, 3, 4, 5, 6]), trained(parts["train"], [11, 12, 13, 14])
    return {"shadows": never[:3], "references": never[3:], "holders": holds[:3], "original": holds[3:]}


@pytest.fixture(scope="module")
def scene(parts, models) -> ClassifierScene:
    return ClassifierScene(
        forget=parts["forget"],
        holdout=parts["holdout"],
        retain=parts["retain"],
        shadows=models["shadows"],
        holders=models["holders"],
    )


@pytest.fixture(scope="module")
def target(models) -> ClassifierTarget:
    return ClassifierTarget(model=models["original"][0], before=models["original"][0])


def run(attack: type[ClassifierAttack], target: ClassifierTarget, scene: ClassifierScene, seed: int = 3) -> Trial:
    return make_classifier_attack(attack.name).run(target, scene, seed=seed)


# --- contract --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", EVERY)
def test_says_what_it_is(attack):
    assert CLASSIFIER_ATTACKS[attack.name] is attack and attack.access in ACCESSES
    assert attack.headline in ("last", "best")
    assert all(text and text.strip() for text in (attack.summary, attack.paper, attack.unit, attack.__doc__))
    assert dataclasses.is_dataclass(attack) and attack.__dataclass_params__.frozen
    assert (DOCS / f"{attack.name}.md").is_file()


@pytest.mark.parametrize("attack", EVERY)
def test_settings_survive_json_and_others_are_refused(attack):
    written = json.loads(json.dumps(attack().settings(), allow_nan=False))
    assert json.loads(json.dumps(make_classifier_attack(attack.name, written).settings())) == written
    with pytest.raises(RequestError, match="settings"):
        make_classifier_attack(attack.name, {"no_such_setting": 1})
    assert (attack.name in BAD) == bool(written)
    if written:
        with pytest.raises(RequestError):
            make_classifier_attack(attack.name, BAD[attack.name])
    with pytest.raises(UnknownName, match="rmia"):
        make_classifier_attack("rmya")


@pytest.mark.parametrize("attack", EVERY)
def test_is_a_function_of_target_scene_and_seed_and_writes_to_no_model(attack, target, scene, models):
    everyone = [target.model, *scene.shadows, *scene.holders]
    before = [m.digest() for m in everyone]
    one, two = run(attack, target, scene), run(attack, target, scene)
    assert before == [m.digest() for m in everyone]
    assert one.shown == two.shown and one.items == two.items
    for p, q in zip(one.points, two.points, strict=True):
        np.testing.assert_array_equal(p.found, q.found)
    json.dumps(dict(one.shown))


@pytest.mark.parametrize("attack", EVERY)
def test_items_and_costs_are_those_of_any_model(attack, target, scene, models):
    one = run(attack, target, scene)
    two = run(attack, replace(target, model=models["references"][0]), scene)
    assert one.items == two.items and set(one.items) <= set(scene.forget.ids.tolist())
    assert [p.cost for p in one.points] == [p.cost for p in two.points] and one.points[0].cost > 0
    assert one.unit == attack.unit


@pytest.mark.parametrize("attack", EVERY)
def test_a_part_that_is_not_there_is_missing_evidence(attack, target, scene):
    for part in ("forget", *attack.needs):
        empty = () if part in ("shadows", "holders") else scene.holdout.take([])
        with pytest.raises(MissingEvidence, match=part):
            run(attack, target, replace(scene, **{part: empty}))


@pytest.mark.parametrize("attack", [a for a in EVERY if a.values[0].access == "pair"])
def test_without_the_model_before_there_is_no_pair(attack, target, scene):
    with pytest.raises(NoAccess, match="before"):
        run(attack, ClassifierTarget(model=target.model), scene)


# --- closed forms and effects ----------------------------------------------------------------------------------------


def test_population_loss_is_the_measurement_of_the_report_on_one_model(target, scene):
    trial = run(CLASSIFIER_ATTACKS["population_loss"], target, scene)
    mine, others = margins(target.model, scene.forget), margins(target.model, scene.holdout)
    measured = population_loss(mine[None], others[None])["population_loss_auc_forget"]
    assert trial.points[0].found.mean() == pytest.approx(measured.value) == pytest.approx(auc(mine, others))


@pytest.mark.parametrize("name", ["population_loss", "rmia", "lira"])
def test_membership_is_seen_in_the_original_and_not_in_a_retrained_model(name, target, scene, models):
    attack = CLASSIFIER_ATTACKS[name]
    knows = run(attack, target, scene).points[-1].found.mean()
    never = np.mean(
        [run(attack, ClassifierTarget(model=m), scene).points[-1].found.mean() for m in models["references"]]
    )
    assert knows > never + 0.04, (knows, never)
    if name == "lira":
        assert knows > 0.8 and never < 0.2


def test_lira_leaves_the_model_under_attack_out_of_its_own_gaussian(scene, models):
    """A holder under attack, which would fit itself best, is judged like any other that holds the records."""
    attack = make_classifier_attack("lira")
    fresh = attack.run(ClassifierTarget(model=models["original"][0]), scene, seed=0).points[0].found.mean()
    own = attack.run(ClassifierTarget(model=models["holders"][0]), scene, seed=0).points[0].found.mean()
    assert own >= fresh - 0.1
    few = replace(scene, holders=models["holders"][:2])
    with pytest.raises(MissingEvidence, match="2 models that hold"):
        attack.run(ClassifierTarget(model=models["original"][0]), few, seed=0)


def test_rmia_asks_ever_more_models(target, scene):
    assert [_doubling(n) for n in (1, 2, 3, 8)] == [[1], [1, 2], [1, 2, 3], [1, 2, 4, 8]]
    trial = run(CLASSIFIER_ATTACKS["rmia"], target, scene)
    assert [p.cost for p in trial.points] == [2.0, 3.0, 4.0]
    one = run(CLASSIFIER_ATTACKS["rmia"], target, replace(scene, shadows=scene.shadows[:1]))
    np.testing.assert_array_equal(one.points[0].found, trial.points[0].found)


def test_halves_are_the_same_for_all_and_disjoint(parts):
    had, others = halves(parts["forget"], 0.25, 5)
    assert len(had) == 10 and not set(had.ids) & set(others.ids) and len(others) == 30
    again, _ = halves(parts["forget"], 0.25, 5)
    assert again.ids.tolist() == had.ids.tolist() != halves(parts["forget"], 0.25, 6)[0].ids.tolist()
    assert [len(p) for p in halves(parts["forget"].take([0, 1]), 0.01, 0)] == [1, 1]


def hidden(model: Classifier) -> Classifier:
    """The same knowledge behind biases that turn every answer wrong: a few steps undo it."""
    copy = model.copy()
    linear = next(m for m in copy.module.modules() if isinstance(m, nn.Linear))
    with torch.no_grad():
        linear.bias[3] += 8.0
    return copy


def test_relearning_brings_back_what_was_hidden(target, scene):
    attack = make_classifier_attack("relearn_classifier", {"steps": (1, 300), "learning_rate": 0.1})
    trial = attack.run(ClassifierTarget(model=hidden(target.model)), scene, seed=0)
    assert len(trial.items) == 20 and trial.shown["relearnt"] == 20
    hid, back = (p.found.mean() for p in trial.points)
    assert hid < 0.4 and back > hid + 0.2, (hid, back)


def test_what_is_asked_about_is_not_what_is_relearnt(target, scene):
    """With labels that are wrong the relearnt records change sides, and the others hardly do."""
    attack = make_classifier_attack("relearn_classifier", {"steps": (100,), "learning_rate": 0.05})
    had = set(scene.forget.ids.tolist()) - set(attack.run(target, scene, seed=0).items)
    rows = np.array([i in had for i in scene.forget.ids.tolist()])
    labels = np.where(rows, (scene.forget.y + 1) % 10, scene.forget.y)
    wrong = Records(ids=scene.forget.ids, columns={"x": scene.forget.x, "y": labels})
    trial = attack.run(target, replace(scene, forget=wrong), seed=0)
    assert not set(trial.items) & had
    honest = attack.run(target, scene, seed=0).points[0].found.mean()
    assert trial.points[0].found.mean() < honest - 0.2, "training on wrong labels harms the others' own"


@pytest.mark.parametrize("measure", ["probability", "rank", "accuracy"])
def test_relearning_measures_the_records_that_were_not_relearnt(measure, target, scene):
    attack = make_classifier_attack("relearn_classifier", {"steps": (1,), "learning_rate": 1e-9, "measure": measure})
    trial = attack.run(target, scene, seed=3)
    others = scene.forget.select(list(trial.items))
    phi = margins(target.model, others)
    expected = {
        "probability": np.exp(-np.logaddexp(0.0, -phi)),
        "accuracy": (target.model.logits(others).argmax(1) == others.y).astype(float),
        "rank": np.array([(margins(target.model, scene.holdout) < v).mean() for v in phi]),
    }[measure]
    np.testing.assert_allclose(trial.points[0].found, expected, atol=0.006)  # a tie counts half, of 200


def exact_fit(records: Records, weights: np.ndarray) -> np.ndarray:
    """Softmax regression fitted to the end by Newton's method with a little ridge."""
    x = np.hstack([records.x.reshape(len(records), -1).astype(float), np.ones((len(records), 1))])
    y = np.eye(weights.shape[1])[records.y]
    theta, ridge = weights.copy(), 0.5 * np.diag([*np.ones(x.shape[1] - 1), 0.0])
    for _ in range(60):
        z = x @ theta
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        gradient = x.T @ (p - y) + ridge @ theta
        if np.abs(gradient).max() < 1e-9:
            break
        blocks = [
            [x.T @ (x * (p[:, a] * ((a == b) - p[:, b]))[:, None]) + (a == b) * ridge for b in (0, 1, 2)]
            for a in (0, 1, 2)
        ]
        step = np.linalg.solve(np.block(blocks), gradient.T.ravel()).reshape(3, -1).T
        theta -= step
    return theta


def linear_model(theta: np.ndarray) -> Classifier:
    layer = nn.Linear(theta.shape[0] - 1, theta.shape[1])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(theta[:-1].T.copy()))
        layer.bias.copy_(torch.from_numpy(theta[-1].copy()))
    return Classifier(layer.double())


def test_one_deleted_row_lies_in_the_direction_that_two_exact_models_give_away():
    rng = np.random.default_rng(0)
    x, y = rng.normal(loc=1.0, size=(300, 6)), rng.integers(3, size=300)

    def rows(where: slice) -> Records:
        count = len(x[where])
        start = where.start or 0
        return Records(
            ids=[f"r{start + k}" for k in range(count)], columns={"x": x[where].astype(np.float32), "y": y[where]}
        )

    start = np.zeros((7, 3))
    before = exact_fit(rows(slice(0, 300)), start)
    after = exact_fit(rows(slice(1, 300)), start)

    # With the retained rows for public ones, each there twice, the equation holds to the last digit.
    kept = rows(slice(1, 300))
    twice = {name: np.concatenate([kept.column(name)] * 2) for name in ("x", "y")}
    public = Records(ids=[f"p{k}" for k in range(2 * len(kept))], columns=twice)
    scene = ClassifierScene(forget=rows(slice(0, 1)), holdout=public, retain=kept)
    attack = make_classifier_attack("reconstruction", {"regularization": 0.5})
    pair = ClassifierTarget(model=linear_model(after), before=linear_model(before))
    trial = attack.run(pair, scene, seed=0)
    assert trial.shown["directions"] == 1
    assert trial.points[0].found[0] > 0.999 > 0.6 > trial.shown["public_rows"]
    nothing = attack.run(ClassifierTarget(model=pair.model, before=pair.model), scene, seed=0)
    assert nothing.points[0].found[0] == 0.0 and nothing.shown["directions"] == 0


def test_reconstruction_reads_linear_models_only(target, scene, mlp_problem):
    theta = linear_weights(target.model, "reconstruction")
    assert theta.shape == (65, 10)
    x = scene.forget.x.reshape(len(scene.forget), -1)
    np.testing.assert_allclose(x @ theta[:-1] + theta[-1], target.model.logits(scene.forget), rtol=1e-4, atol=1e-4)
    deep = mlp_problem.model
    with pytest.raises(NoAccess, match="not linear"):
        linear_weights(deep, "reconstruction")


# --- whole folders ---------------------------------------------------------------------------------------------------


def test_models_in_memory_are_attacked_as_a_campaign(models, scene, tmp_path):
    document = attack_classifiers(
        classifier_attacks("lira,reconstruction"),
        scene,
        original=models["original"][0],
        references=models["references"],
        unlearned={"hidden": hidden(models["original"][0])},
        folder=tmp_path,
    )
    lira, rebuilt = document["attacks"]
    found = {r["label"]: r for r in lira["rows"]}
    assert found["do_nothing"]["headline"]["recovery"]["value"] == pytest.approx(1.0)
    assert abs(found["reference-2"]["headline"]["recovery"]["value"]) < 0.3
    for row in rebuilt["rows"]:
        assert row["headline"]["recovery"]["status"] == "unscored"
        assert "no floor" in row["headline"]["recovery"]["reason"]
    assert document["about"]["records"] == {"forget": 40, "retain": 100, "holdout": 200}


def test_a_bench_folder_is_attacked_and_controls_are_not_attacked_twice(tmp_path):
    setting = Challenge(dataset="digits", models=4, architecture="softmax_regression", forget=60)
    run_challenge(setting, ["finetune"], tmp_path / "bench", processes=1)
    document = attack_bench(tmp_path / "bench", classifier_attacks("population_loss,lira"), models=4)
    labels = [r["label"] for r in document["attacks"][0]["rows"]]
    assert labels == ["do_nothing", *(f"reference-{k}" for k in (1, 2, 3, 4)), "finetune"]
    assert document["attacks"][1]["rows"][0]["curve"][0]["cost"] == 9.0, "four that hold, four that do not, and itself"
    lira = {r["label"]: r["headline"]["found"] for r in document["attacks"][1]["rows"]}
    assert lira["do_nothing"] > lira["reference-1"] + 0.1, "his own models hold the records, and never saw them"
    test = len(Challenge(dataset="digits").parts()[0]["test"])
    assert document["about"]["records"]["holdout"] == test, "no method may look at the test records"


def test_a_folder_without_a_finished_bench_is_refused(tmp_path):
    with pytest.raises(RunError, match="no finished study"):
        attack_bench(tmp_path, classifier_attacks("lira"))


def test_settings_reach_the_attack_and_wrong_ones_are_refused():
    assert classifier_attacks("relearn_classifier", {"steps": [2, 4]})[0].settings()["steps"] == (2, 4)
    with pytest.raises(RequestError):
        classifier_attacks("lira", {"steps": [1]})
    with pytest.raises((RequestError, DataError)):
        classifier_attacks("relearn_classifier", {"measure": "loss"})
