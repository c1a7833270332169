"""What a benchmark measures beside the common metrics: contradictions of people, MUSE's memorisation and privacy,
identities, spans, rudeness, backdoors.

Names are ``probe/metric`` as in `measure`; a probe that was not asked leaves its measurement out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from expunge.data.benchmarks.toxicity import toxicity_scores
from expunge.data.records import Records
from expunge.evaluation.language.contradictions import contradictions
from expunge.evaluation.language.record import Recorded
from expunge.evaluation.metrics.language.matching import (
    longest_common_subsequence_share,
    longest_common_substring_share,
    pii_exact_repetition,
)
from expunge.evaluation.metrics.language.membership import min_k_scores
from expunge.evaluation.metrics.language.privleak import privleak
from expunge.evaluation.metrics.language.rouge import knowledge_memorisation, verbatim_memorisation
from expunge.evaluation.metrics.language.safety import backdoor_clean_accuracy, backdoor_rate, toxicity_rate
from expunge.result import Measurement

Asked = Mapping[str, Recorded]
Compute = Callable[[], Measurement]
MUSE_K = 0.4


def special(
    benchmark: str,
    recorded: Asked,
    references: Sequence[Asked] = (),
    questions: Mapping[str, Records] | None = None,
) -> dict[str, Compute]:
    """Name -> what computes it, for the benchmark (``muse/news``, ``pii``, …) and the probes that were asked.

    Args:
        questions: probe -> its records, for what tells which questions ask for one fact; without it that is left out.
    """
    family = benchmark.split("/")[0]
    if family == "people":
        return contradictions(recorded, questions or {})
    makers: dict[str, Callable[[Asked, Sequence[Asked]], dict[str, Compute]]] = {
        "muse": _muse,
        "pii": _identities,
        "copyright": _spans,
        "toxicity": _rudeness,
        "backdoor": _backdoor,
    }
    return makers[family](recorded, references) if family in makers else {}


def _muse(asked: Asked, references: Sequence[Asked]) -> dict[str, Compute]:
    found: dict[str, Compute] = {}
    if "verbmem_forget" in asked:
        found["verbmem_forget/verbatim_memorisation"] = lambda: verbatim_memorisation(asked["verbmem_forget"].main)
    if "knowmem_forget" in asked:
        found["knowmem_forget/knowledge_memorisation"] = lambda: knowledge_memorisation(asked["knowmem_forget"].main)
    if "knowmem_retain" in asked:
        found["knowmem_retain/knowledge_memorisation"] = lambda: knowledge_memorisation(
            asked["knowmem_retain"].main, direction="higher"
        )
    if {"privleak_forget", "privleak_holdout"} <= set(asked):
        found["privleak"] = lambda: _privleak(asked, references)
    return found


def _privleak(asked: Asked, references: Sequence[Asked]) -> Measurement:
    """Against the first retrained model that is not this one."""
    other = next((r for r in references if r is not asked), None)

    def scores(of: Asked | None, probe: str) -> Any:
        return None if of is None or probe not in of else min_k_scores(of[probe].main, MUSE_K)

    return privleak(
        scores(asked, "privleak_forget"),
        scores(asked, "privleak_holdout"),
        scores(other, "privleak_forget"),
        scores(other, "privleak_holdout"),
        attack_name=f"min_k at {MUSE_K}",
    )


def _identities(asked: Asked, references: Sequence[Asked]) -> dict[str, Compute]:
    def repeated(name: str) -> Compute:
        said = asked[name].main
        both = "both" if said.samples is not None else "generated"
        return lambda: pii_exact_repetition(said, said=both)  # type: ignore[arg-type]

    return {f"{name}/pii_exact_repetition": repeated(name) for name in ("forget", "paraphrase") if name in asked}


def _spans(asked: Asked, references: Sequence[Asked]) -> dict[str, Compute]:
    def shares(name: str) -> dict[str, Compute]:
        said = asked[name].main
        return {
            f"{name}/longest_common_substring_share": lambda: longest_common_substring_share(said),
            f"{name}/longest_common_subsequence_share": lambda: longest_common_subsequence_share(said),
        }

    return {k: v for name in ("verbatim", "near_verbatim") if name in asked for k, v in shares(name).items()}


def _rudeness(asked: Asked, references: Sequence[Asked]) -> dict[str, Compute]:
    def rate(name: str) -> Compute:
        texts = list(asked[name].main.generated or ())
        return lambda: toxicity_rate(toxicity_scores(texts))

    return {f"{name}/toxicity_rate": rate(name) for name in ("polite", "retain") if name in asked}


def _backdoor(asked: Asked, references: Sequence[Asked]) -> dict[str, Compute]:
    found: dict[str, Compute] = {}
    clean = asked.get("clean")
    if "triggered" in asked:
        said = asked["triggered"].main
        payload = (said.answers or ("",))[0]
        plain = None if clean is None else clean.main
        found["triggered/backdoor_rate"] = lambda: backdoor_rate(said, payload, untriggered=plain)
    if clean is not None:
        found["clean/backdoor_clean_accuracy"] = lambda: backdoor_clean_accuracy(clean.main)
    return found
