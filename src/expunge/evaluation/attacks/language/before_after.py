"""Tell which texts were deleted from what the model before and the model after say of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from expunge.data.records import Records
from expunge.data.texts import PIECE_OF
from expunge.errors import NoAccess
from expunge.evaluation.attacks.language.contract import Access, Attack, Scene, Target, Trial
from expunge.evaluation.metrics.checks import Floats
from expunge.models.language import LanguageModel
from expunge.models.packing import choose_layout
from expunge.training.text_batches import TextTable
from expunge.training.text_loop import score_texts
from expunge.training.text_net import Net


def mean_log_probs(model: LanguageModel, records: Records) -> Floats:
    """(records,) mean log p of the scored tokens of each text, nats; long texts are read in pieces."""
    pieces = model.pieces(records)
    table = TextTable(model.encode(pieces), "texts")
    scores = score_texts(Net(model.module, choose_layout(model.module)[0]), table).double().numpy()
    sums = np.add.reduceat(scores, table.offsets[:-1])
    of = [str(i) for i in pieces.ids]
    if pieces is not records:
        of = [str(whole) or own for whole, own in zip(pieces.column(PIECE_OF), of, strict=True)]
    row = {str(i): k for k, i in enumerate(records.ids)}
    place = np.array([row[i] for i in of])
    return np.bincount(place, sums, len(records)) / np.bincount(place, np.diff(table.offsets), len(records))


def share_below(values: Floats, others: Floats) -> Floats:
    """(values,) share of `others` that are smaller than each value; an equal one counts half."""
    ordered = np.sort(others)
    low, high = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    return (low + high) / (2.0 * len(ordered))


@dataclass(frozen=True, kw_only=True)
class BeforeAfter(Attack):
    """A text was deleted if the model after finds it less likely than the model before, more so than texts never seen.

    s(x) = ℓ_after(x) − ℓ_before(x), ℓ the mean negative log-likelihood a token;
    found(x) = P(s(z) < s(x)) + ½ P(s(z) = s(x)) over holdout texts z

    The mean of what is found is the area under the ROC curve of telling deleted texts from never seen ones; 0.5 tells
    nothing. Retraining does not help: it is the model before that knows. The only remedy is that nobody has both. So
    this curve is read as it is: normalised between retraining and doing nothing, 0 would be as exposed as retraining.
    Papers: Chen et al. 2021, 2005.02205 (membership from the two models); Wu et al. 2025, 2505.24379 (the pair of
    language models).

    This differs from the authors' code in:
        1. A threshold on one difference, instead of a classifier trained on shadow pairs.
    """

    name: ClassVar[str] = "before_after"
    summary: ClassVar[str] = "tells the deleted texts by how the model before and the model after differ on them"
    paper: ClassVar[str] = "arXiv:2505.24379; arXiv:2005.02205"
    access: ClassVar[Access] = "pair"
    unit: ClassVar[str] = "readings of a text by each model"
    needs: ClassVar[tuple[str, ...]] = ("forget", "holdout")

    def attempt(self, target: Target, scene: Scene, seed: int) -> Trial:
        before, after = both(self.name, target)
        lost = [mean_log_probs(before, r) - mean_log_probs(after, r) for r in (scene.forget, scene.holdout)]
        told = {"mean_change_deleted": float(lost[0].mean()), "mean_change_holdout": float(lost[1].mean())}
        return self.trial(scene.forget, [(1, share_below(*lost))], **told)


def both(attack: str, target: Target) -> tuple[LanguageModel, LanguageModel]:
    """The models before and after.

    Raises:
        NoAccess: there is no model before, or one of them gives no probabilities.
    """
    if target.before is None:
        raise NoAccess(f"{attack} compares with the model before, which is not here", "Keep it to measure this")
    return target.before, target.logits(attack)
