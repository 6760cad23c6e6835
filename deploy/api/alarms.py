"""What a monitor looks at: whether anything is an alarm, and how the fallback stands."""

from typing import Any

from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from deploy.alarms.detect import list_alarms
from deploy.pointer import fallback
from deploy.rules import AlarmName, Severity

QUIET = {
    "count": 0,
    "alarms": [],
    "fallback": {
        "release": 1,
        "line": "v5",
        "is_ready": True,
        "problems": [],
        "unconfirmed": [],
        "measured_at": "2026-11-22T08:00:00Z",
        "files_read_at": "2026-11-22T13:59:48Z",
    },
}


class Alarms(APIView):
    """What is an alarm at this moment, looked up for this answer; what was is in the audit, as `alarm.*`."""

    @extend_schema_serializer(component_name="Alarms", examples=[OpenApiExample("all quiet", QUIET)])
    class Output(serializers.Serializer[Any]):
        @extend_schema_serializer(component_name="Alarm")
        class One(serializers.Serializer[Any]):
            name = serializers.ChoiceField([name.value for name in AlarmName])
            severity = serializers.ChoiceField(
                [severity.value for severity in Severity],
                help_text="`critical`: a pin would send the bots offline, or they lack something already.",
            )
            sentence = serializers.CharField(help_text="What is wrong.")
            remedy = serializers.CharField(help_text="What to do.")
            raised_at = serializers.DateTimeField(
                allow_null=True, help_text="Null until `reconcile` has written it down."
            )

        @extend_schema_serializer(component_name="FallbackReadiness")
        class Fallback(serializers.Serializer[Any]):
            release = serializers.IntegerField(source="release.pk", default=None, allow_null=True)
            line = serializers.CharField(source="release.line", default=None, allow_null=True)
            is_ready = serializers.BooleanField(help_text="Whether a pin would hold the bots on it.")
            problems = serializers.ListField(
                child=serializers.CharField(), help_text="Why a pin would go offline."
            )
            unconfirmed = serializers.ListField(
                child=serializers.CharField(),
                help_text="What is not known for sure; it is pinned all the same.",
            )
            measured_at = serializers.DateTimeField(allow_null=True)
            files_read_at = serializers.DateTimeField(allow_null=True)

        count = serializers.IntegerField()
        alarms = One(many=True)
        fallback = Fallback()

    @extend_schema(operation_id="list_alarms", responses=Output)
    def get(self, request: Request) -> Response:
        """What is an alarm now, and how the fallback stands. `count` is 0 when nobody need do anything."""
        readiness = fallback.check_fallback_cached()
        alarms = list_alarms(readiness)
        answer = {"count": len(alarms), "alarms": alarms, "fallback": readiness}
        return Response(self.Output(answer).data)
