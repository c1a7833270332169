"""What may be said of a row: it holds, it fails and where, or nothing is claimed."""

from __future__ import annotations

from forms_tools import FLOOR, recovered, row, unscored, withheld

from expunge.evaluation.attacks.language.contract import ACCESSES
from expunge.evaluation.forms.judgement import judge

ONE_EACH = ("paraphrase", "min_k", "relearn_half", "before_after_extraction")


def word(made: dict, access: str) -> str:
    return str(made["verdict"][access]["word"])


def test_a_retrained_model_holds_everywhere() -> None:
    made = row("retrain", "control", attacks=dict.fromkeys(ONE_EACH, recovered(0.0)))
    assert [word(made, a) for a in ACCESSES] == ["holds"] * 4


def test_a_weight_attack_breaks_the_weight_claim_alone() -> None:
    made = row("idk", attacks={**dict.fromkeys(ONE_EACH, recovered(0.0)), "relearn_half": recovered(0.9)})
    assert (word(made, "black_box"), word(made, "logits"), word(made, "weights")) == ("holds", "holds", "fails")
    assert made["verdict"]["weights"]["because"][0].startswith("relearn_half: recovers 90%")


def test_who_asks_counts_for_who_holds_the_weights_too() -> None:
    made = row("words", attacks={"paraphrase": recovered(0.9), "relearn_half": recovered(0.0)})
    assert word(made, "weights") == "fails"


def test_a_withheld_attack_withholds_the_claim_of_its_access() -> None:
    made = row("boxed", attacks={"paraphrase": recovered(0.0), "min_k": withheld(), "relearn_half": recovered(0.9)})
    assert word(made, "black_box") == "holds"
    assert word(made, "logits") == "withheld"
    assert word(made, "weights") == "fails"  # what is known to fail is not withheld


def test_without_an_attack_that_tells_anything_nothing_is_claimed() -> None:
    made = row("quiet", attacks={"paraphrase": unscored()})
    assert word(made, "black_box") == "withheld"
    assert "no attack" in made["verdict"]["black_box"]["because"][0]


def test_who_was_only_asked_says_nothing_of_probabilities_weights_or_the_pair() -> None:
    made = row("boxed", attacks={"paraphrase": recovered(0.0), "relearn_half": unscored()})
    assert [word(made, a) for a in ACCESSES] == ["holds", "withheld", "withheld", "withheld"]
    assert "no attack of the access weights" in made["verdict"]["weights"]["because"][0]


def deletion_shown(found: float, recovery: float, spread: float = 0.05) -> dict:
    """`before_after`, which finds nothing in the original and most of what was deleted in retrained models."""
    curve = recovered(recovery, spread)
    point = {**curve["headline"], "found": found, "retrained": [0.9], "original": 0.5}
    return {**curve, "curve": [point], "headline": point}


def test_what_shows_deletions_breaks_who_shows_more_of_them_than_retraining() -> None:
    attacks = dict.fromkeys(ONE_EACH, recovered(0.0))
    quiet = row("quiet", attacks={**attacks, "before_after": deletion_shown(0.5, 1.0)})
    alike = row("alike", attacks={**attacks, "before_after": deletion_shown(0.95, -0.125)})
    loud = row("loud", attacks={**attacks, "before_after": deletion_shown(1.0, -0.25)})
    assert [word(made, "pair") for made in (quiet, alike, loud)] == ["holds", "holds", "fails"]
    assert loud["verdict"]["pair"]["because"][0].startswith("before_after: shows 25% [20%, 30%] more than retrained")
    assert word(loud, "weights") == "holds"


def test_what_was_not_scored_is_not_compared() -> None:
    made = row("odd", attacks={"paraphrase": recovered(0.0)})
    nothing = {"status": "unscored", "name": "accuracy", "reason": "it was not asked"}
    for probe in ("retain", "forget"):
        for mine, floor in ((nothing, FLOOR[probe]), (FLOOR[probe], nothing)):
            told = judge({**made, "measurements": {probe: mine}}, {probe: floor})
            assert told["black_box"]["word"] == "holds"


def test_a_small_or_uncertain_recovery_is_tolerated() -> None:
    assert word(row("near", attacks={"paraphrase": recovered(0.14, spread=0.05)}), "black_box") == "holds"
    assert word(row("over", attacks={"paraphrase": recovered(0.16, spread=0.05)}), "black_box") == "fails"


def test_a_collapsed_model_fails_for_its_uselessness() -> None:
    made = row("collapsed", retain=0.0, neighbour=0.0, forget=0.0)
    assert word(made, "black_box") == "fails"
    assert made["verdict"]["black_box"]["because"][0].startswith("utility: answers 0% of retain")


def test_who_still_answers_fails_outright() -> None:
    made = row("nothing", forget=1.0)
    assert made["verdict"]["black_box"]["because"] == [
        "forget: answers 100% of forgotten questions, retrained models 5%"
    ]


def test_judge_needs_no_probe_that_was_not_asked() -> None:
    made = row("bare")
    assert judge({**made, "measurements": {}}, FLOOR)["black_box"]["word"] == "holds"
