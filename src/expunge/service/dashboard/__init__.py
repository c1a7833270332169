"""The pages of the control plane: HTML made here, forms that need no script, and htmx where it is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

    from expunge.service.service import Service


def mount_pages(app: FastAPI, service: Service) -> None:
    """The pages at ``/``, behind every address of the API, with the API's way in: a key opens both."""
    from expunge.service.dashboard.app import create_pages

    app.mount("/", create_pages(service, app.state.context.access))
