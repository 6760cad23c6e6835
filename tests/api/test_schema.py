"""The OpenAPI document: complete, sound, and what the service really does."""

from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from drf_spectacular.generators import SchemaGenerator

from crpbot.api.problems import CONTENT_TYPE
from tests.api.callers import Caller
from tests.api.operations import MATRIX

# Lists that come whole, and what keeps each of them short. Every other list comes in pages.
A_GATE_EACH, A_COIN_EACH, A_THRESHOLD_EACH = "one a gate", "one a coin", "one a threshold of a policy"
SHORT = {
    "Alarms.alarms": "one a kind of alarm",
    "Bundle.files": "one a file of a bundle",
    "Dataset.checks": "one a check of candles",
    "DatasetPreview.checks": "one a check of candles",
    "Diagnosis.gates": A_GATE_EACH,
    "DiagnosisDetail.gates": A_GATE_EACH,
    "FallbackReadiness.problems": A_COIN_EACH,
    "FallbackReadiness.unconfirmed": A_COIN_EACH,
    "ImportReport.notes": "one a thing that was done with a file",
    "ImportedBundle.files": "one a file of a bundle",
    "ImportedBundle.notes": "one a thing that the file does not say",
    "KeySets.key_sets": "one a change of the keys, the last two hundred",
    "Machine.uses": "one a run of the launch that it was started for",
    "Policy.weaker_than_baseline": A_THRESHOLD_EACH,
    "Policy.weaker_than_full": A_THRESHOLD_EACH,
    "Policy.adoptions": "one a time that two people put it in force",
    "PolicyDetail.weaker_than_baseline": A_THRESHOLD_EACH,
    "PolicyDetail.weaker_than_full": A_THRESHOLD_EACH,
    "PolicyDetail.adoptions": "one a time that two people put it in force",
    "PolicyDetail.differences": A_THRESHOLD_EACH,
    "PolicyDraft.weaker_than_baseline": A_THRESHOLD_EACH,
    "PolicyDraft.weaker_than_full": A_THRESHOLD_EACH,
    "PolicyDraft.changes": A_THRESHOLD_EACH,
    "PolicyDrafts.drafts": "one a draft that comes with the code",
    "Recipe.settings": "one a setting of a recipe",
    "RecipeSetting.words": "one a word that a setting takes",
    "Recipes.recipes": "one a recipe that is installed",
    "Release.allowed_actions": "one a decision there is",
    "ReleaseSummary.allowed_actions": "one a decision there is",
    "Release.coins": A_COIN_EACH,
    "ReleaseSummary.coins": A_COIN_EACH,
    "ReleaseDetail.allowed_actions": "one a decision there is",
    "ReleaseDetail.unchanged_coins": "one a coin there is",
    "ReleaseDetail.coins": A_COIN_EACH,
    "PolicyPreview.problems": A_GATE_EACH,
    "ReleaseCoin.gates": A_GATE_EACH,
    "ReleaseCoin.files": "the files of one bundle",
    "Report.warnings": "at most two",
    "Report.weaker_than_baseline": A_THRESHOLD_EACH,
    "Report.failures": "the five of V6",
    "Report.skill": A_COIN_EACH,
    "Report.gates": A_GATE_EACH,
    "ReportFailure.before": A_COIN_EACH,
    "ReportFailure.after": A_COIN_EACH,
    "ReportGate.coins": A_COIN_EACH,
    "ReportSide.coins": A_COIN_EACH,
    "Run.tags": "twelve",
    "ComparedRun.tags": "twelve",
    "RunComparison.runs": "eight",
    "RunComparison.differences": "one a setting of a recipe",
    "RunDifference.values": "eight",
    "SignedSnapshot.signatures": "one an active key: two during a rotation",
    "SnapshotModel.classes": "three",
    "SnapshotPolicy.weaker_than_baseline": A_THRESHOLD_EACH,
    "Worker.queues": "two",
}


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


@pytest.mark.slow
def test_the_document_is_valid_and_was_made_without_a_warning(tmp_path: Path) -> None:
    call_command("spectacular", "--validate", "--fail-on-warn", file=str(tmp_path / "schema.yaml"))
    assert (tmp_path / "schema.yaml").stat().st_size > 10_000


def test_every_operation_is_described_and_says_how_it_can_fail(document: dict[str, Any]) -> None:
    described = operations(document)
    assert len(described) == len(MATRIX) - 1  # all but the document's own address
    for method, path, operation in described:
        where = f"{method} {path}"
        assert operation["summary"], where
        assert {"401", "403", "429", "503"} <= set(operation["responses"]), where
        assert ("{" not in path) or "404" in operation["responses"], where
        for status, answer in operation["responses"].items():
            assert answer["description"] or status.startswith("2"), where
            assert (CONTENT_TYPE in answer.get("content", {})) == (int(status) >= 400), where


def test_a_list_comes_in_pages_or_cannot_grow(document: dict[str, Any]) -> None:
    answers = {n: s for n, s in document["components"]["schemas"].items() if not n.endswith("Request")}
    whole = {
        f"{name}.{field}"
        for name, schema in answers.items()
        for field, found in schema.get("properties", {}).items()
        if found.get("type") == "array" and not (name.startswith("Paginated") and field == "results")
    }
    assert whole == set(SHORT)
    assert not [name for name, schema in answers.items() if schema.get("type") == "array"]


def test_every_page_has_its_bounds(document: dict[str, Any]) -> None:
    in_pages = 0
    for method, path, operation in operations(document):
        content = operation["responses"].get("200", {}).get("content", {}).get("application/json", {})
        assert content.get("schema", {}).get("type") != "array", f"{method} {path} is a bare list"
        if "Paginated" in str(content):
            queries = {query["name"]: query["schema"] for query in operation["parameters"]}
            limit = queries["limit"]
            assert (limit["minimum"], limit["default"], limit["maximum"]) == (1, 50, 500), path
            assert queries["offset"]["minimum"] == 0, path
            in_pages += 1
    assert in_pages >= 14


def test_every_decision_requires_a_reason_and_no_other_fields(
    document: dict[str, Any],
) -> None:
    schemas = document["components"]["schemas"]
    bodies = {name: schema for name, schema in schemas.items() if name.endswith("Request")}
    assert {"DecisionRequest", "DecisionAtRevisionRequest", "ReleaseLaunchRequest"} <= set(bodies)
    assert all(schema["additionalProperties"] is False for schema in bodies.values())
    assert set(bodies["DecisionAtRevisionRequest"]["required"]) == {"revision", "reason"}


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
