"""Coins, datasets, runs, workers and the bytes of bundles."""

import re
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any, ClassVar

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.core.files.uploadhandler import FileUploadHandler
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.utils import timezone
from django.utils.cache import get_conditional_response
from django_filters import rest_framework as filters
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
    extend_schema_serializer,
)
from rest_framework import serializers
from rest_framework.generics import ListAPIView, RetrieveAPIView
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse
from rest_framework.views import APIView

from accounts import inputs
from accounts.authentication import CanServe, actor_of
from audit.errors import InvalidInput, NotFound, Unavailable
from mlcore.recipes import RECIPES
from training import files, services
from training.models import Artifact, Coin, Dataset, Epoch, RunLine, TrainingRun, Worker
from training.rules import JobState, Source
from training.workers import ALIVE_SECONDS

CHUNK_BYTES = 64 * 1024
FORM_SLACK_BYTES = 64 * 1024
"""What a multipart form adds around its file."""


class RecipeInput(inputs.Input):
    """What a launch may change of a line's recipe. Which line takes which, and its own bounds, the recipe says."""

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        adjustable = {
            name: setting for recipe in RECIPES.values() for name, setting in recipe.adjustable.items()
        }
        return {
            **super().get_fields(),
            **{name: _number(setting) for name, setting in adjustable.items()},
            "seed": inputs.Whole(
                required=False, min_value=0, max_value=2**31 - 1, help_text="For every random draw."
            ),
        }

    @staticmethod
    def parameters(checked: dict[str, Any]) -> dict[str, Any]:
        """Those of the checked fields that the recipe knows."""
        names = {name for recipe in RECIPES.values() for name in recipe.adjustable}
        return {name: value for name, value in checked.items() if name in names}


def _number(setting: dict[str, Any]) -> serializers.Field[Any, Any, Any, Any]:
    kind = inputs.Whole if setting["is_whole"] else inputs.Number
    least, greatest = setting["least"], setting["greatest"]
    return kind(required=False, min_value=least, max_value=greatest, help_text=f"{setting['meaning']}.")


class Coins(ListAPIView[Coin]):
    """The coins the bot trades; a release must carry every required one."""

    class Filter(filters.FilterSet):
        is_required = filters.BooleanFilter()

    @extend_schema_serializer(component_name="Coin")
    class Output(serializers.ModelSerializer[Coin]):
        class Meta:
            model = Coin
            fields: ClassVar = ["symbol", "name", "is_required"]

    queryset = Coin.objects.order_by("symbol")
    serializer_class = Output
    filterset_class = Filter


class UploadLimit(FileUploadHandler):
    """Refuses a form that announces more than a dataset may have, before any of it is kept."""

    def handle_raw_input(
        self, input_data: Any, META: Any, content_length: int, boundary: str, encoding: str | None = None
    ) -> None:
        limit = settings.DATASET_UPLOAD_LIMIT_BYTES
        if content_length > limit + FORM_SLACK_BYTES:
            raise RequestDataTooBig(
                f"{content_length:,} bytes are more than a dataset may have ({limit:,}). Compress the file, or split it."
            )

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes:
        return raw_data

    def file_complete(self, file_size: int) -> None:
        return None


class Datasets(ListAPIView[Dataset]):
    """Candles, named by their content."""

    class Filter(filters.FilterSet):
        coin = filters.CharFilter(field_name="coin__symbol", help_text="As in `BTC`.")
        source = filters.ChoiceFilter(choices=[(s.value, s.value) for s in Source])
        is_simulated = filters.BooleanFilter()
        digest = filters.CharFilter(help_text="`sha256:…`")
        ordering = filters.OrderingFilter(fields=["id", "created_at", "rows", "last_at"])

    @extend_schema_serializer(component_name="Dataset")
    class Output(serializers.ModelSerializer[Dataset]):
        coin = serializers.CharField(source="coin.symbol")

        class Meta:
            model = Dataset
            fields: ClassVar = [
                "id", "coin", "digest", "source", "origin", "is_simulated", "rows", "first_at", "last_at",
                "interval_seconds", "gaps", "missing_bars", "zero_volume_bars", "size", "added_by", "created_at",
            ]  # fmt: skip

    @extend_schema_serializer(component_name="DatasetUpload")
    class Input(inputs.Input):
        coin = inputs.Text(help_text="As in `BTC`.")
        file = serializers.FileField(help_text="CSV, CSV.gz or Parquet, told apart by content.")
        is_simulated = serializers.BooleanField(
            default=False, help_text="Whether these candles were made up."
        )

    queryset = Dataset.objects.select_related("coin").order_by("-id")
    serializer_class = Output
    filterset_class = Filter
    parser_classes = (MultiPartParser,)

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Request:
        # Before anything reads the body: checking a session's CSRF token parses the form.
        request.upload_handlers.insert(0, UploadLimit(request))
        return super().initialize_request(request, *args, **kwargs)

    @extend_schema(operation_id="upload_dataset", request=Input, responses={200: Output, 201: Output})
    def post(self, request: Request) -> Response:
        """Add a coin's candles, as an operator. 200 where these very candles are there already.

        A file that cannot be trusted is refused with the row and the reason, and nothing of it is kept.
        """
        checked, began_at = self.Input.read(request), timezone.now()
        dataset = services.import_candles(
            _coin(checked["coin"]),
            checked["file"].read(),
            name=checked["file"].name,
            actor=actor_of(request),
            simulated=checked["is_simulated"],
        )
        is_new = dataset.created_at >= began_at
        return Response(self.Output(dataset).data, status=201 if is_new else 200)


