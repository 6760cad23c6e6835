"""Training runs: list, progress, cancelling, launching again."""

from typing import Any, ClassVar

from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django_filters import rest_framework as filters
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.generics import ListAPIView, RetrieveAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse
from rest_framework.views import APIView

from accounts.authentication import get_actor
from common import api_fields
from common.errors import InvalidInput
from mlcore.fitting.recipes import RECIPES
from mlcore.fitting.settings import Parameter, Setting, Word
from training.models import Epoch, RunLine, TrainingRun
from training.rules import (
    MAX_COMPARED,
    MAX_NOTES_CHARACTERS,
    MAX_SEED,
    MAX_TAGS,
    MIN_COMPARED,
    TAG_PATTERN,
    JobState,
)
from training.services import annotations, run_comparison, runs
from training.services.run_filters import RunFilter

STATES = [state.value for state in JobState]
_NUMBERS = f"^[1-9][0-9]{{0,17}}(,[1-9][0-9]{{0,17}}){{{MIN_COMPARED - 1},{MAX_COMPARED - 1}}}$"

# Subqueries, which run for the rows of one page. Joined and grouped, all epochs would be counted for every page.
_COUNT_EPOCHS = Epoch.objects.filter(run=OuterRef("pk")).order_by().values("run").values(count=Count("pk"))
BEST_EPOCHS = Epoch.objects.filter(run=OuterRef("pk"), is_best=True).order_by("-number")


class RecipeInput(api_fields.Input):
    """The recipe settings that a launch may change. The recipe of a line limits them further."""

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        return {
            **super().get_fields(),
            **{name: _build_field(setting) for name, setting in _SETTINGS.items()},
            "parameters": serializers.DictField(
                child=api_fields.SettingValue(),
                required=False,
                help_text="Parameters of an own recipe, by name.",
            ),
            "seed": api_fields.Integer(
                required=False, min_value=0, max_value=MAX_SEED, help_text="The random seed."
            ),
        }

    @staticmethod
    def select_parameters(checked: dict[str, Any]) -> dict[str, Any]:
        """The checked fields that are settings, and own parameters. Raises InvalidInput for one that is given twice."""
        given = {name: value for name, value in checked.items() if name in _SETTINGS}
        own = checked.get("parameters", {})
        if twice := sorted(given.keys() & own.keys()):
            raise InvalidInput(f"{twice[0]} is given twice.", field="parameters")
        return {**given, **own}


_SETTINGS: dict[str, Setting] = {
    name: setting for recipe in RECIPES.values() for name, setting in recipe.settings.items()
}


def _build_field(setting: Setting) -> serializers.Field[Any, Any, Any, Any]:
    about = f"{setting.meaning}."
    if isinstance(setting, Word):
        return api_fields.Choice(list(setting.words), required=False, help_text=about)
    if not isinstance(setting, Parameter):
        return api_fields.PatternText(f"^({setting.pattern})$", required=False, help_text=about)
    kind: Any = api_fields.Integer if setting.is_whole else api_fields.Number
    field: serializers.Field[Any, Any, Any, Any] = kind(
        required=False, min_value=setting.least, max_value=setting.greatest, help_text=about
    )
    return field


class Runs(ListAPIView[TrainingRun]):
    """Training runs, newest first."""

    @extend_schema_serializer(component_name="Run")
    class Output(serializers.ModelSerializer[TrainingRun]):
        coin = serializers.CharField(source="coin.symbol")
        bundle = serializers.CharField(source="bundle.digest", default=None, allow_null=True)
        parameters = serializers.DictField(help_text="Differences from the recipe.")
        epochs_done = serializers.IntegerField()
        best_epoch = serializers.IntegerField(allow_null=True)
        tags: Any = serializers.SlugRelatedField(slug_field="name", many=True, read_only=True)
        progress = serializers.SerializerMethodField(help_text="0 to 1.")
        elapsed_seconds = serializers.FloatField(allow_null=True)

        class Meta:
            model = TrainingRun
            fields: ClassVar = [
                "id", "coin", "dataset", "line", "recipe", "package", "parameters", "seed", "state", "failure",
                "epochs", "epochs_done", "best_epoch", "best_validation_loss", "best_validation_accuracy",
                "progress", "elapsed_seconds", "tags", "notes",
                "attempt", "worker_name", "device", "code_version", "bundle", "reproduces", "launched_by",
                "created_at", "started_at", "finished_at", "cancel_requested_at",
                "rate_usd_per_hour", "reserved_usd", "spent_usd", "machine_usd", "billed_seconds", "allowed_seconds",
            ]  # fmt: skip

        def get_progress(self, run: Any) -> float:
            share: float = run.epochs_done / max(1, run.epochs)
            return 1.0 if run.state == JobState.SUCCEEDED else min(1.0, share)

    queryset = (
        TrainingRun.objects.select_related("coin", "bundle")
        .defer("bundle__manifest")
        .annotate(
            epochs_done=Coalesce(Subquery(_COUNT_EPOCHS), 0),
            best_epoch=Subquery(BEST_EPOCHS.values("number")[:1]),
        )
        .prefetch_related("tags")
        .order_by("-id")
    )
    serializer_class = Output
    filterset_class = RunFilter


class RunDetail(RetrieveAPIView[TrainingRun]):
    """One training run: progress, machine and cost."""

    queryset = Runs.queryset
    serializer_class = Runs.Output
    lookup_field = "id"


def _build_response(run: TrainingRun, status: int = 200) -> Response:
    return Response(Runs.Output(Runs.queryset.get(pk=run.pk)).data, status=status)


