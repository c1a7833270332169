from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from office import Office, open_office


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    with open_office(tmp_path / "home") as made:
        yield made


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """For tests that only look: requests in every state, and two workers."""
    with open_office(tmp_path_factory.mktemp("shared") / "home") as made:
        made.ids = made.every_state()
        made.worker()
        yield made
