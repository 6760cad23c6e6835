"""Studies: to read, to launch, to cancel."""

from typing import Any, ClassVar

from django_filters import rest_framework as filters
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse
from rest_framework.views import APIView

from accounts.authentication import get_actor
from common import api_fields
from common.errors import InvalidInput, NotFound
from studies.models import Study, Trial
from studies.rules import MAX_PARALLEL, MAX_TRIALS, MIN_TRIALS, Objective, Sampler, StudyState, TrialState
from studies.search_space import KINDS
from studies.services import launch, results
from training.api.lines import LineName
from training.rules import MAX_SEED
from training.services.datasets import find_dataset

OBJECTIVES = [objective.value for objective in Objective]
STATES = [state.value for state in StudyState]
TRIAL_STATES = [state.value for state in TrialState]
SAMPLERS = [sampler.value for sampler in Sampler]
FIELDS = [
    "id", "coin", "dataset", "line", "parameters", "ranges", "objective", "sampler", "prunes", "seed", "max_trials",
    "parallel", "time_limit_seconds", "spending_limit_usd", "state", "reason", "launched_by", "created_at", "finished_at",
]  # fmt: skip


class Studies(ListAPIView[Study]):
    """Studies, newest first."""

    class Filter(filters.FilterSet):
        coin = filters.CharFilter(field_name="dataset__coin__symbol", help_text="As in `BTC`.")
        line = filters.CharFilter()
        state = filters.ChoiceFilter(choices=[(s.value, s.value) for s in StudyState])
        launched_by = filters.CharFilter()
        ordering = filters.OrderingFilter(fields=["id"])

    @extend_schema_serializer(component_name="Study")
    class Output(serializers.ModelSerializer[Study]):
        coin = serializers.CharField(source="dataset.coin.symbol")
        parameters = serializers.DictField(help_text="Differences from the line, the same for all trials.")
        ranges = serializers.DictField(help_text="By setting: kind, low and high; or kind and choices.")
        time_limit_seconds = serializers.IntegerField(source="budget.time_limit_seconds")
        spending_limit_usd = serializers.DecimalField(
            source="budget.spending_limit_usd", max_digits=12, decimal_places=6
        )

        class Meta:
            model = Study
            fields: ClassVar = FIELDS

    @extend_schema_serializer(
        component_name="StudyLaunch",
        examples=[
            OpenApiExample(
                "learning rate and batch size",
                {
                    "line": "v7_fixed",
                    "dataset": 3,
                    "ranges": {
                        "learning_rate": {"kind": "log", "low": 0.0001, "high": 0.01},
                        "batch_size": {"kind": "choice", "choices": [64, 256]},
                    },
                    "max_trials": 40,
                },
            )
        ],
    )
    class Input(api_fields.Input):
        @extend_schema_serializer(component_name="StudyRange")
        class Range(api_fields.Input):
            kind = api_fields.Choice(list(KINDS), help_text="`log`: evenly over orders of magnitude.")
            low = api_fields.Number(required=False)
            high = api_fields.Number(required=False)
            choices = serializers.ListField(child=api_fields.SettingValue(), required=False)

        line = LineName()
        dataset = api_fields.Integer(min_value=1, max_value=api_fields.MAX_ID)
        ranges = serializers.DictField(child=Range(), help_text="By setting of the line's recipe.")
        parameters = serializers.DictField(
            child=api_fields.SettingValue(), required=False, help_text="Settings that all trials share."
        )
        objective = api_fields.Choice(
            OBJECTIVES, default=Objective.LOSS.value, help_text="Of the best epoch on the stop window."
        )
        sampler = api_fields.Choice(SAMPLERS, default=Sampler.TPE.value)
        prunes = api_fields.Boolean(
            default=True, help_text="Stop trials early that are worse than the median."
        )
        seed = api_fields.Integer(min_value=0, max_value=MAX_SEED, default=launch.DEFAULT_SEED)
        max_trials = api_fields.Integer(
            min_value=MIN_TRIALS, max_value=MAX_TRIALS, default=launch.DEFAULT_TRIALS
        )
        parallel = api_fields.Integer(min_value=1, max_value=MAX_PARALLEL, default=launch.DEFAULT_PARALLEL)
        time_limit_seconds = api_fields.Integer(
            min_value=MIN_TRIALS,
            max_value=2**31 - 1,
            required=False,
            help_text="Machine time of all trials together; the most that the service allows where it is left out.",
        )
        spending_limit_usd = serializers.DecimalField(
            max_digits=12,
            decimal_places=6,
            required=False,
            help_text="As text, of all trials together; the most that the service allows where it is left out.",
        )

    can_conflict = True
    queryset = Study.objects.select_related("dataset__coin", "budget").order_by("-id")
    serializer_class = Output
    filterset_class = Filter

    @extend_schema(operation_id="launch_study", request=Input, responses={201: Output})
    def post(self, request: Request) -> Response:
        """Launch a study, as an operator: trials on one dataset, compared on the stop window alone."""
        checked = self.Input.read(request)
        try:
            asked = {**checked, "dataset": find_dataset(checked["dataset"])}
        except NotFound as missing:
            raise InvalidInput(missing.message, field="dataset") from missing
        study = launch.launch(actor=get_actor(request), **asked)
        location = reverse("api:study", kwargs={"id": study.pk})
        return Response(self.Output(study).data, status=201, headers={"Location": location})


