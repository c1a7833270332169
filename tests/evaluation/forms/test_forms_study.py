"""A comparison carried out from end to end on models too small to know anything: files, rows, resumption."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from expunge.errors import RequestError, RunError, UnknownName
from expunge.evaluation.benchmarks.forms import FormsBench
from expunge.evaluation.forms.plan import FormsPlan, chosen_attacks, chosen_forms
from expunge.evaluation.forms.study import FormsStudy
from expunge.training.workers import Workers

torch.set_num_threads(1)


def plan(**changes: object) -> FormsPlan:
    settings: dict = {
        "data": {"people": 8, "forget": 2, "unseen": 2, "dialogues": 0},
        "forms": chosen_forms("exact_adapters,content_filter,idk_tuning"),
        "attacks": {"paraphrase": {}, "min_k": {}},
        "seeds": 1,
        "references": 2,
        "base": {"lines": 0, "repeats": 1, "epochs": 1},
        "fine_tuning": {"learning_rate": 1e-3, "epochs": 1},
        **changes,
    }
    forms = tuple(
        type(f)(**{**f.__dict__, "parameters": {**f.parameters, "epochs": 1}}) if f.maker != "tool" else f
        for f in settings.pop("forms")
    )
    return FormsPlan(forms=forms, **settings)


@pytest.fixture(scope="module")
def carried_out(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("forms")
    return folder, FormsStudy(plan(), folder, Workers(1)).run()


def test_every_form_has_a_row_and_every_attack_a_field(carried_out: tuple[Path, dict]) -> None:
    _, report = carried_out
    rows = {r["label"]: r for r in report["rows"]}
    assert list(rows) == ["do_nothing", "retrain", "exact_adapters", "content_filter", "idk_tuning"]
    assert all(r["status"] == "ok" for r in rows.values())
    assert rows["exact_adapters"]["guarantee"] == "exact(bitwise)"
    assert rows["content_filter"]["attacks"]["min_k"]["status"] == "withheld"
    assert rows["content_filter"]["attacks"]["paraphrase"]["status"] == "ok"
    assert rows["idk_tuning"]["attacks"]["min_k"]["status"] == "ok"
    assert set(rows["retrain"]["verdict"]) == {"black_box", "logits", "weights", "pair"}


def test_the_filter_refuses_and_the_dropped_adapters_leave_the_base(carried_out: tuple[Path, dict]) -> None:
    folder, _ = carried_out
    told = json.loads((folder / "attacked" / "content_filter-0" / "done.json").read_text())
    assert set(told["asked"]["forget"]["said"]) == {"I can't help with that."}
    assert "I can't help with that." not in told["asked"]["retain"]["said"]


def test_an_interrupted_comparison_goes_on_to_the_same_numbers(carried_out: tuple[Path, dict]) -> None:
    folder, report = carried_out
    (folder / "attacked" / "idk_tuning-0" / "done.json").unlink()
    (folder / "attacked" / "idk_tuning-0" / "min_k.json").unlink()
    kept = (folder / "attacked" / "idk_tuning-0" / "paraphrase.json").read_bytes()
    again = FormsStudy(plan(), folder, Workers(1)).run()
    assert (folder / "attacked" / "idk_tuning-0" / "paraphrase.json").read_bytes() == kept
    for one, two in zip(report["rows"], again["rows"], strict=True):
        assert one["measurements"] == two["measurements"]
        assert one["attacks"] == two["attacks"]


def test_a_folder_of_another_comparison_is_refused(carried_out: tuple[Path, dict]) -> None:
    folder, _ = carried_out
    with pytest.raises(RunError, match="another comparison"):
        FormsStudy(plan(seeds=2), folder, Workers(1))


def test_bad_settings_are_refused() -> None:
    with pytest.raises(UnknownName, match="form"):
        chosen_forms("boxd")
    with pytest.raises(UnknownName, match="attack"):
        chosen_attacks("relearn_haf")
    with pytest.raises(RequestError, match="no form"):
        chosen_forms(" , ")
    with pytest.raises(RequestError, match="two at least"):
        FormsBench(references=1).plan()


def test_presets_are_part_of_the_plan() -> None:
    (form,) = chosen_forms("npo")
    assert form.parameters["learning_rate"] > 0
