"""Policies and diagnoses to read, and policies to propose and adopt."""

from typing import Any, ClassVar

from django_filters import rest_framework as filters
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_field, extend_schema_serializer
from rest_framework import serializers
from rest_framework.generics import ListAPIView, RetrieveAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse
from rest_framework.views import APIView

from accounts.authentication import get_actor
from common import api_fields
from common.api_fields import IntegerFilter
from gates.models import Diagnosis, GatePolicy, GateResult
from gates.policy import DRAFTS, FULL_POLICY, Draft
from gates.policy_changes import (
    Difference,
    Direction,
    compare_policies,
    explain_draft,
    weaker_than_baseline,
    weaker_than_full,
)
from gates.services import judging, policies
from mlcore.verdict import Verdict

POLICY_FIELDS = [
    "number", "document", "weaker_than_baseline", "weaker_than_full", "reason", "proposed_by", "created_at",
    "adoptions",
]  # fmt: skip


@extend_schema_serializer(component_name="GateResult")
class GateOutput(serializers.ModelSerializer[GateResult]):
    """The outcome of one gate, with its figure and threshold."""

    class Meta:
        model = GateResult
        fields: ClassVar = [
            "gate", "is_required", "verdict", "figure", "figure_word", "observed", "threshold", "sentence",
        ]  # fmt: skip


class PolicyDetail(RetrieveAPIView[GatePolicy]):
    """One policy, with its differences from the one that was in force when it was proposed."""

    @extend_schema_serializer(component_name="Policy")
    class Output(serializers.ModelSerializer[GatePolicy]):
        @extend_schema_serializer(component_name="PolicyAdoption")
        class Adoption(serializers.Serializer[Any]):
            at = serializers.DateTimeField()
            adopted_by = serializers.CharField()
            reason = serializers.CharField()

        document = serializers.DictField(help_text="The gates by name, each with its thresholds.")
        weaker_than_baseline = serializers.SerializerMethodField(
            help_text="Where it requires less than the baseline."
        )
        weaker_than_full = serializers.SerializerMethodField(
            help_text="Where it requires less than the full policy."
        )
        adoptions = Adoption(many=True, help_text="When it came into force, and by whom.")

        class Meta:
            model = GatePolicy
            fields: ClassVar = POLICY_FIELDS

        def get_weaker_than_baseline(self, policy: GatePolicy) -> list[str]:
            return weaker_than_baseline(policy.document)

        def get_weaker_than_full(self, policy: GatePolicy) -> list[str]:
            return weaker_than_full(policy.document)

    @extend_schema_serializer(component_name="PolicyDetail")
    class OutputWithDifferences(Output):
        @extend_schema_serializer(component_name="PolicyDifference")
        class Change(serializers.Serializer[Difference]):
            gate = serializers.CharField()
            parameter = serializers.CharField(help_text="`gate` where the gate as a whole changes.")
            before = serializers.JSONField(allow_null=True)
            after = serializers.JSONField(allow_null=True)
            direction = serializers.ChoiceField([direction.value for direction in Direction])
            sentence = serializers.CharField()

        predecessor = serializers.IntegerField(
            source="predecessor.number",
            default=None,
            allow_null=True,
            help_text="What was in force when it was proposed.",
        )
        differences = serializers.SerializerMethodField()

        class Meta:
            model = GatePolicy
            fields: ClassVar = [*POLICY_FIELDS, "predecessor", "differences"]

        @extend_schema_field(Change(many=True))
        def get_differences(self, policy: GatePolicy) -> list[dict[str, Any]]:
            before = policy.predecessor
            changes = compare_policies(before.document, policy.document) if before else []
            return [dict(self.Change(change).data) for change in changes]

    queryset = GatePolicy.objects.prefetch_related("adoptions")
    serializer_class = OutputWithDifferences
    lookup_field = "number"


