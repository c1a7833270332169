"""A study of language models on a world of a few people: models trained, methods run, everything compared."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from expunge.data.benchmarks.tofu import load_tofu
from expunge.errors import RequestError, RunError, UnknownName
from expunge.evaluation.benchmarks.language import (
    PRESETS,
    LanguageBench,
    chosen_methods,
    evaluate_model,
    finetuned,
    run_language,
)
from expunge.evaluation.language.measure import measure
from expunge.evaluation.language.plan import StudyPlan, people_model, tokenizer_for
from expunge.evaluation.language.study import Study
from expunge.evaluation.language.tuning import best_of, distinct, draw, judge
from expunge.evaluation.language_page import cell, language_html, table_lines, verdict
from expunge.methods import LANGUAGE_METHODS
from expunge.models.language import LanguageModel
from expunge.models.template import Template
from expunge.models.tiny import tiny_llama
from expunge.result import Measurement
from expunge.training.workers import Workers

AUTHORS = Path(__file__).parents[2] / "data" / "files" / "tofu_authors"
SETTING = LanguageBench(
    options={"people": 8, "forget": 2, "unseen": 2},
    methods=("gradient_ascent", "grad_diff@paper"),
    count=2,
    seeds=2,
)


@pytest.fixture(scope="module", autouse=True)
def short_training():
    """Six people are learnt by heart in a third of the steps that sixty need."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("expunge.evaluation.language.plan.LEAST_STEPS", 200)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("people")


@pytest.fixture(scope="module")
def report(folder):
    return run_language(SETTING, folder, processes=1)


def row(report, label):
    return next(r for r in report["rows"] if r["label"] == label)


def value(report, label, name):
    found = row(report, label)["measurements"][name]
    assert found["status"] == "scored", found
    return found["value"]


def test_the_original_knows_what_retrained_models_do_not(report):
    assert value(report, "do_nothing", "forget/accuracy") >= 0.95
    assert value(report, "retrain", "forget/accuracy") <= 0.2
    assert value(report, "retrain", "retain/accuracy") >= 0.95
    assert value(report, "do_nothing", "unseen/accuracy") <= 0.2


def test_floor_and_ceiling_are_those_of_retraining_and_of_doing_nothing(report):
    found = row(report, "grad_diff-paper")["measurements"]["forget/probability"]
    assert found["floor"] == pytest.approx(value(report, "retrain", "forget/probability"))
    assert found["ceiling"] == pytest.approx(value(report, "do_nothing", "forget/probability"))
    assert found["unit_of_n"] == "seeds" and found["n"] == 2


def test_papers_defaults_leave_a_tiny_model_unmoved(report):
    assert value(report, "grad_diff-paper", "forget/accuracy") >= 0.95


def test_forget_quality_of_a_reference_leaves_itself_out(report, folder):
    found = row(report, "retrain")["measurements"]["forget/forget_quality"]
    assert found["value"] < 1.0 or len(set(found["detail"]["per_seed"])) == 1
    study = Study(SETTING.plan(), folder, Workers(1))
    one = study.recorded("reference-1")
    with_itself = measure(one, references=[one])["forget/forget_quality"]
    assert isinstance(with_itself, Measurement) and with_itself.value == pytest.approx(1.0)


def test_without_references_forget_quality_is_unscored(folder, report):
    study = Study(SETTING.plan(), folder, Workers(1))
    found = measure(study.recorded("reference-1"))["forget/forget_quality"]
    assert not isinstance(found, Measurement) and "retrained" in found.reason


def test_an_interrupted_study_goes_on_and_gives_the_same_numbers(report, folder, tmp_path):
    class Killed(Exception):
        pass

    def stop(what, done, total):
        if what == "outcomes" and done == 1:
            raise Killed

    for name in ("models", "outputs"):  # the second reference is trained again, and so are all outcomes
        for one in ("original", "reference-1"):
            shutil.copytree(folder / name / one, tmp_path / name / one)
    with pytest.raises(Killed):
        run_language(SETTING, tmp_path, processes=1, progress=stop)
    again = run_language(SETTING, tmp_path, processes=1)
    for label in ("retrain", "gradient_ascent", "grad_diff-paper"):
        assert again["rows"][0]["measurements"] == report["rows"][0]["measurements"]
        assert row(again, label)["measurements"] == row(report, label)["measurements"]


def test_a_folder_of_another_study_is_refused(report, folder):
    with pytest.raises(RunError, match="another study"):
        run_language(replace(SETTING, seeds=1), folder, processes=1)


def test_the_page_and_the_table_show_every_row(report):
    page = language_html(report)
    assert "<script" not in page
    for name in ("do nothing", "retrain", "gradient ascent", "grad diff-paper"):
        assert name in page
    lines = table_lines(report)
    assert len(lines) == 5 and all(len(line) == len(lines[0]) for line in lines)
    assert "Retrained models answer" in verdict(report)


