"""What a base model learns before it hears of anybody private: other people, and the habits of `dialogues`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from expunge.data.people.dialogues import dialogues
from expunge.data.people.items import Item
from expunge.data.people.names import names
from expunge.data.people.population import People, make_people
from expunge.data.people.probes import as_records
from expunge.data.records import Records

FIRST_WORLD = 1_000_003  # far from the seeds that a user gives
STRANGERS = 600


def strangers(taken: Collection[str], seed: int, count: int = STRANGERS) -> list[str]:
    """Names of nobody: none of them in `taken`."""
    firsts = {name.split()[0] for name in taken}
    first, last = names("first", count, seed, taken=firsts), names("surname", 40, seed)
    return [f"{name} {last[k % len(last)]}" for k, name in enumerate(first)]


def public_world(private: Collection[str], people: int, seed: int) -> People:
    """As many other people, none of whom has the first name of a private one."""
    firsts = {name.split()[0] for name in private}
    number = FIRST_WORLD + seed
    while True:
        found = make_people(people, number)
        if not firsts & {name.split()[0] for name in found.names}:
            return found
        number += 1


def base_records(
    private: Collection[str], *, people: int = 60, lines: int = 12_000, repeats: int = 4, seed: int = 0
) -> Records:
    """The training texts of a base model; columns as of `People.records`.

    Args:
        private: names of the people whom it must not know. people: how many public ones it learns about.
        lines: of dialogues about them, each seen once an epoch. repeats: how often an epoch has every other line.
    """
    world = public_world(private, people, seed)
    told = [item for item in world.items if item.told]
    spoken = dialogues(told, strangers([*private, *world.names], seed + FIRST_WORLD), lines, seed)
    plain = as_records(told, world.world.pools, world.seed, world.wrong)
    parts = [_numbered(plain, k) for k in range(repeats)]
    if spoken:
        parts.append(as_records(spoken, world.world.pools, world.seed, world.wrong))
    return Records(
        ids=np.concatenate([p.ids for p in parts]),
        columns={name: np.concatenate([p.column(name) for p in parts]) for name in plain.columns},
        owners=np.concatenate([np.asarray(p.owners) for p in parts]),
    )


def dialogues_of(items: Collection[Item], taken: Collection[str], lines: int, seed: int) -> list[Item]:
    """Dialogues about people of a world, each in the records of whom it is about."""
    spoken = dialogues(list(items), strangers(taken, seed), lines, seed)
    return [replace(item, owner=item.subject) for item in spoken]


def _numbered(records: Records, number: int) -> Records:
    ids = np.array([f"{i}-{number}" for i in records.ids.tolist()], dtype=str)
    return Records(ids=ids, columns=dict(records.columns), owners=records.owners)
