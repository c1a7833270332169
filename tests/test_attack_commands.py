"""`expunge attack` and `--attacks` from the folder of a run to the file and the table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from expunge.cli import app
from expunge.data.benchmarks.people_benchmark import make_people_benchmark
from expunge.errors import ExpungeError, ModelError, RequestError, RunError, UnknownName
from expunge.evaluation.attacks.classifier import CLASSIFIER_ATTACKS
from expunge.evaluation.attacks.folders import kind_of
from expunge.evaluation.attacks.language import LANGUAGE_ATTACKS
from expunge.evaluation.attacks.on_language import attack_study, language_attacks
from expunge.evaluation.language.plan import StudyPlan, people_model
from expunge.evaluation.language.study import BASE, Study
from expunge.evaluation.language_page import language_html
from expunge.language_request import LanguageRequest, from_folder
from expunge.language_run import execute_language, make_language_plan
from expunge.listings import attack_rows
from expunge.methods import make_language_method
from expunge.models.classifier import Classifier
from expunge.recipe import Recipe
from expunge.request import Request
from expunge.run import attack_run, execute, make_plan
from expunge.training.files import read_json, write_json
from expunge.training.workers import Workers

PEOPLE = {"people": 8, "forget": 2, "unseen": 2}
QUICK = "loss_membership,min_k,reference_membership"


def call(*arguments: str, fails: type[ExpungeError] | None = None) -> str:
    done = CliRunner().invoke(app, list(arguments))
    if fails is not None:
        assert isinstance(done.exception, fails), (done.exception, done.output)
        return str(done.exception)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of models that hardly learned: where an attack finds its models, not what it finds there."""
    folder = tmp_path_factory.mktemp("study")
    model = people_model(make_people_benchmark(**PEOPLE), count=3)
    recipe = Recipe.from_dict(model.recipe or {})
    short = replace(recipe, trainer=replace(recipe.trainer, epochs=3))
    plan = StudyPlan(
        data={"name": "people", **PEOPLE},
        model=replace(model, recipe=short.as_dict()),
        methods=(
            ("gradient_ascent", "gradient_ascent", {"epochs": 1}),
            ("npo", "npo", {"learning_rate": 1e30, "epochs": 3}),
        ),
        seeds=1,
        probes=("forget", "retain"),
    )
    with Workers(1) as workers:
        report = Study(plan, folder, workers).run()
    write_json(folder / "language.json", report)
    return folder


def labels(document: dict[str, Any], attack: int = 0) -> list[str]:
    return [r["label"] for r in document["attacks"][attack]["rows"]]


def test_a_study_is_attacked_and_the_file_lies_in_its_folder(study: Path) -> None:
    told = call("attack", str(study), "--attack", QUICK, "--settings", "k=0.5")
    document = read_json(study / "attacks.json")
    assert document["schema"] == "expunge/attacks/1" and document["models"] == "language"
    assert labels(document) == ["do_nothing", "reference-1", "reference-2", "reference-3", "gradient_ascent", "npo"]
    assert document["attacks"][1]["settings"] == {"k": 0.5}
    for words in ("min_k: tells them", "k 0.5", "retrained (3)", "gradient ascent", "outcome:"):
        assert words in told
    failed = document["attacks"][0]["rows"][-1]
    assert failed["status"] == "withheld" and "not finite" in failed["reason"]
    assert "npo" in told and "not finite" in told


def test_a_retrained_model_is_given_up_to_calibrate_where_two_are_left(study: Path) -> None:
    found = attack_study(study, language_attacks("reference_membership,loss_membership"))
    calibrated, plain = found["attacks"]
    assert calibrated["settings"]["reference"].endswith("reference-3")
    assert "reference-3" not in labels(found) and "reference-3" in labels(found, 1)
    assert len(calibrated["rows"][-2]["headline"]["retrained"]) == 2
    assert len(plain["rows"][-2]["headline"]["retrained"]) == 3


def test_the_public_base_calibrates_before_a_retrained_model_does(study: Path) -> None:
    plan = StudyPlan.from_dict(read_json(study / "plan.json"))
    known = replace(plan, given=((BASE, str(study / "models" / "reference-2")),))
    found = attack_study(study, language_attacks("reference_membership"), plan=known)
    assert found["attacks"][0]["settings"]["reference"].endswith("reference-2")
    assert BASE not in labels(found), "a model that never saw the texts is nobody's unlearned one"


def test_json_is_the_document_and_a_file_may_be_named(study: Path, tmp_path: Path) -> None:
    told = call("attack", str(study), "--attack", "loss_membership", "--out", str(tmp_path / "x.json"), "--json")
    assert json.loads(told) == read_json(tmp_path / "x.json")


