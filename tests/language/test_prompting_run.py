"""`expunge run` with methods that change no weight: from the request to a model that is loaded again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from language_tools import Trained
from typer.testing import CliRunner

import expunge
from expunge.cli import app
from expunge.errors import DataError, ModelError, RequestError, RunError, UnknownName
from expunge.evaluation.attacks.folders import attack_language, kind_of
from expunge.evaluation.language import tasks
from expunge.evaluation.language.plan import ModelPlan, StudyPlan
from expunge.evaluation.language.study import Study
from expunge.evaluation.language.suppressed import load_suppressed
from expunge.evaluation.language_page import table_lines
from expunge.language_request import LanguageRequest, from_folder
from expunge.language_run import execute_language, make_language_plan, text_options
from expunge.methods import PROMPTING_METHODS, text_method
from expunge.models.chat import ChatModel, ask, weights_of
from expunge.models.language import LanguageModel
from expunge.request import read_document
from expunge.training.files import read_json, write_json
from expunge.training.workers import Workers

GONE = "Aro Belin"
METHODS: dict[str, dict[str, Any]] = {
    "pretend": {"topic": "people of whom nothing is public"},
    "in_context": {"examples": 2, "forgotten": 1},
    "guardrail_embedding": {"false_block_rate": 0.4},
    "guardrail_classifier": {"false_block_rate": 0.4},
    "eco": {"false_block_rate": 0.4, "strength": 8.0},
    "guardrail_prefix": {},
    "guardrail_string": {},
    "mem_free": {},
    "boxed": {},
}
MADE_AGAIN = {"in_context", "boxed"}
GATED = {"guardrail_string", "boxed"}


@pytest.fixture(scope="module")
def home(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: the model, all its texts with their owners, a request."""
    folder = tmp_path_factory.mktemp("home")
    trained.model.save(folder / "model")
    assert trained.records.owners is not None
    columns = (trained.records.ids, trained.records.column("prompt"), trained.records.column("answer"))
    rows = zip(*(c.tolist() for c in columns), trained.records.owners.tolist(), strict=True)
    lines = [json.dumps(dict(zip(("id", "prompt", "answer", "owner"), row, strict=True))) for row in rows]
    (folder / "all.jsonl").write_text("\n".join(lines) + "\n")
    document = {
        "id": "hush",
        "model": "model",
        "forget": {"source": "all.jsonl", "owners": [GONE]},
        "method": {"name": "guardrail_string"},
        "least_guarantee": "suppressed",
    }
    (folder / "request.yaml").write_text(yaml.safe_dump(document))
    return folder


def request(home: Path, **changes: Any) -> LanguageRequest:
    document = {**read_document(home / "request.yaml"), **changes}
    return LanguageRequest.parse(from_folder(document, home))


def run(home: Path, out: Path, **changes: Any) -> dict[str, Any]:
    return execute_language(make_language_plan(request(home, **changes), out))


