import uuid
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from storages.backends.s3 import S3Storage

from common.commands import GateCommand
from common.errors import Unavailable

DEFAULT_REGION = "us-east-1"
"""The only region that S3 does not accept as a name when a bucket is created."""


class Command(GateCommand):
    help = "Create the bucket if it is missing, and check that files can be written, read and deleted."

    def answer(self, **options: Any) -> dict[str, Any]:
        try:
            storage, is_new = _prepare()
            _check_access()
        except (OSError, BotoCoreError, ClientError) as error:
            raise Unavailable(
                f"The file store cannot be used ({error}). Check CRPBOT_S3_ENDPOINT, the bucket and its keys."
            ) from error
        return {"storage": storage, "created": is_new}

    def format_answer(self, answer: dict[str, Any]) -> str:
        return f"{answer['storage']} can be used{' (just created)' if answer['created'] else ''}."


def _prepare() -> tuple[str, bool]:
    """The storage, and whether it was created; a folder is created with its first file."""
    if not isinstance(default_storage, S3Storage):
        return "the files folder", False
    client, bucket = default_storage.connection.meta.client, default_storage.bucket_name
    try:
        client.head_bucket(Bucket=bucket)
        return f"bucket {bucket}", False
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("404", "NoSuchBucket"):
            raise
    region = default_storage.region_name
    location = (
        {"CreateBucketConfiguration": {"LocationConstraint": region}}
        if region and region != DEFAULT_REGION
        else {}
    )
    client.create_bucket(Bucket=bucket, **location)
    return f"bucket {bucket}", True


def _check_access() -> None:
    content = uuid.uuid4().hex.encode()
    name = default_storage.save(f"proof/{content.decode()}", ContentFile(content))
    with default_storage.open(name, "rb") as stream:
        if stream.read() != content:
            raise OSError("it returned other bytes than were written")
    default_storage.delete(name)
