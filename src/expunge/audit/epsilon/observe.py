"""What an auditor sees of a released model, as numbers: at each access level what it adds to the one before.

- ``labels``: the answers alone: whether a probe's class is right, or the predicted value. A black box.
- ``scores``: class scores as well: the log-odds of each probe's own label. (A regression's answers are its scores.)
- ``weights``: what is published of the model as well, as one vector: the parts whose names begin with ``published.``,
  or every part of a learner that marks none. More than 256 numbers are folded to 256 by random signs.

Secret parts of a certified learner are never looked at: a certificate promises nothing to whoever has them.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from expunge.data.records import Records
from expunge.data.splits import unit_hash
from expunge.errors import ModelError, UnknownName
from expunge.evaluation.metrics.scores import logit_margin
from expunge.methods.learner import Learner, State

Floats = npt.NDArray[np.float64]
Access = Literal["labels", "scores", "weights"]

FOLDED = 256
HUGE = 700.0  # stands for an infinite score: as large a logarithm of a probability as a float can tell from 0
DIGITS = 6


def check_access(access: str) -> None:
    """Raise `UnknownName` for a level that is not there."""
    if access not in get_args(Access):
        raise UnknownName("access level", access, get_args(Access))


def per_record(learner: Learner, state: State, probes: Records, access: Access) -> Floats:
    """(probes,) how well the model answers each, as far as `access` shows it; higher is better for its own label.

    Classification: log-odds of the label in nats, or 0 and 1. Regression: the prediction, its sign turned where the
    label lies below the mean of the probes' labels.
    """
    if learner.task == "regression":
        predicted = np.asarray(learner.predict(state, probes.x), dtype=np.float64)
        return predicted * np.where(probes.y < probes.y.mean(), -1.0, 1.0)
    if access == "labels":
        return np.asarray(learner.predict(state, probes.x) == probes.y, dtype=np.float64)
    scores = np.asarray(learner.scores(state, probes.x), dtype=np.float64)
    if np.isnan(scores).any():
        raise ModelError(f"{learner.name} answers with NaN", "Find the hyper-parameters with which it diverges")
    return logit_margin(np.clip(scores, -HUGE, HUGE), probes.y)


def per_model(learner: Learner, state: State, probes: Records, access: Access, of_deleted: int) -> Floats:
    """(statistics,) of one model: answers to every probe, their mean over the first `of_deleted`, and its weights.

    Of a learner that is exact in real arithmetic only, 6 digits are seen: its claim allows for rounding.
    """
    answers = per_record(learner, state, probes, access)
    if learner.equality == "real_arithmetic":
        answers = rounded(answers)
    seen = [answers, [answers[:of_deleted].mean()], [answers[of_deleted:].mean() if len(answers) > of_deleted else 0.0]]
    if access == "weights":
        seen.append(published(learner, state))
    return np.concatenate([np.asarray(part, dtype=np.float64) for part in seen])


def published(learner: Learner, state: State) -> Floats:
    """(at most 256,) the numbers of what is published.

    Raises:
        ModelError: a certified learner publishes no part by name.
    """
    names = sorted(name for name in state.parts if name.startswith("published."))
    if not names:
        if any(name.startswith("secret.") for name in state.parts):
            raise ModelError(f"{learner.name} has secret parts and no published ones", "Audit its scores or its labels")
        names = sorted(state.parts)
    arrays = [np.asarray(array, dtype=np.float64).ravel() for n in names for _, array in sorted(state.parts[n].items())]
    if learner.equality == "real_arithmetic":
        arrays = [rounded(array) for array in arrays]
    flat = np.concatenate(arrays) if arrays else np.zeros(0)
    flat = np.nan_to_num(flat, nan=0.0, posinf=HUGE, neginf=-HUGE)
    if len(flat) <= FOLDED:
        return flat
    place = unit_hash(np.array([str(k) for k in range(len(flat))]), "fold")
    signs = np.where((place * 2**20).astype(np.int64) % 2 == 0, 1.0, -1.0)
    folded = np.bincount((place * FOLDED).astype(np.int64), weights=flat * signs, minlength=FOLDED)
    return np.asarray(folded, dtype=np.float64)


def rounded(values: Floats, digits: int = DIGITS) -> Floats:
    """To so many digits of the largest of them: what is 0 but for rounding becomes 0."""
    largest = float(np.abs(values).max()) if values.size else 0.0
    if largest == 0:
        return values
    unit = 10.0 ** (np.floor(np.log10(largest)) - digits + 1)
    return np.asarray(np.round(values / unit) * unit, dtype=np.float64)
