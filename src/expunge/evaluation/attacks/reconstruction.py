"""Reconstruction of a deleted row from the weights before and after: what exact unlearning hands to whoever kept both.

Bertran et al. 2024, Reconstruction Attacks on Machine Unlearning: Simple Models are Vulnerable (arXiv:2405.20272).
A linear model θ (features, outputs) minimises Σ ℓ(xᵀθ, y) + (λ/2)‖θ‖². Let θ₊ be fitted with the row (x, y) and θ₋ without
it. Both are stationary, and the difference of the two conditions is

    Σ_retained [∇ℓ(θ₋) - ∇ℓ(θ₊)] + λ(θ₋ - θ₊) = ∇ℓ(θ₊; x, y) = x (f(xᵀθ₊) - y)ᵀ,

with f the identity (squared loss), the sigmoid or the softmax. Labels cancel on the left, so that an attacker's own rows
of the same population, scaled to the number of retained ones, stand in for the retained rows. The right side has rank
one, and its leading left singular vector is the row. For the squared loss the left side is (XᵀX + λI)(θ₋ - θ₊). A constant
feature, the intercept, gives scale and sign too. The features may be any frozen embedding: then its value is what comes
back.

This differs from the paper in:
    1. Gradients are differenced on the public rows instead of multiplying θ₋ - θ₊ by the Hessian at one of the two: the
       same for the squared loss, and the Hessian's mean between both models for the others.
    2. Of several outputs, the leading singular vector of all is taken.
    3. An embedding is reconstructed and not inverted to pixels.
    4. Cosines are also taken after subtracting the mean public row: of images, the mean image alone has a raw cosine
       near one with everything.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from expunge.errors import DataError, MissingReference
from expunge.evaluation.attacks.outcome import Outcome
from expunge.evaluation.metrics.checks import Floats, floats, same_length
from expunge.evaluation.metrics.intervals import bootstrap_mean, clopper_pearson
from expunge.result import Measurement

Link = Literal["identity", "sigmoid", "softmax"]
LINKS: tuple[Link, ...] = ("identity", "sigmoid", "softmax")

WEIGHTS = ("deletions", "features", "outputs")
ROWS = ("rows", "features")
RECOVERED = 0.9


def deleted_gradient(
    before: Any,
    after: Any,
    public: Any,
    *,
    rows: int,
    regularization: float = 0.0,
    link: Link = "identity",
    intercept: bool = True,
    penalized_intercept: bool = False,
) -> Floats:
    """What the attacker computes: an estimate of the loss gradient of each deleted row, ``(deletions, features, outputs)``.

    Args:
        before: weights θ₊ ``(features, outputs)``, or of each deletion ``(deletions, features, outputs)``; the row of the
            intercept comes last. after: weights θ₋ ``(deletions, features, outputs)``.
        public: ``(rows, features)`` of the attacker, without the constant of the intercept.
        rows: how many rows the model after the deletion was fitted to. regularization: λ ≥ 0, of the sum of losses.
        link: f: ``identity`` for the loss (xᵀθ - y)²/2, ``sigmoid`` or ``softmax`` for cross-entropy.
        intercept: whether the last row of the weights is one. penalized_intercept: whether λ applies to it.

    Raises:
        MissingReference: the model before the deletion, or public rows, are not there. DataError: shapes do not fit,
            NaN, an unknown link, `rows` below 1 or λ negative.
    """
    if before is None:
        raise MissingReference(
            "reconstruction",
            "the model before the deletion",
            "Nothing to do where every copy of it was destroyed: that is what stops this attack; otherwise give the copy",
        )
    if public is None:
        raise MissingReference(
            "reconstruction", "public rows of the same population", "Hold some rows out for the attacker"
        )
    if link not in LINKS:
        raise DataError(f"there is no link {link!r}", f"Choose one of {', '.join(LINKS)}")
    if rows < 1 or not regularization >= 0:
        raise DataError(f"{rows} rows and a regularization of {regularization}", "Give those of the fit under attack")
    new = floats("weights after", after, WEIGHTS)
    shape = np.ndim(before)
    old = floats("weights before", before, WEIGHTS[1:] if shape == 2 else WEIGHTS)
    old = np.broadcast_to(old, new.shape) if old.shape[-2:] == new.shape[-2:] and len(old) in _lengths(old, new) else old
    if old.shape != new.shape:
        raise DataError(
            f"weights before have shape {old.shape} and after {new.shape}", "Give the two models of each deletion"
        )
    known = floats("public", public, ROWS)
    design = np.hstack([known, np.ones((len(known), 1))]) if intercept else known
    if design.shape[1] != new.shape[1]:
        raise DataError(
            f"public rows have {known.shape[1]} features and the weights {new.shape[1] - intercept}",
            "Give the features that the model reads, without the constant",
        )
    penalty = np.full((new.shape[1], 1), float(regularization))
    if intercept and not penalized_intercept:
        penalty[-1] = 0.0
    gradients = [
        design.T @ (_link(design @ one, link) - _link(design @ two, link)) * (rows / len(design)) + penalty * (one - two)
        for one, two in zip(new, old, strict=True)
    ]
    return np.stack(gradients)


def reconstruct(
    before: Any,
    after: Any,
    public: Any,
    *,
    rows: int,
    regularization: float = 0.0,
    link: Link = "identity",
    intercept: bool = True,
    penalized_intercept: bool = False,
) -> Floats:
    """The deleted rows ``(deletions, features)`` as the attacker sees them; zeros where the two models are the same.

    With an intercept, in units of the features. Without, of length one, the sign being that of the mean public row.

    Args:
        before, after, public, rows, regularization, link, intercept, penalized_intercept: see `deleted_gradient`.

    Raises:
        MissingReference, DataError: as `deleted_gradient`.
    """
    gradients = deleted_gradient(
        before,
        after,
        public,
        rows=rows,
        regularization=regularization,
        link=link,
        intercept=intercept,
        penalized_intercept=penalized_intercept,
    )
    left, size, _ = np.linalg.svd(gradients, full_matrices=False)
    vectors = left[:, :, 0] * (size[:, :1] > 0)
    if not intercept:
        sign = np.where(vectors @ np.mean(public, axis=0) < 0, -1.0, 1.0)
        return np.asarray(vectors * sign[:, None], dtype=np.float64)
    constant = vectors[:, -1:]
    # A constant that came out as nearly nothing gives a direction and no scale.
    scale = np.where(np.abs(constant) < 1e-9, 1.0, constant)
    return np.asarray(vectors[:, :-1] / scale, dtype=np.float64)


def cosines(one: Any, two: Any) -> Floats:
    """Cosine of each row of one with the same row of the other, ``(rows,)`` in [-1, 1]; 0 where a row is zero.

    Raises:
        DataError: empty, NaN, other shapes.
    """
    a, b = floats("rows", one, ROWS), floats("other rows", two, ROWS)
    if a.shape != b.shape:
        raise DataError(f"rows have shape {a.shape} and {b.shape}", "Compare row by row")
    length = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    inner = np.einsum("ij,ij->i", a, b)
    return np.asarray(np.clip(np.divide(inner, length, out=np.zeros_like(inner), where=length > 0), -1.0, 1.0))


def largest_change(before: Any, after: Any, public: Any, *, link: Link = "identity", intercept: bool = True) -> Floats:
    """The paper's baseline MaxDiff: of each deletion the public row whose prediction moved most, ``(deletions, features)``.

    Args:
        before, after, public, link, intercept: see `deleted_gradient`.
    """
    new, known = floats("weights after", after, WEIGHTS), floats("public", public, ROWS)
    old = np.broadcast_to(np.asarray(before, dtype=np.float64), new.shape)
    design = np.hstack([known, np.ones((len(known), 1))]) if intercept else known
    moved = [
        np.abs(_link(design @ two, link) - _link(design @ one, link)).sum(axis=1).argmax()
        for one, two in zip(new, old, strict=True)
    ]
    return known[np.array(moved)]


def reconstruction(
    before: Any,
    after: Any,
    deleted: Any,
    public: Any,
    *,
    rows: int,
    regularization: float = 0.0,
    link: Link = "identity",
    intercept: bool = True,
    penalized_intercept: bool = False,
    seed: int = 0,
    floor: float | None = None,
    ceiling: float | None = None,
) -> Outcome:
    """How much of the deleted rows two models give away. Lower is better; the baselines say what needs no model at all.

    Args:
        before, after, public, rows, regularization, link, intercept, penalized_intercept: see `deleted_gradient`.
        deleted: ``(deletions, features)``, the truth, one row for each deletion.
        seed: of the random public rows and of the bootstrap over deletions.
        floor: the same cosine where the models were not told of the row. ceiling: without any defence.

    Returns:
        ``reconstruction_cosine``: mean cosine of reconstructed and deleted rows, both less the mean public row;
        ``reconstruction_cosine_largest_change``, ``_nearest_row`` (the public row that is nearest to the truth, which no
        attacker can know) and ``_random_row``: the same of these public rows;
        ``reconstruction_raw_cosine`` and ``reconstruction_raw_cosine_mean_row``: without subtracting;
        ``reconstruction_share_recovered``: share of deletions whose first cosine is at least 0.9.

    Raises:
        MissingReference: the model before the deletion, or public rows, are not there. DataError: as
            `deleted_gradient`; fewer than two deletions.
    """
    found = reconstruct(
        before,
        after,
        public,
        rows=rows,
        regularization=regularization,
        link=link,
        intercept=intercept,
        penalized_intercept=penalized_intercept,
    )
    truth, known = floats("deleted", deleted, ROWS, least=2), floats("public", public, ROWS)
    same_length("features", deleted=truth, public=known)
    same_length("deletions", deleted=truth.T, reconstructed=found.T)
    mean = known.mean(axis=0)
    centred, others = truth - mean, known - mean
    guesses = np.random.default_rng(seed).integers(len(known), size=len(truth))
    changed = largest_change(before, after, public, link=link, intercept=intercept)
    # A direction without a scale has no place to subtract a mean from: it is put where it fits the mean row best.
    placed = found if intercept else found * (found @ mean)[:, None]
    subtracted = "mean cosine between deleted rows and {}, both less the mean public row"
    values = {
        "cosine": (cosines(placed - mean * placed.any(axis=1, keepdims=True), centred), "reconstructed ones"),
        "cosine_largest_change": (cosines(changed - mean, centred), "the public rows whose prediction moved most"),
        "cosine_nearest_row": (_nearest(centred, others), "the public rows that are most like them"),
        "cosine_random_row": (cosines(others[guesses], centred), "random public rows"),
    }
    result: Outcome = {
        f"reconstruction_{key}": _mean(f"reconstruction_{key}", each, seed, subtracted.format(what))
        for key, (each, what) in values.items()
    }
    raw = {"raw_cosine": (found, "reconstructed ones"), "raw_cosine_mean_row": (np.broadcast_to(mean, truth.shape), "the mean public row")}
    for key, (guess, what) in raw.items():
        name = f"reconstruction_{key}"
        result[name] = _mean(name, cosines(guess, truth), seed, f"mean cosine between deleted rows and {what}")
    result["reconstruction_share_recovered"] = _share(values["cosine"][0])
    first = result["reconstruction_cosine"]
    result["reconstruction_cosine"] = _with_references(first, floor, ceiling)
    return result
