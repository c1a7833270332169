"""The OpenAPI document is complete, and the service does what it says: schemathesis, with what fits and what not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from house import House, one_app
from hypothesis import HealthCheck, settings
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import positive_data_acceptance

from expunge.service.api.document import ERRORS, document, known_names
from expunge.service.api.operations import BY_ID, OPERATIONS, TAGS, Operation
from expunge.service.permissions import ALLOWED
from expunge.service.webhooks.endpoints import EVENT_TYPES

DOCS = Path(__file__).resolve().parents[3] / "docs"
CONFIG = {
    "generation": {"mode": "all", "max-examples": 4, "deterministic": True, "with-security-parameters": False},
    "checks": {"negative_data_rejection": {"expected-statuses": ["400", "401", "403", "404", "406", "413", "422"]}},
    "phases": {"coverage": {"enabled": True}, "examples": {"enabled": True}, "fuzzing": {"enabled": True}},
}


def entry_of(operation: Operation) -> dict[str, Any]:
    entry: dict[str, Any] = document(one_app())["paths"][operation.path][operation.method.lower()]
    return entry


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.id)
def test_every_endpoint_says_all_that_it_may_answer(operation: Operation) -> None:
    entry = entry_of(operation)
    assert entry["summary"] == operation.summary
    assert entry["tags"] == [operation.tag]
    responses = entry["responses"]
    assert str(operation.status) in responses
    errors = {400, 404, 413, 422, 429, 500, 503, *([401, 403, 409] if operation.permission else [])}
    assert {int(code) for code in responses} == {operation.status, *errors}
    for status in errors:
        [(media, content)] = responses[str(status)]["content"].items()
        assert media == "application/problem+json"
        assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
        assert content["example"]["status"] == status
    if operation.permission is None:
        assert entry["security"] == []
    else:
        assert entry["security"] == [{"key": []}]
        roles = ", ".join(sorted(ALLOWED[operation.permission]))
        assert entry["description"].endswith(f"Roles: {roles}.")
    headers = {p["name"] for p in entry.get("parameters", ()) if p["in"] == "header"}
    assert headers == ({"Idempotency-Key"} if operation.repeats else set())


def test_the_document_as_a_whole() -> None:
    told = document(one_app())
    assert told["openapi"].startswith("3.1")
    assert told["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert [tag["name"] for tag in told["tags"]] == list(TAGS)
    assert "HTTPValidationError" not in json.dumps(told)
    assert set(ERRORS) >= {400, 401, 403, 404, 409, 413, 422, 429, 500, 503}
    assert known_names(one_app()) >= {"identity", "regime", "limit", "tell_not", "request_id", "body"}


def test_every_body_has_an_example_that_fits_or_needs_none() -> None:
    told = document(one_app())
    found = 0
    for name, schema_ in told["components"]["schemas"].items():
        for example in schema_.get("examples", ()):
            whole = {"$ref": f"#/components/schemas/{name}", "components": told["components"]}
            jsonschema_rs.validator_for(whole).validate(example)
            found += 1
    assert found >= 5


def test_the_page_shows_the_table(api_page: str) -> None:
    def row(operation: Operation) -> str:
        roles = "everybody" if operation.permission is None else ", ".join(sorted(ALLOWED[operation.permission]))
        return f"| `{operation.method} {operation.path}` | {operation.summary} | {roles} |"

    rows = [line for line in api_page.splitlines() if re.match(r"\| `(GET|POST|DELETE) ", line)]
    assert rows == [row(operation) for operation in OPERATIONS]


def test_the_page_of_webhooks_names_every_event() -> None:
    page = (DOCS / "webhooks.md").read_text(encoding="utf-8")
    for type_ in (*EVENT_TYPES, "opendsr.status"):
        assert f"`{type_}`" in page


@pytest.fixture(scope="module")
def api_page() -> str:
    return (DOCS / "api.md").read_text(encoding="utf-8")


schema = schemathesis.openapi.from_asgi("/openapi.json", one_app(), config=SchemathesisConfig.from_dict(CONFIG))


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("document") / "service")
    yield house
    house.close()


@pytest.mark.slow
@schema.parametrize()
@settings(deadline=None, max_examples=4, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
def test_the_service_does_what_the_document_says(case: Any, used: House) -> None:
    operation = BY_ID[case.operation.definition.raw["operationId"]]
    roles = ALLOWED[operation.permission] if operation.permission else ()
    who = next((role for role in ("operator", "approver", "auditor") if role in roles), None)
    headers = {"Authorization": f"Bearer {used.texts[who]}"} if who else {}
    used.app.state.context = used.context
    case.call_and_validate(
        headers=headers, excluded_checks=[positive_data_acceptance], additional_checks=[what_fits_is_understood]
    )


def what_fits_is_understood(ctx: Any, response: Any, case: Any) -> None:
    """In place of schemathesis' own check, for which every 422 is a misunderstanding.

    What the document lets through may still name a policy, a time or a model that is not there: another type says so.
    """
    if case.meta is not None and case.meta.generation.mode.is_positive and response.status_code in (400, 422):
        assert response.json()["type"] != "urn:expunge:problem:invalid-request", response.json()
        assert response.status_code == 422, response.json()
