"""The recorded outputs of a language model: what they refuse, what they derive, and their file."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from expunge.errors import DataError, MissingEvidence, UnknownIds
from expunge.evaluation.metrics.language.examples import text_outputs
from expunge.evaluation.metrics.language.matching import exact_match_contained
from expunge.evaluation.metrics.language.membership import loss_scores, min_k_scores
from expunge.evaluation.metrics.language.outputs import TextOutputs, alternatives, concatenate
from expunge.evaluation.metrics.language.probability import probability


def small(**changes: Any) -> TextOutputs:
    given: dict[str, Any] = {
        "ids": ("a", "b"),
        "log_probs": (np.log([0.5, 0.25]), np.log([0.1])),
        "hits": (np.array([True, False]), np.array([True])),
        "answers": ("one two", "three"),
    }
    return TextOutputs(**{**given, **changes})


def test_nll_is_the_mean_and_total_the_sum_over_answer_tokens() -> None:
    outputs = small()
    assert outputs.tokens.tolist() == [2, 1]
    np.testing.assert_allclose(outputs.total, [math.log(8), math.log(10)])
    np.testing.assert_allclose(outputs.nll, [math.log(8) / 2, math.log(10)])


def test_arrays_cannot_be_written_to() -> None:
    given = np.log([0.5, 0.25])
    outputs = small(log_probs=(given, np.log([0.1])))
    with pytest.raises(ValueError, match="read-only"):
        outputs.log_probs[0][0] = 0.0
    assert given.flags.writeable


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": (), "log_probs": ()}, "no items"),
        ({"ids": ("a", "a")}, "unique"),
        ({"ids": ("a", 3)}, "unique strings"),
        ({"log_probs": (np.log([0.5, 0.25]), np.array([]))}, "'b' has no answer tokens"),
        ({"log_probs": (np.array([-1.0, -2.0]),)}, "one array for each of 2"),
        ({"log_probs": (np.array([-1.0, math.nan]), np.array([-1.0]))}, "NaN or infinity"),
        ({"log_probs": (np.array([-1.0, -math.inf]), np.array([-1.0]))}, "NaN or infinity"),
        ({"log_probs": (np.array([-1.0, 0.5]), np.array([-1.0]))}, "above 0"),
        ({"log_probs": (np.array([[-1.0, -1.0]]), np.array([-1.0]))}, "floating-point number for each token"),
        ({"log_probs": (np.array([-1, -1]), np.array([-1]))}, "floating-point"),
        ({"hits": (np.array([True]), np.array([True]))}, "differ in the number of tokens"),
        ({"hits": (np.array([1.0, 0.0]), np.array([1.0]))}, "true or false"),
        ({"means": (np.array([1.0, -1.0]), np.array([-1.0]))}, "above 0"),
        ({"deviations": (np.array([1.0, -1.0]), np.array([1.0]))}, "negative"),
        ({"answers": ("one",)}, "one entry for each of 2"),
        ({"answers": ("one", None)}, "must be texts"),
        ({"answers": "ab"}, "one entry for each"),
        ({"samples": (("x", "y"), ("z",))}, "between 1 and 2 samples"),
        ({"samples": ((), ())}, "between 0 and 0 samples"),
        ({"samples": ("xy", "z")}, "several texts"),
        ({"gradient_norms": np.array([1.0])}, "2 finite numbers"),
        ({"gradient_norms": np.array([1.0, math.nan])}, "2 finite numbers"),
        ({"gradient_norms": np.array([1.0, -1.0])}, "negative"),
    ],
)
def test_refuses_what_is_no_output(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        small(**changes)


def test_a_rounding_error_above_zero_is_a_probability_of_one() -> None:
    assert small(log_probs=(np.array([1e-7, -1.0]), np.array([-1.0]))).log_probs[0][0] == 0.0


def test_selects_by_id_in_the_asked_order_with_everything_that_was_recorded() -> None:
    outputs = text_outputs(np.random.default_rng(0))
    part = outputs.select(["item-5", "item-2"])
    assert part.ids == ("item-5", "item-2")
    assert part.samples == (outputs.samples[5], outputs.samples[2])  # type: ignore[index]
    np.testing.assert_array_equal(part.log_probs[0], outputs.log_probs[5])
    np.testing.assert_array_equal(part.gradient_norms, outputs.gradient_norms[[5, 2]])  # type: ignore[index]
    np.testing.assert_array_equal(part.nll, outputs.nll[[5, 2]])
    with pytest.raises(UnknownIds, match="item-99"):
        outputs.select(["item-99"])
    with pytest.raises(DataError, match="unique"):
        outputs.take([1, 1])
    with pytest.raises(DataError, match="no items"):
        outputs.take([])


def test_batches_are_put_together_again() -> None:
    outputs = text_outputs(np.random.default_rng(0))
    joined = concatenate([outputs.take(range(5)), outputs.take(range(5, 12))])
    assert joined.ids == outputs.ids
    assert joined.generated == outputs.generated
    np.testing.assert_array_equal(joined.total, outputs.total)
    np.testing.assert_array_equal(joined.gradient_norms, outputs.gradient_norms)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="only some batches recorded hits"):
        concatenate([outputs.take([0]), replace(outputs.take([1]), hits=None)])
    with pytest.raises(DataError, match="no outputs"):
        concatenate([])


@pytest.mark.parametrize("everything", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_file_gives_back_what_was_saved_in_the_same_bytes(tmp_path: Path, everything: bool, dtype: type) -> None:
    outputs = text_outputs(np.random.default_rng(0)) if everything else small(hits=None, answers=None)
    outputs = replace(outputs, log_probs=tuple(row.astype(dtype) for row in outputs.log_probs))
    outputs.save(tmp_path / "one.safetensors")
    loaded = TextOutputs.load(tmp_path / "one.safetensors")
    for name in ("ids", "answers", "generated", "samples"):
        assert getattr(loaded, name) == getattr(outputs, name)
    for name in ("log_probs", "means", "deviations", "hits"):
        one, two = getattr(loaded, name), getattr(outputs, name)
        assert (one is None) == (two is None)
        for mine, theirs in zip(one or (), two or (), strict=True):
            assert mine.dtype == theirs.dtype
            np.testing.assert_array_equal(mine, theirs)
    assert loaded.log_probs[0].dtype == dtype
    for k in range(8):
        loaded.save(tmp_path / f"{k}.safetensors")
        assert (tmp_path / f"{k}.safetensors").read_bytes() == (tmp_path / "one.safetensors").read_bytes()
    assert not list(tmp_path.glob("*.partial"))


def test_a_file_of_one_item_and_any_alphabet(tmp_path: Path) -> None:
    outputs = TextOutputs(ids=("ø\n#1",), log_probs=(np.array([-1.0]),), answers=("Ærø — 東京",))
    outputs.save(tmp_path / "x")
    loaded = TextOutputs.load(tmp_path / "x")
    assert (loaded.ids, loaded.answers) == (outputs.ids, outputs.answers)


def test_refuses_files_that_hold_something_else(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    (tmp_path / "text").write_text("no tensors")
    save_file({"x": np.zeros(3)}, tmp_path / "other")
    for name in ("text", "other", "absent"):
        with pytest.raises(DataError, match="holds no recorded outputs"):
            TextOutputs.load(tmp_path / name)


def named(*ids: str) -> TextOutputs:
    return TextOutputs(ids=ids, log_probs=tuple(np.array([-1.0]) for _ in ids))


def test_alternatives_are_grouped_by_parent_in_the_order_of_their_numbers() -> None:
    found = alternatives(named("b#10", "a#0", "b#2", "a#b#1"))
    assert {parent: rows.tolist() for parent, rows in found.items()} == {"b": [2, 0], "a": [1], "a#b": [3]}
    ordered = alternatives(named("b#0", "a#0"), ("a", "b"))
    assert list(ordered) == ["a", "b"]


@pytest.mark.parametrize(
    ("ids", "parents", "message"),
    [
        (("a",), None, "not the id of an alternative"),
        (("a#x",), None, "not the id of an alternative"),
        (("a#0",), ("a", "b"), "1 items have no alternatives, e.g. 'b'"),
        (("a#0", "c#0"), ("a",), "item that is not there"),
    ],
)
def test_alternatives_must_belong_to_the_items(ids: tuple[str, ...], parents: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        alternatives(named(*ids), parents)


def worded(**changes: Any) -> TextOutputs:
    """Of a model that answers in words only."""
    given: dict[str, Any] = {"ids": ("a", "b"), "answers": ("one two", "three"), "generated": ("one two", "four")}
    return TextOutputs(**{**given, **changes})


def test_a_model_that_answers_in_words_only_has_answers_and_no_probabilities(tmp_path: Path) -> None:
    outputs = worded(samples=(("x", "y"), ("z", "z")))
    assert outputs.log_probs is None
    for name in ("scored", "tokens", "total", "nll"):
        with pytest.raises(MissingEvidence, match="answers in words only"):
            getattr(outputs, name)
    outputs.save(tmp_path / "said.safetensors")
    again = TextOutputs.load(tmp_path / "said.safetensors")
    for name in ("ids", "log_probs", "answers", "generated", "samples"):
        assert getattr(again, name) == getattr(outputs, name)
    assert outputs.select(["b"]).generated == ("four",)
    joined = concatenate([worded(), worded(ids=("c", "d"))])
    assert joined.ids == ("a", "b", "c", "d") and joined.log_probs is None


def test_what_stands_beside_probabilities_needs_them() -> None:
    with pytest.raises(DataError, match="without log_probs"):
        worded(hits=(np.array([True]), np.array([True])))
    with pytest.raises(DataError, match="only some batches recorded log_probs"):
        concatenate([small(), worded(ids=("c", "d"), generated=None)])


def test_metrics_of_probabilities_say_that_there_are_none() -> None:
    for compute in (probability, min_k_scores, loss_scores):
        with pytest.raises(MissingEvidence, match="in words only"):
            compute(worded())  # type: ignore[operator]
    assert exact_match_contained(worded()).value == 0.5
