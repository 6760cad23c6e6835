"""The decisions that move a release or the pointer, and the moves they make."""

from typing import ClassVar

from django_filters import rest_framework as filters
from drf_spectacular.utils import (
    extend_schema,
    extend_schema_serializer,
)
from rest_framework import serializers
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.authentication import get_actor
from common import api_fields
from common.errors import NotFound
from deploy import services
from deploy.api.releases import ReleaseDetail, release_answer
from deploy.models import PointerMove, Release
from deploy.rules import MoveKind


def _release(id: int) -> Release:
    release = Release.objects.select_related("status").filter(pk=id).first()
    if release is None:
        raise NotFound(f"There is no release {id}.")
    return release


class Moves(ListAPIView[PointerMove]):
    """Every move of the pointer, newest first; the first row is where it stands."""

    class Filter(filters.FilterSet):
        revision = api_fields.IntegerFilter()
        kind = filters.ChoiceFilter(choices=[(k.value, k.value) for k in MoveKind])
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


def _move_answer(move: PointerMove) -> Response:
    return Response(Moves.Output(move).data)


@extend_schema_serializer(component_name="Decision")
class Decision(api_fields.Input):
    reason = api_fields.Reason()


@extend_schema_serializer(component_name="DecisionAtRevision")
class DecisionAtRevision(Decision):
    revision = api_fields.Integer(
        min_value=1,
        max_value=api_fields.BIGGEST_ID,
        help_text="The pointer's revision that you saw; 409 if it moved since.",
    )


class Approve(APIView):
    Input = DecisionAtRevision
    can_conflict = True

    @extend_schema(operation_id="approve_release", request=Input, responses=Moves.Output)
    def post(self, request: Request, id: int) -> Response:
        """Let the bots use a release that passed, as an approver who did not launch it."""
        checked = self.Input.read(request)
        return _move_answer(services.approve(_release(id), actor=get_actor(request), **checked))


class Restore(APIView):
    Input = DecisionAtRevision
    can_conflict = True

    @extend_schema(operation_id="restore_release", request=Input, responses=Moves.Output)
    def post(self, request: Request, id: int) -> Response:
        """Bring back a release that was live before, as an approver, with every check anew."""
        checked = self.Input.read(request)
        return _move_answer(services.restore(_release(id), actor=get_actor(request), **checked))


class Decline(APIView):
    Input = Decision
    can_conflict = True

    @extend_schema(operation_id="decline_release", request=Input, responses=ReleaseDetail.Output)
    def post(self, request: Request, id: int) -> Response:
        """Refuse a release that passed, as an approver. The bots go to the fallback unless what they run has passed."""
        checked = self.Input.read(request)
        return release_answer(services.decline(_release(id), actor=get_actor(request), **checked))


class Cancel(APIView):
    Input = Decision
    can_conflict = True

    @extend_schema(operation_id="cancel_release", request=Input, responses=ReleaseDetail.Output)
    def post(self, request: Request, id: int) -> Response:
        """Stop building a release, as an operator. It is rejected at once."""
        checked = self.Input.read(request)
        return release_answer(services.cancel(_release(id), actor=get_actor(request), **checked))


class Register(APIView):
    Input = Decision
    can_conflict = True

    @extend_schema(operation_id="register_fallback", request=Input, responses=ReleaseDetail.Output)
    def post(self, request: Request, id: int) -> Response:
        """Make a standby release the fallback, as an approver who did not launch it."""
        checked = self.Input.read(request)
        registration = services.register_fallback(_release(id), actor=get_actor(request), **checked)
        return release_answer(registration.release)


class Pin(APIView):
    throttle_scope = None  # nobody who may pin is ever told to wait
    Input = Decision
    can_conflict = True

    @extend_schema(operation_id="pin_fallback", request=Input, responses=Moves.Output)
    def post(self, request: Request) -> Response:
        """Hold every bot on the fallback at once, as an approver; *offline* when not even that is fit."""
        return _move_answer(services.pin(actor=get_actor(request), **self.Input.read(request)))