def test_examples_tell_what_every_model_says(report):
    first = report["examples"][0]
    assert first["probe"] == "forget"
    assert set(first["says"]) == {"original", "retrained", "gradient_ascent", "grad_diff-paper"}
    assert first["says"]["original"] == first["answer"]
    words = "".join(word for word, _ in first["tokens"]["original"])
    assert first["answer"] in words.replace("</s>", "")


def test_a_model_from_elsewhere_is_asked_the_same(folder, report, tmp_path):
    models = folder / "models"
    told = evaluate_model(
        str(models / "reference-2"),
        "people",
        SETTING.options,
        tmp_path,
        references=(str(models / "reference-1"),),
        original=str(models / "original"),
    )
    found = cell(row(told, "evaluated"), "forget", "accuracy")
    assert found is not None and found["value"] <= 0.2
    assert row(told, "evaluated")["guarantee"] == "unknown"


def test_a_failed_method_stands_in_the_table_with_its_reason(folder, report, tmp_path):
    models = folder / "models"
    setting = replace(
        SETTING, methods=("npo",), model=str(models / "original"), references=(str(models / "reference-1"),), seeds=1
    )
    plan = setting.plan()
    broken = replace(plan, methods=(("npo", "npo", {"learning_rate": 1e30, "epochs": 3}),))
    with Workers(1) as workers:
        told = Study(broken, tmp_path, workers).run()
    failed = row(told, "npo")
    assert failed["status"] == "failed" and "not finite" in failed["reason"]


def test_names_of_methods():
    chosen = chosen_methods("npo, grad_diff@paper", {"npo": {"beta": 0.5}})
    assert chosen == (["npo", "npo", {"beta": 0.5}], ["grad_diff-paper", "grad_diff", {}])
    everything = {name for _, name, _ in chosen_methods("all", {})}
    assert everything == {n for n, m in LANGUAGE_METHODS.items() if m.kind == "method"}
    with pytest.raises(UnknownName):
        chosen_methods("nop", {})
    with pytest.raises(UnknownName):
        chosen_methods("npo@mine", {})
    with pytest.raises(RequestError):
        chosen_methods("retrain", {})
    more = [label for label, _, _ in chosen_methods("all, npo, npo@paper", {})]
    assert sorted(more) == sorted([*everything, "npo-paper"])


def test_a_variant_at_the_rate_that_the_original_was_trained_at():
    chosen = chosen_methods(["gradient_ascent@trained"], {"gradient_ascent": {"epochs": 20}}, 0.003)
    assert chosen == (["gradient_ascent-trained", "gradient_ascent", {"learning_rate": 0.003}],)
    with pytest.raises(RequestError, match="nobody knows"):
        chosen_methods("npo@trained", {})
    for name in ("mend", "steering"):  # a rate of something else, and none
        with pytest.raises(RequestError, match="no learning rate"):
            chosen_methods(f"{name}@trained", {}, 0.003)
    plan = replace(SETTING, methods="npo@trained").plan()
    assert plan.model.recipe is not None
    assert plan.methods[0][2] == {"learning_rate": plan.model.recipe["trainer"]["learning_rate"]}


def test_a_benchmark_that_nobody_learned_needs_a_model():
    with pytest.raises(RequestError, match="needs a model"):
        LanguageBench(benchmark="tofu", options={"source": str(AUTHORS), "forget": "forget01"}, methods="npo").plan()


def test_a_plan_survives_json():
    plan = SETTING.plan()
    assert StudyPlan.from_dict(json.loads(json.dumps(plan.as_dict()))).as_dict() == plan.as_dict()
    assert people_model(plan.benchmark(), count=2) == plan.model


def test_tuning_never_looks_at_retrained_models_and_prefers_what_resembles_strangers(folder, report):
    study = Study(SETTING.plan(), folder, Workers(1))
    original = study.recorded("original")
    nothing = judge(original, original)
    retrained = judge(study.recorded("reference-1"), original)
    assert nothing["score"] < 0.2 < 0.5 < retrained["score"]
    assert nothing["kept"] == 1.0


def test_a_trial_is_a_function_of_method_number_and_seed():
    assert draw("npo", 3) == draw("npo", 3)
    assert draw("npo", 3) != draw("npo", 4)
    for name, method in LANGUAGE_METHODS.items():
        if method.kind == "method":
            method(**draw(name, 0))
    assert rome_trials() == [draw("rome", k) for k in range(12) if k in distinct("rome", 0, 12)]
    rates = np.array([draw("npo", k)["learning_rate"] for k in range(64)])
    assert rates.min() >= 1e-4 and rates.max() <= 3e-3 and len(set(rates)) > 32


def rome_trials():
    """Its space has six points, so that twelve draws repeat."""
    seen = []
    for k in range(12):
        if draw("rome", k) not in seen:
            seen.append(draw("rome", k))
    assert len(seen) <= 6
    return seen


def test_later_trials_are_those_of_one_long_row_without_repetitions():
    assert distinct("npo", 6, 12) == {k: draw("npo", k) for k in range(6, 12)}
    whole, later = distinct("rome", 0, 12), distinct("rome", 4, 12)
    assert later == {k: v for k, v in whole.items() if k >= 4}


