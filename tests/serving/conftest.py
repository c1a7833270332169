"""A real server on a free port, around a box whose model is a stub."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

sys.path.insert(0, str(Path(__file__).parents[1] / "boxed"))  # what the tests of boxes share

from boxes import REQUESTS, Stub, make_box
from serving_tools import Serve, Served

from expunge.serving.serve import server_settings


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(stub: Stub | None = None, asked: Any = REQUESTS, **fields: Any) -> Served:
        stub = stub or Stub()
        box = make_box(tmp_path, stub, asked, **({"embeddings": "main", "check_seconds": 0.05} | fields))
        server = uvicorn.Server(server_settings(box, "127.0.0.1", 0))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        for _ in range(500):
            if server.started:
                break
            time.sleep(0.01)
        assert server.started
        running.append((server, thread))
        port = server.servers[0].sockets[0].getsockname()[1]
        return Served(box, stub, f"http://127.0.0.1:{port}/v1", tmp_path)

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()
    for name in ("uvicorn", "uvicorn.access", "uvicorn.error"):
        logging.getLogger(name).handlers.clear()
