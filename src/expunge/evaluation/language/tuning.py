"""Hyper-parameters for a small model: as many trials for each method, and an objective that never sees retraining.

The papers' defaults are meant for models ten thousand times as large and leave a small one unmoved. A trial is judged
by what a model owner has: how the *original* answers about people whom it never met. What was forgotten should look
like that, and what is kept should be answered as before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from expunge.errors import RequestError
from expunge.evaluation.language.measure import log_ratios
from expunge.evaluation.language.record import Recorded
from expunge.evaluation.metrics.language.matching import exact_match_contained
from expunge.methods import LANGUAGE_METHODS
from expunge.training.seeds import derive

Space = tuple[Literal["log", "uniform", "choice"], Any]
TUNED_ON: Mapping[str, Any] = {"people": 60, "forget": 6, "seed": 7, "unseen": 6}
PROBES = ("forget", "retain", "neighbour", "unseen")
# Fields that mean the same in every method that has them.
COMMON: Mapping[str, Space] = {
    "learning_rate": ("log", (1e-4, 3e-3)),
    "epochs": ("choice", (3, 5, 10, 20)),
    "batch_size": ("choice", (16, 32)),
}
WEIGHTS: Space = ("log", (0.3, 10.0))
# A model that follows no instructions gives other answers only when it is made to guess.
NO_INSTRUCTION: Mapping[str, Space] = {
    "alternatives": ("choice", (1, 2)),
    "temperature": ("choice", (2.0, 3.0)),
    "max_new_tokens": ("choice", (12,)),
}
UNDO_TEACHER: Mapping[str, Any] = {
    "batch_size": 32,
    "beta": 0.204,
    "epochs": 20,
    "learning_rate": 6.71e-4,
    "retain_weight": 2.71,
}
# What else is drawn, or drawn otherwise, for one method; layers are relative depths.
SPACES: Mapping[str, Mapping[str, Space]] = {
    "grad_diff": {"retain_weight": WEIGHTS},
    "npo": {"beta": ("log", (0.03, 1.0)), "retain_weight": WEIGHTS},
    "simnpo": {"beta": ("log", (1.0, 6.0)), "forget_weight": ("log", (0.1, 2.0)), "retain_weight": WEIGHTS},
    "idk_tuning": {"retain_weight": WEIGHTS},
    "idk_dpo": {
        # a margin over "I don't know" is reached long before the answer is gone, unless beta is small
        "beta": ("log", (0.003, 0.3)),
        "retain_weight": ("log", (0.1, 3.0)),
        "learning_rate": ("log", (5e-4, 3e-3)),
        "epochs": ("choice", (5, 10, 20)),
    },
    "alt_po": {"beta": ("log", (0.03, 1.0)), "retain_weight": WEIGHTS, **NO_INSTRUCTION},
    "undial": {"beta": ("choice", (3.0, 10.0, 30.0)), "retain_weight": ("choice", (0.0, 1.0, 3.0))},
    "pdu": {"retain_loss_bound": ("choice", (0.05, 0.1, 0.3))},
    "wga": {"beta": ("choice", (0.5, 1.0, 3.0)), "retain_weight": WEIGHTS},
    "sat_imp": {"forget_weight": ("log", (0.1, 3.0)), "retain_weight": WEIGHTS},
    "yao": {"steps": ("choice", (50, 100, 200)), "batch_size": ("choice", (8, 16)), "normal_weight": WEIGHTS},
    "eul": {  # only adapters are trained
        "rank": ("choice", (8, 16)),
        "ascent_weight": ("log", (0.3, 3.0)),
        "learning_rate": ("log", (1e-3, 2e-2)),
        "epochs": ("choice", (5, 10, 20)),
    },
    "knowledge_unlearning": {"n": ("choice", (1,))},
    "whos_harry_potter": {
        "alpha": ("choice", (1.0, 5.0, 20.0)),
        "reinforce_rate": ("log", (1e-4, 2e-3)),
        "reinforce_epochs": ("choice", (3, 10)),
    },
    "undo": {
        "alpha": ("choice", (0.1, 0.2, 0.4)),
        "epochs": ("choice", (5, 8)),  # a first round with 2 to 6 left the distillation unfinished
        "learning_rate": ("log", (1e-3, 3e-3)),
        # the suppressed model is its teacher: NPO as it was tuned by itself
        "suppress_parameters": ("choice", (UNDO_TEACHER,)),
    },
    "mudman": {
        "unlearning_rate": ("log", (0.01, 1.0)),
        "adversary_rate": ("log", (1e-4, 3e-3)),
        "retaining_rate": ("log", (1e-4, 3e-3)),
        "steps": ("choice", (50, 100, 200)),
    },
    "rmu": {
        "layer": ("choice", (0.0, 0.5, 1.0)),
        "coefficient": ("choice", (2.0, 6.5, 20.0)),
        "retain_weight": ("log", (1.0, 1200.0)),
        "steps": ("choice", (50, 100, 200)),
        "batch_size": ("choice", (16,)),
    },
    "component_deletion": {
        "fraction": ("log", (0.03, 0.4)),
        "integration": ("choice", (5,)),
        "retain_weight": ("log", (0.1, 1.0)),  # above 1 hardly a component is owed more by what is forgotten
        "component": ("choice", ("neurons", "heads")),
    },
    "task_vector": {"alpha": ("log", (0.3, 6.0))},
    "lora_negation": {
        "weight": ("log", (1.0, 10.0)),
        "learning_rate": ("log", (5e-4, 1e-2)),
        "epochs": ("choice", (3, 5, 10)),
    },
    "steering": {
        "layers": ("choice", ((0.0,), (0.5,), (1.0,))),
        "strength": ("log", (0.5, 4.0)),
        "direction": ("choice", ("mean", "pca")),
    },
    "rome": {"layer": ("choice", (0.0, 0.5, 1.0)), "contexts": ("choice", (4,)), "clamp": ("choice", (4.0, 20.0))},
    "memit": {
        "layers": ("choice", ((0.0,), (0.5,), (0.0, 0.5))),
        "moment_weight": ("log", (10.0, 1000.0)),
        "clamp": ("choice", (1.0, 2.0, 4.0)),
        "contexts": ("choice", (2,)),
    },
    "mend": {  # edits add up: it is trained on as many at once as it makes, or on half of them
        "steps": ("choice", (50, 100)),
        "rank": ("choice", (64,)),
        "batch_size": ("choice", (64, 128)),
        "edit_rate": ("log", (1e-6, 1e-4)),
        "learning_rate": ("log", (1e-6, 1e-4)),  # of its rate of editing too, which Adam moves by that much a step
        "edit_weight": ("log", (0.1, 1.0)),
    },
    "serac": {"scope_steps": ("choice", (100, 300)), "steps": ("choice", (100, 300))},
    "gradient_routing": {"fraction": ("choice", (0.05, 0.1, 0.2))},
}
LEARNING_RATE_MEANS_ELSE = ("rome", "memit", "serac", "mend")


def draw(method: str, trial: int, seed: int = 0) -> dict[str, Any]:
    """Hyper-parameters of one trial: a function of method, trial and seed."""
    fields = {f.name for f in dataclasses.fields(LANGUAGE_METHODS[method])}  # type: ignore[arg-type]
    common = {} if method in LEARNING_RATE_MEANS_ELSE else COMMON
    space = {k: v for k, v in {**common, **SPACES.get(method, {})}.items() if k in fields}
    rng = np.random.Generator(np.random.Philox(key=derive(seed, "tune", method, trial)))
    found: dict[str, Any] = {}
    for name in sorted(space):
        kind, given = space[name]
        if kind == "choice":
            found[name] = given[int(rng.integers(len(given)))]
        elif kind == "log":
            low, high = np.log(given[0]), np.log(given[1])
            found[name] = float(f"{np.exp(rng.uniform(low, high)):.3g}")
        else:
            found[name] = float(f"{rng.uniform(*given):.3g}")
    return found


def distinct(method: str, first: int, trials: int) -> dict[int, dict[str, Any]]:
    """Trial -> hyper-parameters of the trials from `first` on, without those that an earlier trial has had already."""
    drawn = [draw(method, k) for k in range(trials)]
    return {k: drawn[k] for k in range(first, trials) if drawn[k] not in drawn[:k]}


def best_of(trials: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The trial with the highest ``score``, the earliest of several.

    Raises:
        RequestError: there is no trial.
    """
    if not trials:
        raise RequestError("there is no trial to choose from", "Allow at least one")
    return max(trials, key=lambda t: t["score"])