def test_the_best_trial_is_the_highest_and_the_earliest():
    trials = [{"score": 0.2, "trial": 0}, {"score": 0.7, "trial": 1}, {"score": 0.7, "trial": 2}]
    assert best_of(trials)["trial"] == 1
    with pytest.raises(RequestError):
        best_of([])


def test_every_preset_is_a_method_that_can_be_made():
    told = json.loads(PRESETS.read_text(encoding="utf-8"))
    for name, parameters in told["methods"].items():
        LANGUAGE_METHODS[name](**parameters)
        assert 0 < told["judged"][name]["score"] <= 1
    assert {found["trials"] for found in told["judged"].values()} == {12}  # as docs/people.md says
    assert set(told["methods"]) == {n for n, m in LANGUAGE_METHODS.items() if m.kind == "method"}


def test_what_contradicts_itself_is_in_the_report(report):
    retrained = row(report, "retrain")["measurements"]
    assert retrained["forget/contradicted_share"]["value"] > 0.5  # it guesses a value of the right kind
    assert value(report, "do_nothing", "forget/contradicted_share") < 0.4
    assert "contradictions, kept" in language_html(report)


def test_the_page_is_written_beside_its_document(report, folder):
    assert json.loads((folder / "language.json").read_text(encoding="utf-8"))["schema"] == "expunge/language/1"
    assert (Path(folder) / "language.html").exists()


def few_authors(folder):
    """TOFU's files with a few rows of those that are only asked."""
    shutil.copytree(AUTHORS, folder)
    for name, rows in (("retain_perturbed", 6), ("real_authors_perturbed", 4), ("world_facts_perturbed", 4)):
        path = folder / f"{name}.json"
        kept = path.read_text(encoding="utf-8").splitlines()[:rows]
        path.unlink()
        path.write_text("\n".join(kept) + "\n", encoding="utf-8")
    return str(folder)


def test_tofu_is_written_for_openunlearning_and_read_back(tmp_path):
    source = few_authors(tmp_path / "authors")
    data = load_tofu(source, forget="forget01")
    tokenizer = tokenizer_for(data, 600)
    blank = tiny_llama(vocabulary=len(tokenizer), width=32, layers=2, heads=2, hidden=64, context=256)
    LanguageModel(blank, tokenizer, Template()).save(tmp_path / "base")
    base = str(tmp_path / "base")
    setting = LanguageBench(
        benchmark="tofu",
        options={"source": source, "forget": "forget01"},
        methods=("grad_diff",),
        recipe=finetuned(base, 1),
        base=base,
        count=1,
        seeds=1,
    )
    told = run_language(setting, tmp_path / "a", processes=1)
    assert row(told, "base_that_never_saw_it")["kind"] == "reference"
    assert "too little to forget" in verdict(told)
    log = tmp_path / "a" / "openunlearning" / "original" / "TOFU_EVAL.json"
    summary = json.loads(log.with_name("TOFU_SUMMARY.json").read_text())
    assert summary["forget_Q_A_Prob"] == pytest.approx(value(told, "do_nothing", "forget/probability"))
    assert summary["model_utility"] == pytest.approx(value(told, "do_nothing", "model_utility"))
    models = tmp_path / "a" / "models"
    again = replace(
        setting, recipe=None, base=str(models / "original"), model=str(models / "original"), retain_log=str(log)
    )
    told = run_language(again, tmp_path / "b", processes=1)
    itself = row(told, "base_that_never_saw_it")["measurements"]["forget/forget_quality_of_log"]
    assert itself["value"] == pytest.approx(1.0)
    forgotten = row(told, "grad_diff")["measurements"]["forget/forget_quality_of_log"]
    assert forgotten["status"] == "scored"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "measured"),
    [
        ("pii", {}, "forget/pii_exact_repetition"),
        ("copyright", {}, "verbatim/longest_common_substring_share"),
        ("toxicity", {}, "polite/toxicity_rate"),
        ("backdoor", {"probes": 40}, "triggered/backdoor_rate"),
    ],
)
def test_every_generated_benchmark_runs_on_a_small_model(name, options, measured, tmp_path):
    setting = LanguageBench(benchmark=name, options=options, methods=("grad_diff@paper",), count=1, seeds=1)
    told = run_language(setting, tmp_path, processes=1)
    before, after = value(told, "do_nothing", measured), value(told, "retrain", measured)
    assert before > after + 0.15, (before, after)


@pytest.mark.slow
def test_edits_are_asked_with_what_follows_from_them_and_what_does_not(tmp_path):
    setting = LanguageBench(
        benchmark="editing", options={"people": 20, "edits": 4}, methods=("rome",), count=1, seeds=1
    )
    told = run_language(setting, tmp_path, processes=1)
    assert value(told, "do_nothing", "same_person/accuracy") >= 0.95
    assert value(told, "do_nothing", "edit/accuracy") <= 0.2
    assert {"two_hop/accuracy", "unrelated/accuracy"} <= set(row(told, "do_nothing")["measurements"])
