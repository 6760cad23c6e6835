"""The files of bundles. None is sent unverified: a changed file is refused, and one that changes meanwhile is cut short."""

import re

from django.http import FileResponse, HttpResponseBase
from django.utils.cache import get_conditional_response
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.views import APIView

from accounts.authentication import CanServe
from common.downloads import send_file
from common.errors import NotFound, Unavailable
from training import artifact_store
from training.models import Artifact


class Artifacts(APIView):
    permission_classes = (CanServe,)
    reading_scope = "files"

    @extend_schema(
        parameters=[
            OpenApiParameter("sha256", OpenApiTypes.STR, OpenApiParameter.PATH, pattern="^[0-9a-f]{64}$")
        ],
        responses={
            (200, "application/octet-stream"): OpenApiTypes.BINARY,
            304: OpenApiResponse(description="Not modified."),
        },
    )
    def get(self, request: Request, sha256: str) -> HttpResponseBase:
        """One file of a bundle. It never changes: name and ETag are its hash."""
        artifact = _find_artifact(sha256)
        etag = f'"{sha256}"'
        response = get_conditional_response(request, etag=etag) or _build_response(request, artifact)
        response["ETag"] = etag
        response["Cache-Control"] = "private, max-age=31536000, immutable"
        return response


def _find_artifact(sha256: str) -> Artifact:
    is_hash = re.fullmatch("[0-9a-f]{64}", sha256)
    artifact = Artifact.objects.filter(sha256=sha256).first() if is_hash else None
    if artifact is None:
        raise NotFound("No bundle has a file of this sha256 (64 lower-case hex digits).")
    return artifact


def _build_response(request: Request, artifact: Artifact) -> FileResponse:
    return send_file(
        request,
        _open_verified(artifact),
        size=artifact.size,
        name=artifact.name,
        content_type="application/octet-stream",
    )


def _open_verified(artifact: Artifact) -> artifact_store.VerifiedStream:
    try:
        return artifact_store.open_verified(artifact.sha256, artifact.size)
    except artifact_store.FileLost as lost:
        raise Unavailable(lost.message) from lost
