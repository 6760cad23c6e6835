"""The snapshot that bots fetch: plain, signed, and as a stream."""

from typing import Any

from django.http import HttpResponse, HttpResponseBase
from django.utils.cache import get_conditional_response
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiResponse,
    extend_schema,
    extend_schema_serializer,
)
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.views import APIView

from accounts.authentication import CanServe
from deploy.rules import MoveKind
from deploy.serving import events, key_sets, protocol, signing, snapshot
from deploy.serving.snapshot import Snapshot

SNAPSHOT_EXAMPLE = {
    "protocol": protocol.describe(),
    "service": "crpbot-4f2c…",
    "revision": 7,
    "kind": "swap",
    "line": "v7_fixed",
    "release": 3,
    "moved_at": "2026-11-22T08:00:00Z",
    "moved_by": "anna",
    "reason": "every gate passed, figures checked",
    "simulated": False,
    "policy": {"number": 1, "weaker_than_baseline": []},
    "audit": {"seq": 412, "hash": "9b0c…"},
    "models": {
        "BTC": {
            "bundle": "sha256:51d7…",
            "simulated": False,
            "feature_schema": "relative72",
            "schema_digest": "sha256:c0aa…",
            "classes": ["down", "neutral", "up"],
            "files": {
                "model.onnx": {"sha256": "e3b0…", "size": 259624, "url": "/api/v1/artifacts/e3b0…"},
            },
            "statement": {"sha256": "77ab…", "url": "/api/v1/bundles/sha256:51d7…/statement/"},
        }
    },
}

SIGNED_EXAMPLE = {
    "payload": "eyJhdWRpdCI6eyJo…",
    "payloadType": "application/vnd.crpbot.snapshot+json",
    "signatures": [{"keyid": "141dfdaf5714…", "sig": "/PbYP3wufFKp…"}],
}


class ServingView(APIView):
    """For people and without the edge; in production `deploy.edge` answers bots with the same bytes."""

    permission_classes = (CanServe,)
    reading_scope = None


class Active(ServingView):
    @extend_schema_serializer(component_name="Snapshot", examples=[OpenApiExample("live", SNAPSHOT_EXAMPLE)])
    class Output(serializers.Serializer[Any]):
        @extend_schema_serializer(component_name="SnapshotModel")
        class Model(serializers.Serializer[Any]):
            @extend_schema_serializer(component_name="SnapshotFile")
            class File(serializers.Serializer[Any]):
                sha256 = serializers.CharField()
                size = serializers.IntegerField(help_text="Bytes.")
                url = serializers.CharField(help_text="The address to download it from, with the same token.")

            @extend_schema_serializer(component_name="SnapshotStatement")
            class Statement(serializers.Serializer[Any]):
                sha256 = serializers.CharField()
                url = serializers.CharField()

            bundle = serializers.CharField(help_text="`sha256:…` over the manifest.")
            simulated = serializers.BooleanField()
            feature_schema = serializers.CharField()
            schema_digest = serializers.CharField()
            classes = serializers.ListField(child=serializers.CharField())
            files = serializers.DictField(child=File(), help_text="By name.")
            statement = Statement(
                allow_null=True, help_text="Signed before the move: a second worker trained the same model."
            )

        @extend_schema_serializer(component_name="SnapshotPolicy")
        class Policy(serializers.Serializer[Any]):
            number = serializers.IntegerField()
            weaker_than_baseline = serializers.ListField(child=serializers.CharField())

        @extend_schema_serializer(component_name="SnapshotEvent")
        class Event(serializers.Serializer[Any]):
            seq = serializers.IntegerField()
            hash = serializers.CharField()

        @extend_schema_serializer(component_name="SnapshotProtocol")
        class Protocol(serializers.Serializer[Any]):
            version = serializers.IntegerField(help_text="In which the snapshot is written.")
            oldest_reader = serializers.IntegerField(help_text="The oldest client that understands it.")

        protocol = Protocol(
            help_text="Follow nothing else of a snapshot whose oldest reader is above your own protocol."
        )
        service = serializers.CharField(help_text="Distinguishes this service's revisions from another's.")
        revision = serializers.IntegerField(help_text="Grows with every move.")
        kind = serializers.ChoiceField([kind.value for kind in MoveKind])
        line = serializers.CharField(allow_null=True, help_text="Null when offline: answer neutral.")
        release = serializers.IntegerField(allow_null=True)
        moved_at = serializers.DateTimeField()
        moved_by = serializers.CharField()
        reason = serializers.CharField()
        simulated = serializers.BooleanField(help_text="Whether any of it was trained on a simulated market.")
        policy = Policy(allow_null=True)
        audit = Event(help_text="The move's own event in the audit chain.")
        models = serializers.DictField(child=Model(), help_text="By coin.")

    @extend_schema(responses={200: Output, 304: OpenApiResponse(description="You have the latest.")})
    def get(self, request: Request) -> HttpResponseBase:
        """What every bot must run now, all coins in one document.

        Send the last `ETag` as `If-None-Match`: 304 means that nothing moved.
        """
        return _answer_conditionally(request, snapshot.build_current())


