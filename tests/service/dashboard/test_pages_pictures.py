"""The pictures: places that fit the times and the lineage."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.service.dashboard import exposure_picture, lineage_picture
from expunge.service.entities import Exposed

START = datetime(2026, 3, 2, tzinfo=UTC)


def day(number: float) -> datetime:
    return START + timedelta(days=number)


def request(due: float = 30, closed: float | None = None) -> Any:
    return SimpleNamespace(received_at=START, due_at=day(due), closed_at=None if closed is None else day(closed))


def drawn(exposed: list[Exposed], now: float = 20, closed: float | None = None, width: float = 860) -> Any:
    return exposure_picture.picture(exposed, request(closed=closed), day(now), width)


def test_bars_follow_one_another_and_get_thinner() -> None:
    exposed = [
        Exposed(target="a", state="in_force", start=START, to=day(2)),
        Exposed(target="a", state="suppressed", start=day(2), to=day(4)),
        Exposed(target="a", state="approximate", start=day(4), to=day(10)),
        Exposed(target="a", state="gone", start=day(10), to=day(10)),
        Exposed(target="b", state="in_force", start=START, to=None),
    ]
    picture = drawn(exposed)
    first, second = picture.lanes
    bars = first.bars
    for before, after in pairwise(bars):
        assert before.left + before.width == pytest.approx(after.left, abs=0.02)
        assert before.height > after.height
    assert all(bar.top + bar.height / 2 == first.middle for bar in bars)
    # places are times: the axis is as long as the longest of due date and now
    scale = (picture.due - bars[0].left) / 30
    assert bars[2].left - bars[0].left == pytest.approx(4 * scale, abs=0.05)
    assert picture.now - bars[0].left == pytest.approx(20 * scale, abs=0.05)
    assert first.gone == bars[3].left
    assert second.gone is None
    assert second.bars[0].left + second.bars[0].width == pytest.approx(
        picture.now, abs=0.02
    )  # what is still so ends now
    assert first.says == "in force 2 days, suppressed 2 days, approximately gone 6 days, then gone"
    assert second.says == "in force 20 days so far"


def test_a_closed_request_has_no_now_and_a_late_one_reaches_beyond_its_due_date() -> None:
    gone = [Exposed(target="a", state="in_force", start=START, to=None)]
    assert drawn(gone, closed=12).now is None
    late = drawn(gone, now=45)
    assert late.due < late.now < late.width
    assert late.lanes[0].bars[0].width > late.due


@settings(deadline=None, max_examples=60)
@given(
    st.floats(0.001, 4000),
    st.floats(0, 4000),
    st.lists(st.floats(0, 4000), max_size=3),
    st.sampled_from([330.0, 860.0]),
)
def test_everything_stays_inside(due: float, now: float, ends: list[float], width: float) -> None:
    times = [0.0, *sorted(ends)]
    states = ("in_force", "suppressed", "approximate", "gone")[: len(times)]
    exposed = [
        Exposed(target="a", state=s, start=day(t), to=day(n) if n is not None else None)
        for s, t, n in zip(states, times, [*times[1:], None], strict=False)
    ]
    picture = exposure_picture.picture(exposed, request(due=due), day(now), width)
    places = [picture.due, picture.now, *(x for x, _ in picture.ticks)]
    for bar in picture.lanes[0].bars:
        places += [bar.left, bar.left + bar.width - 2]
        assert bar.width > 0
    assert all(0 <= place <= width for place in places)
    marks = [x for x, _ in picture.ticks]
    assert len(marks) <= width / 50
    assert all(b - a >= 40 for a, b in pairwise(marks))


def one(name: str, *sources: str, kind: str = "learner") -> dict[str, Any]:
    return {"id": name, "name": name, "version": "1", "kind": kind, "from": list(sources)}


def test_sources_stand_left_of_what_was_made_from_them() -> None:
    lineage = [one("data"), one("base", "data"), one("tuned", "base", "data"), one("box", "tuned"), one("alone")]
    picture = lineage_picture.picture(lineage, {"learner"})
    x = {node.id: node.x for node in picture.nodes}
    assert x["data"] == x["alone"] < x["base"] < x["tuned"] < x["box"]
    assert {(e.source, e.target) for e in picture.edges} == {
        ("data", "base"), ("base", "tuned"), ("data", "tuned"), ("tuned", "box")
    }  # fmt: skip
    assert all(node.served for node in picture.nodes)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=30))
def test_no_two_boxes_meet_and_circles_do_no_harm(pairs: list[tuple[int, int]]) -> None:
    sources: dict[int, list[str]] = {n: [] for n in range(12)}
    for source, target in pairs:
        sources[target].append(f"n{source}")
    picture = lineage_picture.picture([one(f"n{n}", *sources[n], "unknown") for n in range(12)], ())
    places = [(node.x, node.y) for node in picture.nodes]
    assert len(places) == 12
    for i, (x1, y1) in enumerate(places):
        assert 0 <= x1 <= picture.width - lineage_picture.WIDE
        assert 0 <= y1 <= picture.height - lineage_picture.HIGH
        for x2, y2 in places[:i]:
            assert abs(x1 - x2) >= lineage_picture.WIDE or abs(y1 - y2) >= lineage_picture.HIGH


def test_an_empty_registry_has_an_empty_picture() -> None:
    picture = lineage_picture.picture([], ())
    assert (picture.nodes, picture.edges) == ((), ())


def test_long_names_are_cut_in_the_picture_alone() -> None:
    node = lineage_picture.picture([{**one("a"), "name": "x" * 60}], ()).nodes[0]
    assert len(node.short) == lineage_picture.LONGEST
    assert node.name == "x" * 60
