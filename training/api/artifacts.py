"""The bytes of bundles."""

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpResponseBase, StreamingHttpResponse
from django.utils.cache import get_conditional_response
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
)
from rest_framework.request import Request
from rest_framework.views import APIView

from accounts.authentication import CanServe
from common.errors import NotFound, Unavailable
from training import artifact_store
from training.models import Artifact

CHUNK_BYTES = 64 * 1024


class Chunks:
    """An open file in pieces, closed at its end, or with the response where that ends sooner."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.close = stream.close

    def __iter__(self) -> Iterator[bytes]:
        with self.stream:
            while chunk := self.stream.read(CHUNK_BYTES):
                yield chunk


class AsyncChunks:
    """The same under ASGI, where reading must not hold up the event loop."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.close = stream.close

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with self.stream:
            while chunk := await sync_to_async(self.stream.read, thread_sensitive=False)(CHUNK_BYTES):
                yield chunk


class Artifacts(APIView):
    permission_classes = (CanServe,)
    reading_scope = "files"

    @extend_schema(
        parameters=[
            OpenApiParameter("sha256", OpenApiTypes.STR, OpenApiParameter.PATH, pattern="^[0-9a-f]{64}$")
        ],
        responses={
            (200, "application/octet-stream"): OpenApiTypes.BINARY,
            304: OpenApiResponse(description="You have it."),
        },
    )
    def get(self, request: Request, sha256: str) -> HttpResponseBase:
        """The bytes of one file of a bundle. They never change: the name is their hash, and so is the ETag."""
        artifact = _artifact(sha256)
        etag = f'"{sha256}"'
        response = get_conditional_response(request, etag=etag) or _download(request, artifact)
        response["ETag"] = etag
        response["Cache-Control"] = "private, max-age=31536000, immutable"
        return response


def _artifact(sha256: str) -> Artifact:
    is_hash = re.fullmatch("[0-9a-f]{64}", sha256)
    artifact = Artifact.objects.filter(sha256=sha256).first() if is_hash else None
    if artifact is None:
        raise NotFound("No bundle has a file of this sha256 (64 lower-case hex digits).")
    return artifact


def _download(request: Request, artifact: Artifact) -> StreamingHttpResponse:
    stream = _opened(artifact)
    is_asgi = hasattr(request, "scope")
    response = StreamingHttpResponse(
        AsyncChunks(stream) if is_asgi else Chunks(stream), content_type="application/octet-stream"
    )
    response["Content-Length"] = artifact.size
    response["Content-Disposition"] = f'attachment; filename="{artifact.name}"'
    return response


def _opened(artifact: Artifact) -> Any:
    try:
        stream = artifact_store.open_stream(artifact.sha256)
    except artifact_store.FileLost as lost:
        raise Unavailable(lost.message) from lost
    if (found := stream.size) != artifact.size:
        stream.close()
        raise Unavailable(
            f"The stored file {artifact.sha256} has {found:,} bytes where {artifact.size:,} were written."
            " Restore it from a backup."
        )
    return stream
