"""`expunge simulate` from the options to the page."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from expunge.errors import RequestError, UnknownName
from expunge.service.policy import Policy
from expunge.service.simulate.command import parse_shares, simulate
from expunge.service.simulate.page import verdict
from expunge.service.simulate.picture import share
from expunge.service.simulate.rules import SIMULATED
from expunge.service.simulate.study import Study, run_study

SMALL = Study(requests=3_000, days=90, burst=("20:1000:2:safety",), largest_batch=200, cost_per_hour=2.5, seed=3)
app = typer.Typer()
app.command()(simulate)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulate")
    run_study(SMALL, out)
    return out


def test_the_document_is_whole(ran: Path) -> None:
    told = json.loads((ran / "simulation.json").read_text(encoding="utf-8"))
    assert told["schema"] == "expunge/simulation/1"
    assert [row["rule"] for row in told["rows"]] == list(SIMULATED)
    assert len(told["grid"]["rows"]) == 2 * 4 + 4 * 12
    assert told["traffic"]["requests"] == 4_000
    assert all(sum(v["requests"] for v in row["by_reason"].values()) == 4_000 for row in told["rows"])
    assert Policy.model_validate(told["policy"]).serving.largest_batch == 200


def test_the_page_says_what_the_document_says(ran: Path) -> None:
    told = json.loads((ran / "simulation.json").read_text(encoding="utf-8"))
    page = (ran / "simulation.html").read_text(encoding="utf-8")
    assert verdict(told).replace("'", "&#39;") in page
    for row in told["rows"]:
        assert share(row["in_time"]) in page and f"{row['peak_backlog']:,}" in page
    assert "<script" not in page and "http://" not in page.replace("http://www.w3.org", "")
    assert len(re.findall(r'id="plot-heat-\d"', page)) == 2 and 'id="plot-frontier"' in page
    assert len(re.findall(r'id="plot-open-\d"', page)) == len(SIMULATED)
    assert "#01010" not in page  # every sentinel colour became the page's


def test_the_same_study_is_the_same_bytes(ran: Path, tmp_path: Path) -> None:
    run_study(SMALL, tmp_path)
    for name in ("simulation.json", "simulation.html", "simulation.png"):
        assert (tmp_path / name).read_bytes() == (ran / name).read_bytes()


def test_the_command_that_is_told_runs_again(ran: Path, tmp_path: Path) -> None:
    said = shlex.split(SMALL.command())
    assert said[:2] == ["expunge", "simulate"]
    done = CliRunner().invoke(app, [*said[2:], "--out", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == json.loads((ran / "simulation.json").read_text(encoding="utf-8"))


def test_every_option_is_told_in_the_command(tmp_path: Path) -> None:
    every = Study(
        requests=5,
        days=4,
        regimes={"gdpr": 0.5, "ccpa": 0.5},
        burst=("1:2", "2:3"),
        rules=("now", "batched"),
        deadlines=(3,),
        periods=(2.5,),
        target=0.5,
        workers=2,
        run_minutes=3.0,
        run_p95_minutes=5.0,
        evaluation_minutes=2.0,
        approximate_minutes=0.5,
        per_request_seconds=1.5,
        shards=4,
        slices=2,
        rows=100,
        approval_days=1.5,
        largest_batch=9,
        cost_per_hour=1.0,
        seed=8,
    )
    done = CliRunner().invoke(app, [*shlex.split(every.command())[2:], "--out", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["command"] == every.command()
    assert every.command().count("--burst") == 2


def test_the_tables_are_printed(tmp_path: Path) -> None:
    options = [
        "--requests",
        "300",
        "--days",
        "30",
        "--rule",
        "batched,periodic",
        "--deadlines",
        "10,20",
        "--periods",
        "5",
    ]
    done = CliRunner().invoke(app, [*options, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "batched" in done.output and "periodic 5" in done.output and "…" not in done.output
    assert "simulation.html" in done.output


def test_a_policy_and_a_record_from_files(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(
        "regimes:\n  house: {days: 3}\ndefault_regime: house\nserving: {rule: batched, margin_hours: 2}\n",
        encoding="utf-8",
    )
    times = "".join(f"2026-03-{d:02d}T10:00:00Z\n" for d in (1, 1, 2, 9))
    (tmp_path / "r.csv").write_text("received_at\n" + times, encoding="utf-8")
    (tmp_path / "seconds.json").write_text('{"run": [60, 61], "evaluation": [1]}', encoding="utf-8")
    study = Study(
        policy_path=tmp_path / "policy.yaml",
        traffic=tmp_path / "r.csv",
        measured=tmp_path / "seconds.json",
        rules=("batched",),
        deadlines=(5,),
        periods=(2,),
    )
    told = run_study(study, tmp_path / "out")
    row = told["rows"][0]
    assert row["by_regime"] == {"house": {"requests": 4, "in_time": 1.0}}
    # Received at ten o'clock, due at the end of the third day after, less two hours, less p95: three runs wait so long.
    assert row["runs"] == {"exact": 2} and row["days_max"] == pytest.approx(3 + 12 / 24, abs=0.01)
    assert 62 > told["servers"]["p95_seconds_of_one"] > 61.9


def test_no_rule_complies_is_said(tmp_path: Path) -> None:
    hopeless = Study(requests=500, days=30, rules=("now",), run_minutes=3000, workers=1, deadlines=(1,), periods=(5,))
    told = run_study(hopeless, tmp_path)
    assert verdict(told).startswith("No rule keeps 99%")
    assert "At none of these deadlines: now." in (tmp_path / "simulation.html").read_text(encoding="utf-8")


def test_shares_never_round_to_all_or_nothing() -> None:
    assert [share(v) for v in (0.0, 1e-9, 0.5, 0.99999, 1.0)] == ["0%", "0.1%", "50.0%", "99.9%", "100%"]


def test_refusals(tmp_path: Path) -> None:
    for options in (
        {"rules": ("batchd",)},
        {"rules": ()},
        {"shards": 5},
        {"traffic": tmp_path / "r.csv", "burst": ("1:2",)},
    ):
        with pytest.raises(RequestError):
            Study(**options)
    with pytest.raises(UnknownName, match="batched"):
        Study(rules=("batchd",))
    for text in ("gdpr", "gdpr=much", "gdpr=nan"):
        with pytest.raises(RequestError):
            parse_shares(text)
    for text in ("[1]", '{"run": "x"}', '{"walk": [1]}', '{"run": [true]}', "{}", "no"):
        (tmp_path / "m.json").write_text(text, encoding="utf-8")
        with pytest.raises(RequestError):
            Study(measured=tmp_path / "m.json").servers()
    with pytest.raises(RequestError, match="cannot read"):
        Study(measured=tmp_path / "none.json").servers()
    with pytest.raises(RequestError, match="out of range"):
        Study(cost_per_hour=-1.0).policy()


def test_the_simulation_loads_no_torch() -> None:
    code = (
        "import sys, pathlib, tempfile; from expunge.service.simulate import Study, run_study; "
        "run_study(Study(requests=50, days=9), pathlib.Path(tempfile.mkdtemp())); "
        "sys.exit(bool({'torch', 'transformers', 'sqlalchemy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    light = "import sys; import expunge.service.simulate.command; sys.exit(bool({'numpy', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", light], check=False).returncode == 0
