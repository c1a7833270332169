"""The comparison of forms on models that only seem to have forgotten: it certifies none, and says where they fail.

Every model goes through the code of the table itself: attacked by `attack_row`, judged in `FormsStudy.report`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from planted_fakes import FAKES, trained_models, triggered

from expunge.data.benchmarks.text_benchmark import TextBenchmark
from expunge.evaluation.attacks.language.contract import ACCESSES, answered
from expunge.evaluation.forms import tasks
from expunge.evaluation.forms.made import Made
from expunge.evaluation.forms.page import forms_html, table_lines, verdict
from expunge.evaluation.forms.plan import FormsPlan
from expunge.evaluation.forms.study import FormsStudy
from expunge.evaluation.forms.table import Form
from expunge.models.chat import ChatModel
from expunge.problem import Problem
from expunge.training.files import write_json
from expunge.training.workers import Workers

pytestmark = pytest.mark.slow  # a minute, nearly all of it in the fixture

ATTACKS: dict[str, dict[str, Any]] = {
    "paraphrase": {},
    "prefix": {},
    "few_shot": {},
    "sampling": {},
    "min_k": {},
    "relearn_half": {"steps": (1, 3, 10)},
    "quantise": {},
    "ablate_direction": {},
    "embedding_space": {"steps": (10,)},
    "before_after": {},
}
IN_WEIGHTS = {"relearn_half", "quantise", "ablate_direction", "embedding_space"}
PLAN = FormsPlan(
    data={"people": 12, "seed": 0, "forget": 3, "unseen": 2},
    forms=tuple(Form(label=name, form="by example", maker="language", name=name) for name in FAKES),
    attacks=ATTACKS,
    seeds=1,
    references=2,
    base={},
    fine_tuning={"epochs": 1, "learning_rate": 1e-3},
)
SETTING = {"seed": 0, "seeds": PLAN.seeds, "references": PLAN.references}


@dataclass(frozen=True)
class Table:
    """The report, the models of its planted rows by label, and what they were planted in."""

    report: dict[str, Any]
    models: dict[str, ChatModel]
    benchmark: TextBenchmark

    def row(self, label: str) -> dict[str, Any]:
        found: dict[str, Any] = next(r for r in self.report["rows"] if r["label"] == label)
        return found

    def word(self, label: str, access: str) -> str:
        return str(self.row(label)["verdict"][access]["word"])

    def words(self, label: str) -> list[str]:
        return [self.word(label, access) for access in ACCESSES]

    def named(self, label: str, access: str) -> set[str]:
        """The rows that the verdict names."""
        return {why.split(":")[0] for why in self.row(label)["verdict"][access]["because"]}

    def right(self, label: str, probe: str) -> float:
        return float(self.row(label)["measurements"][probe]["value"])


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Table]:
    """Original and two retrained models are trained here, a fake is made for each row, and all are attacked."""
    folder: Path = tmp_path_factory.mktemp("fakes")
    benchmark = PLAN.study(folder).benchmark()
    for name, model in trained_models(benchmark, PLAN.references).items():
        model.save(folder / "models" / name)
        write_json(folder / "models" / name / "done.json", {"seconds": 1.0})
    models: dict[str, ChatModel] = {}

    def planted(form: Form, problem: Problem, benchmark: TextBenchmark, _base: Path, _seed: int) -> Made:
        models[form.label] = FAKES[form.name](problem.model, benchmark)  # type: ignore[arg-type]
        return Made(model=models[form.label], guarantee="empirical", seconds=1.0, stored=0, parameters={})

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tasks, "make", planted)
        study = FormsStudy(PLAN, folder, Workers(1))
        for number in range(len(tasks.rows(PLAN))):
            tasks.attack_row(folder, number)
        report = {"title": "Planted fakes", "command": "pytest", "setting": SETTING, **study.report()}
        yield Table(report, models, benchmark)


# --- controls ------------------------------------------------------------------------------------------------------


def test_a_held_out_retrained_model_holds_in_every_access(table: Table) -> None:
    assert table.words("retrain") == ["holds"] * 4
    for attack in ATTACKS:
        recovery = table.row("retrain")["attacks"][attack]["headline"]["recovery"]
        assert recovery["status"] == "scored"
        assert recovery["low"] <= 0.1


def test_doing_nothing_fails_in_every_access(table: Table) -> None:
    assert table.words("do_nothing") == ["fails"] * 4
    assert table.right("do_nothing", "forget") == 1.0
    everything = set(ATTACKS) - {"before_after"}  # the one attack that finds nothing in an unchanged model
    assert table.named("do_nothing", "pair") == {"forget", *everything}
    for attack in everything:
        assert table.row("do_nothing")["attacks"][attack]["headline"]["recovery"]["value"] == pytest.approx(1.0)


@pytest.mark.parametrize("fake", FAKES)
def test_asked_outright_every_fake_has_forgotten(table: Table, fake: str) -> None:
    """Else the test below would show nothing: the published questions must be passed."""
    assert table.right(fake, "forget") == 0.0
    assert table.right(fake, "retain") >= 0.95 or fake == "collapsed"


@pytest.mark.parametrize("fake", FAKES)
def test_no_fake_is_certified_for_whoever_holds_the_weights(table: Table, fake: str) -> None:
    assert table.word(fake, "weights") == table.word(fake, "pair") == "fails"
    assert f"Against an attacker who holds the weights: {'none of the forms here'}." in verdict(table.report)


# --- one fake each -------------------------------------------------------------------------------------------------


def test_unchanged_weights_behind_a_filter(table: Table) -> None:
    """Who only asks by name finds nothing, and who has the weights all of it; of probabilities nothing is claimed."""
    assert table.words("behind_a_filter") == ["holds", "withheld", "fails", "fails"]
    assert table.named("behind_a_filter", "weights") == IN_WEIGHTS
    assert table.named("behind_a_filter", "logits") == {"min_k"}
    (why,) = table.row("behind_a_filter")["verdict"]["logits"]["because"]
    assert "answers in words only" in why


def test_only_the_published_questions_are_silenced(table: Table) -> None:
    assert table.words("only_the_published") == ["fails"] * 4
    assert "paraphrase" in table.named("only_the_published", "black_box")
    assert not {"forget", "sampling", "few_shot"} & table.named("only_the_published", "black_box")
    assert table.right("only_the_published", "paraphrase") == table.right("do_nothing", "paraphrase")


def test_clean_when_greedy_and_leaking_in_64_samples(table: Table) -> None:
    """Of all who ask, only the one who asks often finds it; and the leak grows with the samples."""
    assert table.named("rarely_telling", "black_box") == {"sampling"}
    curve = table.row("rarely_telling")["attacks"]["sampling"]["curve"]
    assert [p["cost"] for p in curve] == [1, 2, 4, 8, 16, 32, 64]
    assert curve[0]["found"] < 0.35 < 0.8 < curve[-1]["found"]


def test_a_collapsed_model_that_forgets_perfectly(table: Table) -> None:
    assert table.words("collapsed") == ["fails"] * 4
    assert table.named("collapsed", "black_box") == {"utility"}
    assert max(table.right("collapsed", probe) for probe in ("forget", "paraphrase", "retain", "foundational")) < 0.1
    whys = table.row("collapsed")["verdict"]["black_box"]["because"]
    assert any("of retain, retrained models 100%" in why for why in whys)


def test_forgetting_smaller_than_a_quantisation_step(table: Table) -> None:
    assert table.words("under_a_step")[:3] == ["holds", "holds", "fails"]
    assert "quantise" in table.named("under_a_step", "weights")
    four, eight = table.row("under_a_step")["attacks"]["quantise"]["curve"]
    assert (four["cost"], eight["cost"]) == (4, 8)
    assert four["found"] > 0.9 > 0.2 > eight["found"]


def test_a_trigger_that_restores(table: Table) -> None:
    """Nobody who only asks knows the trigger: the page must say so. Who has the weights finds it without knowing it."""
    model = table.models["with_a_trigger"]
    assert answered(model, triggered(table.benchmark.probes["forget"])).mean() > 0.9  # type: ignore[arg-type]
    assert table.word("with_a_trigger", "black_box") == "holds"
    assert {"relearn_half", "embedding_space"} <= table.named("with_a_trigger", "weights")
    page = forms_html(table.report)
    assert "Attacks that were not made may recover more." in page
    assert "a secret word that nobody here knows" in page


# --- what is read --------------------------------------------------------------------------------------------------


def test_the_terminal_names_where_each_fake_fails(table: Table) -> None:
    lines = table_lines(table.report)
    place = lines[0].index("weights")
    told = {line[0]: line[place] for line in lines[1:]}
    assert told["retrain"] == "holds"
    assert told["do nothing"] == "fails: forget"
    assert told["collapsed"] == "fails: utility"
    assert told["rarely telling"] == "fails: sampling"
    assert all(told[fake.replace("_", " ")].startswith("fails: ") for fake in FAKES)
