"""The audit chain over the API."""

import json
from typing import Any, ClassVar

from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers
from rest_framework.generics import ListAPIView

from audit.models import AuditEvent
from audit.services import get_last_seq


class Events(ListAPIView[AuditEvent]):
    """Decisions and refusals, newest first.

    `hash` is the sha256 of the previous event's hash, a line feed and `body`, so that anyone can check the chain.
    """

    class Filter(filters.FilterSet):
        actor = filters.CharFilter(help_text="A person, a worker or a part of the service.")
        kind = filters.CharFilter(
            help_text="As in `pointer.swap`; `pointer.*` gives all kinds of one object.", method="filter_kind"
        )
        object_type = filters.CharFilter(help_text="As in `release`, `pointermove`, `trainingrun`.")
        object_id = filters.CharFilter()
        after = filters.IsoDateTimeFilter(field_name="at", lookup_expr="gte")
        before = filters.IsoDateTimeFilter(field_name="at", lookup_expr="lt")
        ordering = filters.OrderingFilter(fields=["seq"])

        def filter_kind(self, rows: Any, name: str, value: str) -> Any:
            if value.endswith(".*"):
                return rows.filter(kind__startswith=value.removesuffix("*"))
            return rows.filter(kind=value)

    @extend_schema_serializer(component_name="AuditEvent")
    class Output(serializers.ModelSerializer[AuditEvent]):
        detail = serializers.SerializerMethodField(help_text="Further data of the event; part of `body`.")

        class Meta:
            model = AuditEvent
            fields: ClassVar = [
                "seq", "at", "actor", "kind", "object_type", "object_id", "object_name", "reason",
                "detail", "body", "previous_hash", "hash",
            ]  # fmt: skip

        def get_detail(self, event: AuditEvent) -> dict[str, Any]:
            detail: dict[str, Any] = json.loads(event.body)["detail"]
            return detail

    queryset = AuditEvent.objects.order_by("-seq")
    # The whole history is as long as its last number says; counting it would read all of it.
    count_all = staticmethod(get_last_seq)
    serializer_class = Output
    filterset_class = Filter