def test_a_model_from_elsewhere_is_attacked_with_what_is_told_of_it(study: Path, tmp_path: Path) -> None:
    options = [x for key, value in PEOPLE.items() for x in ("--set", f"{key}={value}")]
    model, models = str(study / "unlearned" / "gradient_ascent"), study / "models"
    told = ["attack", model, "--benchmark", "people", *options, "--attack", QUICK, "--out", str(tmp_path / "a.json")]
    alone = json.loads(call(*told, "--json"))
    assert labels(alone) == ["evaluated"]
    assert alone["attacks"][0]["rows"][0]["headline"]["recovery"]["status"] == "unscored"
    assert "attacker has none" in alone["attacks"][2]["rows"][0]["reason"]
    beside = ["--original", str(models / "original"), "--reference", str(models / "reference-1")]
    beside += ["--reference", str(models / "reference-2")]
    both = json.loads(call(*told, *beside, "--json"))
    assert labels(both) == ["do_nothing", "reference-1", "reference-2", "evaluated"]
    assert "attacker has none" in both["attacks"][2]["rows"][-1]["reason"], "two retrained models are left as they are"
    whole = attack_study(study, language_attacks("loss_membership"))["attacks"][0]["rows"][-2]
    assert both["attacks"][0]["rows"][-1]["headline"]["found"] == whole["headline"]["found"]


def test_what_cannot_be_attacked_is_refused_in_words(study: Path, tmp_path: Path) -> None:
    run = str(study)
    assert "Did you mean min_k" in call("attack", run, "--attack", "min_q", fails=UnknownName)
    assert "setting 'q'" in call("attack", run, "--attack", "min_k", "--settings", "q=1", fails=RequestError)
    assert "--settings name=value" in call("attack", run, "--attack", "min_k", "--settings", "k", fails=RequestError)
    assert "--original" in call("attack", run, "--attack", "min_k", "--original", "x", fails=RequestError)
    model = str(study / "models" / "original")
    assert "--benchmark" in call("attack", model, "--attack", "min_k", fails=RunError)
    assert "there is no folder" in call("attack", str(tmp_path / "no"), "--attack", "min_k", fails=RunError)
    assert "holds no run" in call("attack", str(tmp_path), "--attack", "min_k", fails=RunError)
    gone = ["attack", str(tmp_path / "no"), "--benchmark", "people", "--attack", "min_k"]
    call(*gone, "--out", str(tmp_path / "a.json"), fails=ModelError)


def test_an_unfinished_study_is_refused(study: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "plan.json", read_json(study / "plan.json"))
    assert kind_of(tmp_path) == "study"
    with pytest.raises(RunError, match="not finished"):
        attack_study(tmp_path, language_attacks("min_k"))


def test_a_report_shows_its_attacks(study: Path) -> None:
    report = {"title": "t", "command": "", "setting": {"seed": 0}, **read_json(study / "language.json")}
    assert "Under attack" not in language_html(report)
    page = language_html(
        {**report, "attacks": attack_study(study, language_attacks("min_k,relearn_half", {"steps": [1, 2]}))}
    )
    assert "Under attack" in page and "min k" in page and "relearn half: found over cost" in page
    assert "<script" not in page


def test_attacks_are_an_option_of_the_benchmark_and_checked_before_anything_is_trained(tmp_path: Path) -> None:
    for command in (("bench", "people"), ("evaluate", "model")):
        out = tmp_path / command[0]
        call(*command, "--attacks", "min_q", "--out", str(out), fails=UnknownName)
        assert not out.exists()


def test_evaluate_adds_its_attacks_to_the_report(study: Path, tmp_path: Path) -> None:
    options = [x for key, value in PEOPLE.items() for x in ("--set", f"{key}={value}")]
    model = str(study / "unlearned" / "gradient_ascent")
    told = ["evaluate", model, "--benchmark", "people", *options, "--original", str(study / "models" / "original")]
    report = json.loads(call(*told, "--attacks", "min_k", "--out", str(tmp_path), "--json"))
    assert labels(report["attacks"]) == ["do_nothing", "evaluated"]
    assert "Under attack" in (tmp_path / "language.html").read_text()