class Policies(ListAPIView[GatePolicy]):
    """The numbered policies, newest first: their gates and thresholds, and where they are weaker than the baseline."""

    can_conflict = True

    class Filter(filters.FilterSet):
        number = IntegerFilter()

    @extend_schema_serializer(
        component_name="PolicyProposal",
        examples=[
            OpenApiExample("the full policy", {"document": FULL_POLICY, "reason": "back to the defaults"})
        ],
    )
    class Input(api_fields.Input):
        document = serializers.DictField(
            required=False,
            help_text="`format` 1 and `gates`: each by name, with `required` and every threshold it has.",
        )
        draft = api_fields.Choice(
            list(DRAFTS),
            required=False,
            help_text="The name of a draft that comes with the code, in place of `document`.",
        )
        reason = api_fields.Reason()

        def validate(self, given: dict[str, Any]) -> dict[str, Any]:
            if ("document" in given) == ("draft" in given):
                raise serializers.ValidationError(
                    "Give either a document, or the name of a draft.", code="required"
                )
            return given

    queryset = GatePolicy.objects.prefetch_related("adoptions").order_by("-number")
    serializer_class = PolicyDetail.Output
    filterset_class = Filter

    @extend_schema(
        operation_id="propose_policy", request=Input, responses={201: PolicyDetail.OutputWithDifferences}
    )
    def post(self, request: Request) -> Response:
        """Propose a policy, as an approver: it gets the next number and decides nothing until another adopts it."""
        checked, actor = self.Input.read(request), get_actor(request)
        if "draft" in checked:
            policy = policies.propose_draft(checked["draft"], actor=actor, reason=checked["reason"])
        else:
            policy = policies.propose_policy(checked["document"], actor=actor, reason=checked["reason"])
        response = _policy_answer(policy, status=201)
        response["Location"] = reverse("api:policy", kwargs={"number": policy.number})
        return response


@extend_schema_serializer(component_name="PolicyDraft")
class DraftOutput(serializers.Serializer[Draft]):
    """A draft, with each difference from the full policy and its reason."""

    @extend_schema_serializer(component_name="PolicyDraftChange")
    class Change(PolicyDetail.OutputWithDifferences.Change):
        why = serializers.CharField()

    name = serializers.CharField()
    title = serializers.CharField()
    about = serializers.CharField()
    document = serializers.DictField(help_text="The gates by name, each with its thresholds.")
    weaker_than_baseline = serializers.SerializerMethodField()
    weaker_than_full = serializers.SerializerMethodField()
    changes = serializers.SerializerMethodField(
        help_text="Every difference from the full policy, each with its reason."
    )

    def get_weaker_than_baseline(self, draft: Draft) -> list[str]:
        return weaker_than_baseline(draft.document)

    def get_weaker_than_full(self, draft: Draft) -> list[str]:
        return weaker_than_full(draft.document)

    @extend_schema_field(Change(many=True))
    def get_changes(self, draft: Draft) -> list[dict[str, Any]]:
        return [
            {**PolicyDetail.OutputWithDifferences.Change(change).data, "why": why}
            for change, why in explain_draft(draft)
        ]


class PolicyDrafts(APIView):
    """The drafts that come with the code: policies that decide nothing until one person proposes and another adopts them."""

    @extend_schema_serializer(component_name="PolicyDrafts")
    class Drafts(serializers.Serializer[Any]):
        drafts = DraftOutput(many=True)

    @extend_schema(operation_id="policy_drafts", responses=Drafts)
    def get(self, request: Request) -> Response:
        """Every draft, with each difference from the full policy and its reason."""
        return Response({"drafts": [DraftOutput(draft).data for draft in DRAFTS.values()]})


