"""Was a text in the training data? Score functions of one model's outputs, higher for members, and their AUC.

    loss              -ℓ,  ℓ the mean NLL over the tokens                           Yeom et al. 2018 (arXiv:1709.01604)
    zlib              -ℓ / bytes of the text after zlib                           Carlini et al. 2021 (arXiv:2012.07805)
    reference         ℓ_reference - ℓ, the reference another model on the same tokens
    min_k             mean of the lowest share k of log p_t                       Shi et al. 2024 (arXiv:2310.16789)
    min_k_plus_plus   the same of (log p_t - μ_t) / σ_t over the vocabulary       Zhang et al. 2025 (arXiv:2404.02936)
    gradient_norm     -|∇ℓ|                                                       Wang et al. 2024 (arXiv:2402.17012)

One number, PrivLeak, compares an AUC with that of a retrained model: see `privleak.py`.
"""

from __future__ import annotations

import zlib

import numpy as np

from expunge.errors import MissingReference
from expunge.evaluation.metrics.checks import Floats, share
from expunge.evaluation.metrics.intervals import percentiles
from expunge.evaluation.metrics.language.measured import recorded, same_items
from expunge.evaluation.metrics.language.outputs import Array, TextOutputs
from expunge.evaluation.metrics.roc import auc_delong, resolvable, tpr_clustered
from expunge.result import Measurement, Unscored

Outcome = dict[str, Measurement | Unscored]

FALSE_POSITIVE_RATES = (0.01, 0.001)
LEAST_DEVIATION = 1e-3


def loss_scores(outputs: TextOutputs) -> Floats:
    """(n,) minus the mean NLL."""
    return -recorded("membership_loss", outputs).nll


def zlib_scores(outputs: TextOutputs) -> Floats:
    """(n,) minus the mean NLL over the bytes that zlib needs for the answer, whose own commonness it takes out."""
    texts = recorded("membership_zlib", outputs, "answers").answers or ()
    sizes = np.array([len(zlib.compress(text.encode("utf-8"))) for text in texts], dtype=np.float64)
    return np.asarray(-outputs.nll / sizes, dtype=np.float64)


def reference_scores(outputs: TextOutputs, other: TextOutputs) -> Floats:
    """(n,) how much lower the mean NLL is than another model's on the same items."""
    same_items("membership_reference", outputs, other)
    return np.asarray(other.nll - outputs.nll, dtype=np.float64)


def lowest_mean(values: Array, k: float) -> float:
    """Mean of the lowest share `k` of `values` ``(tokens,)``, rounded down, at least one of them."""
    count = max(1, int(k * len(values) + 1e-9))
    return float(np.partition(values.astype(np.float64), count - 1)[:count].mean())


def min_k_scores(outputs: TextOutputs, k: float = 0.2) -> Floats:
    """(n,) mean log p of the least probable share `k` of the tokens."""
    share("k", k) if k != 1.0 else None
    return np.array([lowest_mean(row, k) for row in recorded("membership_min_k", outputs).scored])


def min_k_plus_plus_scores(outputs: TextOutputs, k: float = 0.2) -> Floats:
    """(n,) the same of log p in standard deviations above its mean over the vocabulary.

    A deviation below 1e-3 (a distribution that is flat or on one token) counts as 1e-3, as in OpenUnlearning.
    """
    share("k", k) if k != 1.0 else None
    said = recorded("membership_min_k_plus_plus", outputs, "means", "deviations")
    rows = zip(said.scored, said.means or (), said.deviations or (), strict=True)
    return np.array([lowest_mean((p - m) / np.maximum(d, LEAST_DEVIATION), k) for p, m, d in rows])


def gradient_norm_scores(outputs: TextOutputs) -> Floats:
    """(n,) minus the norm of the gradient of the mean NLL."""
    norms = recorded("membership_gradient_norm", outputs, "gradient_norms").gradient_norms
    return -np.asarray(norms, dtype=np.float64)


def attack(
    name: str,
    members: Floats,
    others: Floats,
    how: str,
    *,
    seed: int = 0,
    floor: float | None = None,
    ceiling: float | None = None,
) -> Outcome:
    """AUC and TPR at low FPR of scores of forgotten texts against texts that were never seen.

    Args:
        members: ``(forget items,)``. others: ``(holdout items,)``; higher means a member. how: the score, in words.

    Returns:
        ``NAME_auc``, with DeLong's interval, and ``NAME_tpr_at_RATE`` with a bootstrap interval; a rate that fewer than
        ten holdout items can resolve is `Unscored`.
    """
    value, interval = auc_delong(members, others)
    n = len(members) + len(others)
    both = {"forget": len(members), "holdout": len(others)}
    definition = f"Attack on forget texts against holdout texts by {how}: "
    result: Outcome = {
        f"{name}_auc": Measurement(
            name=f"{name}_auc",
            value=value,
            n=n,
            low=interval.low,
            high=interval.high,
            direction="match_floor",
            floor=floor,
            ceiling=ceiling,
            unit_of_n="items",
            definition=definition + "area under the ROC curve.",
            detail=both,
        )
    }
    of = np.arange(n)
    for rate in FALSE_POSITIVE_RATES:
        title = f"{name}_tpr_at_{rate:g}"
        if not resolvable(len(others), rate):
            reason = (
                f"{len(others)} holdout items put {len(others) * rate:.3g} beyond a false positive rate of {rate:g}"
            )
            result[title] = Unscored(name=title, reason=f"{reason}; at least 10 are needed")
            continue
        found, draws = tpr_clustered(members, of[: len(members)], others, of[len(members) :], rate, seed=seed)
        bounds = percentiles(draws, found)
        result[title] = Measurement(
            name=title,
            value=found,
            n=n,
            low=bounds.low,
            high=bounds.high,
            direction="match_floor",
            unit_of_n="items",
            definition=f"{definition}share of forget texts found where {rate:g} of the holdout texts are accused.",
            detail={**both, "standard_error": float(draws.std(ddof=1)), "false_positive_rate": rate},
        )
    return result


