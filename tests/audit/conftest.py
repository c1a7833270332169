"""Models in custody, made once a session and copied for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from audit_tools import World, build, owned_digits

from expunge.data.records import Records


@pytest.fixture(scope="session")
def records() -> Records:
    return owned_digits()


@pytest.fixture(scope="session")
def made(records: Records, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Read only."""
    return build(tmp_path_factory.mktemp("made"), records)


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Another model with keys of its own. Read only."""
    return build(tmp_path_factory.mktemp("other"), owned_digits(start=100), seed=1)


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    """A copy that may be damaged."""
    shutil.copytree(made.path, tmp_path / "world")
    return World(tmp_path / "world")
