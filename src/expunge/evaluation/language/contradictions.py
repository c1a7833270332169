"""Contradictions of a model that is asked for one fact in several wordings, with itself and with what is true.

Names are ``set/metric`` with the sets ``forget`` and ``retain``: all wordings of the facts that must go, or stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from expunge.data.people.contradictions import count_contradictions
from expunge.data.people.probes import wrong_answers
from expunge.data.records import Records
from expunge.errors import MissingEvidence
from expunge.evaluation.language.record import Recorded
from expunge.evaluation.metrics.language.measured import averaged
from expunge.evaluation.metrics.language.outputs import TextOutputs, concatenate
from expunge.evaluation.metrics.language.sampling import contradiction_count
from expunge.result import Direction, Measurement

# Sets of questions that ask for the same facts with the same answers.
WORDINGS: Mapping[str, tuple[str, ...]] = {
    "forget": ("forget", "paraphrase", "alias"),
    "retain": ("retain", "neighbour", "retain_paraphrase", "retain_alias"),
}


def contradictions(
    asked: Mapping[str, Recorded], questions: Mapping[str, Records]
) -> dict[str, Callable[[], Measurement]]:
    """Name -> what computes it.

    ``contradiction_count`` is that of `expunge.evaluation.metrics.language.sampling` over the facts that are asked in
    two wordings or more. ``contradicted_share`` is the share of answers, in [0, 1], that name another value of the kind
    that was asked for and not the right one: a false statement, no refusal and no nonsense.

    Args:
        asked: probe -> what the model said. questions: probe -> its records, with the columns ``fact``, ``answer``,
            ``relation`` and ``wrong``.
    """
    found: dict[str, Callable[[], Measurement]] = {}
    for name, probes in WORDINGS.items():
        present = [p for p in probes if p in asked and p in questions and asked[p].main.generated is not None]
        if not present:
            continue
        records = _together([questions[p] for p in present])
        said = concatenate([asked[p].main.select(questions[p].ids) for p in present])
        # nobody who never knew can answer rightly: there the retrained model tells how much guessing is usual
        towards: Direction = "match_floor" if name == "forget" else "lower"
        found[f"{name}/contradiction_count"] = _between(said, records, towards)
        found[f"{name}/contradicted_share"] = _with_facts(said, records, questions, towards)
    return found


def _between(said: TextOutputs, records: Records, towards: Direction) -> Callable[[], Measurement]:
    groups: dict[tuple[str, str], list[int]] = {}
    for row, key in enumerate(zip(records.column("fact"), records.column("answer"), strict=True)):
        groups.setdefault(key, []).append(row)
    several = [rows for rows in groups.values() if len(rows) > 1]

    def compute() -> Measurement:
        if len(several) < 2:
            raise MissingEvidence("fewer than two facts are asked in several wordings", "Ask paraphrases as well")
        order = [row for rows in several for row in rows]
        names = [f"{records.column('fact')[rows[0]]}#{k}" for rows in several for k in range(len(rows))]
        chosen = said.select([said.ids[row] for row in order])
        return replace(contradiction_count(replace(chosen, ids=tuple(names)), grouped=True), direction=towards)

    return compute


def _with_facts(
    said: TextOutputs, records: Records, questions: Mapping[str, Records], towards: Direction
) -> Callable[[], Measurement]:
    def compute() -> Measurement:
        counted = count_contradictions(records, said.generated or (), values=values_of(questions))
        against = set(counted.against_facts)
        return averaged(
            "contradicted_share",
            np.array([item in against for item in said.ids], dtype=np.float64),
            list(said.ids),
            direction=towards,
            definition="Share of answers that name another value of the kind asked for, and not the right one.",
            floor=None,
            ceiling=None,
            seed=0,
        )

    return compute


def _together(parts: list[Records]) -> Records:
    columns = ("fact", "answer", "relation", "wrong")
    return Records(
        ids=np.concatenate([p.ids for p in parts]),
        columns={name: np.concatenate([p.column(name) for p in parts]) for name in columns},
    )


def values_of(questions: Mapping[str, Records]) -> dict[str, list[str]]:
    """Relation -> every value that a question of `WORDINGS` has for an answer, right or wrong, sorted.

    Other questions about the same fact ask for something else: who has it, or what follows.
    """
    found: dict[str, set[str]] = {}
    for records in (questions[p] for probes in WORDINGS.values() for p in probes if p in questions):
        for relation, answer, wrong in zip(
            records.column("relation"), records.column("answer"), wrong_answers(records), strict=True
        ):
            found.setdefault(str(relation), set()).update([str(answer), *wrong])
    return {relation: sorted(values) for relation, values in found.items()}
