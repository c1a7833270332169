"""The document of both attacks, and its table."""

from __future__ import annotations

import json

import numpy as np
import pytest

from expunge.errors import RequestError
from expunge.evaluation.exact_leaks import SCHEMA, exact_leaks, leak_lines
from expunge.result import scored_from_dict


def test_document_holds_both_attacks_with_their_controls() -> None:
    told: list[str] = []
    document = exact_leaks(
        "breast_cancer",
        deletions=3,
        trials=2,
        learner_trials=1,
        training_noise=(0, 1),
        vote_noise=(0, 2),
        seed=1,
        narrate=told.append,
    )
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["schema"] == SCHEMA
    rows = document["rows"]
    assert {row["attack"] for row in rows} == {"reconstruction", "adaptive_deletion"}
    for row in rows:
        for name, measured in row["measurements"].items():
            assert scored_from_dict(measured).name == name
    ridge = rows[0]["measurements"]
    assert ridge["reconstruction_cosine_other_row"]["value"] < ridge["reconstruction_cosine"]["value"] - 0.2
    assert ridge["reconstruction_cosine"]["floor"] == ridge["reconstruction_cosine_other_row"]["value"]
    destroyed = next(row for row in rows if row["defence"] == {"name": "earlier model destroyed"})
    assert destroyed["measurements"]["reconstruction_cosine"]["status"] == "unscored"
    votes = [row for row in rows if row["on"] == "votes of 10 shards in view"]
    assert votes[0]["defence"] is None
    assert votes[1]["defence"]["epsilon_per_answer"] == 2.0  # two votes move when a record changes shards: 4 / noise
    first, second = (row["measurements"]["adaptive_deletion_indicator"] for row in votes)
    assert first["ceiling"] is None
    assert second["ceiling"] == first["value"]
    assert len(told) == 3 + 3 * 2 + 1
    lines = leak_lines(document)
    assert lines[0] == "reconstruction"
    assert sum("ridge" in line for line in lines) == 3
    assert any("the model before the deletion" in line for line in lines)
    assert any("noise on votes 2" in line for line in lines)
    assert np.diff([len(line) for line in lines]).any()


@pytest.mark.parametrize(
    "wrong",
    [{"deletions": 1}, {"trials": 0}, {"learner_trials": -1}, {"vote_noise": (1.0,)}, {"training_noise": ()}],
)
def test_refuses_before_it_begins(wrong: dict[str, object]) -> None:
    with pytest.raises(RequestError):
        exact_leaks("digits", **wrong)  # type: ignore[arg-type]


def test_refuses_more_deletions_than_there_are_rows_for() -> None:
    with pytest.raises(RequestError):
        exact_leaks("breast_cancer", deletions=200)
