"""Contradictions on people: with itself over wordings of a fact, and with what is true."""

from __future__ import annotations

import json

import numpy as np
import pytest

from expunge.data.records import Records
from expunge.errors import MissingEvidence
from expunge.evaluation.language.contradictions import contradictions, values_of
from expunge.evaluation.language.measure import measure
from expunge.evaluation.language.record import Recorded
from expunge.evaluation.metrics.language.outputs import TextOutputs
from expunge.result import Measurement

WRONG = {"town": ["Rome", "Oslo"], "pet": ["cat", "owl"]}
FACTS = [("ann|town", "Paris"), ("ann|pet", "dog"), ("bob|town", "Bonn")]


def questions(kind: str, facts: list[tuple[str, str]] = FACTS) -> Records:
    relations = [fact.partition("|")[2] for fact, _ in facts]
    columns = {
        "fact": [fact for fact, _ in facts],
        "answer": [answer for _, answer in facts],
        "relation": relations,
        "wrong": [json.dumps(WRONG[r]) for r in relations],
    }
    ids = np.array([f"{kind}-{fact}" for fact, _ in facts])
    return Records(ids=ids, columns={k: np.array(v, dtype=object) for k, v in columns.items()})


def said(records: Records, texts: list[str], *, silent: bool = False) -> Recorded:
    main = TextOutputs(
        ids=tuple(records.ids.tolist()),
        log_probs=tuple(np.full(2, -1.0, np.float32) for _ in texts),
        answers=tuple(records.column("answer")),
        generated=None if silent else tuple(texts),
    )
    return Recorded(main=main)


def both(one: list[str], other: list[str]) -> dict[str, Measurement]:
    asked = {"forget": questions("a"), "paraphrase": questions("b")}
    found = contradictions(
        {"forget": said(asked["forget"], one), "paraphrase": said(asked["paraphrase"], other)}, asked
    )
    return {name: compute() for name, compute in found.items()}


def test_counts_by_hand() -> None:
    found = both(["Paris", "dog", "Rome"], ["Rome", "dog", "Oslo"])
    assert set(found) == {"forget/contradiction_count", "forget/contradicted_share"}
    # town of ann: two answers; pet: one; town of bob: two
    assert found["forget/contradiction_count"].value == pytest.approx(2 / 3)
    assert found["forget/contradiction_count"].n == 3
    # Rome for Paris, Rome and Oslo for Bonn
    assert found["forget/contradicted_share"].value == pytest.approx(3 / 6)
    assert found["forget/contradicted_share"].n == 6


def test_nonsense_and_silence_state_nothing_false() -> None:
    found = both(["", "blah blah", "Paris or Bonn"], ["", "dog or cat", "nobody knows"])
    assert found["forget/contradicted_share"].value == pytest.approx(0.0)


def test_the_right_answer_of_another_fact_of_the_kind_is_a_false_value_here() -> None:
    found = both(["Bonn", "dog", "Bonn"], ["Paris", "dog", "Bonn"])  # Bonn is in nobody's wrong answers
    assert found["forget/contradicted_share"].value == pytest.approx(1 / 6)


def test_a_fact_that_is_asked_once_cannot_contradict_itself() -> None:
    asked = {"forget": questions("a"), "paraphrase": questions("b", FACTS[:2])}
    recorded = {
        "forget": said(asked["forget"], ["Paris", "dog", "Bonn"]),
        "paraphrase": said(asked["paraphrase"], ["Oslo", "dog"]),
    }
    found = contradictions(recorded, asked)["forget/contradiction_count"]()
    assert (found.n, found.value) == (2, 0.5)
    with pytest.raises(MissingEvidence, match="several wordings"):
        contradictions({"forget": recorded["forget"]}, asked)["forget/contradiction_count"]()


def test_another_answer_to_the_same_fact_is_another_question() -> None:
    turned = questions("b", [("ann|town", "ann"), *FACTS[1:]])  # who lives in Paris?
    asked = {"forget": questions("a"), "paraphrase": turned}
    recorded = {
        "forget": said(asked["forget"], ["Paris", "dog", "Bonn"]),
        "paraphrase": said(turned, ["ann", "dog", "Bonn"]),
    }
    found = contradictions(recorded, asked)["forget/contradiction_count"]()
    assert (found.n, found.value) == (2, 0.0)


def test_answers_are_matched_to_questions_by_name_not_by_place() -> None:
    asked = {"forget": questions("a"), "paraphrase": questions("b")}
    turned = asked["paraphrase"].take([2, 1, 0])
    recorded = {
        "forget": said(asked["forget"], ["Paris", "dog", "Bonn"]),
        "paraphrase": said(turned, ["Bonn", "dog", "Paris"]),
    }
    found = {name: compute().value for name, compute in contradictions(recorded, asked).items()}
    assert found == {"forget/contradiction_count": 0.0, "forget/contradicted_share": 0.0}


def test_where_nothing_was_generated_nothing_is_counted() -> None:
    asked = {"forget": questions("a")}
    assert contradictions({"forget": said(asked["forget"], ["", "", ""], silent=True)}, asked) == {}


def test_directions_and_the_way_through_measure() -> None:
    asked = {"forget": questions("a"), "retain": questions("c"), "retain_paraphrase": questions("d")}
    recorded = {name: said(records, ["Paris", "dog", "Bonn"]) for name, records in asked.items()}
    scores = measure(recorded, benchmark="people/1of2", questions=asked)
    kept, gone = scores["retain/contradiction_count"], scores["forget/contradicted_share"]
    assert isinstance(kept, Measurement) and isinstance(gone, Measurement)
    assert (kept.direction, gone.direction) == ("lower", "match_floor")
    assert kept.name == "retain/contradiction_count"
    assert "retain/contradiction_count" not in measure(recorded, benchmark="people/1of2")
    assert "retain/contradiction_count" not in measure(recorded, benchmark="tofu/forget10", questions=asked)


def test_values_are_those_of_plain_questions() -> None:
    hop = questions("h", [("ann|town", "France")])
    assert values_of({"forget": questions("a"), "multi_hop": hop}) == {
        "town": ["Bonn", "Oslo", "Paris", "Rome"],
        "pet": ["cat", "dog", "owl"],
    }
