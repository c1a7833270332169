"""Reconstruction of a deleted row from the weights before and after: what exact unlearning hands to whoever kept both.

Bertran et al. 2024, Reconstruction Attacks on Machine Unlearning: Simple Models are Vulnerable (arXiv:2405.20272).
A linear model θ (features, outputs) minimises Σ ℓ(xᵀθ, y) + (λ/2)‖θ‖². Let θ₊ be fitted with the row (x, y) and θ₋
without it. Both are stationary, and the difference of the two conditions is

    Σ_retained [∇ℓ(θ₋) - ∇ℓ(θ₊)] + λ(θ₋ - θ₊) = ∇ℓ(θ₊; x, y) = x (f(xᵀθ₊) - y)ᵀ,

with f the identity (squared loss), the sigmoid or the softmax. Labels cancel on the left, so that an attacker's own
rows of the same population, scaled to the number of retained ones, stand in for the retained rows. The right side has
rank one, and its leading left singular vector is the row. For the squared loss the left side is (XᵀX + λI)(θ₋ - θ₊).
A constant feature, the intercept, gives scale and sign too. The features may be any frozen embedding: then its value is
what comes back.

This differs from the paper in:
    1. Gradients are differenced on the public rows instead of multiplying θ₋ - θ₊ by the Hessian at one of the two: the
       same for the squared loss, and the Hessian's mean between both models for the others.
    2. Of several outputs, the leading singular vector of all is taken.
    3. An embedding is reconstructed and not inverted to pixels.
    4. Cosines are taken after subtracting the mean public row too: of images, the mean image alone has a raw cosine
       near one with everything.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np

from expunge.errors import DataError, MissingReference
from expunge.evaluation.attacks.outcome import Outcome
from expunge.evaluation.metrics.checks import Floats, floats
from expunge.evaluation.metrics.intervals import bootstrap_mean, clopper_pearson
from expunge.result import Measurement

Link = Literal["identity", "sigmoid", "softmax"]
LINKS: tuple[Link, ...] = ("identity", "sigmoid", "softmax")

WEIGHTS = ("deletions", "features", "outputs")
ROWS = ("rows", "features")
RECOVERED = 0.9


@dataclass(frozen=True, kw_only=True)
class LinearFit:
    """What the attacker knows of how the weights were fitted.

    Args:
        rows: how many rows the model after the deletion was fitted to; a guess within a tenth will do.
        regularization: λ ≥ 0, beside the sum (not the mean) of losses. intercept: the last row of the weights is one.
        link: f: ``identity`` for the loss (xᵀθ - y)²/2, ``sigmoid`` (one output) or ``softmax`` for cross-entropy.
        penalized_intercept: whether λ applies to the intercept.

    Raises:
        DataError: rows below 1, λ negative, an unknown link.
    """

    rows: int
    regularization: float = 0.0
    link: Link = "identity"
    intercept: bool = True
    penalized_intercept: bool = False

    def __post_init__(self) -> None:
        if self.link not in LINKS:
            raise DataError(f"there is no link {self.link!r}", f"Choose one of {', '.join(LINKS)}")
        if self.rows < 1 or not self.regularization >= 0:
            raise DataError(
                f"{self.rows} rows and a regularization of {self.regularization}", "Give those of the fit under attack"
            )

    def outputs(self, design: Floats, weights: Floats) -> Floats:
        """f(xᵀθ), ``(rows, outputs)``."""
        values = design @ weights
        if self.link == "identity":
            return values
        if self.link == "sigmoid":
            return np.asarray(0.5 * (1.0 + np.tanh(values / 2)))
        odds = np.exp(values - values.max(axis=1, keepdims=True))
        return np.asarray(odds / odds.sum(axis=1, keepdims=True))

    def design(self, rows: Floats) -> Floats:
        """`rows` with the constant of the intercept, if there is one."""
        return np.hstack([rows, np.ones((len(rows), 1))]) if self.intercept else rows


def deleted_gradients(before: Any, after: Any, public: Any, fit: LinearFit) -> Floats:
    """The left side of the equation: estimated gradients of the deleted rows, ``(deletions, features, outputs)``.

    Args:
        before: θ₊ ``(features, outputs)``, or of each deletion ``(deletions, features, outputs)``, intercept last.
        after: θ₋ ``(deletions, features, outputs)``. fit: what the attacker knows of the fit.
        public: ``(rows, features)`` of the attacker, without the constant of the intercept.

    Raises:
        MissingReference: the model before the deletion, or public rows, are not there. DataError: shapes do not fit,
            NaN.
    """
    old, new, known = _models(before, after, public, fit)
    design = fit.design(known)
    penalty = np.full((new.shape[1], 1), float(fit.regularization))
    if fit.intercept and not fit.penalized_intercept:
        penalty[-1] = 0.0
    scale = fit.rows / len(design)
    return np.stack(
        [
            scale * design.T @ (fit.outputs(design, two) - fit.outputs(design, one)) + penalty * (two - one)
            for one, two in zip(old, new, strict=True)
        ]
    )


def reconstruct(before: Any, after: Any, public: Any, fit: LinearFit) -> Floats:
    """The deleted rows ``(deletions, features)`` as the attacker sees them; zeros where the two models are the same.

    With an intercept, in units of the features. Without, of length one, the sign being that of the mean public row.

    Args:
        before, after, public, fit: see `deleted_gradients`.

    Raises:
        MissingReference, DataError: as `deleted_gradients`.
    """
    gradients = deleted_gradients(before, after, public, fit)
    left, size, _ = np.linalg.svd(gradients, full_matrices=False)
    vectors = left[:, :, 0] * (size[:, :1] > 0)
    if not fit.intercept:
        return np.asarray(vectors * np.where(vectors @ np.mean(public, axis=0) < 0, -1.0, 1.0)[:, None])
    constant = vectors[:, -1:]
    # A constant that came out as nearly nothing leaves a direction without a scale.
    return np.asarray(vectors[:, :-1] / np.where(np.abs(constant) < 1e-9, 1.0, constant))


def cosines(one: Any, two: Any) -> Floats:
    """Cosine of each row of one with the same row of the other, ``(rows,)`` in [-1, 1]; 0 where a row is zero.

    Raises:
        DataError: empty, NaN, other shapes.
    """
    a, b = floats("rows", one, ROWS), floats("other rows", two, ROWS)
    if a.shape != b.shape:
        raise DataError(f"rows have the shapes {a.shape} and {b.shape}", "Compare row by row")
    length = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    inner = np.einsum("ij,ij->i", a, b)
    return np.asarray(np.clip(np.divide(inner, length, out=np.zeros_like(inner), where=length > 0), -1.0, 1.0))


def largest_change(before: Any, after: Any, public: Any, fit: LinearFit) -> Floats:
    """The paper's baseline MaxDiff: for each deletion the public row whose prediction moved most.

    Args:
        before, after, public, fit: see `deleted_gradients`.

    Returns:
        ``(deletions, features)``.
    """
    old, new, known = _models(before, after, public, fit)
    design = fit.design(known)
    moved = [
        np.abs(fit.outputs(design, two) - fit.outputs(design, one)).sum(axis=1).argmax()
        for one, two in zip(old, new, strict=True)
    ]
    return np.asarray(known[np.array(moved)])


def reconstruction(
    before: Any,
    after: Any,
    deleted: Any,
    public: Any,
    *,
    fit: LinearFit,
    seed: int = 0,
    floor: float | None = None,
    ceiling: float | None = None,
) -> Outcome:
    """How much of the deleted rows two models give away. Lower is better; the baselines need no second model.

    Args:
        before, after, public, fit: see `deleted_gradients`.
        deleted: ``(deletions, features)``, the truth, one row for each deletion.
        seed: of the random public rows and of the bootstrap over deletions.
        floor: the cosine of the pair of models that forgot another row. ceiling: without any defence.

    Returns:
        ``reconstruction_cosine``: mean cosine of reconstructed and deleted rows, both less the mean public row;
        ``reconstruction_cosine_largest_change``, ``_nearest_row`` (the public row that is most like the truth, which no
        attacker can know) and ``_random_row``: the same of these public rows;
        ``reconstruction_raw_cosine`` and ``reconstruction_raw_cosine_mean_row``: without subtracting;
        ``reconstruction_share_recovered``: share of deletions whose first cosine is at least 0.9.

    Raises:
        MissingReference: the model before the deletion, or public rows, are not there. DataError: as
            `deleted_gradients`; fewer than two deletions.
    """
    found = reconstruct(before, after, public, fit)
    truth, known = floats("deleted", deleted, ROWS, least=2), floats("public", public, ROWS)
    if truth.shape != found.shape:
        raise DataError(
            f"deleted rows have shape {truth.shape} and the models tell {found.shape}", "Give one row a deletion"
        )
    mean = known.mean(axis=0)
    centred, others = truth - mean, known - mean
    told = found.any(axis=1, keepdims=True)
    # A direction without a scale has no place to subtract a mean from: it goes where it fits the mean row best.
    placed = found if fit.intercept else found * (found @ mean)[:, None]
    guess = np.random.default_rng(seed).integers(len(known), size=len(truth))
    compared = {
        "cosine": (cosines((placed - mean) * told, centred), "reconstructed ones"),
        "cosine_largest_change": (
            cosines(largest_change(before, after, public, fit) - mean, centred),
            "the public rows whose prediction moved most",
        ),
        "cosine_nearest_row": (_nearest(centred, others), "the public rows that are most like them"),
        "cosine_random_row": (cosines(others[guess], centred), "random public rows"),
        "raw_cosine": (cosines(found, truth), "reconstructed ones"),
        "raw_cosine_mean_row": (cosines(np.broadcast_to(mean, truth.shape), truth), "the mean public row"),
    }
    result: Outcome = {}
    for key, (values, what) in compared.items():
        name, how = f"reconstruction_{key}", "" if key.startswith("raw") else ", both less the mean public row"
        low, high = bootstrap_mean(values, seed=seed)
        result[name] = Measurement(
            name=name,
            value=float(values.mean()),
            n=len(values),
            low=low,
            high=high,
            direction="lower",
            unit_of_n="deletions",
            definition=f"Mean cosine between deleted rows and {what}{how}.",
            detail={"median": float(np.median(values)), "public_rows": len(known)},
        )
    first = cast(Measurement, result["reconstruction_cosine"])
    result["reconstruction_cosine"] = replace(first, floor=floor, ceiling=ceiling)
    recovered = int((compared["cosine"][0] >= RECOVERED).sum())
    low, high = clopper_pearson(recovered, len(truth))
    result["reconstruction_share_recovered"] = Measurement(
        name="reconstruction_share_recovered",
        value=recovered / len(truth),
        n=len(truth),
        low=low,
        high=high,
        direction="lower",
        unit_of_n="deletions",
        definition=f"Share of deletions whose row comes back with a cosine of at least {RECOVERED}.",
        detail={"interval": "Clopper-Pearson"},
    )
    return result


def _nearest(truth: Floats, known: Floats) -> Floats:
    """Largest cosine of each row with any of `known`, ``(rows,)``."""
    sizes = np.linalg.norm(truth, axis=1)[:, None] * np.linalg.norm(known, axis=1)
    inner = truth @ known.T
    nearest = np.divide(inner, sizes, out=np.zeros_like(inner), where=sizes > 0).max(axis=1)
    return np.asarray(np.clip(nearest, -1.0, 1.0))


def _models(before: Any, after: Any, public: Any, fit: LinearFit) -> tuple[Floats, Floats, Floats]:
    """Both models of each deletion and the public rows, checked."""
    if before is None:
        raise MissingReference(
            "reconstruction",
            "the model before the deletion",
            "Where every copy of it was destroyed the attack has no way in; where one is left, give its weights",
        )
    if public is None:
        raise MissingReference("reconstruction", "public rows of the same population", "Hold rows out for the attacker")
    new = floats("weights after", after, WEIGHTS)
    old = floats("weights before", before, WEIGHTS if np.ndim(before) == 3 else WEIGHTS[1:])
    if old.ndim == 2 and old.shape == new.shape[1:]:
        old = np.broadcast_to(old, new.shape)
    known = floats("public", public, ROWS)
    if old.shape != new.shape or known.shape[1] + fit.intercept != new.shape[1]:
        raise DataError(
            f"weights have the shapes {old.shape} and {new.shape} and a public row {known.shape[1]} features"
            f"{', and there is an intercept' if fit.intercept else ''}",
            "Give both models of each deletion, (features, outputs) with the intercept last, and what they read",
        )
    return old, new, known
