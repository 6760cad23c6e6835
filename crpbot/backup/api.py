"""Backups over the API: those that were made, drilled and asked for."""

from typing import ClassVar

from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.authentication import get_actor
from common import api_fields
from crpbot.backup import schedule
from deploy.models import BackupTask
from deploy.rules import BackupKind, BackupState

KINDS = [(kind.value, kind.value) for kind in BackupKind]
STATES = [(state.value, state.value) for state in BackupState]


class Backups(ListAPIView[BackupTask]):
    """Every backup and every drill, newest first: who asked for it, how it ended, and what was found."""

    class Filter(filters.FilterSet):
        kind = filters.ChoiceFilter(choices=KINDS)
        state = filters.ChoiceFilter(choices=STATES)
        ordering = filters.OrderingFilter(fields=["id"])

    @extend_schema_serializer(component_name="BackupTask")
    class Output(serializers.ModelSerializer[BackupTask]):
        result = serializers.DictField(help_text="Of a backup its size and files, of a drill what was found.")

        class Meta:
            model = BackupTask
            fields: ClassVar = [
                "id", "kind", "state", "reason", "requested_by", "requested_at", "started_at", "ended_at", "backup",
                "result",
            ]  # fmt: skip

    @extend_schema_serializer(component_name="BackupRequest")
    class Input(api_fields.Input):
        kind = api_fields.Choice([kind.value for kind in BackupKind])
        reason = api_fields.Reason()

    can_conflict = True
    queryset = BackupTask.objects.order_by("-id")
    serializer_class = Output
    filterset_class = Filter

    @extend_schema(operation_id="request_backup", request=Input, responses={201: Output})
    def post(self, request: Request) -> Response:
        """Ask for a backup or a drill, as an administrator; it is begun within seconds. 409 while another is under way."""
        checked = self.Input.read(request)
        task = schedule.request(BackupKind(checked.pop("kind")), actor=get_actor(request), **checked)
        return Response(self.Output(task).data, status=201)