class SignedActive(ServingView):
    @extend_schema_serializer(
        component_name="SignedSnapshot", examples=[OpenApiExample("live", SIGNED_EXAMPLE)]
    )
    class Output(serializers.Serializer[Any]):
        @extend_schema_serializer(component_name="SnapshotSignature")
        class Signature(serializers.Serializer[Any]):
            keyid = serializers.CharField(help_text="Which key: see `keys/`.")
            sig = serializers.CharField(help_text="Ed25519 over the payload and its type (DSSE), in base64.")

        payload = serializers.CharField(
            help_text="In base64: the snapshot as JSON, with `issued_at`, `expires_at`, `audit_head`, `key_version`,"
            " `coins`, each coin's `diagnosis`, and the announced releases: `next` awaits approval, `fallback` is what a pin"
            " leads to."
        )
        payloadType = serializers.CharField(help_text=f"`{signing.PAYLOAD_TYPE}`")
        signatures = Signature(many=True)

    @extend_schema(
        operation_id="active_signed",
        responses={200: Output, 304: OpenApiResponse(description="You have the latest.")},
    )
    def get(self, request: Request) -> HttpResponseBase:
        """The snapshot in a signed envelope (DSSE, Ed25519), which bots follow.

        It is signed every minute and valid for three, so that a repeated old answer is recognised by its age. Verify it with
        a public key that you received by hand (`manage.py keys export`).
        """
        return _answer_conditionally(request, signing.get_envelope())


class KeySets(ServingView):
    @extend_schema_serializer(component_name="KeySets")
    class Output(serializers.Serializer[Any]):
        key_sets = SignedActive.Output(
            many=True, help_text=f"The oldest first. The payload of each is `{key_sets.PAYLOAD_TYPE}`."
        )

    @extend_schema(
        operation_id="active_keys",
        responses={200: Output, 304: OpenApiResponse(description="You have the latest.")},
    )
    def get(self, request: Request) -> HttpResponseBase:
        """The sets of keys that bots trust, each signed by keys of the set before (DSSE, Ed25519).

        A payload has `service`, `version` and `keys`. A bot begins with the set that it was given by hand, and follows from
        version to version. It asks when a snapshot names a higher `key_version`, or when an unknown key signed one.
        """
        return _answer_conditionally(request, key_sets.build_chain())


_EVENT = {
    "type": "object",
    "required": ["id", "event", "data"],
    "properties": {
        "id": {"type": "string", "description": "the revision"},
        "event": {"type": "string", "enum": ["snapshot"]},
        "data": {"type": "string", "description": "the envelope of `active/signed/`, on one line"},
        "retry": {"type": "integer", "description": "milliseconds to wait before connecting again"},
    },
}


class ActiveStream(ServingView):
    """One event. In production `deploy.edge` streams to bots."""

    @extend_schema(
        operation_id="active_stream",
        responses={(200, "text/event-stream"): OpenApiResponse(_EVENT, "An endless stream of events.")},
    )
    def get(self, request: Request) -> HttpResponseBase:
        """Every new signed snapshot as a server-sent event: `id` is the revision, `data` the envelope on one line.

        First the current one, then each new one; a comment after 15 quiet seconds. Ends when its token ends.
        """
        return HttpResponse(
            events.BEGINNING + events.format_event(signing.get_envelope()), content_type="text/event-stream"
        )


def _answer_conditionally(request: Request, latest: Snapshot) -> HttpResponseBase:
    response = HttpResponse(latest.body, content_type="application/json")
    response["ETag"] = latest.etag
    response["Cache-Control"] = "private, no-cache"
    return get_conditional_response(request, etag=latest.etag, response=response) or response
