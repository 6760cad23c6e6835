"""Coins and their candles."""

import json
from typing import Any, ClassVar

from django.http import HttpResponseBase
from django_filters import rest_framework as filters
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiParameter,
    extend_schema,
    extend_schema_field,
    extend_schema_serializer,
)
from rest_framework import serializers
from rest_framework.generics import ListAPIView
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.authentication import get_actor
from common import api_fields
from common.downloads import send_file
from common.errors import InvalidInput, NotFound
from mlcore.verdict import Verdict
from training.models import Coin, Dataset
from training.rules import Source
from training.services import candle_checks, coins, datasets, downloads


class Coins(ListAPIView[Coin]):
    """The coins the bot trades; a release must carry every required one."""

    class Filter(filters.FilterSet):
        is_required = api_fields.BooleanFilter()

    @extend_schema_serializer(component_name="Coin")
    class Output(serializers.ModelSerializer[Coin]):
        class Meta:
            model = Coin
            fields: ClassVar = ["symbol", "name", "is_required"]

    queryset = Coin.objects.order_by("symbol")
    serializer_class = Output
    filterset_class = Filter


class CandleCheck(serializers.Serializer[dict[str, Any]]):
    """The result of one check of a dataset."""

    check = serializers.CharField()
    verdict = serializers.ChoiceField(choices=[(v.value, v.value) for v in Verdict])
    figure = serializers.FloatField(
        allow_null=True, help_text="The figure that decided; null when it is not finite."
    )
    observed = serializers.CharField()
    threshold = serializers.CharField()
    sentence = serializers.CharField()


@extend_schema_serializer(component_name="ImportReport")
class ImportReportOutput(serializers.Serializer[dict[str, Any]]):
    """What was done with a candle file."""

    format = serializers.CharField(help_text="The form of the bytes, as in `CSV in zip`.")
    layout = serializers.CharField(help_text="Who writes such columns, as in `Binance`.")
    notes = serializers.ListField(child=serializers.CharField(), help_text="Everything that was done.")


class Datasets(ListAPIView[Dataset]):
    """Datasets of candles."""

    class Filter(filters.FilterSet):
        coin = filters.CharFilter(field_name="coin__symbol", help_text="As in `BTC`.")
        source = filters.ChoiceFilter(choices=[(s.value, s.value) for s in Source])
        is_simulated = api_fields.BooleanFilter()
        digest = filters.CharFilter(help_text="`sha256:…`")
        verdict = filters.ChoiceFilter(choices=[(v.value, v.value) for v in Verdict])
        is_withdrawn = api_fields.BooleanFilter(
            field_name="withdrawn_at", lookup_expr="isnull", exclude=True, help_text="Stored wrongly."
        )
        ordering = filters.OrderingFilter(fields=["id", "created_at", "rows", "last_at"])

    @extend_schema_serializer(component_name="Dataset")
    class Output(serializers.ModelSerializer[Dataset]):
        coin = serializers.CharField(source="coin.symbol")
        verdict = serializers.ChoiceField(
            choices=[(v.value, v.value) for v in Verdict], help_text="Only `passed` may train a release."
        )
        checks = serializers.SerializerMethodField()
        import_report = serializers.SerializerMethodField(
            help_text="What was done with the file; null without a file."
        )

        class Meta:
            model = Dataset
            fields: ClassVar = [
                "id", "coin", "digest", "source", "origin", "is_simulated", "rows", "first_at", "last_at",
                "interval_seconds", "gaps", "missing_bars", "zero_volume_bars", "size", "added_by", "created_at",
                "verdict", "checks", "import_report", "withdrawn_at", "withdrawn_by", "withdrawn_reason",
            ]  # fmt: skip

        @extend_schema_field(CandleCheck(many=True))
        def get_checks(self, dataset: Dataset) -> list[dict[str, Any]]:
            return candle_checks.load_checks(dataset)

        @extend_schema_field(ImportReportOutput(allow_null=True))
        def get_import_report(self, dataset: Dataset) -> dict[str, Any] | None:
            return load_import_report(dataset)

    @extend_schema_serializer(component_name="DatasetUpload")
    class Input(api_fields.Input):
        coin = api_fields.Text(help_text="As in `BTC`.")
        file = serializers.FileField(help_text="A candle file of any format; the content decides which.")
        is_simulated = serializers.BooleanField(
            default=False, help_text="Whether these candles are simulated."
        )
        has_closing_times = serializers.BooleanField(
            default=False, help_text="Whether its times are closing times, which are then converted."
        )
        has_repeated_candles = serializers.BooleanField(
            default=False,
            help_text="Whether rows may repeat their neighbour value for value; they are then left out.",
        )

    queryset = Dataset.objects.select_related("coin").order_by("-id")
    serializer_class = Output
    filterset_class = Filter
    parser_classes = (MultiPartParser,)
    throttle_scope = "uploads"

    @extend_schema(operation_id="upload_dataset", request=Input, responses={200: Output, 201: Output})
    def post(self, request: Request) -> Response:
        """Add a coin's candles, as an operator. 200 where these very candles are there already.

        A file that cannot be read as candles is refused with the row and the reason, and nothing of it is kept. Candles
        that can be read are kept and judged: see `verdict` and `checks`.
        """
        kept = datasets.import_candles(**_read_upload(request))
        return Response(self.Output(kept.dataset).data, status=201 if kept.is_new else 200)