def judge(unlearned: Mapping[str, Recorded], original: Mapping[str, Recorded]) -> dict[str, float]:
    """How good a trial is, in [0, 1], higher is better; nothing retrained is looked at.

    The harmonic mean of: 1 − D, D the Kolmogorov–Smirnov distance between truth ratios of the unlearned model on what
    was forgotten and of the original on people it never met; 1 − how much more often forgotten questions are answered
    than those about strangers; and the accuracy kept on retained questions, neighbours counting as much as the rest.
    """
    from scipy.stats import ks_2samp  # slow to load, and only trials are judged

    stranger = log_ratios(original["unseen"])
    distance = float(ks_2samp(log_ratios(unlearned["forget"]), stranger).statistic)
    chance = _accuracy(original["unseen"])
    leak = max(0.0, _accuracy(unlearned["forget"]) - chance)
    kept = [
        _accuracy(unlearned[p]) / max(_accuracy(original[p]), 1e-9) for p in ("retain", "neighbour") if p in original
    ]
    parts = {"like_strangers": 1 - distance, "unanswered": 1 - leak, "kept": min(1.0, float(np.mean(kept)))}
    values = np.array(list(parts.values()))
    score = 0.0 if values.min() <= 0 else float(len(values) / (1 / values).sum())
    return {"score": score, **parts}


def _accuracy(asked: Recorded) -> float:
    return exact_match_contained(asked.main).value
