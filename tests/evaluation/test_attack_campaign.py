"""A campaign of attacks: everybody alike, controls beside, nothing done twice, and why something is missing."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from expunge.errors import DataError, MissingEvidence, NoAccess, RequestError, RunError, UnknownName
from expunge.evaluation.attacks.campaign import Campaign, Suspect, read_attacks, write_attacks
from expunge.evaluation.attacks.language.contract import Point, Trial
from expunge.evaluation.attacks.on_language import chosen_attacks
from expunge.evaluation.attacks_page import attack_lines, curves, reasons, section_values

ITEMS = tuple(f"i{k}" for k in range(40))
CALLS: list[tuple[str, float]] = []


@dataclass(frozen=True)
class Model:
    """Something that knows a share of the items."""

    knows: float

    def digest(self) -> str:
        return f"digest of {self.knows}"


@dataclass(frozen=True, kw_only=True)
class Ask:
    """Finds what a model knows, and a tenth more at the higher cost."""

    name: ClassVar[str] = "ask"
    summary: ClassVar[str] = "asks <politely>"
    paper: ClassVar[str] = "none"
    access: ClassVar[str] = "black_box"
    unit: ClassVar[str] = "prompts"
    headline: ClassVar[str] = "last"
    reference: str = ""
    bonus: float = 0.1
    costs: tuple[int, ...] = (1, 20)

    def run(self, target: tuple[Model, Any], scene: Any, *, seed: int) -> Trial:
        model, before = target
        CALLS.append((self.name, model.knows))
        if model.knows == 0.5:
            raise NoAccess("nobody can ask it", "Leave it")
        if model.knows == 0.55:
            raise MissingEvidence("there are no questions", "Give some")
        if model.knows == 0.45:
            raise DataError("it broke", "Mend it")
        found = (np.arange(len(ITEMS)) < model.knows * len(ITEMS)).astype(float)
        points = [Point(cost=c, found=np.clip(found + k * self.bonus, 0, 1)) for k, c in enumerate(self.costs)]
        return Trial(items=ITEMS, points=tuple(points), unit=self.unit, shown={"before": before is not None, "a": (1,)})

    def settings(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Compare(Ask):
    name: ClassVar[str] = "compare"
    access: ClassVar[str] = "pair"


@dataclass(frozen=True, kw_only=True)
class Inverted(Ask):
    name: ClassVar[str] = "inverted"
    unscored: ClassVar[str] = "retraining is no floor"


@dataclass
class Made:
    """How often each model was made."""

    count: dict[float, int] = field(default_factory=dict)

    def of(self, label: str, knows: float, source: str = "") -> Suspect:
        def load() -> Model:
            self.count[knows] = self.count.get(knows, 0) + 1
            return Model(knows)

        return Suspect(label=label, load=load, source=source)


@pytest.fixture
def made() -> Made:
    CALLS.clear()
    return Made()


def campaign(made: Made, folder: Path, **changes: Any) -> Campaign:
    given: dict[str, Any] = {
        "models": "language",
        "scene": None,
        "scene_digest": "scene",
        "original": made.of("original", 0.9),
        "references": [made.of(f"reference-{k}", x, f"ref{k}") for k, x in enumerate((0.1, 0.15, 0.2), 1)],
        "unlearned": {"npo": [made.of("npo", 0.5 + 0.0125)], "undo": [made.of("undo", 0.2)]},
        "absent": {"rmu": "it did not run: the loss is not finite"},
        "target": lambda model, before: (model, before),
        "folder": folder,
    }
    return Campaign(**{**given, **changes})


def rows(document: dict[str, Any], attack: int = 0) -> dict[str, Any]:
    return {r["label"]: r for r in document["attacks"][attack]["rows"]}


def test_recovery_lies_between_retrained_models_and_the_original(made, tmp_path):
    found = rows(campaign(made, tmp_path).run([Ask(bonus=0.0)]))
    assert list(found) == ["do_nothing", "reference-1", "reference-2", "reference-3", "npo", "undo", "rmu"]
    assert found["do_nothing"]["headline"]["recovery"]["value"] == pytest.approx(1.0)
    span = 0.9 - 0.15
    assert found["npo"]["headline"]["recovery"]["value"] == pytest.approx((21 / 40 - 0.15) / span)
    assert found["undo"]["headline"]["recovery"]["value"] == pytest.approx((0.2 - 0.15) / span)
    assert found["undo"]["headline"]["cost"] == 20.0 and len(found["undo"]["curve"]) == 2


def test_a_retrained_model_is_held_against_the_others_and_never_against_itself(made, tmp_path):
    found = rows(campaign(made, tmp_path).run([Ask(bonus=0.0)]))
    assert found["reference-1"]["headline"]["retrained"] == pytest.approx([0.15, 0.2])
    assert found["reference-1"]["headline"]["recovery"]["value"] == pytest.approx((0.1 - 0.175) / (0.9 - 0.175))


def test_the_model_that_calibrates_an_attack_is_no_reference_for_it(made, tmp_path):
    document = campaign(made, tmp_path).run([Ask(reference="ref3", bonus=0.0), Ask(bonus=0.0)])
    assert "reference-3" not in rows(document) and "reference-3" in rows(document, 1)
    assert rows(document)["undo"]["headline"]["retrained"] == pytest.approx([0.1, 0.15])
    assert rows(document, 1)["undo"]["headline"]["retrained"] == pytest.approx([0.1, 0.15, 0.2])


def test_what_is_done_is_not_done_again_and_a_changed_model_is(made, tmp_path):
    first = campaign(made, tmp_path).run([Ask()])
    assert len(CALLS) == 6
    assert campaign(made, tmp_path).run([Ask()]) == first
    assert len(CALLS) == 6
    changed = campaign(made, tmp_path, unlearned={"npo": [made.of("npo", 0.7)], "undo": [made.of("undo", 0.2)]})
    assert rows(changed.run([Ask()]))["npo"] != rows(first)["npo"]
    assert CALLS[6:] == [("ask", 0.7)]
    campaign(made, tmp_path).run([Ask(bonus=0.2)])
    campaign(made, tmp_path, seed=1).run([Ask()])
    campaign(made, tmp_path, scene_digest="another").run([Ask()])
    assert len(CALLS) == 7 + 3 * 6, "other settings, another seed and another scene are other trials"


def test_an_interrupted_campaign_goes_on_where_it_was(made, tmp_path):
    class Killed(Exception):
        pass

    def stop(_: str, done: int, total: int) -> None:
        if done == 4:
            raise Killed

    with pytest.raises(Killed):
        campaign(made, tmp_path).run([Ask()], stop)
    assert len(CALLS) == 4
    campaign(made, tmp_path).run([Ask()])
    assert len(CALLS) == 6


def test_each_model_is_made_once_for_all_attacks_and_the_original_once_more_for_pairs(made, tmp_path):
    campaign(made, tmp_path).run([Ask(), Inverted()])
    assert set(made.count.values()) == {1, 2} and made.count[0.2] == 2  # undo and reference-3 know as much
    made.count.clear()
    document = campaign(made, tmp_path).run([Ask(), Compare()])
    assert made.count[0.9] == 2
    assert not rows(document)["undo"]["shown"]["before"]


def test_only_an_attack_on_pairs_is_bound_to_the_model_before(made, tmp_path):
    campaign(made, tmp_path).run([Ask(), Compare()])
    CALLS.clear()
    campaign(made, tmp_path, original=made.of("original", 0.95)).run([Ask(), Compare()])
    asked = [knows for name, knows in CALLS if name == "ask"]
    assert asked == [0.95] and len([1 for name, _ in CALLS if name == "compare"]) == 6


@pytest.mark.parametrize(
    ("knows", "reason"),
    [(0.5, "nobody can ask it"), (0.55, "there are no questions"), (0.45, "it did not run: it broke")],
)
def test_what_cannot_be_attacked_is_withheld_with_the_reason(knows, reason, made, tmp_path):
    document = campaign(made, tmp_path, unlearned={"box": [made.of("box", knows)]}).run([Ask()])
    found = rows(document)["box"]
    assert found["status"] == "withheld" and reason in found["reason"] and found["headline"] is None
    assert rows(document)["reference-1"]["status"] == "ok"
    assert any(reason in line and "ask" in line for line in reasons(document))


def test_without_the_original_what_was_found_stands_and_recovery_is_unscored(made, tmp_path):
    found = rows(campaign(made, tmp_path, original=None).run([Ask()]))
    assert "do_nothing" not in found
    assert found["npo"]["headline"]["recovery"]["status"] == "unscored" and found["npo"]["headline"]["found"] > 0.5


def test_an_attack_without_a_floor_says_so_at_every_point(made, tmp_path):
    found = rows(campaign(made, tmp_path).run([Inverted()]))["npo"]
    for point in (*found["curve"], found["headline"]):
        assert point["recovery"]["status"] == "unscored" and point["recovery"]["reason"] == "retraining is no floor"


def test_two_models_of_one_label_are_refused(made, tmp_path):
    with pytest.raises(RequestError, match="one label"):
        campaign(made, tmp_path, unlearned={"original": [made.of("original", 0.3)]}).run([Ask()])


def test_a_damaged_trial_is_named(made, tmp_path):
    campaign(made, tmp_path).run([Ask()])
    path = next((tmp_path / "ask").glob("undo-*.json"))
    path.write_text("{}")
    with pytest.raises(RunError, match="damaged"):
        campaign(made, tmp_path).run([Ask()])


def test_a_later_document_keeps_the_earlier_attacks_on_the_same_models(made, tmp_path):
    path = tmp_path / "attacks.json"
    write_attacks(campaign(made, tmp_path).run([Ask(), Compare()]), path)
    both = write_attacks(campaign(made, tmp_path).run([Inverted(), Ask()]), path)
    assert [a["name"] for a in both["attacks"]] == ["compare", "inverted", "ask"]
    assert read_attacks(path) == both
    other = campaign(made, tmp_path, unlearned={"npo": [made.of("npo", 0.7)]}).run([Ask()])
    assert [a["name"] for a in write_attacks(other, path)["attacks"]] == ["ask"]
    assert json.loads(path.read_text())["schema"] == "expunge/attacks/1"


def test_another_file_is_not_overwritten(made, tmp_path):
    path = tmp_path / "report.json"
    path.write_text('{"schema": "expunge/report/1"}')
    with pytest.raises(RunError, match="no document of attacks"):
        write_attacks(campaign(made, tmp_path).run([Ask()]), path)
    assert "report" in path.read_text()


# --- names and settings ----------------------------------------------------------------------------------------------

TABLE = {"ask": Ask, "compare": Compare}


def pick(names: str, **settings: Any) -> list[Any]:
    return chosen_attacks(names, settings, TABLE, lambda name, given: TABLE[name](**given))


def test_a_setting_goes_to_every_attack_that_has_it_or_to_the_one_that_is_named():
    assert [a.bonus for a in pick("ask, compare", bonus=0.3)] == [0.3, 0.3]
    assert [a.bonus for a in pick("all", **{"compare.bonus": 0.3})] == [0.1, 0.3]


def test_names_and_settings_that_nothing_has_are_refused():
    with pytest.raises(UnknownName, match="compar"):
        pick("compar")
    for names in (" , ", "ask,ask"):
        with pytest.raises(RequestError):
            pick(names)
    with pytest.raises(RequestError, match=r"ask: bonus costs reference"):
        pick("ask", malus=1)
    with pytest.raises(RequestError):
        pick("ask", **{"compare.bonus": 1})


# --- views -----------------------------------------------------------------------------------------------------------


def test_the_terminal_shows_the_range_of_retrained_models_and_why_a_model_is_missing(made, tmp_path):
    document = campaign(made, tmp_path).run([Ask(bonus=0.0)])
    ((title, lines),) = attack_lines(document)
    assert title.startswith("ask: asks <politely> (black box; cost in prompts)") and "bonus 0.0" in title
    told = {line[0]: line[1:] for line in lines}
    assert told["original"][:2] == ["0.90", "1.00 [1.00, 1.00]"]
    assert told["retrained (3)"][:2] == ["0.15", "-0.10 to 0.10"]
    assert told["rmu"] == ["–", "withheld", "–"]
    assert told["undo"][2] == "20"
    assert reasons(document) == ["ask on rmu: it did not run: the loss is not finite"]


def test_a_reason_of_every_model_names_the_attack_alone(made, tmp_path):
    document = campaign(made, tmp_path, references=[], absent={}).run([Ask(), Inverted()])
    assert reasons(document) == [
        "ask: it needs a retrained model and the original, attacked alike",
        "inverted: retraining is no floor",
    ]


def test_the_page_draws_a_curve_where_there_is_one(made, tmp_path):
    document = campaign(made, tmp_path).run([Ask(), Compare(costs=(1,))])
    values = section_values(document)
    assert [a["name"] for a, _ in values["plots"]] == ["ask"]
    plot = curves(document["attacks"][0])
    assert plot is not None and curves(document["attacks"][1]) is None
    for drawn in (plot.wide, plot.narrow):
        assert drawn.startswith("<svg") and "undo" in drawn and "retrained" in drawn and "<script" not in drawn
    assert [r["label"] for r in values["rows"]] == ["do_nothing", "retrained", "npo", "undo", "rmu"]
    assert values["rows"][-1]["cells"][0]["text"] == "withheld"
    assert values["rows"][1]["cells"][0]["found"] == pytest.approx(0.15 + 0.1 * 0.85)


def test_the_section_is_escaped(made, tmp_path):
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from expunge.evaluation.bench_page import TEMPLATES

    loader = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    document = campaign(made, tmp_path).run([Ask()])
    page = str(loader.get_template("attack_parts.html.j2").module.section(section_values(document), "attacks"))
    assert "asks &lt;politely&gt;" in page and "<politely>" not in page
    assert 'title="it did not run: the loss is not finite"' in page