def _read_upload(request: Request) -> dict[str, Any]:
    """The arguments of an import, or of its preview."""
    checked = Datasets.Input.read(request)
    return {
        "coin": find_coin(checked["coin"]),
        "data": checked["file"].read(),
        "name": checked["file"].name,
        "actor": get_actor(request),
        "simulated": checked["is_simulated"],
        "closing_times": checked["has_closing_times"],
        "repeated_once": checked["has_repeated_candles"],
    }


class CheckUpload(APIView):
    """A candle file read and judged without storing anything."""

    @extend_schema_serializer(component_name="DatasetPreview")
    class Output(serializers.Serializer[datasets.ImportPreview]):
        coin = serializers.CharField(source="coin.symbol")
        origin = serializers.CharField()
        is_simulated = serializers.BooleanField()
        digest = serializers.CharField()
        rows = serializers.IntegerField(source="content.rows")
        first_at = serializers.DateTimeField(source="content.first_at")
        last_at = serializers.DateTimeField(source="content.last_at")
        interval_seconds = serializers.IntegerField(source="content.interval_seconds")
        gaps = serializers.IntegerField(source="content.gaps")
        missing_bars = serializers.IntegerField(source="content.missing_bars")
        zero_volume_bars = serializers.IntegerField(source="content.zero_volume_bars")
        verdict = serializers.ChoiceField(
            source="checks.verdict", choices=[(v.value, v.value) for v in Verdict]
        )
        checks = serializers.SerializerMethodField()
        import_report = serializers.SerializerMethodField()
        dataset = serializers.IntegerField(
            source="stored.pk",
            default=None,
            allow_null=True,
            help_text="The dataset that holds these candles.",
        )

        @extend_schema_field(CandleCheck(many=True))
        def get_checks(self, preview: datasets.ImportPreview) -> list[dict[str, Any]]:
            return list(preview.checks.document()["checks"])

        @extend_schema_field(ImportReportOutput())
        def get_import_report(self, preview: datasets.ImportPreview) -> dict[str, Any]:
            return preview.import_report.document()

    parser_classes = (MultiPartParser,)
    throttle_scope = "uploads"

    @extend_schema(operation_id="check_upload", request=Datasets.Input, responses={200: Output})
    def post(self, request: Request) -> Response:
        """What an upload of this file would store, as an operator: the same answers and refusals, and nothing is kept."""
        preview = datasets.preview_import(**_read_upload(request))
        return Response(self.Output(preview).data)


class Candles(APIView):
    """The candles of a dataset as a file."""

    @extend_schema(
        operation_id="download_candles",
        parameters=[
            OpenApiParameter("id", OpenApiTypes.INT, OpenApiParameter.PATH),
            OpenApiParameter(
                "form", OpenApiTypes.STR, OpenApiParameter.PATH, enum=list(downloads.CONTENT_TYPES)
            ),
        ],
        responses={(200, kind): OpenApiTypes.BINARY for kind in downloads.CONTENT_TYPES.values()},
    )
    def get(self, request: Request, id: int, form: str) -> HttpResponseBase:
        """The candles as CSV or Parquet. Uploading the file again finds the same dataset."""
        download = downloads.open_download(datasets.find_dataset(id), form)
        return send_file(
            request,
            download.stream,
            size=download.size,
            name=download.name,
            content_type=download.content_type,
        )


def load_import_report(dataset: Dataset) -> dict[str, Any] | None:
    """The stored document; None for a dataset that did not come from a file."""
    return json.loads(dataset.import_report) if dataset.import_report else None


def find_coin(symbol: str) -> Coin:
    try:
        return coins.find_coin(symbol)
    except NotFound as unknown:
        raise InvalidInput(unknown.message, field="coin") from unknown
