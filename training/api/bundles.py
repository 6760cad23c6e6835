"""Bundles: the list, and importing a model."""

from typing import Any, ClassVar

from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.generics import ListAPIView
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.authentication import get_actor
from common import api_fields
from mlcore.bundle.format import Layout
from mlcore.fitting.settings import Input
from training.api.datasets import find_coin
from training.api.lines import LineName
from training.models import Bundle
from training.rules import DEFAULT_INTERVAL_SECONDS, INTERVAL_SECONDS
from training.services import imported_models

FIELDS = [
    "id", "digest", "coin", "line", "dataset", "interval_seconds", "origin", "is_simulated", "files", "tracked_run",
    "created_at",
]  # fmt: skip


@extend_schema_serializer(component_name="TrackedRun")
class TrackedRunOutput(serializers.Serializer[dict[str, Any]]):
    """What a tracker recorded of a training. Nothing recomputes it."""

    tracker = serializers.CharField(help_text="As in `MLflow`.")
    id = serializers.CharField()
    name = serializers.CharField()
    parameters = serializers.DictField()
    metrics = serializers.DictField()


class Bundles(ListAPIView[Bundle]):
    """The models of single coins, newest first: trained here, or imported."""

    class Filter(filters.FilterSet):
        coin = filters.CharFilter(field_name="coin__symbol", help_text="As in `BTC`.")
        line = filters.CharFilter()
        is_simulated = api_fields.BooleanFilter()
        is_imported = api_fields.BooleanFilter(
            method="filter_imported", help_text="Whether it came from outside."
        )
        digest = filters.CharFilter(help_text="`sha256:…`")
        ordering = filters.OrderingFilter(fields=["id", "created_at"])

        def filter_imported(self, rows: Any, name: str, value: bool) -> Any:
            return rows.exclude(origin="") if value else rows.filter(origin="")

    @extend_schema_serializer(component_name="Bundle")
    class Output(serializers.ModelSerializer[Bundle]):
        coin = serializers.CharField(source="coin.symbol")
        files: serializers.SlugRelatedField[Bundle] = serializers.SlugRelatedField(
            source="artifacts", slug_field="name", many=True, read_only=True
        )
        tracked_run = TrackedRunOutput(
            allow_null=True, read_only=True, help_text="As declared at the import; null without one."
        )

        class Meta:
            model = Bundle
            fields: ClassVar = FIELDS

    @extend_schema_serializer(component_name="ImportedBundle")
    class Imported(Output):
        notes = serializers.ListField(
            child=serializers.CharField(),
            help_text="What the file did not contain, or contained in another form.",
        )

        class Meta:
            model = Bundle
            fields: ClassVar = [*FIELDS, "notes"]

    @extend_schema_serializer(component_name="ImportedModelUpload")
    class Input(api_fields.Input):
        coin = api_fields.Text(help_text="As in `BTC`.")
        line = LineName()
        file = serializers.FileField(help_text="A torch checkpoint (`.pt`), or an ONNX file.")
        schema = api_fields.PatternText(
            f"^({Input.pattern})$",
            help_text="The input of the model: 72 features in their order, or windows.",
        )
        layout = api_fields.Choice(
            [layout.value for layout in Layout],
            required=False,
            help_text="The order of BatchNorm and ReLU; required for a torch checkpoint, omitted for ONNX.",
        )
        interval_seconds = api_fields.Choice(
            list(INTERVAL_SECONDS),
            default=DEFAULT_INTERVAL_SECONDS,
            help_text="The interval of the bars that it was trained on.",
        )
        declaration = serializers.FileField(
            required=False,
            help_text="A JSON file: what it was trained on and with which figures, so that every gate can recompute them.",
        )
        is_simulated = serializers.BooleanField(
            default=False, help_text="Whether it was trained on simulated candles."
        )

    queryset = Bundle.objects.select_related("coin").prefetch_related("artifacts").order_by("-id")
    serializer_class = Output
    filterset_class = Filter
    parser_classes = (MultiPartParser,)
    throttle_scope = "uploads"

    @extend_schema(operation_id="import_model", request=Input, responses={200: Imported, 201: Imported})
    def post(self, request: Request) -> Response:
        """Import a model as a bundle, as an operator. 200 when it was imported before.

        The file is read in a sandbox, and no code in it is run. Features and layout are given here, because the file does
        not contain them. A file that cannot be read safely is refused, and nothing of it is stored.
        """
        checked = self.Input.read(request)
        declared = checked.get("declaration")
        imported = imported_models.import_model(
            find_coin(checked["coin"]),
            checked["file"].read(),
            name=checked["file"].name,
            line=checked["line"],
            schema=checked["schema"],
            layout=checked.get("layout"),
            interval_seconds=checked["interval_seconds"],
            simulated=checked["is_simulated"],
            declaration=imported_models.read_declaration(declared.read()) if declared else None,
            actor=get_actor(request),
        )
        answer = {**self.Output(imported.bundle).data, "notes": list(imported.notes)}
        return Response(answer, status=201 if imported.is_new else 200)
