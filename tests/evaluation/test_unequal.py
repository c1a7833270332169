"""Accuracy by group beside the mean, who pays for privacy, and a DP-SGD tuned within its budget."""

from __future__ import annotations

import numpy as np
import pytest

from expunge.data.records import Records
from expunge.errors import DataError, RequestError, UnknownName
from expunge.evaluation.metrics.intervals import wilson
from expunge.evaluation.unequal import accuracy_by_group, tuned_dp_sgd, unequal_cost
from expunge.recipe import Recipe, Trainer

LABELS = np.array([0, 0, 0, 0, 0, 0, 1, 1, 2, 2])


def test_by_class_and_by_group() -> None:
    predicted = np.array([0, 0, 0, 0, 0, 1, 1, 0, 0, 0])
    told = accuracy_by_group(predicted, LABELS)
    assert told.mean.value == 0.6 and told.mean.n == 10
    assert {g: (m.value, m.n) for g, m in told.groups.items()} == {"0": (5 / 6, 6), "1": (0.5, 2), "2": (0.0, 2)}
    assert told.worst == "2" and told.gap == 5 / 6
    assert (told.groups["1"].low, told.groups["1"].high) == wilson(1, 2)
    by_owner = accuracy_by_group(predicted, LABELS, np.array(["a", "b"] * 5))
    assert {g: m.value for g, m in by_owner.groups.items()} == {"a": 0.8, "b": 0.4}
    assert by_owner.mean == told.mean
    assert told.as_dict()["worst"] == "2" and told.as_dict()["groups"]["0"]["n"] == 6


def test_what_does_not_match_is_refused() -> None:
    for predicted, labels, groups in (
        (LABELS[:3], LABELS, None),
        (LABELS, LABELS, np.arange(3)),
        (LABELS[:0], LABELS[:0], None),
    ):
        with pytest.raises(DataError):
            accuracy_by_group(predicted, labels, groups)


def test_the_cost_names_who_pays() -> None:
    plain = accuracy_by_group(LABELS, LABELS)
    private = accuracy_by_group(np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 0]), LABELS)
    first, second = unequal_cost({"plain": plain, "private": private}, "plain")
    assert first["cost"] == 0 and set(first["cost_by_group"].values()) == {0.0}
    assert second["cost"] == pytest.approx(0.2) and second["hardest_hit"] == "2" and second["hardest_cost"] == 0.5
    assert second["cost_by_group"] == pytest.approx({"0": 1 / 6, "1": 0.0, "2": 0.5})
    assert second["worst_group"] == "2" and second["worst"] == 0.5
    assert unequal_cost({"plain": plain, "private": private}, "private")[0]["hardest_hit"] == "1"
    with pytest.raises(UnknownName):
        unequal_cost({"plain": plain}, "private")
    with pytest.raises(DataError, match="different groups"):
        unequal_cost({"plain": plain, "other": accuracy_by_group(LABELS[:6], LABELS[:6])}, "plain")


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return Recipe(
        factory="expunge.models.architectures:softmax_regression",
        kwargs={"features": 64, "classes": 10},
        trainer=Trainer(momentum=0.0, weight_decay=0.0),
    )


def test_the_tuned_one_is_the_best_of_its_grid_and_within_budget(digits: dict[str, Records], recipe: Recipe) -> None:
    train, test = digits["train"].take(np.arange(300)), digits["test"]
    grid = {"learning_rate": (1e-4, 2.0, 1e38), "max_grad_norm": (0.5,), "sample_rate": (1.0,), "steps": (20,)}
    tuned = tuned_dp_sgd(
        recipe, train, test, epsilon=2.0, delta=1e-5, removals=2, noise_key="a secret of some length", grid=grid
    )
    assert [t["learning_rate"] for t in tuned.trials] == [2.0, 1e-4, 1e38]
    assert tuned.trials[-1]["accuracy"] is None and tuned.trials[0]["accuracy"] > tuned.trials[1]["accuracy"]
    assert tuned.learner.recipe.trainer.learning_rate == 2.0 and tuned.learner.recipe.trainer.batch_size == 300
    assert tuned.learner.capacity() == 2
    state = tuned.learner.fit(train)
    assert (tuned.learner.predict(state, test.x) == test.y).mean() == tuned.trials[0]["accuracy"]
    with pytest.raises(RequestError, match="diverged"):
        tuned_dp_sgd(
            recipe,
            train,
            test,
            epsilon=2.0,
            delta=1e-5,
            noise_key="a secret of some length",
            grid={**grid, "learning_rate": (1e38,)},
        )
    for wrong in ({"momentum": (0.9,)}, {"steps": ()}):
        with pytest.raises(RequestError, match="grid"):
            tuned_dp_sgd(recipe, train, test, epsilon=2.0, delta=1e-5, noise_key="a secret of some length", grid=wrong)
