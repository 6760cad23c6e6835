"""Candles in, over the API."""

import gzip
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from audit.models import AuditEvent
from tests import hostile_candles, scenarios
from tests.api.callers import Caller, assert_problem
from training.models import Dataset

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

HEADER = "timestamp,open,high,low,close,volume"
START_MS, HOUR_MS = 1_699_999_200_000, 3_600_000


def candles(bars: int = 100, **odd: str) -> bytes:
    """Hourly candles as CSV; `row_7=...` replaces one data row."""
    rows = [f"{START_MS + bar * HOUR_MS},10,11,9,10,5" for bar in range(bars)]
    for name, row in odd.items():
        rows[int(name.removeprefix("row_")) - 1] = row
    return "\n".join([HEADER, *rows]).encode()


def csv(content: bytes, name: str = "btc.csv") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, content)


@pytest.fixture(autouse=True)
def _coins(db: None) -> None:
    scenarios.coins()


def test_an_upload_becomes_a_dataset_that_says_what_it_holds(as_operator: Caller) -> None:
    response = as_operator.upload(coin="BTC", file=csv(candles()))
    assert response.status_code == 201, response.content
    answer = response.json()
    assert (answer["coin"], answer["rows"], answer["origin"], answer["added_by"]) == (
        "BTC",
        100,
        "btc.csv",
        "olivia",
    )
    assert (answer["is_simulated"], answer["interval_seconds"], answer["gaps"]) == (False, 3600, 0)
    assert Dataset.objects.get().pk == answer["id"]
    assert AuditEvent.objects.get(kind="dataset.added").actor == "olivia"


def test_the_same_candles_in_another_file_are_the_same_dataset(as_operator: Caller) -> None:
    first = as_operator.upload(coin="BTC", file=csv(candles()))
    again = as_operator.upload(coin="btc", file=csv(gzip.compress(candles()), "btc.csv.gz"))
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()


def test_candles_that_were_made_up_are_marked_so(as_operator: Caller) -> None:
    answer = as_operator.upload(coin="BTC", file=csv(candles()), is_simulated="true").json()
    assert answer["is_simulated"] is True


DESCENDING = candles().splitlines()
NEWEST_FIRST = b"\n".join([b"https://www.CryptoDataDownload.com", DESCENDING[0], *reversed(DESCENDING[1:])])


def test_a_check_says_what_an_upload_would_store_and_stores_nothing(as_operator: Caller) -> None:
    answer = as_operator.upload("datasets/check/", coin="BTC", file=csv(NEWEST_FIRST))
    assert answer.status_code == 200
    said = answer.json()
    assert said["import_report"] == {
        "format": "CSV",
        "layout": "named columns",
        "notes": [
            "skipped above the header: https://www.CryptoDataDownload.com",
            "times read as epoch milliseconds",
            "sorted: the newest row was first",
        ],
    }
    assert (said["rows"], said["interval_seconds"], said["dataset"]) == (100, 3600, None)
    assert not Dataset.objects.exists()
    stored = as_operator.upload(coin="BTC", file=csv(NEWEST_FIRST)).json()
    shared = said.keys() & stored.keys()
    assert {name: said[name] for name in shared} == {name: stored[name] for name in shared}
    again = as_operator.upload("datasets/check/", coin="BTC", file=csv(candles()))
    assert (again.json()["dataset"], again.json()["digest"]) == (stored["id"], stored["digest"])


def test_a_check_refuses_what_an_upload_refuses(as_operator: Caller) -> None:
    bad = candles(row_7=f"{START_MS + 6 * HOUR_MS},10,8,9,10,5")
    refused = as_operator.upload("datasets/check/", coin="BTC", file=csv(bad))
    assert_problem(refused, 400, "row 7 (line 8 of the file)")


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_download_uploaded_again_is_the_same_dataset(
    form: str, as_operator: Caller, as_viewer: Caller
) -> None:
    stored = as_operator.upload(
        coin="BTC", file=csv(candles(row_7=f"{START_MS + 6 * HOUR_MS},0.1,0.3,0.1,0.2,1e-7"))
    ).json()
    answer = as_viewer.get(f"datasets/{stored['id']}/candles.{form}")
    assert answer["Content-Disposition"] == f'attachment; filename="BTC-dataset-{stored["id"]}.{form}"'
    assert int(answer["Content-Length"]) == len(answer.bytes)
    again = as_operator.upload(coin="BTC", file=csv(answer.bytes, "again"))
    assert (again.status_code, again.json()["id"]) == (200, stored["id"])


