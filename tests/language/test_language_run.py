"""A request on a language model from its file to the model it hands over, interruptions and bad input included."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from language_tools import mean_nll
from safetensors.torch import load_file

import expunge
from expunge.environment import loading
from expunge.errors import (
    DataError,
    EmptyForgetSet,
    ModelError,
    NotEnoughRoom,
    RequestError,
    RunError,
    UnknownIds,
    UnknownName,
)
from expunge.evaluation.language.files import load_files
from expunge.evaluation.language.own_texts import own_texts, write_texts
from expunge.language_request import LanguageRequest, from_folder, is_language_request
from expunge.language_run import execute_language, make_language_plan
from expunge.models.language import LanguageModel
from expunge.request import read_document


@pytest.fixture(scope="module")
def home(trained, tmp_path_factory):
    """A user's folder: the model, its texts, a request."""
    folder = tmp_path_factory.mktemp("home")
    trained.model.save(folder / "model")
    problem = trained.problem()
    write_texts(problem.forget, folder / "forget.jsonl")
    write_texts(problem.retain, folder / "retain.jsonl")
    document = {
        "id": "leave",
        "model": "model",
        "forget": "forget.jsonl",
        "retain": "retain.jsonl",
        "method": {"name": "grad_diff", "learning_rate": 2e-3, "epochs": 8, "batch_size": 3},
        "evaluation": {"probes": {"kept": "retain.jsonl"}},
    }
    (folder / "request.yaml").write_text(yaml.safe_dump(document))
    return folder


def request(home, **changes):
    document = {**read_document(home / "request.yaml"), **changes}
    return LanguageRequest.parse(from_folder(document, home))


def run(home, out, **changes):
    return execute_language(make_language_plan(request(home, **changes), out))


def test_a_run_hands_over_a_model_that_has_forgotten(home, trained, tmp_path):
    report = run(home, tmp_path / "run")
    problem = trained.problem()
    unlearned = LanguageModel.load(tmp_path / "run" / "model")
    assert mean_nll(unlearned, problem.forget) > mean_nll(trained.model, problem.forget) + 0.5
    assert mean_nll(unlearned, problem.retain) < 0.5
    assert unlearned.template == trained.model.template
    assert (tmp_path / "run" / "report.html").exists() and not (tmp_path / "run" / "work").exists()
    assert {"forget", "retain", "kept"} == set(report["benchmark"]["probes"])
    assert report["references"] == 0
    assert "No retrained model" in (tmp_path / "run" / "report.html").read_text()


