"""The page, the picture and the terminal's table of a comparison."""

from __future__ import annotations

import json
from pathlib import Path

from forms_tools import recovered, report, row, unscored, withheld

from expunge.evaluation.forms.page import forms_html, reasons, table_lines, verdict, write_forms
from expunge.evaluation.forms.picture import columns, picture


def rows() -> list[dict]:
    two = {"relearn_half": recovered(0.0), "paraphrase": recovered(0.0), "min_k": withheld(), "alias": unscored()}
    return [
        row("boxed", "by prompting", guarantee="suppressed", attacks={**two, "relearn_half": recovered(1.0)}),
        row("undo", "by concept", attacks={**two, "min_k": recovered(0.02)}),
        {
            "label": "broken",
            "form": "exact",
            "kind": "method",
            "method": "x",
            "status": "failed",
            "reason": "no <base>",
        },
    ]


def test_the_page_says_what_holds_and_why_not(tmp_path: Path) -> None:
    path = write_forms(report(rows()), tmp_path)
    page = path.read_text(encoding="utf-8")
    for words in ("undo", "did not run: no &lt;base&gt;", "withheld", "unscored", "relearn half: recovers"):
        assert words.replace("relearn half", "relearn_half") in page or words in page
    assert json.loads((tmp_path / "forms.json").read_text())["schema"] == "expunge/forms/1"
    assert "<script" not in page


def test_verdict_names_the_rows_that_hold() -> None:
    made = report([row("undo", "by concept"), row("idk", attacks={"paraphrase": recovered(0.9),
                                                                 "relearn_half": recovered(0.9)})])  # fmt: skip
    assert "who may only ask: undo." in verdict(made)
    assert "Retraining itself, each model held against the others: holds." in verdict(made)
    assert "none of the forms" in verdict(report([row("idk", forget=1.0)]))


def test_reasons_are_told_once_with_all_they_are_about() -> None:
    told = reasons(report(rows()))
    assert any(line.startswith("min k (boxed): this model answers") for line in told)
    assert len([line for line in told if "min k" in line]) == 1


def test_the_picture_orders_by_access_and_leaves_out_what_tells_nothing() -> None:
    made = report(rows())
    drawn = picture(made)
    assert drawn is not None
    assert drawn.wide.index("paraphrase") < drawn.wide.index("min k") < drawn.wide.index("relearn half")
    assert columns([{"access": "black_box"}, {"access": "black_box"}, {"access": "weights"}]) == [0.0, 1.0, 2.6]
    assert picture({**made, "rows": []}) is None


def test_the_terminal_names_the_attack_that_breaks_a_row() -> None:
    lines = {line[0]: line for line in table_lines(report(rows()))}
    assert "fails: relearn half" in lines["boxed"]
    assert lines["broken"][1] == "did not run"


def test_the_page_is_the_same_twice() -> None:
    assert forms_html(report(rows())) == forms_html(report(rows()))


def test_questions_that_a_small_world_does_not_have_leave_a_dash() -> None:
    made = report(rows())
    for one in made["rows"]:
        one.get("measurements", {}).pop("neighbour", None)
    assert "<td>–</td>" in forms_html(made)
    assert table_lines(made)[1][3] == "–"
