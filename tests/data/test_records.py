"""Records: rows are found by id, and nothing about them depends on rows that are gone."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.data.records import Records, check_disjoint
from expunge.errors import DataError, NonFiniteData, OverlappingSets, UnknownIds

IDS = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), min_size=1, unique=True)


def table(ids: list[str], /, **changes: Any) -> Records:
    n = len(ids)
    given: dict[str, Any] = {
        "ids": ids,
        "columns": {
            "x": np.arange(2 * n, dtype=np.float32).reshape(n, 2),
            "y": np.arange(n) % 3,
            "text": np.array(ids),
        },
        "owners": [f"owner of {i}" for i in ids],
        "classes": ("a", "b", "c"),
        "feature_names": ("left", "right"),
    }
    return Records(**{**given, **changes})


def test_rows_are_found_by_id_whatever_their_place() -> None:
    records = table(["c", "a", "b"])
    assert records.rows(["b", "c"]).tolist() == [2, 0]
    picked = records.select(["b", "c"])
    assert picked.ids.tolist() == ["b", "c"]
    assert picked.x.tolist() == [[4, 5], [0, 1]]
    assert picked.owners is not None
    assert picked.owners.tolist() == ["owner of b", "owner of c"]
    assert "a" in records
    assert "a" not in picked


def test_classes_and_feature_names_travel_with_a_selection() -> None:
    picked = table(["a", "b"]).select(["b"])
    assert picked.classes == ("a", "b", "c")
    assert picked.feature_names == ("left", "right")


def test_take_reads_a_mask_and_numbers_alike() -> None:
    records = table(["a", "b", "c"])
    assert records.take(np.array([True, False, True])).ids.tolist() == records.take([0, 2]).ids.tolist() == ["a", "c"]
    assert len(records.take([])) == 0


def test_everything_can_be_removed() -> None:
    # an empty retain set has to come into being before anyone can refuse it
    empty = table(["a", "b"]).without(["a", "b"])
    assert len(empty) == 0
    assert empty.x.shape == (0, 2)


def test_without_refuses_what_was_never_there() -> None:
    with pytest.raises(UnknownIds, match="'nobody'"):
        table(["a"]).without(["nobody"])


@settings(max_examples=60, deadline=None)
@given(ids=IDS, data=st.data())
def test_removing_rows_equals_never_having_had_them(ids: list[str], data: st.DataObject) -> None:
    gone = data.draw(st.sets(st.sampled_from(ids), max_size=len(ids) - 1))
    full = table(ids)
    left = full.without(gone)
    assert left.ids.tolist() == [i for i in ids if i not in gone]
    keep = [k for k, i in enumerate(ids) if i not in gone]
    never = Records(
        ids=np.array([ids[k] for k in keep]),
        columns={"x": full.x[keep], "y": full.y[keep], "text": np.array([ids[k] for k in keep])},
        owners=np.array([f"owner of {ids[k]}" for k in keep]),
        classes=full.classes,
        feature_names=full.feature_names,
    )
    # numpy strings are as wide as the longest one ever held: the digest must not remember that
    assert left.digest() == never.digest()


@pytest.mark.parametrize(
    "changed",
    [
        {"ids": ["a", "d"]},
        {"owners": ["other", "owner of b"]},
        {"owners": None},
        {"columns": {"x": np.zeros((2, 2), dtype=np.float32), "y": np.array([0, 1]), "text": np.array(["a", "b"])}},
        {"columns": {"x": np.arange(4, dtype=np.float32).reshape(2, 2)}},
        {"classes": ("a", "c", "b")},
        {"feature_names": ("right", "left")},
    ],
)
def test_digest_sees_every_change(changed: dict[str, Any]) -> None:
    assert table(["a", "b"]).digest() == table(["a", "b"]).digest()
    assert table(["a", "b"], **changed).digest() != table(["a", "b"]).digest()


def test_digest_is_not_fooled_by_separators() -> None:
    one = Records(ids=np.array(["a\nb", "c"]), columns={})
    other = Records(ids=np.array(["a", "b\nc"]), columns={})
    assert one.digest() != other.digest()


def test_digest_depends_on_the_order_of_rows() -> None:
    records = table(["a", "b"])
    assert records.take([1, 0]).digest() != records.digest()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused_with_the_id(bad: float) -> None:
    x = np.zeros((2, 1, 2, 2), dtype=np.float32)
    x[1, 0, 1, 0] = bad
    with pytest.raises(NonFiniteData, match=r"'x'.*1 records, e.g. 'b'"):
        Records(ids=["a", "b"], columns={"x": x})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ids": ["a", "a"]}, "'a' occurs 2 times"),
        ({"ids": [["a"], ["b"]]}, "shape"),
        ({"owners": ["one"]}, "owners"),
        ({"columns": {"x": np.zeros(3)}}, "3 rows and there are 2 ids"),
        ({"columns": {"x": np.float32(1)}}, "single value"),
        ({"feature_names": ("only one",)}, "1 feature names"),
        ({"columns": {"x": np.zeros((2, 1, 2))}}, "2 feature names"),
    ],
)
def test_tables_that_cannot_be_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        table(["a", "b"], **changed)
    assert caught.value.remedy


def test_a_missing_column_names_those_there_are() -> None:
    with pytest.raises(DataError, match=r"no column 'z'.*'text'.*'x'.*'y'"):
        table(["a"]).column("z")


def test_one_record_cannot_be_in_two_sets() -> None:
    records = table(["a", "b", "c"])
    check_disjoint(forget=records.select(["a"]), retain=records.select(["b"]))
    with pytest.raises(OverlappingSets, match=r"1 records are in both the forget and the retain set, e.g. 'b'"):
        check_disjoint(forget=records.select(["a", "b"]), retain=records.select(["b", "c"]))


def test_importing_the_data_room_is_light() -> None:
    heavy = ["torch", "pyarrow", "sklearn", "PIL", "datasets", "pandas", "scipy"]
    code = f"import sys, expunge.data; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