class AdoptPolicy(APIView):
    can_conflict = True

    @extend_schema_serializer(component_name="PolicyAdoptionBy")
    class Input(api_fields.Input):
        reason = api_fields.Reason()

    @extend_schema(operation_id="adopt_policy", request=Input, responses=PolicyDetail.OutputWithDifferences)
    def post(self, request: Request, number: int) -> Response:
        """Put a proposed policy in force, as another approver than who proposed it."""
        checked = self.Input.read(request)
        policy = policies.find_policy(number)
        policies.adopt_policy(policy, actor=get_actor(request), reason=checked["reason"])
        return _policy_answer(policy)


def _policy_answer(policy: GatePolicy, status: int = 200) -> Response:
    fresh = PolicyDetail.queryset.get(pk=policy.pk)
    return Response(PolicyDetail.OutputWithDifferences(fresh).data, status=status)


class Diagnoses(ListAPIView[Diagnosis]):
    """Diagnoses of bundles, newest first."""

    class Filter(filters.FilterSet):
        coin = filters.CharFilter(field_name="coin__symbol", help_text="As in `BTC`.")
        line = filters.CharFilter(field_name="bundle__line")
        bundle = filters.CharFilter(field_name="bundle__digest", help_text="`sha256:…`")
        dataset = IntegerFilter(field_name="dataset_id")
        policy = IntegerFilter(field_name="policy__number", help_text="The policy's number.")
        verdict = filters.ChoiceFilter(choices=[(v.value, v.value) for v in Verdict])
        ordering = filters.OrderingFilter(fields=["id"])

    @extend_schema_serializer(component_name="Diagnosis")
    class Output(serializers.ModelSerializer[Diagnosis]):
        coin = serializers.CharField(source="coin.symbol")
        line = serializers.CharField(source="bundle.line")
        bundle = serializers.CharField(source="bundle.digest")
        is_simulated = serializers.BooleanField(source="dataset.is_simulated")
        policy = serializers.IntegerField(source="policy.number")
        gates = GateOutput(source="results", many=True)

        class Meta:
            model = Diagnosis
            fields: ClassVar = [
                "id", "coin", "line", "bundle", "dataset", "is_simulated", "policy", "verdict", "gates", "digest",
                "created_at",
            ]  # fmt: skip

    queryset = (
        Diagnosis.objects.select_related("coin", "bundle", "dataset", "policy")
        .defer("measured", "bundle__manifest")
        .prefetch_related("results")
        .order_by("-id")
    )
    serializer_class = Output
    filterset_class = Filter


class DiagnosisDetail(RetrieveAPIView[Diagnosis]):
    """One diagnosis with every measured figure, and the policy as it was."""

    @extend_schema_serializer(component_name="DiagnosisDetail")
    class Output(Diagnoses.Output):
        policy_document = serializers.DictField(help_text="The policy as it was.")
        measured = serializers.DictField(source="document", help_text="The measurement as it was.")
        context_document = serializers.DictField(help_text="The attempt, and the verdicts on its candles.")

        class Meta(Diagnoses.Output.Meta):
            fields: ClassVar = [
                *Diagnoses.Output.Meta.fields, "policy_document", "measured", "context_document",
            ]  # fmt: skip

    queryset = Diagnoses.queryset.defer(None)
    serializer_class = Output
    lookup_field = "id"


class JudgeAgain(APIView):
    can_conflict = True

    @extend_schema_serializer(component_name="JudgeAgain")
    class Input(api_fields.Input):
        policy = api_fields.Integer(
            min_value=1, max_value=api_fields.MAX_ID, help_text="The number of the policy to judge by."
        )

    @extend_schema(operation_id="judge_again", request=Input, responses=DiagnosisDetail.Output)
    def post(self, request: Request, id: int) -> Response:
        """Judge a diagnosis by another policy, as an operator or approver. Nothing is measured, and the pointer stays."""
        checked = self.Input.read(request)
        judged = judging.judge_again(
            judging.find_diagnosis(id), policies.find_policy(checked["policy"]), actor=get_actor(request)
        )
        return Response(DiagnosisDetail.Output(DiagnosisDetail.queryset.get(pk=judged.pk)).data)
