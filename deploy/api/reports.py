"""One release compared with another, for programs and for the command `report`."""

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from common import api_fields
from deploy.api.releases import find_release
from deploy.reports.comparison import Answer
from deploy.reports.stored import compare_releases
from mlcore.verdict import Verdict

_VERDICTS = [verdict.value for verdict in Verdict]


@extend_schema_serializer(component_name="Interval")
class IntervalOutput(serializers.Serializer[Any]):
    point = serializers.FloatField()
    lower = serializers.FloatField(
        allow_null=True, help_text="Of its 95 % interval; null where none was drawn."
    )
    upper = serializers.FloatField(allow_null=True)


@extend_schema_serializer(component_name="ReportFailureCheck")
class FailureCheckOutput(serializers.Serializer[Any]):
    coin = serializers.CharField()
    figure = serializers.CharField(help_text="As a person reads it.")
    verdict = serializers.ChoiceField(_VERDICTS, allow_null=True, help_text="Null where it was not measured.")
    sentence = serializers.CharField()


@extend_schema_serializer(component_name="ReportGateOutcome")
class GateOutcomeOutput(serializers.Serializer[Any]):
    verdict = serializers.ChoiceField(_VERDICTS)
    figure = serializers.FloatField(allow_null=True)
    observed = serializers.CharField()
    threshold = serializers.CharField()
    sentence = serializers.CharField()


class ReleaseReport(APIView):
    reads_query = True

    @extend_schema_serializer(component_name="Report")
    class Output(serializers.Serializer[Any]):
        @extend_schema_serializer(component_name="ReportSide")
        class ComparedRelease(serializers.Serializer[Any]):
            @extend_schema_serializer(component_name="ReportCoin")
            class Coin(serializers.Serializer[Any]):
                coin = serializers.CharField()
                verdict = serializers.ChoiceField(_VERDICTS, allow_null=True)
                diagnosis = serializers.IntegerField(allow_null=True)
                bundle = serializers.CharField(allow_null=True)

            release = serializers.IntegerField()
            line = serializers.CharField()
            state = serializers.CharField(help_text="As in `GET releases/{id}/`.")
            policy = serializers.IntegerField()
            interval_seconds = serializers.IntegerField(help_text="Of its bars.")
            is_simulated = serializers.BooleanField()
            terms = serializers.CharField(
                help_text="Label, input and split as measured; empty before the first measurement."
            )
            launched_by = serializers.CharField()
            launched_at = serializers.DateTimeField()
            coins = Coin(source="compared_coins", many=True)

        @extend_schema_serializer(component_name="ReportFailure")
        class Failure(serializers.Serializer[Any]):
            number = serializers.IntegerField(
                source="failure.number", help_text="As the original plan numbers the five failures of V6."
            )
            name = serializers.CharField(source="failure.name")
            plan = serializers.CharField(
                source="failure.plan", help_text="What the original plan says of V6."
            )
            gate = serializers.CharField(source="failure.gate", help_text="The gate that shows it.")
            measure = serializers.CharField(source="failure.measure", help_text="What the figures are.")
            before = FailureCheckOutput(many=True)
            after = FailureCheckOutput(many=True)
            answer = serializers.ChoiceField([answer.code for answer in Answer], source="answer.code")
            sentence = serializers.CharField()

        @extend_schema_serializer(component_name="ReportSkill")
        class Skill(serializers.Serializer[Any]):
            coin = serializers.CharField()
            rows = serializers.IntegerField(allow_null=True)
            accuracy = IntervalOutput(allow_null=True)
            required = serializers.FloatField(  # type: ignore[assignment]  # a field's name, not its flag
                allow_null=True, help_text="The accuracy that the policy asks for."
            )
            naive = serializers.CharField(allow_null=True, help_text="The best of those who do not think.")
            naive_accuracy = serializers.FloatField(allow_null=True)
            difference = IntervalOutput(allow_null=True, help_text="To the best naive forecaster.")
            baseline = IntervalOutput(
                allow_null=True,
                help_text="The difference to a v5 of the same candles and windows, on the same bars.",
            )
            is_baseline = serializers.BooleanField(help_text="Whether it is itself that v5.")
            sentence = serializers.CharField()

        @extend_schema_serializer(component_name="ReportGate")
        class Gate(serializers.Serializer[Any]):
            @extend_schema_serializer(component_name="ReportCell")
            class Cell(serializers.Serializer[Any]):
                coin = serializers.CharField()
                before = GateOutcomeOutput(allow_null=True)
                after = GateOutcomeOutput(allow_null=True)

            gate = serializers.CharField()
            about = serializers.CharField()
            threshold = serializers.CharField()
            is_required = serializers.BooleanField()
            sentence = serializers.CharField()
            coins = Cell(source="cells", many=True)

        release = ComparedRelease(source="after")
        against = ComparedRelease(source="before", allow_null=True)
        headline = serializers.CharField(help_text="How many of the five are fixed.")
        summary = serializers.CharField(help_text="Whether the release passes as a whole.")
        warnings = serializers.ListField(
            child=serializers.CharField(),
            help_text="Why the figures of the two cannot be compared, such as other bars.",
        )
        weaker_than_baseline = serializers.ListField(
            child=serializers.CharField(), help_text="Where its own policy asks less than the baseline."
        )
        failures = Failure(many=True)
        skill = Skill(source="skills", many=True)
        gates = Gate(many=True)

    class Query(api_fields.Input):
        against = serializers.IntegerField(min_value=1, max_value=api_fields.MAX_ID, required=False)

    @extend_schema(
        operation_id="release_report",
        parameters=[
            OpenApiParameter(
                "against",
                {"type": "integer", "minimum": 1, "maximum": api_fields.MAX_ID},
                description="Another release; without it, what was live on its own merits when this one was launched.",
            )
        ],
        responses=Output,
    )
    def get(self, request: Request, id: int) -> Response:
        """One release compared with another: the five V6 failures, the skill of each coin, every gate of both."""
        asked = self.Query(data=request.query_params.dict())
        asked.is_valid(raise_exception=True)
        return Response(
            self.Output(compare_releases(find_release(id), asked.validated_data.get("against"))).data
        )
