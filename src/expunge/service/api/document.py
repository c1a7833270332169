"""The OpenAPI document: what FastAPI makes of the routes, with our errors, our keys and our limits written in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from expunge.service.api.operations import OPERATIONS, TAGS
from expunge.service.api.problems import MEDIA, PREFIX, ProblemBody
from expunge.service.permissions import ALLOWED

ABOUT = (
    "Forget requests: filed, decided on, carried out, proved. Errors are RFC 9457 problems and repeat nothing that was "
    "sent. Lists go on at `next`, which is also in the header `Link`. A POST with an `Idempotency-Key` has one effect."
)
ERRORS = {
    400: ("bad-request", "The request cannot be read."),
    401: ("not-signed-in", "No key, or none that is in force."),
    403: ("not-allowed", "The role may not do this."),
    404: ("not-found", "No such thing, or none that you may see: the two look alike."),
    409: ("wrong-state", "It contradicts what is there."),
    413: ("too-large", "The body is too large."),
    422: ("invalid-request", "A field is wrong; `errors` says which."),
    429: ("too-many", "Too many requests; `Retry-After` says when to come back."),
    500: ("failed", "A fault of the service."),
    503: ("not-available", "The service cannot do this now."),
}
REPEAT = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key and request again have no further effect, and the same answer, for 24 hours.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}


def document(app: FastAPI) -> dict[str, Any]:
    """The document of an application, made once."""
    if app.openapi_schema is None:
        app.openapi_schema = _made(app)
    return app.openapi_schema


def _made(app: FastAPI) -> dict[str, Any]:
    told = get_openapi(
        title=app.title,
        version=app.version,
        summary="Control plane of machine unlearning",
        description=ABOUT,
        routes=app.routes,
        tags=[{"name": name, "description": text} for name, text in TAGS.items()],
    )
    schemas = told["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    problem = ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= problem.pop("$defs")
    schemas["Problem"] = problem
    told["components"]["securitySchemes"] = {
        "key": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "exk_ID_SECRET",
            "description": "A key of a program.",
        }
    }
    for operation in OPERATIONS:
        entry = told["paths"][operation.path][operation.method.lower()]
        entry["security"] = [] if operation.permission is None else [{"key": []}]
        if operation.permission is not None:
            roles = ", ".join(sorted(ALLOWED[operation.permission]))
            entry["description"] = f"{entry.get('description', '')}\n\nRoles: {roles}.".strip()
        if operation.repeats:
            entry.setdefault("parameters", []).append(REPEAT)
        entry["responses"] = {
            **{code: reply for code, reply in entry["responses"].items() if code != "422"},
            **{str(status): _error(status) for status in _statuses(operation.permission, entry)},
        }
    return told


def _statuses(permission: str | None, entry: dict[str, Any]) -> Iterator[int]:
    """Which errors an endpoint may answer with."""
    yield from (400, 404, 413, 422, 429, 500, 503)
    if permission is not None:
        yield from (401, 403, 409)


def _error(status: int) -> dict[str, Any]:
    kind, text = ERRORS[status]
    example = {
        "type": PREFIX + kind,
        "title": kind.replace("-", " ").capitalize(),
        "status": status,
        "detail": text,
        "errors": [],
    }
    content = {MEDIA: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}}
    return {"description": text, "content": content}


def known_names(app: FastAPI) -> frozenset[str]:
    """Names of fields and parameters: what an error may say about where it is."""
    found = getattr(app.state, "known_names", None)
    if found is None:
        found = frozenset({"path", "query", "body", "header", *_names(document(app))})
        app.state.known_names = found
    return found


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        properties = value.get("properties")
        if isinstance(properties, dict):
            yield from properties
        if isinstance(value.get("name"), str) and "in" in value:
            yield value["name"]
        for inner in value.values():
            yield from _names(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _names(inner)