def _coin(symbol: str) -> Coin:
    try:
        return services.find_coin(symbol)
    except NotFound as unknown:
        raise InvalidInput(unknown.message, field="coin") from unknown


class Runs(ListAPIView[TrainingRun]):
    """Trainings of one coin each, newest first."""

    class Filter(filters.FilterSet):
        coin = filters.CharFilter(field_name="coin__symbol", help_text="As in `BTC`.")
        line = filters.CharFilter()
        state = filters.ChoiceFilter(choices=[(s.value, s.value) for s in JobState])
        dataset = inputs.WholeFilter(field_name="dataset_id")
        launched_by = filters.CharFilter()
        ordering = filters.OrderingFilter(fields=["id", "started_at", "finished_at"])

    @extend_schema_serializer(component_name="Run")
    class Output(serializers.ModelSerializer[TrainingRun]):
        coin = serializers.CharField(source="coin.symbol")
        bundle = serializers.CharField(source="bundle.digest", default=None, allow_null=True)
        parameters = serializers.DictField(help_text="What was asked to differ from the recipe.")
        epochs_done = serializers.IntegerField()
        progress = serializers.SerializerMethodField(help_text="0 to 1.")
        elapsed_seconds = serializers.FloatField(allow_null=True)

        class Meta:
            model = TrainingRun
            fields: ClassVar = [
                "id", "coin", "dataset", "line", "parameters", "seed", "state", "failure",
                "epochs", "epochs_done", "progress", "elapsed_seconds",
                "attempt", "worker_name", "device", "code_version", "bundle", "launched_by",
                "created_at", "started_at", "finished_at", "cancel_requested_at",
                "rate_usd_per_hour", "reserved_usd", "spent_usd", "billed_seconds", "allowed_seconds",
            ]  # fmt: skip

        def get_progress(self, run: Any) -> float:
            if run.state == JobState.SUCCEEDED:
                return 1.0
            return min(1.0, run.epochs_done / max(1, run.epochs))

    queryset = (
        TrainingRun.objects.select_related("coin", "bundle")
        .defer("bundle__manifest")
        .annotate(epochs_done=Count("epoch_rows"))
        .order_by("-id")
    )
    serializer_class = Output
    filterset_class = Filter


class RunDetail(RetrieveAPIView[TrainingRun]):
    """One training: how far it is, on which machine, and what it costs."""

    queryset = Runs.queryset
    serializer_class = Runs.Output
    lookup_field = "id"


def _answer(run: TrainingRun, status: int = 200) -> Response:
    return Response(Runs.Output(Runs.queryset.get(pk=run.pk)).data, status=status)


class CancelRun(APIView):
    can_conflict = True

    @extend_schema_serializer(component_name="RunCancellation")
    class Input(inputs.Input):
        reason = inputs.Reason()

    @extend_schema(operation_id="cancel_run", request=Input, responses=Runs.Output)
    def post(self, request: Request, id: int) -> Response:
        """Stop a training, as an operator: at once where nobody works on it yet, else after its epoch."""
        checked = self.Input.read(request)
        run = services.find_run(id)
        services.cancel_run(run, actor=actor_of(request), reason=checked["reason"])
        return _answer(run)


class RelaunchRun(APIView):
    can_conflict = True

    @extend_schema_serializer(component_name="RunRelaunch")
    class Input(RecipeInput):
        pass

    @extend_schema(operation_id="relaunch_run", request=Input, responses={201: Runs.Output})
    def post(self, request: Request, id: int) -> Response:
        """Launch a run that failed or was cancelled again, as an operator, with these settings changed."""
        checked = self.Input.read(request)
        run = services.relaunch(services.find_run(id), changes=checked, actor=actor_of(request))
        response = _answer(run, status=201)
        response["Location"] = reverse("api:run", kwargs={"id": run.pk})
        return response


