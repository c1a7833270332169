"""The planner's choices, against all rows tried one by one."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from expunge.cli import app
from expunge.errors import RequestError
from expunge.guarantee import GUARANTEES
from expunge.planner.choose import Unattainable, choose, option
from expunge.planner.request import PlanRequest, TrainedPart, in_words, seconds

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluation" / "forms"))
from forms_tools import recovered, report, row

GOOD = {"paraphrase": recovered(0.0), "relearn_half": recovered(0.0)}
SHALLOW = {"paraphrase": recovered(0.0), "relearn_half": recovered(0.9)}
WIDE = {"paraphrase": recovered(0.0, spread=0.2), "relearn_half": recovered(0.0, spread=0.2)}


def evidence() -> dict[str, Any]:
    return report(
        [
            row("exact_adapters", "exact", guarantee="exact(bitwise)", seconds=5.0, method="sharded_adapters"),
            row("certified", "certified", guarantee="certified(ε=8, δ=1e-05)", seconds=0.1, method="dp_lora",
                retain=0.4, neighbour=0.4),
            row("undo", "by concept", seconds=12.0, attacks=WIDE),
            row("npo", seconds=3.0, attacks=SHALLOW),
            row("ascent", seconds=1.0, attacks=GOOD, retain=0.2, neighbour=0.2),
            row("boxed", "by prompting", guarantee="suppressed", seconds=0.01, attacks=SHALLOW),
            {"label": "rmu", "form": "by concept", "kind": "method", "method": "rmu", "status": "failed", "reason": "x"},  # noqa: E501
        ]
    )  # fmt: skip


def ask(**fields: Any) -> PlanRequest:
    made = {"learner": None, "retraining": 36_000.0, **fields.pop("model", {})}
    return PlanRequest(model=TrainedPart(**made), **fields)


def test_revocation_without_a_learner_means_retraining() -> None:
    found = choose(ask(), evidence())
    assert found.chosen.label == "retrain"
    assert found.chosen.seconds == 36_000.0
    assert found.meanwhile is not None and found.meanwhile.label == "boxed"
    refused = {o.label: o.why_not for o in found.refused}
    assert "its word is empirical, and certified is demanded" in refused["undo"]
    assert any("trained by sharded_adapters from the start" in why for why in refused["exact_adapters"])


def test_a_model_built_to_forget_is_asked_to() -> None:
    found = choose(ask(model={"learner": "sharded_adapters"}), evidence())
    assert found.chosen.label == "exact_adapters"
    assert found.chosen.seconds == pytest.approx(9_000.0)  # a quarter of retraining, as measured
    assert [o.label for o in found.others] == ["retrain"]


def test_correction_takes_what_keeps_most_and_is_cheapest() -> None:
    found = choose(ask(motive="correction", threat="black_box"), evidence())
    assert found.chosen.label == "npo"
    assert choose(ask(motive="correction", threat="weights"), evidence()).chosen.label == "undo"


def test_a_hard_request_asks_for_evidence_beyond_doubt() -> None:
    found = choose(ask(motive="correction", threat="weights", difficulty="hard"), evidence())
    assert found.chosen.label == "retrain"
    doubtful = {o.label: o.why_not for o in found.refused}["undo"]
    assert doubtful == ("hard to forget, and not beyond doubt under paraphrase, relearn half",)


def test_an_unattainable_guarantee_is_refused_with_what_would_have_to_give() -> None:
    with pytest.raises(Unattainable, match="no form gives certified") as caught:
        choose(ask(deadline=3600.0), evidence())
    assert "take longer than the deadline (retrain)" in str(caught.value)
    assert "accept empirical" not in str(caught.value)  # ten hours' share of npo is more than an hour
    assert "accept suppressed (boxed)" in str(caught.value)


def test_a_remote_model_can_only_be_kept_from_speaking() -> None:
    remote = {"weights": False, "data": False}
    with pytest.raises(Unattainable):
        choose(ask(model=remote, motive="correction"), evidence())
    found = choose(ask(model=remote, motive="correction", least_guarantee="suppressed"), evidence())
    assert found.chosen.label == "boxed"


def test_unknown_time_meets_no_deadline() -> None:
    with pytest.raises(Unattainable):
        choose(ask(model={"retraining": None}, deadline=60.0), evidence())


def holds(request: PlanRequest, made: dict[str, Any], told: dict[str, Any]) -> bool:
    """Whether a row serves a request, written out apart from the planner."""
    if made["status"] != "ok" or made["label"] == "do_nothing":
        return False
    word = made["guarantee"].split("(")[0]
    if GUARANTEES[word].strength < GUARANTEES[request.least].strength:
        return False
    if made["form"] in ("exact", "certified") and request.model.learner != made["method"]:
        return False
    if word in ("empirical", "suppressed") and made["verdict"][request.threat]["word"] != "holds":
        return False
    if made["measurements"]["retain"]["value"] < 0.85:
        return False
    share = 1.0 if made["form"] == "by prompting" else 36_000.0 / told["retrain_seconds"]
    return request.deadline is None or made["seconds"] * share <= request.deadline


@pytest.mark.parametrize("learner", [None, "sharded_adapters", "dp_lora"])
def test_choices_agree_with_trying_every_row(learner: str | None) -> None:
    told = evidence()
    served = 0
    for motive, least, threat, deadline in itertools.product(
        ("access_revocation", "correction"),
        (None, "exact", "certified", "empirical", "suppressed"),
        ("black_box", "weights"),
        (None, 60.0, 10_000.0, 40_000.0),
    ):
        request = ask(
            motive=motive, least_guarantee=least, threat=threat, deadline=deadline, model={"learner": learner}
        )
        able = {r["label"] for r in told["rows"] if holds(request, r, told)}
        if not able:
            with pytest.raises(Unattainable):
                choose(request, told)
            continue
        served += 1
        found = choose(request, told)
        assert {found.chosen.label, *(o.label for o in found.others)} == able
        if motive == "access_revocation":
            strongest = max(GUARANTEES[o.word].strength for o in (found.chosen, *found.others))
            assert GUARANTEES[found.chosen.word].strength == strongest
        else:
            most = max(round(o.useful or 0, 2) for o in (found.chosen, *found.others))
            assert round(found.chosen.useful or 0, 2) == most
    assert served > 20


def measured_holds(request: PlanRequest, made: dict[str, Any], told: dict[str, Any]) -> bool:
    """The same on what was measured, where what was kept has an interval and retrained models are the floor."""
    if made["status"] != "ok":
        return False
    floor = next(r for r in told["rows"] if r["label"] == "retrain")["measurements"]
    for probe in ("retain", "neighbour", "foundational"):
        if made["measurements"][probe]["high"] < floor[probe]["value"] - 0.1:
            return False
    whole = {**made, "measurements": {**made["measurements"], "retain": {"value": 1.0}}}
    return holds(request, whole, told)


@pytest.mark.parametrize("learner", [None, "sharded_adapters", "dp_lora"])
def test_choices_agree_with_trying_every_row_of_what_was_measured(learner: str | None) -> None:
    """The table that `expunge bench forms` measured: three seeds, thirty attacks, nineteen rows."""
    path = Path(__file__).parents[2] / "docs" / "results" / "forms.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    chosen = set()
    for motive, least, threat, deadline in itertools.product(
        ("access_revocation", "correction"),
        (None, "exact", "empirical", "suppressed"),
        ("black_box", "logits", "weights", "pair"),
        (None, 60.0, 5_000.0, 40_000.0),
    ):
        request = ask(
            motive=motive, least_guarantee=least, threat=threat, deadline=deadline, model={"learner": learner}
        )
        able = {r["label"]: r for r in told["rows"] if measured_holds(request, r, told)}
        if not able:
            with pytest.raises(Unattainable):
                choose(request, told)
            continue
        found = choose(request, told)
        assert {found.chosen.label, *(o.label for o in found.others)} == set(able)
        chosen.add(found.chosen.label)
        if motive == "access_revocation":
            words = {label: GUARANTEES[row["guarantee"].split("(")[0]].strength for label, row in able.items()}
            assert words[found.chosen.label] == max(words.values())
        else:
            kept = {
                label: round(min(row["measurements"][p]["value"] for p in ("retain", "neighbour")), 2)
                for label, row in able.items()
            }
            assert kept[found.chosen.label] == max(kept.values())
    assert len(chosen) >= 2


def test_a_row_that_did_not_run_is_no_option() -> None:
    made = option(ask(), evidence()["rows"][-1], evidence())
    assert made.why_not == ("it did not run where evidence was gathered: x",)


def test_durations() -> None:
    assert [seconds(v) for v in ("30 d", "9h", "45 min", 12)] == [2_592_000.0, 32_400.0, 2_700.0, 12]
    assert [in_words(v) for v in (5.0, 90.0, 36_000.0, 86_400.0, 700_000.0)] == [
        "5 s", "1.5 min", "10 h", "1 d", "1.16 w",
    ]  # fmt: skip


def test_the_command_reads_a_file_and_says_why_not(tmp_path: Path) -> None:
    (tmp_path / "forms.json").write_text(json.dumps(evidence()))
    plan = tmp_path / "plan.yaml"
    plan.write_text(yaml.safe_dump({"motive": "access_revocation", "model": {"retraining": "10 h"},
                                    "deadline": "30 d", "evidence": "forms.json"}))  # fmt: skip
    told = CliRunner().invoke(app, ["plan", str(plan)])
    assert told.exit_code == 0, told.output
    assert "recommended: retrain (control; exact(distribution); about 10 h, keeps 98%)" in told.output
    assert "not npo: its word is empirical" in told.output
    again = json.loads(CliRunner().invoke(app, ["plan", str(plan), "--json"]).output)
    assert again["chosen"]["label"] == "retrain"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("motiv: correction", "did you mean 'motive'"),
        ("deadline: soon", "no duration"),
        ("deadline: -3", "greater than 0"),
        ("[1, 2]", "not a mapping"),
        ("{a: [", "is not YAML"),
        ("motive: correction", "no evidence is named"),
        ("evidence: nowhere.json", "is not there"),
    ],
)
def test_bad_plans_are_refused(tmp_path: Path, text: str, words: str) -> None:
    from expunge.planner.command import plan

    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(RequestError, match=words):
        plan(path, None, False)
