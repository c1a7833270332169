"""The remote endpoint that a request names as its writer."""

from __future__ import annotations

from expunge.models.endpoint import Endpoint
from expunge.scope.request import WriterPart


def endpoint_of(part: WriterPart) -> Endpoint:
    """The endpoint of a checked request; it is asked one prompt at a time, in their order."""
    return Endpoint(
        url=str(part.url),
        name=str(part.name),
        key_variable=part.key_variable,
        timeout_seconds=part.timeout_seconds,
        at_once=1,
    )