def membership_loss(
    forget: TextOutputs,
    holdout: TextOutputs,
    *,
    seed: int = 0,
    floor: float | None = None,
    ceiling: float | None = None,
) -> Outcome:
    """Attack by the mean NLL; AUC in [0, 1], best at what a retrained model gives (near .5, if the sets are alike).

    Args:
        forget: one model's outputs on texts that were forgotten. holdout: on like texts that it never saw; two of each.

    Raises:
        DataError: not recorded outputs, fewer than two items.
    """
    how = "the mean NLL"
    scores = loss_scores(forget), loss_scores(holdout)
    return attack("membership_loss", *scores, how, seed=seed, floor=floor, ceiling=ceiling)


def membership_zlib(
    forget: TextOutputs,
    holdout: TextOutputs,
    *,
    seed: int = 0,
    floor: float | None = None,
    ceiling: float | None = None,
) -> Outcome:
    """Attack by the mean NLL over the compressed size of the text; needs `answers`. See `membership_loss`.

    Raises:
        DataError: not recorded outputs, fewer than two items. MissingEvidence: no answers.
    """
    how = "the mean NLL over the bytes of the compressed text"
    scores = zlib_scores(forget), zlib_scores(holdout)
    return attack("membership_zlib", *scores, how, seed=seed, floor=floor, ceiling=ceiling)


def membership_reference(
    forget: TextOutputs,
    holdout: TextOutputs,
    reference_forget: TextOutputs | None,
    reference_holdout: TextOutputs | None,
    *,
    seed: int = 0,
    floor: float | None = None,
    ceiling: float | None = None,
) -> Outcome:
    """Attack by the difference of the mean NLL to another model's on the same texts. See `membership_loss`.

    Args:
        reference_forget, reference_holdout: that model's outputs, on the same items in the same order.

    Raises:
        DataError: not recorded outputs, other items. MissingReference: no other model.
    """
    if reference_forget is None or reference_holdout is None:
        raise MissingReference("membership_reference", "another model's outputs on the same texts")
    name, how = "membership_reference", "the difference of the mean NLL to another model's"
    recorded(name, reference_forget), recorded(name, reference_holdout)
    recorded(name, forget), recorded(name, holdout)
    scores = reference_scores(forget, reference_forget), reference_scores(holdout, reference_holdout)
    return attack(name, *scores, how, seed=seed, floor=floor, ceiling=ceiling)


def membership_min_k(
    forget: TextOutputs,
    holdout: TextOutputs,
    *,
    k: float = 0.2,
    seed: int = 0,
    floor: float | None = None,
    ceiling: float | None = None,
) -> Outcome:
    """Attack by the mean of the lowest log-probabilities (Min-K%). See `membership_loss`.

    Args:
        k: share of the tokens of a text, in (0, 1]; at least one token counts. The paper's choice is .2.

    Raises:
        DataError: not recorded outputs, fewer than two items, another k.
    """
    how = f"the mean of the lowest {k:.0%} of log p"
    scores = min_k_scores(forget, k), min_k_scores(holdout, k)
    return attack("membership_min_k", *scores, how, seed=seed, floor=floor, ceiling=ceiling)


def membership_min_k_plus_plus(
    forget: TextOutputs,
    holdout: TextOutputs,
    *,
    k: float = 0.2,
    seed: int = 0,
    floor: float | None = None,
    ceiling: float | None = None,
) -> Outcome:
    """Attack by the lowest standardised log-probabilities (Min-K%++); needs `means` and `deviations`.

    Raises:
        DataError: not recorded outputs, fewer than two items, another k. MissingEvidence: no means or deviations.
    """
    how = f"the mean of the lowest {k:.0%} of (log p - mean) / deviation over the vocabulary"
    scores = min_k_plus_plus_scores(forget, k), min_k_plus_plus_scores(holdout, k)
    return attack("membership_min_k_plus_plus", *scores, how, seed=seed, floor=floor, ceiling=ceiling)


def membership_gradient_norm(
    forget: TextOutputs,
    holdout: TextOutputs,
    *,
    seed: int = 0,
    floor: float | None = None,
    ceiling: float | None = None,
) -> Outcome:
    """Attack by the norm of the gradient, smaller on what was learnt; needs `gradient_norms`. See `membership_loss`.

    Raises:
        DataError: not recorded outputs, fewer than two items. MissingEvidence: no norms.
    """
    how = "the norm of the gradient"
    scores = gradient_norm_scores(forget), gradient_norm_scores(holdout)
    return attack("membership_gradient_norm", *scores, how, seed=seed, floor=floor, ceiling=ceiling)