def test_a_plan_is_priced_and_writes_nothing(home, tmp_path):
    plan = make_language_plan(request(home), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    told = plan.as_dict()
    assert told["texts"]["forget"] == 3 and told["texts"]["retain"] == 21
    assert told["estimate"]["seconds"] > 0 and told["estimate"]["memory_bytes"] > 4 * plan.parameters
    assert any("parameters" in line for line in plan.lines())
    small = make_language_plan(request(home, lora={"rank": 4}), tmp_path / "run")
    assert small.trained < plan.trained == plan.parameters


def test_a_text_longer_than_the_model_reads_is_cut_and_plan_and_report_say_so(home, tmp_path):
    (home / "long.jsonl").write_text(json.dumps({"text": "Aro Belin is a baker and lives in Alding. " * 60}) + "\n")
    plan = make_language_plan(request(home, forget="long.jsonl", method={"name": "grad_diff", "epochs": 1}), tmp_path)
    (line,) = plan.as_dict()["cut"]
    assert line.startswith("forget: 1 of 1 texts are longer than the model reads") and line in plan.lines()
    notes = execute_language(plan)["benchmark"]["notes"]
    assert line in notes and line in (tmp_path / "report.html").read_text()
    assert make_language_plan(request(home), tmp_path / "other").cut == ()


def test_too_little_time_is_found_before_starting(home, tmp_path):
    plan = make_language_plan(request(home), tmp_path / "run")
    with pytest.raises(NotEnoughRoom):
        execute_language(plan, max_minutes=1e-9)
    assert not (tmp_path / "run").exists()


def test_a_run_twice_is_the_same_bytes_and_is_not_done_again(home, tmp_path):
    run(home, tmp_path / "a")
    first = (tmp_path / "a" / "model" / "model.safetensors").read_bytes()
    run(home, tmp_path / "b")
    assert (tmp_path / "b" / "model" / "model.safetensors").read_bytes() == first
    before = (tmp_path / "a" / "report.json").stat().st_mtime_ns
    run(home, tmp_path / "a")
    assert (tmp_path / "a" / "report.json").stat().st_mtime_ns == before


def test_another_request_in_the_same_folder_is_refused(home, tmp_path):
    run(home, tmp_path / "run")
    with pytest.raises(RunError, match="another request"):
        run(home, tmp_path / "run", seed=3)


def test_edited_texts_are_another_request(home, tmp_path):
    home2 = tmp_path / "home"
    shutil.copytree(home, home2)
    run(home2, tmp_path / "run")
    lines = (home2 / "forget.jsonl").read_text().splitlines()
    (home2 / "forget.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(RunError, match="another request"):
        run(home2, tmp_path / "run")


def test_adapters_are_exported_alone_or_merged(home, tmp_path):
    quick = {"name": "grad_diff", "learning_rate": 1e-2, "epochs": 3, "batch_size": 3}
    run(home, tmp_path / "adapter", method=quick, lora=True, export="adapter")
    assert (tmp_path / "adapter" / "model" / "adapter_model.safetensors").exists()
    run(home, tmp_path / "merged", method=quick, lora=True, export="merged")
    merged = LanguageModel.load(tmp_path / "merged" / "model")
    assert not merged.adapted
    adapted = LanguageModel.load(tmp_path / "adapter" / "model")
    prompts = ["Where was Cita Dovan born?", "Who lives in Corvo?"]
    assert merged.generate(prompts) == adapted.generate(prompts)


def test_without_retain_texts_the_model_writes_its_own_and_the_report_says_so(home, tmp_path, monkeypatch):
    monkeypatch.setattr("expunge.language_run.OWN_TEXTS", 12)
    report = run(home, tmp_path / "run", retain=None)
    assert any("written by the original itself" in note for note in report["benchmark"]["notes"])
    assert report["benchmark"]["records"]["retain"] >= 8


def test_owners_of_one_corpus(home, trained, tmp_path):
    rows = [
        {"id": i, "prompt": p, "answer": a, "owner": o}
        for i, p, a, o in zip(
            trained.records.ids.tolist(),
            trained.records.column("prompt"),
            trained.records.column("answer"),
            trained.records.owners.tolist(),
            strict=True,
        )
    ]
    (tmp_path / "all.jsonl").write_text("\n".join(map(json.dumps, rows)))
    asked = request(home, forget={"source": str(tmp_path / "all.jsonl"), "owners": "Cita Dovan"}, retain=None)
    plan = make_language_plan(asked, tmp_path / "run")
    assert plan.texts["forget"] == 3 and plan.texts["retain"] == 21
    wrong = request(home, forget={"source": str(tmp_path / "all.jsonl"), "owners": ["Nobody"]}, retain=None)
    with pytest.raises(UnknownIds, match="Nobody"):
        make_language_plan(wrong, tmp_path / "run")


def test_bad_requests_name_cause_and_remedy(home, tmp_path):
    for changes, error, words in (
        ({"method": "nop"}, UnknownName, "npo"),
        ({"method": {"name": "npo", "betta": 1}}, RequestError, "betta"),
        ({"model": str(tmp_path / "nowhere")}, ModelError, "save_pretrained"),
        ({"model": {"name": "model", "device": "cuda"}}, RequestError, "no cuda device"),
        ({"forget": "nowhere.jsonl"}, DataError, "nowhere.jsonl"),
        ({"least_guarantee": "exact"}, RequestError, "may claim at most"),
        ({"retain": "forget.jsonl"}, DataError, "forgotten and kept at once"),
        ({"method": "rmu", "lora": True}, RequestError, "without lora"),
        ({"export": "adapter"}, RequestError, "needs lora"),
        ({"forgett": "x"}, RequestError, "forget"),
        ({"tokens_at_once": 1}, RequestError, "tokens_at_once"),
    ):
        with pytest.raises(error, match=words):
            make_language_plan(request(home, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_which_requests_are_on_language_models():
    assert is_language_request({"model": "gpt"}) and is_language_request({"model": {"name": "gpt"}})
    assert not is_language_request({"model": {"factory": "a:b"}}) and not is_language_request([1])


def test_a_text_cannot_be_forgotten_and_kept(home, tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match=r"no texts|empty"):
        load_files(forget={"source": str(tmp_path / "empty.jsonl")})
    joined = load_files(forget={"source": str(home / "forget.jsonl")}, retain={"source": str(home / "retain.jsonl")})
    assert len(joined.train) == 24 and len(joined.forget) == 3


@pytest.mark.parametrize("when", [1, 3])
def test_killed_in_the_middle_a_run_ends_in_the_same_bytes(home, tmp_path, when):
    run(home, tmp_path / "whole")
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from expunge.language_request import LanguageRequest, from_folder\n"
        "from expunge.language_run import *; from expunge.request import read_document\n"
        "import expunge.training.text_stages as stages\n"
        "stages.Stages.__dataclass_fields__['every_seconds'].default = 0\n"
        "stages.Stages.__init__.__defaults__ = (None, 0.0)\n"
        f"home = Path({str(home)!r})\n"
        "asked = LanguageRequest.parse(from_folder(read_document(home / 'request.yaml'), home))\n"
        f"plan = make_language_plan(asked, Path({str(tmp_path / 'run')!r}))\n"
        "def kill(what, done, total):\n"
        f"    if 'loss' in what and done > {when}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "execute_language(plan, progress=kill)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "run" / "report.json").exists()
    run(home, tmp_path / "run")
    whole, resumed = (Path(tmp_path / n / "model" / "model.safetensors").read_bytes() for n in ("whole", "run"))
    assert whole == resumed


def test_the_model_writes_texts_of_its_own(trained):
    records = own_texts(trained.model, 12, 0)
    assert 8 <= len(records) <= 12
    assert records.digest() == own_texts(trained.model, 12, 0).digest()
    assert records.digest() != own_texts(trained.model, 12, 1).digest()


def test_two_lines_of_python(trained):
    problem = trained.problem()
    gone = list(zip(problem.forget.column("prompt"), problem.forget.column("answer"), strict=True))
    kept = [
        {"prompt": p, "answer": a}
        for p, a in zip(problem.retain.column("prompt"), problem.retain.column("answer"), strict=True)
    ]
    before = trained.model.digest()
    outcome = expunge.unlearn(
        trained.model.module,
        trained.model.tokenizer,
        forget=gone,
        retain=kept,
        method="npo",
        template=trained.model.template,
        learning_rate=1e-3,
        batch_size=3,
    )
    assert trained.model.digest() == before
    assert mean_nll(outcome.model, problem.forget) > 1.0 > mean_nll(outcome.model, problem.retain)


def test_a_retain_set_chosen_for_you_is_said_so(trained, monkeypatch):
    monkeypatch.setattr("expunge.unlearning.OWN_TEXTS", 10)
    outcome = expunge.unlearn(
        trained.model, forget=["Aro Belin was born in Alding."], method="grad_diff", learning_rate=1e-3
    )
    assert "chosen for you" in outcome.trace[0]["retain"]
    with pytest.raises(DataError, match="single string"):
        expunge.unlearn(trained.model, forget="all of it")
    with pytest.raises(EmptyForgetSet):
        expunge.unlearn(trained.model, forget=[])
    with pytest.raises(DataError, match="prompt, answer"):
        expunge.unlearn(trained.model, forget=[3])  # type: ignore[list-item]


def test_the_command_line(home, tmp_path):
    command = [sys.executable, "-m", "expunge", "run", str(home / "request.yaml"), "--out", str(tmp_path / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    dry = subprocess.run([*command, "-n", "--json"], capture_output=True, text=True, env=environment, check=True)
    assert json.loads(dry.stdout)["method"]["name"] == "grad_diff"
    told = subprocess.run([*command, "--json"], capture_output=True, text=True, env=environment, check=True)
    report = json.loads(told.stdout)
    assert report["schema"] == "expunge/language/1" and report["rows"][-1]["status"] == "ok"


@pytest.mark.slow
def test_two_processes_run_the_same_request_to_the_same_weights(home, trained, tmp_path):
    run(home, tmp_path / "one")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29713"]
    command = ["-m", "expunge", "run", str(home / "request.yaml"), "--out", str(tmp_path / "two"), "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*launch, *command], env=environment, check=True, capture_output=True, timeout=240)
    one, two = (load_file(tmp_path / n / "model" / "model.safetensors") for n in ("one", "two"))
    start = trained.model.module.state_dict()
    change = sum(float(((one[k] - start[k]) ** 2).sum()) for k in one) ** 0.5
    apart = sum(float(((one[k] - two[k]) ** 2).sum()) for k in one) ** 0.5
    assert apart < 1e-3 * change  # Adam makes much of the rounding where a gradient is near 0


def test_planning_loads_nothing_that_draws_or_only_tests_hypotheses():
    """A run starts within seconds; what is slow to load and not needed for a plan comes when it is."""
    heavy = ("matplotlib", "scipy.stats", "scipy.optimize", "sklearn")
    code = f"import sys, expunge.language_run; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_libraries_are_loaded_without_a_search_for_garbage_which_then_goes_on():
    def inside(fail=False):
        with loading():
            assert not gc.isenabled()
            if fail:
                raise ImportError

    inside()
    assert gc.isenabled()
    with pytest.raises(ImportError):
        inside(fail=True)
    assert gc.isenabled()
    gc.disable()
    try:
        inside()
        assert not gc.isenabled()  # it was off before
    finally:
        gc.enable()


def test_a_command_looks_for_no_garbage_when_it_ends():
    """What is left when Python goes: everything, which it need not walk through."""
    code = (
        "import atexit, gc, sys\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 1000))\n"  # the last registered runs first
        "from expunge.cli import main; sys.argv = ['expunge', '--version']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "True"