class RunEpochs(ListAPIView[Epoch]):
    """What each epoch of a run showed, first to last."""

    class Filter(filters.FilterSet):
        ordering = filters.OrderingFilter(fields=["number"])

    @extend_schema_serializer(component_name="Epoch")
    class Output(serializers.ModelSerializer[Epoch]):
        class Meta:
            model = Epoch
            fields: ClassVar = [
                "number", "attempt", "train_loss", "validation_loss", "validation_accuracy", "seconds",
                "rows_per_second", "is_best", "finished_at",
            ]  # fmt: skip

    queryset = Epoch.objects.order_by("number")
    serializer_class = Output
    filterset_class = Filter

    def get_queryset(self) -> QuerySet[Epoch]:
        return super().get_queryset().filter(run=services.find_run(self.kwargs["id"]))


class RunLog(ListAPIView[RunLine]):
    """A run's log, first line to last."""

    class Filter(filters.FilterSet):
        attempt = inputs.WholeFilter()

    @extend_schema_serializer(component_name="LogLine")
    class Output(serializers.ModelSerializer[RunLine]):
        class Meta:
            model = RunLine
            fields: ClassVar = ["at", "attempt", "text"]

    queryset = RunLine.objects.order_by("id")
    serializer_class = Output
    filterset_class = Filter

    def get_queryset(self) -> QuerySet[RunLine]:
        return super().get_queryset().filter(run=services.find_run(self.kwargs["id"]))


class Workers(ListAPIView[Worker]):
    """Worker processes as they last described themselves."""

    class Filter(filters.FilterSet):
        is_alive = filters.BooleanFilter(method="heard_lately", help_text="Heard of within the last seconds.")

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


class Chunks:
    """An open file in pieces, closed at its end, or with the response where that ends sooner."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.close = stream.close

    def __iter__(self) -> Iterator[bytes]:
        with self.stream:
            while chunk := self.stream.read(CHUNK_BYTES):
                yield chunk


class AsyncChunks:
    """The same under ASGI, where reading must not hold up the event loop."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.close = stream.close

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with self.stream:
            while chunk := await sync_to_async(self.stream.read, thread_sensitive=False)(CHUNK_BYTES):
                yield chunk


class Artifacts(APIView):
    permission_classes = (CanServe,)

    @extend_schema(
        parameters=[
            OpenApiParameter("sha256", OpenApiTypes.STR, OpenApiParameter.PATH, pattern="^[0-9a-f]{64}$")
        ],
        responses={
            (200, "application/octet-stream"): OpenApiTypes.BINARY,
            304: OpenApiResponse(description="You have it."),
        },
    )
    def get(self, request: Request, sha256: str) -> HttpResponseBase:
        """The bytes of one file of a bundle. They never change: the name is their hash, and so is the ETag."""
        artifact = _artifact(sha256)
        etag = f'"{sha256}"'
        response = get_conditional_response(request, etag=etag) or _download(request, artifact)
        response["ETag"] = etag
        response["Cache-Control"] = "private, max-age=31536000, immutable"
        return response


def _artifact(sha256: str) -> Artifact:
    is_hash = re.fullmatch("[0-9a-f]{64}", sha256)
    artifact = Artifact.objects.filter(sha256=sha256).first() if is_hash else None
    if artifact is None:
        raise NotFound("No bundle has a file of this sha256 (64 lower-case hex digits).")
    return artifact


def _download(request: Request, artifact: Artifact) -> StreamingHttpResponse:
    stream = _opened(artifact)
    is_asgi = hasattr(request, "scope")
    response = StreamingHttpResponse(
        AsyncChunks(stream) if is_asgi else Chunks(stream), content_type="application/octet-stream"
    )
    response["Content-Length"] = artifact.size
    response["Content-Disposition"] = f'attachment; filename="{artifact.name}"'
    return response


def _opened(artifact: Artifact) -> Any:
    try:
        stream = files.open_stream(artifact.sha256)
    except files.FileLost as lost:
        raise Unavailable(lost.message) from lost
    if (found := stream.size) != artifact.size:
        stream.close()
        raise Unavailable(
            f"The stored file {artifact.sha256} has {found:,} bytes where {artifact.size:,} were written."
            " Bring it back from a copy."
        )
    return stream
