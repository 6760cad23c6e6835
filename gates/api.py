"""Policies and judgements, to read."""

import json
from typing import Any, ClassVar

from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers
from rest_framework.generics import ListAPIView, RetrieveAPIView

from accounts.inputs import WholeFilter
from gates.models import Diagnosis, GatePolicy, GateResult
from gates.rules import Verdict, loosened


@extend_schema_serializer(component_name="GateResult")
class GateOutput(serializers.ModelSerializer[GateResult]):
    """What one gate said, with the figure and the threshold it said it by."""

    class Meta:
        model = GateResult
        fields: ClassVar = [
            "gate", "is_required", "verdict", "figure", "figure_word", "observed", "threshold", "sentence",
        ]  # fmt: skip


class Policies(ListAPIView[GatePolicy]):
    """The numbered policies, newest first: which gates, their thresholds, and where they ask less than the seed's plan."""

    class Filter(filters.FilterSet):
        number = WholeFilter()

    @extend_schema_serializer(component_name="Policy")
    class Output(serializers.ModelSerializer[GatePolicy]):
        @extend_schema_serializer(component_name="PolicyAdoption")
        class Adoption(serializers.Serializer[Any]):
            at = serializers.DateTimeField()
            adopted_by = serializers.CharField()
            reason = serializers.CharField()

        document = serializers.DictField(help_text="The gates by name, each with its thresholds.")
        loosened = serializers.SerializerMethodField()
        adoptions = Adoption(many=True, help_text="When it came into force, and by whom.")

        class Meta:
            model = GatePolicy
            fields: ClassVar = [
                "number", "document", "loosened", "reason", "proposed_by", "created_at", "adoptions",
            ]  # fmt: skip

        def get_loosened(self, policy: GatePolicy) -> list[str]:
            return loosened(policy.document)

    queryset = GatePolicy.objects.prefetch_related("adoptions").order_by("-number")
    serializer_class = Output
    filterset_class = Filter


class Diagnoses(ListAPIView[Diagnosis]):
    """Judgements of bundles, newest first."""

    class Filter(filters.FilterSet):
        coin = filters.CharFilter(field_name="coin__symbol", help_text="As in `BTC`.")
        line = filters.CharFilter(field_name="bundle__line")
        bundle = filters.CharFilter(field_name="bundle__digest", help_text="`sha256:…`")
        dataset = WholeFilter(field_name="dataset_id")
        policy = WholeFilter(field_name="policy__number", help_text="The policy's number.")
        verdict = filters.ChoiceFilter(choices=[(v.value, v.value) for v in Verdict])
        ordering = filters.OrderingFilter(fields=["id"])

    @extend_schema_serializer(component_name="Diagnosis")
    class Output(serializers.ModelSerializer[Diagnosis]):
        coin = serializers.CharField(source="coin.symbol")
        line = serializers.CharField(source="bundle.line")
        bundle = serializers.CharField(source="bundle.digest")
        policy = serializers.IntegerField(source="policy.number")
        gates = GateOutput(source="results", many=True)

        class Meta:
            model = Diagnosis
            fields: ClassVar = [
                "id", "coin", "line", "bundle", "dataset", "policy", "verdict", "gates", "digest", "created_at",
            ]  # fmt: skip

    queryset = (
        Diagnosis.objects.select_related("coin", "bundle", "policy")
        .defer("measured", "bundle__manifest")
        .prefetch_related("results")
        .order_by("-id")
    )
    serializer_class = Output
    filterset_class = Filter


class DiagnosisDetail(RetrieveAPIView[Diagnosis]):
    """One judgement with every figure that was measured, and the policy as it was."""

    @extend_schema_serializer(component_name="DiagnosisDetail")
    class Output(Diagnoses.Output):
        policy_document = serializers.SerializerMethodField(help_text="The policy as it was.")
        measured = serializers.DictField(source="document", help_text="The measurement as it was.")

        class Meta(Diagnoses.Output.Meta):
            fields: ClassVar = [*Diagnoses.Output.Meta.fields, "policy_document", "measured"]

        def get_policy_document(self, diagnosis: Diagnosis) -> dict[str, Any]:
            document: dict[str, Any] = json.loads(diagnosis.policy_body)
            return document

    queryset = Diagnosis.objects.select_related("coin", "bundle", "policy").prefetch_related("results")
    serializer_class = Output
    lookup_field = "id"
