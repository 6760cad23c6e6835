"""Signed statements about bundles."""

import json

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.authentication import CanServe
from deploy.api.active import SignedActive
from deploy.serving.statements import PAYLOAD_TYPE, find_statement
from training.services.bundles import find_bundle


class BundleStatement(APIView):
    permission_classes = (CanServe,)

    @extend_schema(operation_id="bundle_statement", responses={200: SignedActive.Output})
    def get(self, request: Request, digest: str) -> Response:
        """The signed statement that a second worker trained the same model; 404 where none was signed.

        A DSSE envelope of the type `application/vnd.in-toto+json`: an in-toto statement, which names the files by their
        digest. Verify it with a public key that you received by hand (`manage.py keys export`).
        """
        envelope = json.loads(find_statement(find_bundle(digest)).body)
        assert envelope["payloadType"] == PAYLOAD_TYPE
        return Response(envelope)
