"""What was made from what, as a picture: sources on the left, what descends from them to the right.

Columns by the longest way from a source; inside a column, each near the middle of what it was made from. The table
below the picture says the same in words.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDE, HIGH = 196.0, 50.0
ACROSS, DOWN, EDGE = 64.0, 18.0, 4.0
LONGEST = 24


@dataclass(frozen=True, kw_only=True)
class Node:
    """A target; served: whether anything can be done to it. x, y: its upper left corner."""

    id: str
    name: str
    says: str
    kind: str
    served: bool
    x: float
    y: float

    @property
    def short(self) -> str:
        return self.name if len(self.name) <= LONGEST else self.name[: LONGEST - 1] + "…"


@dataclass(frozen=True, kw_only=True)
class Edge:
    """From a source to what was made from it, as an SVG path."""

    source: str
    target: str
    path: str


@dataclass(frozen=True, kw_only=True)
class Picture:
    width: float
    height: float
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


def picture(lineage: Sequence[Mapping[str, Any]], kinds: Collection[str]) -> Picture:
    """
    Args:
        lineage: of `Registry.lineage`; sources that are not in it (retired ones) are left out. kinds: that are served.
    """
    known = {one["id"]: one for one in lineage}
    sources = {name: [s for s in dict.fromkeys(one["from"]) if s in known and s != name] for name, one in known.items()}
    columns = _columns(sources)
    places = _places(columns, sources)
    nodes = tuple(
        Node(
            id=name,
            name=known[name]["name"],
            says=f"{known[name]['kind']}, version {known[name]['version']}",
            kind=known[name]["kind"],
            served=known[name]["kind"] in kinds,
            x=x,
            y=y,
        )
        for name, (x, y) in places.items()
    )
    edges = tuple(
        Edge(source=source, target=name, path=_path(places[source], places[name]))
        for name in places
        for source in sources[name]
    )
    return Picture(
        width=max((x for x, _ in places.values()), default=0) + WIDE + EDGE,
        height=max((y for _, y in places.values()), default=0) + HIGH + EDGE,
        nodes=nodes,
        edges=edges,
    )


def _columns(sources: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Names by the number of steps on the longest way from a source. A circle, which nothing forbids, is cut."""
    depth: dict[str, int] = {}

    def deep(name: str, above: frozenset[str]) -> int:
        if name not in depth:
            told = [deep(s, above | {name}) for s in sources[name] if s not in above]
            depth[name] = 1 + max(told) if told else 0
        return depth[name]

    for name in sources:
        deep(name, frozenset({name}))
    columns: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for name in sources:
        columns[depth[name]].append(name)
    return columns


def _places(
    columns: Sequence[Sequence[str]], sources: Mapping[str, Sequence[str]]
) -> dict[str, tuple[float, float]]:  # fmt: skip
    row: dict[str, float] = {}
    told: dict[str, tuple[float, float]] = {}
    tallest = max((len(column) for column in columns), default=0)
    for index, column in enumerate(columns):

        def middle(name: str) -> float:
            rows = [row[s] for s in sources[name] if s in row]
            return sum(rows) / len(rows) if rows else 0.0

        ordered = sorted(column, key=middle) if index else list(column)
        first = (tallest - len(ordered)) / 2
        for place, name in enumerate(ordered):
            row[name] = first + place
            told[name] = (EDGE + index * (WIDE + ACROSS), EDGE + row[name] * (HIGH + DOWN))
    return told


def _path(source: tuple[float, float], target: tuple[float, float]) -> str:
    x1, y1 = source[0] + WIDE, source[1] + HIGH / 2
    x2, y2 = target[0] - 2, target[1] + HIGH / 2
    bend = max((x2 - x1) / 2, ACROSS / 2)
    return f"M{x1:g},{y1:g} C{x1 + bend:g},{y1:g} {x2 - bend:g},{y2:g} {x2:g},{y2:g}"
