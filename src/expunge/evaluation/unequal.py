"""What privacy costs, and whom: accuracy by class or group beside the mean, and a tuned DP-SGD to compare with.

Noise and clipping take most from those of whom there are few (Bagdasaryan, Poursaeed & Shmatikov 2019, 1905.12101), so
that a mean hides who pays. And a certified method is no better than the best private training of the same ε: a
comparison against an untuned one flatters it (Tramèr & Boneh 2021, 2011.11660; De et al. 2022, 2204.13650).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from expunge.data.records import Array, Records
from expunge.errors import DataError, NonFiniteLoss, RequestError, UnknownName
from expunge.evaluation.metrics.accuracy import accuracy
from expunge.methods.certified.dp_sgd import DpSgd, noise_for
from expunge.recipe import Recipe
from expunge.result import Measurement

GRID: dict[str, tuple[Any, ...]] = {
    "learning_rate": (0.5, 2.0, 8.0),
    "max_grad_norm": (0.1, 1.0),
    "sample_rate": (0.2, 1.0),
    "steps": (50, 200),
}


@dataclass(frozen=True, kw_only=True)
class ByGroup:
    """Accuracy of one model.

    Args:
        mean: over all records. groups: name -> accuracy there, with Wilson's interval; sorted by name.
    """

    mean: Measurement
    groups: Mapping[str, Measurement]

    @property
    def worst(self) -> str:
        """Name of the group with the lowest accuracy; the first of several."""
        return min(self.groups, key=lambda name: self.groups[name].value)

    @property
    def gap(self) -> float:
        """Highest less lowest accuracy of a group, in [0, 1]."""
        values = [m.value for m in self.groups.values()]
        return max(values) - min(values)

    def as_dict(self) -> dict[str, Any]:
        return {
            "mean": self.mean.as_dict(),
            "groups": {name: m.as_dict() for name, m in self.groups.items()},
            "worst": self.worst,
            "gap": self.gap,
        }


def accuracy_by_group(predicted: Array, labels: Array, groups: Array | None = None) -> ByGroup:
    """Accuracy of predictions, in all and for every group.

    Args:
        predicted, labels: (n,) class numbers. groups: (n,) names or numbers; None: the labels, accuracy by class.

    Raises:
        DataError: no records, or arrays of different lengths.
    """
    groups = labels if groups is None else np.asarray(groups)
    if not len(labels) or predicted.shape != labels.shape or groups.shape != labels.shape:
        raise DataError(
            f"predictions {predicted.shape}, labels {labels.shape} and groups {groups.shape} do not match",
            "Give one of each for every record, and at least one record",
        )
    correct = predicted == labels
    found = np.unique(groups)
    return ByGroup(mean=accuracy(correct), groups={str(g): accuracy(correct[groups == g]) for g in found.tolist()})


def unequal_cost(answers: Mapping[str, ByGroup], reference: str) -> list[dict[str, Any]]:
    """One row a model: what it loses against `reference`, on the mean and in each group, largest loss named.

    Args:
        answers: name -> accuracy on the same records. reference: the name of the one that is compared with.

    Returns:
        rows of model, mean, worst_group, worst, gap, cost (of the mean), cost_by_group, hardest_hit (a group's name)
        and hardest_cost; accuracies and costs in [-1, 1], a cost being what was lost.

    Raises:
        UnknownName: no such reference. DataError: the models were not asked about the same groups.
    """
    if reference not in answers:
        raise UnknownName("model", reference, answers)
    base, rows = answers[reference], []
    for name, told in answers.items():
        if {g: m.n for g, m in told.groups.items()} != {g: m.n for g, m in base.groups.items()}:
            raise DataError(f"{name} and {reference} were measured on different groups", "Ask all about one table")
        costs = {g: base.groups[g].value - m.value for g, m in told.groups.items()}
        hardest = max(costs, key=lambda g: costs[g])
        rows.append(
            {
                "model": name,
                "mean": told.mean.value,
                "worst_group": told.worst,
                "worst": told.groups[told.worst].value,
                "gap": told.gap,
                "cost": base.mean.value - told.mean.value,
                "cost_by_group": costs,
                "hardest_hit": hardest,
                "hardest_cost": costs[hardest],
            }
        )
    return rows


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """The best of several private trainings of one ε.

    Args:
        learner: the best, ready to `fit`. trials: settings and accuracy on the validation records of each, best first;
            accuracy None where training diverged.
    """

    learner: DpSgd
    trials: tuple[Mapping[str, Any], ...]


def tuned_dp_sgd(
    recipe: Recipe,
    records: Records,
    validation: Records,
    *,
    epsilon: float,
    delta: float,
    noise_key: str,
    removals: int = 1,
    grid: Mapping[str, Sequence[Any]] | None = None,
    seed: int = 0,
) -> Tuned:
    """Train DP-SGD with every setting of `grid`, each with the least noise for the budget, and keep the best.

    The choice looks at models of these records: it costs privacy that is in no ε here (Papernot & Steinke 2022,
    2110.03620). It serves as a strong opponent; to release a model, tune on public records.

    Args:
        recipe: module and optimiser; learning rate and batch size are set here (L = sample_rate · records).
        validation: other records, by whose accuracy is chosen. removals: how many must be free.
        grid: values of learning_rate, max_grad_norm, sample_rate, steps; `GRID` for those left out.

    Raises:
        RequestError: `grid` has another name or an empty list, or every training diverged.
    """
    values = {**GRID, **(grid or {})}
    if set(values) != set(GRID) or not all(len(v) for v in values.values()):
        raise RequestError(
            f"the grid has {sorted(values)}, expected values for {sorted(GRID)}", "Give at least one value each"
        )
    trials: list[dict[str, Any]] = []
    learners: list[DpSgd] = []
    for setting in product(*(values[name] for name in GRID)):
        told = dict(zip(GRID, setting, strict=True))
        noise = noise_for(epsilon, delta, sample_rate=told["sample_rate"], steps=told["steps"], removed=removals)
        trainer = dataclasses.replace(
            recipe.trainer,
            learning_rate=told["learning_rate"],
            batch_size=max(1, round(told["sample_rate"] * len(records))),
        )
        learner = DpSgd(
            recipe=dataclasses.replace(recipe, trainer=trainer),
            noise_multiplier=noise,
            max_grad_norm=told["max_grad_norm"],
            sample_rate=told["sample_rate"],
            steps=told["steps"],
            epsilon=epsilon,
            delta=delta,
            noise_key=noise_key,
        )
        reached: float | None = None
        with suppress(NonFiniteLoss):  # a learning rate too large for the noise: a trial that failed
            state = learner.fit(records, seed=seed)
            reached = float((learner.predict(state, validation.x) == validation.y).mean())
        trials.append({**told, "noise_multiplier": noise, "accuracy": reached})
        learners.append(learner)
    # Diverged ones come last; of equals the first of the grid.
    order = sorted(range(len(trials)), key=lambda k: (trials[k]["accuracy"] is None, -(trials[k]["accuracy"] or 0.0)))
    if trials[order[0]]["accuracy"] is None:
        raise RequestError("every setting of the grid diverged", "Lower the learning rates")
    return Tuned(learner=learners[order[0]], trials=tuple(trials[k] for k in order))
