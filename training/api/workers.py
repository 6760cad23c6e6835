"""The worker processes."""

from typing import ClassVar

from django.db.models import QuerySet
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers
from rest_framework.generics import ListAPIView

from common import api_fields
from training.jobs.worker_registry import compute_alive_since
from training.models import Worker


class Workers(ListAPIView[Worker]):
    """Worker processes, with the data of their last heartbeat."""

    class Filter(filters.FilterSet):
        is_alive = api_fields.BooleanFilter(
            method="filter_alive", help_text="Whether its last heartbeat is recent."
        )

        def filter_alive(self, rows: QuerySet[Worker], name: str, value: bool) -> QuerySet[Worker]:
            since = compute_alive_since()
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
            return bool(worker.last_heard_at >= compute_alive_since())

    queryset = Worker.objects.order_by("name")
    serializer_class = Output
    filterset_class = Filter
