"""The OpenAPI document: complete, sound, and what the service really does."""

from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from drf_spectacular.generators import SchemaGenerator

from crpbot.problems import CONTENT_TYPE
from tests.api.callers import Caller
from tests.api.test_scopes import MATRIX


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    generated: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)
    return generated


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_the_document_is_valid_and_was_made_without_a_warning(tmp_path: Path) -> None:
    call_command("spectacular", "--validate", "--fail-on-warn", file=str(tmp_path / "schema.yaml"))
    assert (tmp_path / "schema.yaml").stat().st_size > 10_000


def test_every_operation_is_described_and_says_how_it_can_fail(document: dict[str, Any]) -> None:
    described = operations(document)
    assert len(described) == len(MATRIX) - 1  # all but the document's own address
    for method, path, operation in described:
        where = f"{method} {path}"
        assert operation["summary"], where
        assert {"401", "403"} <= set(operation["responses"]), where
        assert ("{" not in path) or "404" in operation["responses"], where
        for status, answer in operation["responses"].items():
            assert answer["description"] or status.startswith("2"), where
            assert (CONTENT_TYPE in answer.get("content", {})) == (int(status) >= 400), where


def test_every_decision_asks_for_a_reason_and_takes_nothing_it_does_not_name(
    document: dict[str, Any],
) -> None:
    schemas = document["components"]["schemas"]
    bodies = {name: schema for name, schema in schemas.items() if name.endswith("Request")}
    assert {"DecisionRequest", "DecisionAtEpochRequest", "ReleaseLaunchRequest"} <= set(bodies)
    assert all(schema["additionalProperties"] is False for schema in bodies.values())
    assert bodies["DecisionAtEpochRequest"]["required"] == ["epoch", "reason"]


@pytest.mark.django_db
def test_it_is_served_as_json(as_viewer: Caller, document: dict[str, Any]) -> None:
    served = as_viewer.get("/api/schema/").json()
    assert list(served["paths"]) == list(document["paths"])


@pytest.mark.django_db
def test_its_page_sends_a_visitor_to_sign_in(anonymous: Caller) -> None:
    response = anonymous.get("/api/docs/")
    assert (response.status_code, "next=/api/docs/" in response["Location"]) == (302, True)


def test_the_guide_names_every_operation(document: dict[str, Any]) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    for method, path, _ in operations(document):
        relative = path.removeprefix("/api/v1/")
        assert f"`{method.upper()} {relative}`" in guide, f"{method.upper()} {relative}"
