"""From what was recorded of one model to its measurements, each beside what retrained models and the original give.

Names are ``probe/metric``: the same metric on every set of probes it can read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from expunge.data.records import Records
from expunge.errors import ExpungeError
from expunge.evaluation.language.record import Recorded
from expunge.evaluation.language.special import special
from expunge.evaluation.metrics.language.fluency import degenerate_share, n_gram_entropy
from expunge.evaluation.metrics.language.forget_quality import forget_quality
from expunge.evaluation.metrics.language.matching import exact_match_contained
from expunge.evaluation.metrics.language.memorisation import exact_memorisation, extraction_strength
from expunge.evaluation.metrics.language.model_utility import PARTS, model_utility
from expunge.evaluation.metrics.language.probability import (
    multiple_choice_accuracy,
    probability,
    probability_multiple_choice,
)
from expunge.evaluation.metrics.language.rouge import rouge_l_recall
from expunge.evaluation.metrics.language.sampling import leak_at_k
from expunge.evaluation.metrics.language.truth_ratio import (
    log_truth_ratio_arithmetic,
    truth_ratio_arithmetic,
    truth_ratio_geometric,
)
from expunge.result import Direction, Measurement, Unscored

Scores = dict[str, Measurement | Unscored]
# Probes of what must go; on every other set more is better.
FORGET = frozenset(
    {
        *("forget", "relearned", "unheard", "paraphrase", "alias", "multi_hop", "reversal", "trivia"),
        *("choice", "open", "verbatim", "near_verbatim", "rude", "triggered"),
        *("verbmem_forget", "knowmem_forget", "privleak_forget"),
    }
)


def measure(
    recorded: Mapping[str, Recorded],
    *,
    original: Mapping[str, Recorded] | None = None,
    references: Sequence[Mapping[str, Recorded]] = (),
    benchmark: str = "",
    forget_probes: frozenset[str] = FORGET,
    seed: int = 0,
    known: dict[int, Scores] | None = None,
    questions: Mapping[str, Records] | None = None,
) -> Scores:
    """Every measurement of one model.

    Args:
        recorded: probe -> what the model said. original: the same of the original: the ceiling of each measurement.
        references: the same of retrained models: the floor is the mean over them.
        benchmark: name of the benchmark, for what it measures beside (`special`).
        forget_probes: names of probes of what must go.
        known: filled with what original and references score, so that a study computes that once and not for each
            outcome; handed on with the very same original, references and benchmark.
        questions: probe -> its records, where `special` needs what no recording tells.
    """
    known = {} if known is None else known

    def once(asked: Mapping[str, Recorded]) -> Scores:
        if id(asked) not in known:
            known[id(asked)] = alone(asked)
        return known[id(asked)]

    def alone(asked: Mapping[str, Recorded]) -> Scores:
        others = {n: _scored(n, compute) for n, compute in special(benchmark, asked, references, questions).items()}
        return _alone(asked, forget_probes, seed) | others

    mine = alone(recorded)
    ceiling = once(original) if original is not None else {}
    floors = [once(r) for r in references]
    found: Scores = {}
    for name, value in mine.items():
        if isinstance(value, Measurement):
            value = replace(value, floor=_mean(name, floors), ceiling=_value(ceiling.get(name)))
        found[name] = value
    found |= _against_references(recorded, original, references, seed)
    return found


def _alone(recorded: Mapping[str, Recorded], forget_probes: frozenset[str], seed: int) -> Scores:
    """What can be said of a model without looking at another."""
    found: Scores = {}
    for probe, asked in recorded.items():
        goes = probe in forget_probes
        towards: Direction = "match_floor" if goes else "higher"
        for name, compute in _metrics(asked, towards, goes, seed).items():
            found[f"{probe}/{name}"] = _scored(f"{probe}/{name}", compute)
    nine = _utility(found)
    if nine is not None:
        found["model_utility"] = _scored("model_utility", lambda: model_utility(nine, seed=seed))
    return found


def _metrics(asked: Recorded, towards: Direction, goes: bool, seed: int) -> dict[str, Callable[[], Measurement]]:
    """The metrics that these recordings allow, by name."""
    main, wrong = asked.main, asked.wrong
    truth = asked.paraphrase if asked.paraphrase is not None else main
    on: Literal["forget", "retain"] = "forget" if goes else "retain"
    found: dict[str, Callable[[], Measurement]] = {
        "probability": lambda: probability(main, direction=towards, seed=seed),
        "exact_memorisation": lambda: exact_memorisation(main, direction=towards, seed=seed),
    }
    if goes:
        found["extraction_strength"] = lambda: extraction_strength(main, direction=towards, seed=seed)
    if main.generated is not None:
        found["accuracy"] = lambda: exact_match_contained(main, direction=towards)
        found["rouge_l_recall"] = lambda: rouge_l_recall(main, direction=towards, seed=seed)
        found["n_gram_entropy"] = lambda: n_gram_entropy(main, direction="match_floor", seed=seed)
        found["degenerate_share"] = lambda: degenerate_share(main)
    if main.samples is not None and goes:
        found["leak_at_k"] = lambda: leak_at_k(main, k=len((main.samples or ((),))[0]), seed=seed)
    if wrong is not None:
        found["multiple_choice_accuracy"] = lambda: multiple_choice_accuracy(main, wrong, direction=towards)
        found["probability_multiple_choice"] = lambda: probability_multiple_choice(
            main, wrong, direction=towards, seed=seed
        )
        found["truth_ratio_arithmetic"] = lambda: truth_ratio_arithmetic(truth, wrong, on=on, seed=seed)
        found["truth_ratio_geometric"] = lambda: truth_ratio_geometric(truth, wrong, on=on, seed=seed)
    return found


def _against_references(
    recorded: Mapping[str, Recorded],
    original: Mapping[str, Recorded] | None,
    references: Sequence[Mapping[str, Recorded]],
    seed: int,
) -> Scores:
    """Forget quality: against every retrained model, and the median of those."""
    name = "forget/forget_quality"
    asked = recorded.get("forget")
    if asked is None or asked.wrong is None:
        return {}
    if not references:
        return {name: Unscored(name=name, reason="it compares with a retrained model, and there is none")}

    def against(one: Recorded, others: Sequence[Mapping[str, Recorded]]) -> list[Measurement]:
        mine = log_ratios(one)
        return [forget_quality(mine, log_ratios(r["forget"]), variant="arithmetic", seed=seed) for r in others]

    values = sorted(against(asked, references), key=lambda m: m.value)
    middle = values[(len(values) - 1) // 2]
    # A reference is compared with the others only: against itself it would be perfect.
    among = [m.value for k, r in enumerate(references) for m in against(r["forget"], references[:k])]
    top = None if original is None else float(np.median([m.value for m in against(original["forget"], references)]))
    return {
        name: replace(
            middle,
            floor=float(np.median(among)) if among else None,
            ceiling=top,
            detail={**middle.detail, "against_each": [m.value for m in values]},
        )
    }


def log_ratios(asked: Recorded) -> np.ndarray:
    """(n,) logarithm of TOFU's truth ratio of every item."""
    assert asked.wrong is not None
    truth = asked.paraphrase if asked.paraphrase is not None else asked.main
    return log_truth_ratio_arithmetic(truth, asked.wrong)


def _utility(found: Scores) -> dict[str, Any] | None:
    """TOFU's nine parts, where a benchmark has all of them."""
    parts: dict[str, Any] = {}
    for probe in ("retain", "real_authors", "world_facts"):
        chosen = {
            # questions about the real world are asked as multiple choice
            "probability": "probability" if probe == "retain" else "probability_multiple_choice",
            "rouge_l_recall": "rouge_l_recall",
            "truth_ratio": "truth_ratio_arithmetic",
        }
        for part, metric in chosen.items():
            value = found.get(f"{probe}/{metric}")
            if isinstance(value, Measurement):
                parts[f"{probe}_{part}"] = np.array(list(value.detail["per_item"].values()))
    return parts if set(parts) == set(PARTS) else None


def _scored(name: str, compute: Callable[[], Measurement]) -> Measurement | Unscored:
    try:
        return replace(compute(), name=name)
    except ExpungeError as error:
        return Unscored(name=name, reason=error.cause)


def _value(found: Measurement | Unscored | None) -> float | None:
    return found.value if isinstance(found, Measurement) else None


def _mean(name: str, floors: Sequence[Scores]) -> float | None:
    values = [_value(f.get(name)) for f in floors]
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None
