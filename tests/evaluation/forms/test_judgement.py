"""What may be said of a row: it holds, it fails and where, or nothing is claimed."""

from __future__ import annotations

from forms_tools import FLOOR, recovered, row, unscored, withheld

from expunge.evaluation.forms.judgement import judge


def word(made: dict, access: str) -> str:
    return str(made["verdict"][access]["word"])


def test_a_retrained_model_holds_everywhere() -> None:
    made = row("retrain", "control")
    assert [word(made, a) for a in ("black_box", "logits", "weights", "pair")] == ["holds"] * 4


def test_a_weight_attack_breaks_the_weight_claim_alone() -> None:
    made = row("idk", attacks={"paraphrase": recovered(0.0), "relearn_half": recovered(0.9)})
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
