"""Coins and their candles."""

from typing import Any, ClassVar

from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema, extend_schema_field, extend_schema_serializer
from rest_framework import serializers
from rest_framework.generics import ListAPIView
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.authentication import get_actor
from common import api_fields
from common.errors import InvalidInput, NotFound
from mlcore.verdict import Verdict
from training.models import Coin, Dataset
from training.rules import Source
from training.services import candle_checks, coins, datasets


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

        class Meta:
            model = Dataset
            fields: ClassVar = [
                "id", "coin", "digest", "source", "origin", "is_simulated", "rows", "first_at", "last_at",
                "interval_seconds", "gaps", "missing_bars", "zero_volume_bars", "size", "added_by", "created_at",
                "verdict", "checks", "withdrawn_at", "withdrawn_by", "withdrawn_reason",
            ]  # fmt: skip

        @extend_schema_field(CandleCheck(many=True))
        def get_checks(self, dataset: Dataset) -> list[dict[str, Any]]:
            return candle_checks.load_checks(dataset)

    @extend_schema_serializer(component_name="DatasetUpload")
    class Input(api_fields.Input):
        coin = api_fields.Text(help_text="As in `BTC`.")
        file = serializers.FileField(help_text="A candle file of any format; the content decides which.")
        is_simulated = serializers.BooleanField(
            default=False, help_text="Whether these candles are simulated."
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
        checked = self.Input.read(request)
        kept = datasets.import_candles(
            find_coin(checked["coin"]),
            checked["file"].read(),
            name=checked["file"].name,
            actor=get_actor(request),
            simulated=checked["is_simulated"],
        )
        return Response(self.Output(kept.dataset).data, status=201 if kept.is_new else 200)


def find_coin(symbol: str) -> Coin:
    try:
        return coins.find_coin(symbol)
    except NotFound as unknown:
        raise InvalidInput(unknown.message, field="coin") from unknown
