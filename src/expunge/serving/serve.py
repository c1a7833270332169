"""A box behind uvicorn, with logs that tell addresses and states and nothing of what was asked or answered."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from expunge.errors import RunError

if TYPE_CHECKING:
    import uvicorn

    from expunge.boxed.box import Box


def serve(declared: Path, host: str, port: int) -> None:
    """Serve until interrupted.

    Raises:
        RunError: the packages for serving are missing, or the address cannot be listened at.
    """
    try:
        import fastapi  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise RunError(f"serving needs the package {error.name}", "pip install 'expunge[serve]'") from error
    from expunge.boxed.box import Box

    _own_log()
    box = Box.read(declared)
    server = uvicorn.Server(server_settings(box, host, port))
    try:
        server.run()
    except SystemExit as error:  # uvicorn's way to tell that it could not start; it has said why
        if error.code:
            raise RunError(f"cannot listen at {host}:{port}", "Choose another port; 0 takes any free one") from None


def server_settings(box: Box, host: str, port: int) -> uvicorn.Config:
    """uvicorn's configuration for a box."""
    import uvicorn

    from expunge.serving.app import create_app

    limits = box.settings.outline.limits
    return uvicorn.Config(
        create_app(box),
        host=host,
        port=port,
        lifespan="on",
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,
        limit_concurrency=2 * (limits.concurrent + limits.waiting) + 64,  # connections, idle ones too
    )


def _own_log() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log = logging.getLogger("expunge")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
