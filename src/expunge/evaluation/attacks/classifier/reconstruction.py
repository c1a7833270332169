"""Deleted rows from a linear model's weights before and after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from expunge.data.records import Records
from expunge.errors import NoAccess, RequestError
from expunge.evaluation.attacks.classifier.contract import ClassifierAttack, ClassifierScene, ClassifierTarget
from expunge.evaluation.attacks.language.contract import Access, Trial
from expunge.evaluation.attacks.reconstruction import LinearFit, deleted_gradients
from expunge.evaluation.metrics.checks import Floats
from expunge.models.classifier import Classifier


@dataclass(frozen=True, kw_only=True)
class Reconstruction(ClassifierAttack):
    """Found is how much of a deleted row lies in the directions that two models give away.

    The difference of a linear model's gradients before and after is Σ x (f(xᵀθ₊) - y)ᵀ over the deleted rows, the
    constant of the intercept among their features. Its leading left singular vectors span them: of one row the row
    itself, of several at most as many directions as the model has outputs. Rows and directions are taken at right
    angles to the mean public row, which everybody knows. `shown` has the same length of public rows, which is what
    chance gives. Exact forgetting gives away most; who destroys the model before gives away nothing. Paper: Bertran
    et al. 2024 (2405.20272).

    Args:
        regularization: λ of the fit, beside the sum of losses. directions: at most so many; 0: one a deleted row.
    """

    name: ClassVar[str] = "reconstruction"
    summary: ClassVar[str] = "gives back deleted rows from a linear model's weights before and after"
    paper: ClassVar[str] = "arXiv:2405.20272"
    access: ClassVar[Access] = "pair"
    unit: ClassVar[str] = "pairs of models"
    needs: ClassVar[tuple[str, ...]] = ("holdout", "retain")
    unscored: ClassVar[str] = (
        "retraining is no floor here: the model before and an exactly retrained one give away most, so that what was "
        "found stands beside theirs"
    )

    regularization: float = 0.0
    directions: int = 0

    def __post_init__(self) -> None:
        if not self.regularization >= 0 or self.directions < 0:
            raise RequestError("regularization or directions is negative", "Give 0 or more")

    def attempt(self, target: ClassifierTarget, scene: ClassifierScene, seed: int) -> Trial:
        assert target.before is not None
        before, after = linear_weights(target.before, self.name), linear_weights(target.model, self.name)
        public, deleted = _rows(scene.holdout), _rows(scene.forget)
        fit = LinearFit(rows=len(scene.retain), regularization=self.regularization, link="softmax")
        gradient = deleted_gradients(before, after[None], public, fit)[0]
        left, size, _ = np.linalg.svd(gradient, full_matrices=False)
        count = min(self.directions or len(deleted), int((size > 1e-9 * size.max()).sum()))
        mean = fit.design(public.mean(axis=0, keepdims=True))[0]
        span = _basis(_beside(left[:, :count].T, mean))
        found, chance = (_length(_beside(fit.design(rows), mean), span) for rows in (deleted, public))
        return self.trial(scene.forget, [(1, found)], public_rows=float(chance.mean()), directions=span.shape[1])


def linear_weights(model: Classifier, attack: str) -> Floats:
    """θ ``(features + 1, classes)``, the intercept last.

    Raises:
        NoAccess: the model is not linear in its features.
    """
    layers = [m for m in model.module.modules() if next(iter(m.parameters(recurse=False)), None) is not None]
    linear = layers[0] if len(layers) == 1 else None
    if not isinstance(linear, nn.Linear) or linear.bias is None:
        raise NoAccess(
            f"{attack} reads the weights of a linear model with an intercept, and this one is not linear",
            "What somebody finds in its weights is not known",
        )
    with torch.no_grad():
        return torch.cat([linear.weight.T, linear.bias[None]]).double().numpy()


def _rows(records: Records) -> Floats:
    return np.asarray(records.x, dtype=np.float64).reshape(len(records), -1)


def _beside(rows: Floats, mean: Floats) -> Floats:
    """Rows less their part along `mean`."""
    unit = mean / np.linalg.norm(mean)
    return np.asarray(rows - np.outer(rows @ unit, unit))


def _basis(rows: Floats) -> Floats:
    """Orthonormal columns that span some rows, ``(features, directions)``; none where there is no row but zeros."""
    _, size, right = np.linalg.svd(rows, full_matrices=False)
    return np.asarray(right[size > 1e-9].T)


def _length(rows: Floats, span: Floats) -> Floats:
    """Share of each row's length that lies in the span of orthonormal columns; in [0, 1], 0 of a row of zeros."""
    whole = np.linalg.norm(rows, axis=1)
    inside = np.linalg.norm(rows @ span, axis=1)
    return np.asarray(np.clip(np.divide(inside, whole, out=np.zeros_like(whole), where=whole > 0), 0.0, 1.0))
