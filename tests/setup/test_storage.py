"""`manage.py prepare_storage`: the step of production that makes the bucket, and proves that it can be used."""

from collections.abc import Iterator
from io import StringIO
from typing import Any

import boto3
import pytest
from django.core.management import call_command
from moto.server import ThreadedMotoServer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def use_bucket(settings: Any, name: str, endpoint: str, region: str = "us-east-1") -> Any:
    """Let files be kept there; answers that bucket, which may not exist."""
    keys = {"access_key": "access", "secret_key": "secret"}
    options = {"bucket_name": name, "endpoint_url": endpoint, "region_name": region, **keys}
    s3 = {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options}
    settings.STORAGES = {**settings.STORAGES, "default": s3}
    session = boto3.session.Session("access", "secret", region_name=region)
    return session.resource("s3", endpoint_url=endpoint).Bucket(name)


def prepare_storage() -> str:
    out = StringIO()
    call_command("prepare_storage", stdout=out, stderr=out)
    return out.getvalue()


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    """What it says before it ends with 1."""
    with pytest.raises(SystemExit) as ended:
        call_command("prepare_storage")
    assert ended.value.code == 1
    return capsys.readouterr().err


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
def test_a_bucket_that_is_not_there_is_made_and_left_empty(settings: Any, endpoint: str, region: str) -> None:
    bucket = use_bucket(settings, f"new-in-{region}", endpoint, region)
    assert prepare_storage() == f"bucket new-in-{region} can be used (just created).\n"
    assert bucket.creation_date is not None
    assert list(bucket.objects.all()) == []


def test_a_bucket_that_is_there_is_kept_as_it_is(settings: Any, endpoint: str) -> None:
    bucket = use_bucket(settings, "kept", endpoint)
    bucket.create()
    bucket.put_object(Key="sha256/aa", Body=b"bytes")
    assert prepare_storage() == "bucket kept can be used.\n"
    assert [found.key for found in bucket.objects.all()] == ["sha256/aa"]


def test_an_s3_that_does_not_answer_stops_the_start_and_says_what_to_check(
    settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    use_bucket(settings, "anywhere", "http://127.0.0.1:9")
    assert "Check CRPBOT_S3_ENDPOINT, the bucket and its keys." in refusal(capsys)


def test_a_bucket_that_cannot_be_made_stops_the_start_and_says_why(
    settings: Any, endpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    use_bucket(settings, "b" * 64, endpoint)
    assert "InvalidBucketName" in refusal(capsys)


def test_a_folder_needs_no_bucket() -> None:
    assert prepare_storage() == "the files folder can be used.\n"