class CancelRun(APIView):
    can_conflict = True

    @extend_schema_serializer(component_name="RunCancellation")
    class Input(api_fields.Input):
        reason = api_fields.Reason()

    @extend_schema(operation_id="cancel_run", request=Input, responses=Runs.Output)
    def post(self, request: Request, id: int) -> Response:
        """Cancel a run, as an operator: at once when it is queued, else after its epoch."""
        checked = self.Input.read(request)
        run = runs.find_run(id)
        runs.cancel_run(run, actor=get_actor(request), reason=checked["reason"])
        return _build_response(run)


class RelaunchRun(APIView):
    can_conflict = True

    @extend_schema_serializer(component_name="RunRelaunch")
    class Input(RecipeInput):
        pass

    @extend_schema(operation_id="relaunch_run", request=Input, responses={201: Runs.Output})
    def post(self, request: Request, id: int) -> Response:
        """Launch a run that failed or was cancelled again, as an operator, with these settings changed."""
        checked = self.Input.read(request)
        seed = {"seed": checked["seed"]} if "seed" in checked else {}
        changes = {**self.Input.select_parameters(checked), **seed}
        run = runs.relaunch(runs.find_run(id), changes=changes, actor=get_actor(request))
        response = _build_response(run, status=201)
        response["Location"] = reverse("api:run", kwargs={"id": run.pk})
        return response


class AnnotateRun(APIView):
    @extend_schema_serializer(component_name="RunAnnotation")
    class Input(api_fields.Input):
        tags = serializers.ListField(
            child=api_fields.PatternText(f"^{TAG_PATTERN}$"),
            required=False,
            max_length=MAX_TAGS,
            help_text="All its tags: small letters, digits, dots, dashes and underscores.",
        )
        notes = api_fields.OptionalText(required=False, allow_blank=True, max_length=MAX_NOTES_CHARACTERS)

    @extend_schema(operation_id="annotate_run", request=Input, responses=Runs.Output)
    def post(self, request: Request, id: int) -> Response:
        """Replace a run's tags, its notes, or both, as an operator."""
        checked = self.Input.read(request)
        run = runs.find_run(id)
        annotations.annotate(run, actor=get_actor(request), **checked)
        return _build_response(run)


class CompareRuns(APIView):
    reads_query = names_object = True

    @extend_schema_serializer(component_name="RunComparison")
    class Output(serializers.Serializer[Any]):
        @extend_schema_serializer(component_name="ComparedRun")
        class Run(serializers.ModelSerializer[TrainingRun]):
            coin = serializers.CharField(source="coin.symbol")
            tags: Any = serializers.SlugRelatedField(slug_field="name", many=True, read_only=True)
            epochs_done = serializers.IntegerField(source="epoch_rows.count")

            class Meta:
                model = TrainingRun
                fields: ClassVar = [
                    "id", "coin", "line", "state", "seed", "epochs_done", "best_validation_loss",
                    "best_validation_accuracy", "billed_seconds", "spent_usd", "tags", "notes",
                ]  # fmt: skip

        @extend_schema_serializer(component_name="RunDifference")
        class Difference(serializers.Serializer[Any]):
            name = serializers.CharField()
            values = serializers.ListField(
                child=api_fields.SettingValue(allow_null=True),
                help_text="Of each run in their order; null where it has no such setting.",
            )

        runs = Run(many=True)
        differences = Difference(many=True, help_text="The settings in which they differ, and no others.")
        is_of_one_stop_window = serializers.BooleanField(
            help_text="Whether their accuracies are of the same rows and labels."
        )
        is_of_one_loss = serializers.BooleanField(
            help_text="Whether their losses are of one formula as well."
        )

    class Query(api_fields.Input):
        runs = serializers.RegexField(
            _NUMBERS,
            error_messages={
                "invalid": f"Give the numbers of {MIN_COMPARED} to {MAX_COMPARED} runs, separated by commas."
            },
        )

    @extend_schema(
        operation_id="compare_runs",
        parameters=[
            OpenApiParameter(
                "runs",
                {"type": "string", "pattern": _NUMBERS},
                required=True,
                description=f"{MIN_COMPARED} to {MAX_COMPARED} numbers, separated by commas. Curves: `runs/ID/epochs/`.",
            )
        ],
        responses=Output,
    )
    def get(self, request: Request) -> Response:
        """Compare runs: the settings in which they differ, and their figures on the stop window."""
        asked = self.Query(data=request.query_params.dict())
        asked.is_valid(raise_exception=True)
        keys = [int(key) for key in asked.validated_data["runs"].split(",")]
        return Response(self.Output(run_comparison.compare(keys)).data)


class RunEpochs(ListAPIView[Epoch]):
    """The epochs of a run, in order."""

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
        return super().get_queryset().filter(run=runs.find_run(self.kwargs["id"]))


class RunLog(ListAPIView[RunLine]):
    """The log of a run, in order."""

    class Filter(filters.FilterSet):
        attempt = api_fields.IntegerFilter()

    @extend_schema_serializer(component_name="LogLine")
    class Output(serializers.ModelSerializer[RunLine]):
        class Meta:
            model = RunLine
            fields: ClassVar = ["at", "attempt", "text"]

    queryset = RunLine.objects.order_by("id")
    serializer_class = Output
    filterset_class = Filter

    def get_queryset(self) -> QuerySet[RunLine]:
        return super().get_queryset().filter(run=runs.find_run(self.kwargs["id"]))
