"""The worker processes."""

from datetime import timedelta
from typing import Any, ClassVar

from django.db.models import QuerySet
from django.utils import timezone
from django_filters import rest_framework as filters
from drf_spectacular.utils import (
    extend_schema_serializer,
)
from rest_framework import serializers
from rest_framework.generics import ListAPIView

from common import api_fields
from training.jobs.worker_registry import ALIVE_SECONDS
from training.models import Worker


class Workers(ListAPIView[Worker]):
    """Worker processes as they last described themselves."""

    class Filter(filters.FilterSet):
        is_alive = api_fields.BooleanFilter(
            method="heard_lately", help_text="Heard of within the last seconds."
        )

        def heard_lately(self, rows: QuerySet[Worker], name: str, value: bool) -> QuerySet[Worker]:
            since = _alive_since()
            return rows.filter(last_heard_at__gte=since) if value else rows.filter(last_heard_at__lt=since)

    @extend_schema_serializer(component_name="Worker")
    class Output(serializers.ModelSerializer[Worker]):
        queues = serializers.SerializerMethodField()
        is_alive = serializers.SerializerMethodField()

        class Meta:
            model = Worker
            fields: ClassVar = [
                "name", "is_alive", "queues", "slots", "device", "memory_bytes", "cuda_version", "torch_version",
                "code_version", "rate_usd_per_hour", "started_at", "last_heard_at",
            ]  # fmt: skip

        def get_queues(self, worker: Worker) -> list[str]:
            return worker.queues.split(",")

        def get_is_alive(self, worker: Worker) -> bool:
            return worker.last_heard_at >= _alive_since()

    queryset = Worker.objects.order_by("name")
    serializer_class = Output
    filterset_class = Filter


def _alive_since() -> Any:
    return timezone.now() - timedelta(seconds=ALIVE_SECONDS)
