"""The decisions about a release or the pointer, and the moves they make."""

from typing import ClassVar

from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema, extend_schema_serializer, extend_schema_view
from rest_framework import serializers
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.authentication import get_actor
from common import api_fields
from deploy.api.releases import ReleaseDetail, find_release, serialize_release
from deploy.models import PointerMove
from deploy.releases import decide
from deploy.releases.decision_table import DECISIONS, ReleaseDecision
from deploy.rules import MoveKind

KINDS = [(kind.value, kind.value) for kind in MoveKind]


class Moves(ListAPIView[PointerMove]):
    """Every move of the pointer, newest first. The first row is the current one."""

    class Filter(filters.FilterSet):
        revision = api_fields.IntegerFilter()
        kind = filters.ChoiceFilter(choices=KINDS)
        line = filters.CharFilter(field_name="release__line")
        release = api_fields.IntegerFilter(field_name="release_id")
        moved_by = filters.CharFilter()
        after = filters.IsoDateTimeFilter(field_name="moved_at", lookup_expr="gte")
        before = filters.IsoDateTimeFilter(field_name="moved_at", lookup_expr="lt")
        ordering = filters.OrderingFilter(fields=["revision"])

    @extend_schema_serializer(component_name="Move")
    class Output(serializers.ModelSerializer[PointerMove]):
        line = serializers.CharField(source="release.line", default=None, allow_null=True)
        policy = serializers.IntegerField(source="policy.number", default=None, allow_null=True)

        class Meta:
            model = PointerMove
            fields: ClassVar = [
                "revision", "kind", "line", "release", "policy", "moved_by", "reason", "moved_at", "audit_seq",
                "is_advance",
            ]  # fmt: skip

    queryset = PointerMove.objects.select_related("release", "policy").order_by("-revision")
    serializer_class = Output
    filterset_class = Filter


@extend_schema_serializer(component_name="Decision")
class Decision(api_fields.Input):
    reason = api_fields.Reason()


@extend_schema_serializer(component_name="DecisionAtRevision")
class DecisionAtRevision(Decision):
    revision = api_fields.Integer(
        min_value=1,
        max_value=api_fields.MAX_ID,
        help_text="The pointer's revision that you saw; 409 if it moved since.",
    )


class DecideRelease(APIView):
    """One decision about a release; `row` is its row in the table of decisions."""

    row: ClassVar[ReleaseDecision]
    Input: ClassVar[type[api_fields.Input]]
    can_conflict = True

    def post(self, request: Request, id: int) -> Response:
        checked = self.Input.read(request)
        release = find_release(id)
        move = decide.decide(self.row.action, release, actor=get_actor(request), **checked)
        return Response(Moves.Output(move).data if move else serialize_release(release))


def _build_view(row: ReleaseDecision) -> type[DecideRelease]:
    body = DecisionAtRevision if row.is_revision_needed else Decision
    output = Moves.Output if row.is_revision_needed else ReleaseDetail.Output
    schema = extend_schema(operation_id=row.operation, description=row.help, request=body, responses=output)
    view = type(f"{row.action.title()}Release", (DecideRelease,), {"row": row, "Input": body})
    return extend_schema_view(post=schema)(view)


DECISION_VIEWS = {row.action: _build_view(row) for row in DECISIONS.values() if row.button}


class Pin(APIView):
    throttle_scope = None  # a pin is never throttled
    Input = Decision
    can_conflict = True

    @extend_schema(operation_id="pin_fallback", request=Input, responses=Moves.Output)
    def post(self, request: Request) -> Response:
        """Pin every bot to the fallback at once, as an approver; *offline* when the fallback is not ready."""
        move = decide.pin(actor=get_actor(request), **self.Input.read(request))
        return Response(Moves.Output(move).data)