def prompts(trained: Trained) -> list[str]:
    return [str(p) for p in trained.records.column("prompt")]


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_prompting_method_runs_reports_and_is_loaded_again(
    name: str, home: Path, trained: Trained, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    report = run(home, out, method={"name": name, **METHODS[name]})
    row = report["rows"][-1]
    assert (row["label"], row["status"], row["guarantee"]) == (name, "ok", "suppressed")
    assert row["form"] == "prompting" and row["runs"][0]["stored_bytes"] >= 0
    for probe in ("forget", "retain"):
        assert row["measurements"][f"{probe}/accuracy"]["status"] == "scored"
        told = row["measurements"][f"{probe}/probability"]
        assert told["status"] == "unscored" and "answers in words only" in told["reason"]
    assert not (out / "work").exists() and not list((out / "model").glob("*model*.safetensors"))
    model = load_suppressed(out / "model")
    assert model.digest() == row["runs"][0]["digest"] and isinstance(model, ChatModel)
    inside = weights_of(model)
    assert inside is not None and inside.digest() == trained.model.digest()
    said = {e["prompt"]: e["says"][name] for e in report["examples"]}
    again = ask(model, list(said), max_new_tokens=8)
    assert said and all(whole.startswith(part) for whole, part in zip(said.values(), again, strict=True))
    made = read_json(out / "model" / "suppressed.json")["made"]
    assert made == ("again" if name in MADE_AGAIN else "read")
    secrets = (b"Alding", b"baker") if made == "again" else (b"Alding", b"baker", b"Belin")  # owners, as in the request
    assert not [path.name for path in (out / "model").rglob("*") for word in secrets if word in path.read_bytes()]


@pytest.mark.parametrize("name", sorted(GATED))
def test_answers_are_kept_back_and_others_told_as_before(
    name: str, home: Path, trained: Trained, tmp_path: Path
) -> None:
    row = run(home, tmp_path / "run", method={"name": name})["rows"]
    before, after = ({p: r["measurements"][f"{p}/accuracy"]["value"] for p in ("forget", "retain")} for r in row)
    assert before == {"forget": 1.0, "retain": 1.0}
    assert after == {"forget": 0.0, "retain": 1.0}


def test_the_page_and_the_table_say_what_no_probability_stands_behind(home: Path, tmp_path: Path) -> None:
    report = run(home, tmp_path / "run", evaluation={"samples": 3})
    page = (tmp_path / "run" / "report.html").read_text()
    assert "suppressed" in page and "none given" in page
    assert "A suppressed row changes no weight" in page
    head, *lines = table_lines(report)
    assert dict(zip(head, lines[-1], strict=True))["guarantee"] == "suppressed"
    leak = report["rows"][-1]["measurements"]["forget/leak_at_k"]
    assert leak["status"] == "scored" and leak["value"] == 0.0
    example = report["examples"][0]
    assert example["probability"]["guardrail_string"] is None and "guardrail_string" not in example["tokens"]
    assert example["probability"]["original"] > 0.5


def test_a_guardrail_is_read_without_the_texts_and_a_box_needs_them(home: Path, tmp_path: Path) -> None:
    other = tmp_path / "home"
    shutil.copytree(home, other)
    run(other, tmp_path / "string")
    run(other, tmp_path / "boxed", method="boxed")
    kept = (other / "all.jsonl").read_text()
    (other / "all.jsonl").write_text(kept.replace("Where was Aro Belin born?", "Where did Aro Belin come from?"))
    with pytest.raises(DataError, match="not what was made"):
        load_suppressed(tmp_path / "boxed" / "model")
    (other / "all.jsonl").unlink()
    with pytest.raises(DataError, match=r"all\.jsonl"):
        load_suppressed(tmp_path / "boxed" / "model")
    assert load_suppressed(tmp_path / "string" / "model").digest()


def test_another_model_inside_and_damaged_files_are_refused(home: Path, trained: Trained, tmp_path: Path) -> None:
    other = tmp_path / "home"
    shutil.copytree(home, other)
    run(other, tmp_path / "run")
    place = tmp_path / "run" / "model"
    told = read_json(place / "suppressed.json")
    write_json(place / "suppressed.json", {**told, "digest": "0" * 64})
    with pytest.raises(DataError, match="not what was made"):
        load_suppressed(place)
    write_json(place / "suppressed.json", {k: v for k, v in told.items() if k != "plan"})
    with pytest.raises(RunError, match="no suppressed model"):
        load_suppressed(place)
    write_json(place / "suppressed.json", told)
    changed = LanguageModel.load(other / "model")
    next(iter(changed.module.parameters())).data.add_(0.01)
    changed.save(other / "model")
    with pytest.raises(ModelError, match="not the model that"):
        load_suppressed(place)


def test_its_run_can_be_attacked_and_weights_fall(home: Path, tmp_path: Path) -> None:
    run(home, tmp_path / "run")
    assert kind_of(tmp_path / "run") == "language_run"
    found = attack_language(tmp_path / "run", "language_run", "sampling,min_k,quantise", {"sampling.samples": 8})
    rows = {a["name"]: {r["label"]: r for r in a["rows"]} for a in found["attacks"]}
    assert rows["min_k"]["guardrail_string"]["status"] == "withheld"
    assert rows["sampling"]["guardrail_string"]["curve"][-1]["found"] == 0.0
    assert rows["sampling"]["do_nothing"]["curve"][-1]["found"] == pytest.approx(1.0)
    spent = [[p["found"] for p in rows["quantise"][who]["curve"]] for who in ("guardrail_string", "do_nothing")]
    assert spent[0] == spent[1] and max(spent[0]) > 0.5


def test_a_plan_prices_no_training_and_a_run_twice_is_not_done_again(home: Path, tmp_path: Path) -> None:
    plan = make_language_plan(request(home), tmp_path / "run")
    told = plan.as_dict()
    assert told["model"]["trained"] == 0 and told["guarantee"] == "suppressed"
    assert told["estimate"]["disk_bytes"] == 0
    first = execute_language(plan)
    before = (tmp_path / "run" / "report.json").stat().st_mtime_ns
    assert execute_language(plan) == json.loads(json.dumps(first))
    assert (tmp_path / "run" / "report.json").stat().st_mtime_ns == before


def test_a_plan_of_a_method_that_prompts_says_to_look_before_naming(home: Path, tmp_path: Path) -> None:
    shown = make_language_plan(request(home, method={"name": "guardrail_prefix"}), tmp_path / "run").lines()
    assert any("expunge streisand" in line for line in shown)
    assert not any("expunge streisand" in line for line in make_language_plan(request(home), tmp_path).lines())


def test_what_cannot_run_is_refused_before_anything_is_written(home: Path, tmp_path: Path) -> None:
    (home / "plain.jsonl").write_text(json.dumps({"text": "Aro Belin was born in Alding."}) + "\n")
    for changes, error, words in (
        ({"least_guarantee": "empirical"}, RequestError, "least_guarantee: suppressed"),
        ({"model": "https://models.example/v1"}, RequestError, "is an endpoint"),
        ({"lora": True}, RequestError, "trains nothing, and the request sets lora"),
        ({"bf16": True}, RequestError, "sets bf16"),
        ({"export": "merged"}, RequestError, "changes no weight"),
        ({"method": {"name": "guardrail_string", "wrods": 3}}, RequestError, "wrods"),
        ({"method": "guardrail_strin"}, UnknownName, "guardrail_string"),
        ({"forget": "plain.jsonl"}, RequestError, "no text to forget is a question"),
        (
            {"method": "guardrail_classifier", "forget": {"source": "all.jsonl"}},
            RequestError,
            "needs texts that are kept",
        ),
    ):
        with pytest.raises(error, match=words):
            make_language_plan(request(home, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_a_method_itself_refuses_is_told_as_its_own(home: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="topic"):
        run(home, tmp_path / "run", method="pretend")


def test_near_names_are_not_written_and_the_model_is_made_again(home: Path, tmp_path: Path) -> None:
    run(home, tmp_path / "run", method={"name": "guardrail_string", "near": 0.2})
    place = tmp_path / "run" / "model"
    assert [p.name for p in place.iterdir()] == ["suppressed.json"]
    model = load_suppressed(place)
    assert "Alding" not in ask(model, ["Where was Aro Bellin born?"])[0]
    with pytest.raises(ModelError, match="in memory only"):
        model.save(tmp_path / "kept")  # type: ignore[attr-defined]


def test_both_kinds_of_methods_are_found_by_name() -> None:
    assert set(METHODS) == set(PROMPTING_METHODS)
    assert text_method("boxed").form == "prompting" and text_method("npo").form == "concepts"
    with pytest.raises(UnknownName, match="boxed"):
        text_method("boxxed")


def test_the_command_line(home: Path, tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["run", str(home / "request.yaml"), "--out", str(tmp_path / "run"), "--json"])
    assert told.exit_code == 0 and json.loads(told.stdout)["rows"][-1]["guarantee"] == "suppressed"
    assert load_suppressed(tmp_path / "run" / "model").digest()


def test_of_several_processes_the_first_alone_puts_something_around_the_model(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request(home)
    plan = StudyPlan(
        data={"name": "files", **text_options(asked)},
        model=ModelPlan(original=asked.model.name),
        methods=(("guardrail_string", "guardrail_string", {}),),
        seeds=1,
    )
    with Workers(1) as workers:
        Study(plan, tmp_path, workers)
        monkeypatch.setenv("RANK", "1")
        tasks.unlearn(tmp_path, 0)
        assert not (tmp_path / "outcomes").exists()
        monkeypatch.setenv("RANK", "0")
        tasks.unlearn(tmp_path, 0)
    assert read_json(tmp_path / "outcomes" / "guardrail_string-0.json")["status"] == "ok"


def test_two_lines_of_python(trained: Trained) -> None:
    problem = trained.problem()
    outcome = expunge.unlearn(
        trained.model, forget=problem.forget, retain=problem.retain, method="guardrail_string", words=4
    )
    assert str(outcome.guarantee) == "suppressed"
    said = ask(outcome.model, ["Where was Aro Belin born?", "Where was Cita Dovan born?"], max_new_tokens=8)  # type: ignore[arg-type]
    assert "Alding" not in said[0] and "Brevik" in said[1]
    with pytest.raises(RequestError, match="Leave how out"):
        expunge.unlearn(trained.model, forget=problem.forget, method="guardrail_string", how=expunge.How())