def test_a_download_that_cannot_be_is_not_found(as_operator: Caller, as_viewer: Caller) -> None:
    stored = as_operator.upload(coin="BTC", file=csv(candles())).json()
    assert_problem(as_viewer.get(f"datasets/{stored['id']}/candles.xlsx"), 404, "choose csv or parquet")
    assert_problem(as_viewer.get("datasets/999/candles.csv"), 404, "no dataset 999")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (candles(row_7=f"{START_MS + 6 * HOUR_MS},10,8,9,10,5"), "row 7"),
        (candles(row_9=f"{START_MS + 8 * HOUR_MS},10,11,9,NaN,5"), "row 9"),
        (candles(row_5=f"{START_MS},10,11,9,10,5"), "row 5"),
        (b"not candles at all", "btc.csv"),
        (b"\x1f\x8b not really gzip", "btc.csv"),
        (HEADER.encode(), "btc.csv"),
    ],
    ids=["high under low", "not a number", "a time twice", "no candles", "a broken archive", "no rows"],
)
def test_a_file_that_cannot_be_trusted_is_refused_and_nothing_is_kept(
    content: bytes, says: str, as_operator: Caller
) -> None:
    problem = assert_problem(as_operator.upload(coin="BTC", file=csv(content)), 400, says)
    assert "file" in problem["errors"]
    assert not Dataset.objects.exists()
    assert not AuditEvent.objects.filter(kind="dataset.added").exists()


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"coin": "BTC"}, "file"),
        ({"file": b"x"}, "coin"),
        ({"coin": "DOGE", "file": b"x"}, "coin"),
        ({"coin": "BTC", "file": b""}, "file"),
        ({"coin": "BTC", "file": b"x", "symbol": "BTC"}, "symbol"),
        ({"coin": "BTC", "file": b"x", "is_simulated": "perhaps"}, "is_simulated"),
        ({"coin": "BTC", "file": "text, not a file"}, "file"),
    ],
    ids=["no file", "no coin", "unknown coin", "empty file", "unknown field", "no boolean", "no upload"],
)
def test_a_form_that_is_not_complete_is_refused_field_by_field(
    fields: dict[str, Any], name: str, as_operator: Caller
) -> None:
    form = {key: csv(value) if isinstance(value, bytes) else value for key, value in fields.items()}
    assert name in assert_problem(as_operator.upload(**form), 400)["errors"]


def test_a_file_over_the_limit_is_refused(as_operator: Caller, settings: Any) -> None:
    """Much over it, and it does not come this far: tests/crpbot/test_limits.py."""
    settings.DATASET_UPLOAD_LIMIT_BYTES = 1000
    assert_problem(as_operator.upload(coin="BTC", file=csv(candles())), 400, "the limit is 1,000")
    assert not Dataset.objects.exists()


def test_candles_as_json_are_of_the_wrong_type(as_operator: Caller) -> None:
    assert_problem(as_operator.post("datasets/", {"coin": "BTC", "file": "…"}), 415, "application/json")


def test_a_torn_form_is_refused(as_operator: Caller) -> None:
    response = as_operator.post("datasets/", b"--half", content_type="multipart/form-data; boundary=half")
    assert_problem(response, 400)
    response = as_operator.post("datasets/", b"x", content_type="multipart/form-data")
    assert_problem(response, 400)


@pytest.mark.slow
@pytest.mark.parametrize("kind", hostile_candles.FILES)
def test_a_hostile_file_is_refused_and_harms_nothing(kind: str, as_operator: Caller) -> None:
    """The process that reads it may end by it, and this one answers the next request."""
    name, make, says = hostile_candles.FILES[kind]
    problem = assert_problem(as_operator.upload(coin="BTC", file=csv(make(), name)), 400, name, says)
    assert "file" in problem["errors"]
    assert not Dataset.objects.exists()
    assert as_operator.upload(coin="BTC", file=csv(candles())).status_code == 201
