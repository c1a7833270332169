"""Small trained models on the digits that come with scikit-learn, made once a session."""

from __future__ import annotations

import sys

import pytest
import torch

from expunge.data.digits import load_digits
from expunge.data.records import Records
from expunge.data.splits import split
from expunge.models.classifier import Classifier
from expunge.problem import Problem, TrainingLog
from expunge.recipe import Recipe, Trainer
from expunge.training.fit import fit

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits() -> dict[str, Records]:
    """1,797 digits, ids "digit-0000" …, x (n, 1, 8, 8) float32 in [0, 1]: ``train`` (.7) and ``test`` (.3)."""
    return split(load_digits(), {"train": 0.7, "test": 0.3})


@pytest.fixture(scope="session")
def cnn_recipe() -> Recipe:
    return Recipe(
        factory="expunge.models.architectures:small_cnn",
        kwargs={"features": [1, 8, 8], "classes": 10},
        trainer=Trainer(epochs=12, batch_size=32, checkpoint_every=6),
    )


@pytest.fixture(scope="session")
def mlp_recipe() -> Recipe:
    return Recipe(
        factory="expunge.models.architectures:mlp",
        kwargs={"features": 64, "classes": 10},
        trainer=Trainer(epochs=10, checkpoint_every=5),
    )


@pytest.fixture(scope="session")
def cnn_problem(digits: dict[str, Records], cnn_recipe: Recipe) -> Problem:
    """A trained convolutional network that must forget 100 of its records."""
    return problem_of(digits, cnn_recipe)


@pytest.fixture(scope="session")
def mlp_problem(digits: dict[str, Records], mlp_recipe: Recipe) -> Problem:
    """A trained perceptron that must forget 100 of its records."""
    return problem_of(digits, mlp_recipe)


def problem_of(digits: dict[str, Records], recipe: Recipe) -> Problem:
    fitted = fit(recipe, digits["train"], [0])
    checkpoints = {epoch: Classifier(stack.module(0)) for epoch, stack in fitted.checkpoints.items()}
    log = TrainingLog(
        seed=0,
        epochs=recipe.trainer.epochs,
        checkpoints=checkpoints,
        stored_bytes=sum(stack.bytes_per_model for stack in fitted.checkpoints.values()),
    )
    return Problem.of(
        Classifier(fitted.stack.module(0)),
        digits["train"],
        forget=digits["train"].ids[:100].tolist(),
        test=digits["test"],
        recipe=recipe,
        log=log,
    )


@pytest.fixture(autouse=True)
def output_stays_open() -> None:
    """A server that sets up logging closes every handler, and absl's closes what was standard error at its import.

    Under capture that is pytest's own file, and every later test would fail.
    """
    absl = sys.modules.get("absl.logging")
    handler = absl.get_absl_handler() if absl is not None else None
    if handler is not None:
        handler.python_handler.stream = sys.__stderr__
