"""`expunge audit epsilon RUN`: from a folder to verdicts, an exit code and JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gaussian_learners import DescendingMean

from expunge.audit.epsilon.command import DEFAULT_GAMES, audit_epsilon, audit_learner
from expunge.data.records import Records
from expunge.errors import RequestError, RunError, UnknownName
from expunge.methods import LEARNERS
from expunge.methods.durable import DurableLearner
from expunge.methods.exact.naive_bayes import NaiveBayes
from expunge.methods.learner import Job, Learned, State


def table(n: int = 60, d: int = 40) -> Records:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, d))
    return Records(ids=np.array([f"r{k}" for k in range(n)]), columns={"x": x, "y": x[:, 0] - x[:, 1]})


def folder_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **broken: Any) -> Path:
    monkeypatch.setitem(LEARNERS, DescendingMean.name, DescendingMean)
    learner = DescendingMean(epsilon=1.0, delta=0.01, group=60, **broken)
    return DurableLearner.create(tmp_path / "run", learner, table(), seed=3).folder


def test_a_correct_run_passes_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = folder_of(tmp_path, monkeypatch)
    before = {p.name: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    told: list[tuple[str, int, int]] = []
    found = audit_epsilon(run, rounds=24, canaries=16, size=20, progress=lambda *step: told.append(step))
    assert found.exit_code == 0 and len(found.verdicts) == len(DEFAULT_GAMES) + 1
    assert told == [("learning", k, told[-1][2]) for k in range(1, told[-1][2] + 1)], "progress ends where it says"
    assert {p.name: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before
    lines = found.lines()
    assert lines[0].startswith("descending_mean: certified(ε=1, δ=0.01)") and lines[-1].startswith("not refuted")
    assert any("claimed 1.00, observed at least" in line and "(99%)" in line for line in lines)
    again = audit_epsilon(run, rounds=24, canaries=16, size=20)
    assert json.dumps(again.as_dict()) == json.dumps(found.as_dict()), "a function of the folder and the arguments"


@pytest.mark.parametrize("game", ["retrained", "one_run"])
def test_a_broken_run_is_refuted_with_exit_code_1(game: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = folder_of(tmp_path, monkeypatch, noise_cut=0.001)
    found = audit_epsilon(run, games=[game], rounds=64, canaries=64, size=20)
    assert found.exit_code == 1 and found.as_dict()["refuted"] is True
    assert found.lines()[-1].startswith("REFUTED")


def test_the_games_share_the_confidence() -> None:
    one = audit_learner(NaiveBayes(), labelled(), games=["retrained"], rounds=16, size=20, kind="extreme")
    two = audit_learner(NaiveBayes(), labelled(), games=["retrained", "never_in"], rounds=16, size=20, kind="extreme")
    assert one.verdicts[0].confidence == pytest.approx(0.95)
    assert [v.confidence for v in two.verdicts] == pytest.approx([0.975, 0.975])
    assert one.claimed.startswith("exact") and one.exit_code == 0


def labelled() -> Records:
    data = table(d=2)
    return Records(ids=data.ids, columns={"x": data.x.astype(np.float32), "y": (data.y > 0).astype(np.int64)})


def test_games_without_a_claim_refute_nothing() -> None:
    learner = DescendingMean(epsilon=1.0, delta=0.01, noise_cut=0.001, group=9)
    for games in (["in_or_out"], ["adaptive"], ["one_run_in_or_out"]):
        found = audit_learner(learner, table(), games=games, rounds=64, size=20, canaries=16)
        assert [v.outcome for v in found.verdicts] == ["no claim"] and found.exit_code == 0
        assert found.lines()[-1].startswith("nothing to refute")
    assert audit_learner(learner, table(), games=["in_or_out"], rounds=64, size=20).verdicts[0].observed > 1.0


class Unforgetting(DescendingMean):
    def remove(self, state: State, ids: tuple[str, ...], *, job: Job) -> Learned:
        raise AssertionError("nothing is to be deleted")


def test_games_about_privacy_delete_nothing() -> None:
    for game in ("in_or_out", "one_run_in_or_out"):
        found = audit_learner(Unforgetting(noise_cut=0.001), table(), games=[game], rounds=16, size=20, kind="extreme")
        assert [v.outcome for v in found.verdicts] == ["no claim"]


def test_refuses_before_anything_is_learned(tmp_path: Path) -> None:
    wrong: list[tuple[dict[str, Any], type[Exception]]] = [
        ({"games": ["chess"]}, UnknownName),
        ({"games": []}, RequestError),
        ({"rounds": 15}, RequestError),
        ({"kind": "sweet"}, UnknownName),
        ({"access": "gradients"}, UnknownName),
        ({"size": 2}, RequestError),
    ]
    for arguments, error in wrong:
        with pytest.raises(error):
            audit_learner(NaiveBayes(), labelled(), **arguments)
    with pytest.raises(RunError):
        audit_epsilon(tmp_path)