def test_a_run_of_a_language_model_is_attacked_in_its_folder(study: Path, tmp_path: Path) -> None:
    from expunge.evaluation.language.own_texts import write_texts

    data = make_people_benchmark(**PEOPLE)
    for name, records in (("forget", data.forget), ("retain", data.retain), ("holdout", data.probes["holdout"])):
        write_texts(records, tmp_path / f"{name}.jsonl")
    document = {
        "id": "leave",
        "model": str(study / "models" / "original"),
        "forget": "forget.jsonl",
        "retain": "retain.jsonl",
        "holdout": "holdout.jsonl",
        "method": {"name": "gradient_ascent", "epochs": 1},
        "evaluation": {"references": [str(study / "models" / f"reference-{k}") for k in (1, 2)]},
    }
    (tmp_path / "request.yaml").write_text(yaml.safe_dump(document))
    asked = LanguageRequest.parse(from_folder(document, tmp_path))
    execute_language(make_language_plan(asked, tmp_path / "run"))
    assert make_language_method("gradient_ascent").name == "gradient_ascent"
    found = json.loads(call("attack", str(tmp_path / "run"), "--attack", "loss_membership,relearn_half", "--json"))
    assert labels(found) == ["do_nothing", "reference-1", "reference-2", "gradient_ascent"]
    assert found["attacks"][0]["rows"][-1]["status"] == "ok"
    missing = found["attacks"][1]["rows"][-1]
    assert missing["status"] == "withheld" and "relearn" in missing["reason"]


# --- classifiers -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "one"
    request = {
        "id": "test",
        "data": {"source": "digits", "options": {"owners": 40}},
        "model": {
            "factory": "expunge.models.architectures:mlp",
            "kwargs": {"features": 64, "classes": 10, "width": 32},
            "trainer": {"epochs": 4, "batch_size": 64},
        },
        "forget": {"owners": ["synthetic-owner-007"]},
        "method": {"name": "finetune", "epochs": 1},
        "evaluation": {"references": 4, "unlearned": 4},
    }
    execute(make_plan(Request.parse(request), folder), processes=1)
    return folder


def test_a_run_of_a_classifier_is_opened_again_and_attacked(finished: Path) -> None:
    from safetensors.numpy import load_file

    found = json.loads(call("attack", str(finished), "--attack", "population_loss,lira", "--models", "3", "--json"))
    assert labels(found) == ["do_nothing", "reference-1", "reference-2", "reference-3", "finetune"]
    assert read_json(finished / "attacks.json") == found
    # The models that are trained again are those that the run recorded.
    recorded = {
        name: load_file(str(finished / "outputs" / f"{name}.safetensors")) for name in ("original", "unlearned")
    }
    plan = make_plan(
        Request.parse({k: v for k, v in read_json(finished / "request.json").items() if k != "resolved"}), finished
    )
    unlearned = Classifier.load(finished / "model" / "model.safetensors", plan.recipe)
    assert found["digests"]["finetune"] == unlearned.digest()
    from expunge.evaluation.attacks.classifier.contract import margins
    from expunge.training.population import train

    original = train(plan.recipe, plan.train, seed=0)
    assert found["digests"]["original"] == original.digest()
    assert margins(original, plan.train.select(plan.forget)) == pytest.approx(
        recorded["original"]["margin.forget"][0], abs=1e-3
    )


def test_an_unfinished_or_changed_run_of_a_classifier_is_refused(finished: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "request.json", read_json(finished / "request.json"))
    with pytest.raises(RunError, match="not finished"):
        attack_run(tmp_path, [])
    with pytest.raises(RunError, match="not finished"):
        kind_of(tmp_path)
    frozen = read_json(finished / "request.json")
    write_json(tmp_path / "report.json", read_json(finished / "report.json"))
    write_json(tmp_path / "request.json", {**frozen, "resolved": {**frozen["resolved"], "train": "another"}})
    with pytest.raises(RunError, match="have changed"):
        attack_run(tmp_path, [])
    assert kind_of(finished) == "classifier_run"


def test_language_attacks_are_unknown_to_classifiers(finished: Path) -> None:
    assert "attack on classifiers" in call("attack", str(finished), "--attack", "min_k", fails=UnknownName)


# --- listing ---------------------------------------------------------------------------------------------------------


def test_one_listing_covers_everything() -> None:
    from expunge.evaluation.attacks import ATTACKS

    rows = attack_rows()
    named = {(r["models"], r["name"]) for r in rows}
    assert named == {
        *(("language", n) for n in LANGUAGE_ATTACKS),
        *(("classifier", n) for n in {*CLASSIFIER_ATTACKS, *ATTACKS}),
    }
    assert len(rows) == len(named)
    for row in rows:
        assert all(row[key] for key in ("name", "models", "access", "unit", "paper", "summary")), row
        assert row["alone"] == (row["name"] in {*LANGUAGE_ATTACKS, *CLASSIFIER_ATTACKS})
    assert json.loads(call("attacks", "--json")) == json.loads(json.dumps(rows))
    assert "reference_membership" in call("attacks")
