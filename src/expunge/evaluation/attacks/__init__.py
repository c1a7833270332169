"""Attacks on recorded outputs: explicit table, name -> entry. An attack returns several measurements, by name."""

from __future__ import annotations

from typing import Any

import numpy as np

from expunge.evaluation.attacks.adaptive_deletion import adaptive_deletion
from expunge.evaluation.attacks.membership import population_loss, rmia, ulira
from expunge.evaluation.attacks.reconstruction import LinearFit, reconstruction
from expunge.evaluation.metrics.entry import Entry

__all__ = ["ATTACKS"]


def _worlds(rng: np.random.Generator) -> dict[str, Any]:
    """Eight models that forgot forty records a little badly, and eight that never saw them."""
    centre = rng.normal(2.0, 1.5, 40)
    margins = rng.normal(centre, 1.0, (16, 40))
    margins[:8] += 0.5
    return {"margins": margins, "member": np.repeat([[True], [False]], 8, axis=0) & np.ones((1, 40), dtype=bool)}


def _ulira_example(rng: np.random.Generator) -> dict[str, Any]:
    return {**_worlds(rng), "exposure": rng.random(40)}


def _rmia_example(rng: np.random.Generator) -> dict[str, Any]:
    worlds = _worlds(rng)
    return {
        "target": worlds["margins"],
        "member": worlds["member"],
        "population": rng.normal(2.0, 1.5, (16, 50)),
        "reference_target": rng.normal(2.0, 1.5, (4, 40)),
        "reference_population": rng.normal(2.0, 1.5, (4, 50)),
    }


def _population_loss_example(rng: np.random.Generator) -> dict[str, Any]:
    return {"margins": _worlds(rng)["margins"][:8], "others": rng.normal(2.0, 1.5, (8, 60))}


def _reconstruction_example(rng: np.random.Generator) -> dict[str, Any]:
    """Least squares on forty rows, refitted without each of five."""
    rows, public = rng.normal(1.0, 1.0, (40, 3)), rng.normal(1.0, 1.0, (60, 3))
    design = np.hstack([rows, np.ones((40, 1))])
    target = design @ rng.normal(size=(4, 1)) + rng.normal(size=(40, 1))
    after = [np.linalg.lstsq(np.delete(design, k, 0), np.delete(target, k, 0), rcond=None)[0] for k in range(5)]
    return {
        "before": np.linalg.lstsq(design, target, rcond=None)[0],
        "after": np.stack(after),
        "deleted": rows[:5],
        "public": public,
        "fit": LinearFit(rows=39),
    }


def _adaptive_deletion_example(rng: np.random.Generator) -> dict[str, Any]:
    return {"attacked": rng.normal(0.8, 0.02, 40), "control": rng.normal(0.82, 0.02, 40)}


ATTACKS: dict[str, Entry] = {
    "ulira": Entry(
        function=ulira,
        summary="tells forgotten from never seen by a likelihood ratio per record",
        paper="arXiv:2403.01218",
        direction="lower",
        needs=("margins", "member"),
        example=_ulira_example,
    ),
    "rmia": Entry(
        function=rmia,
        summary="tells them by the record's probability against that of a population",
        paper="arXiv:2312.03262",
        direction="lower",
        needs=("target", "member", "population", "reference_target", "reference_population"),
        example=_rmia_example,
    ),
    "population_loss": Entry(
        function=population_loss,
        summary="tells the records from unseen ones by one threshold on the loss",
        paper="arXiv:1709.01604",
        direction="match_floor",
        needs=("margins", "others"),
        example=_population_loss_example,
    ),
    "reconstruction": Entry(
        function=reconstruction,
        summary="gives back the deleted row from the weights before and after",
        paper="arXiv:2405.20272",
        direction="lower",
        needs=("weights_before", "weights_after", "deleted_rows", "public_rows"),
        example=_reconstruction_example,
    ),
    "adaptive_deletion": Entry(
        function=adaptive_deletion,
        summary="asks for deletions by looking at predictions, and tells the outcome from retraining",
        paper="arXiv:2106.04378",
        direction="lower",
        needs=("statistic_after_adaptive_deletions", "control_statistic"),
        example=_adaptive_deletion_example,
    ),
}
