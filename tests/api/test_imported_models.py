"""Imported models over the API."""

from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from tests import model_files, scenarios
from tests.api.callers import Caller, assert_problem
from tests.model_files import LINEAR, linear_tensors, onnx_file
from training.models import Bundle

pytestmark = pytest.mark.django_db

SAID = {"coin": "BTC", "line": "v5", "schema": "relative72"}


@pytest.fixture(autouse=True)
def _coins(db: None) -> None:
    scenarios.coins()


def sent(caller: Caller, data: bytes, **said: Any) -> Any:
    return caller.upload("bundles/", file=SimpleUploadedFile("v5.onnx", data), **{**SAID, **said})


def test_a_file_becomes_a_bundle_that_is_listed_with_its_origin(as_operator: Caller) -> None:
    data = onnx_file([LINEAR], linear_tensors())
    first, again = sent(as_operator, data), sent(as_operator, data)
    assert (first.status_code, again.status_code) == (201, 200)
    answer = first.json()
    assert answer == again.json()
    assert (answer["coin"], answer["line"], answer["dataset"]) == ("BTC", "v5", None)
    assert answer["origin"].startswith("imported from v5.onnx sha256:")
    assert any("no scaler" in note for note in answer["notes"])
    listed = as_operator.get("bundles/?is_imported=true&coin=BTC").json()["results"]
    assert listed == [{name: value for name, value in answer.items() if name != "notes"}]
    assert as_operator.get("bundles/?is_imported=false").json()["results"] == []


def test_what_has_to_be_said_is_named(as_operator: Caller) -> None:
    file = SimpleUploadedFile("v5.onnx", onnx_file([LINEAR], linear_tensors()))
    problem = assert_problem(as_operator.upload("bundles/", coin="BTC", line="v5", file=file), 400)
    assert list(problem["errors"]) == ["schema"]


def test_a_flat_model_is_not_imported(as_operator: Caller) -> None:
    problem = assert_problem(sent(as_operator, onnx_file([LINEAR], linear_tensors()), line="flat"), 400)
    assert list(problem["errors"]) == ["line"]
    assert not Bundle.objects.exists()


def test_a_hostile_file_is_refused_by_name(as_operator: Caller, tmp_path: Any) -> None:
    make, _ = model_files.hostile(tmp_path / "canary")["ONNX with a Python operator"]
    problem = assert_problem(sent(as_operator, make()), 400, "ai.onnx.contrib")
    assert list(problem["errors"]) == ["file"]
    assert not Bundle.objects.exists()


def test_one_too_large_is_refused(as_operator: Caller, settings: Any) -> None:
    settings.IMPORTED_MODEL_UPLOAD_LIMIT_BYTES = 1000
    assert_problem(sent(as_operator, bytes(10_000)), 400, "more than 1,000 bytes")
    assert not Bundle.objects.exists()