class StudyDetail(APIView):
    @extend_schema_serializer(component_name="StudyDetail")
    class Output(Studies.Output):
        @extend_schema_serializer(component_name="SelectionBias")
        class Bias(serializers.Serializer[Any]):
            best = serializers.FloatField()
            corrected = serializers.FloatField(help_text="What to expect of the best trial on other rows.")
            optimism = serializers.FloatField(help_text="The difference of the two.")
            trials = serializers.IntegerField()
            blocks = serializers.IntegerField()

        trials_by_state = serializers.SerializerMethodField()
        spent_usd = serializers.SerializerMethodField()
        billed_seconds = serializers.SerializerMethodField()
        best_trial = serializers.SerializerMethodField()
        best_run = serializers.SerializerMethodField()
        best_figure = serializers.SerializerMethodField(help_text="Of the objective, on the stop window.")
        best_parameters = serializers.SerializerMethodField(
            help_text="What a launch changes to train the best trial again."
        )
        selection_bias = serializers.SerializerMethodField(
            help_text="How optimistic the best figure is, being the best of many; null where it cannot be estimated."
        )

        class Meta:
            model = Study
            fields: ClassVar = [
                *FIELDS, "trials_by_state", "spent_usd", "billed_seconds", "best_trial", "best_run", "best_figure",
                "best_parameters", "selection_bias",
            ]  # fmt: skip

        def _found(self, study: Study) -> results.Results:
            known: Any = study
            if not hasattr(known, "found"):
                known.found = results.summarize(study)
            found: results.Results = known.found
            return found

        def get_trials_by_state(self, study: Study) -> dict[str, int]:
            return self._found(study).counts

        def get_spent_usd(self, study: Study) -> str:
            return str(self._found(study).spent_usd)

        def get_billed_seconds(self, study: Study) -> float:
            return self._found(study).billed_seconds

        def get_best_trial(self, study: Study) -> int | None:
            best = self._found(study).best
            return best.number if best else None

        def get_best_run(self, study: Study) -> int | None:
            best = self._found(study).best
            return best.run_id if best else None

        def get_best_figure(self, study: Study) -> float | None:
            best = self._found(study).best
            return results.read_figure(study, best) if best else None

        def get_best_parameters(self, study: Study) -> dict[str, Any] | None:
            best = self._found(study).best
            return results.list_best_parameters(study, best) if best else None

        def get_selection_bias(self, study: Study) -> dict[str, Any] | None:
            bias = results.estimate_bias(study)
            return None if bias is None else dict(self.Bias(bias).data)

    @extend_schema(operation_id="get_study", responses=Output)
    def get(self, request: Request, id: int) -> Response:
        """One study: its progress, its best trial, and how optimistic that trial's figure is."""
        return Response(self.Output(launch.find_study(id)).data)


class StudyTrials(ListAPIView[Trial]):
    """The trials of a study, in order."""

    class Filter(filters.FilterSet):
        ordering = filters.OrderingFilter(fields=["number"])

    @extend_schema_serializer(component_name="Trial")
    class Output(serializers.ModelSerializer[Trial]):
        state = serializers.ChoiceField(TRIAL_STATES)
        parameters = serializers.DictField(help_text="Of the study's ranges.")
        best_validation_loss = serializers.FloatField(source="run.best_validation_loss", allow_null=True)
        best_validation_accuracy = serializers.FloatField(
            source="run.best_validation_accuracy", allow_null=True
        )

        class Meta:
            model = Trial
            fields: ClassVar = [
                "number", "state", "parameters", "run", "best_validation_loss", "best_validation_accuracy",
            ]  # fmt: skip

    queryset = Trial.objects.select_related("run").defer("stop_blocks").order_by("number")
    serializer_class = Output
    filterset_class = Filter

    def get_queryset(self) -> Any:
        return super().get_queryset().filter(study=launch.find_study(self.kwargs["id"]))


class CancelStudy(APIView):
    can_conflict = True

    @extend_schema_serializer(component_name="StudyCancellation")
    class Input(api_fields.Input):
        reason = api_fields.Reason()

    @extend_schema(operation_id="cancel_study", request=Input, responses=Studies.Output)
    def post(self, request: Request, id: int) -> Response:
        """Cancel a study, as an operator: its queued runs at once, those at work after their epoch."""
        checked = self.Input.read(request)
        study = launch.find_study(id)
        launch.cancel(study, actor=get_actor(request), reason=checked["reason"])
        return Response(Studies.Output(study).data)
