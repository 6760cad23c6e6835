"""Releases: to read, and to launch."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from django.db.models import Prefetch
from django_filters import rest_framework as filters
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_field, extend_schema_serializer
from rest_framework import serializers
from rest_framework.generics import ListAPIView, RetrieveAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from accounts.authentication import get_actor
from common import api_fields
from common.errors import InvalidInput, NotFound
from deploy.models import Release, ReleaseCoin
from deploy.pointer import pointer
from deploy.releases.launch import launch
from deploy.releases.preview import list_unchanged_coins, preview_policy
from deploy.rules import Purpose, ReleaseState
from gates.api import GateOutput
from mlcore.verdict import Verdict
from studies.models import Study
from studies.services.launch import find_study
from training.api.lines import LineName
from training.api.runs import RecipeInput
from training.models import Artifact
from training.services.bundles import find_bundle
from training.services.datasets import find_dataset

Found = TypeVar("Found")
STATES = [state.value for state in ReleaseState]
PURPOSES = [purpose.value for purpose in Purpose]
FIELDS = [
    "id", "line", "purpose", "state", "reason", "allowed_actions", "policy", "parameters", "seed", "study",
    "best_of", "is_reproduced", "launched_by", "created_at", "deadline_at", "settled_at", "is_simulated", "interval_seconds",
    "is_cancelled", "spent_usd", "machine_usd", "spending_limit_usd", "coins",
]  # fmt: skip


@extend_schema_serializer(component_name="PolicyPreview")
class PolicyPreviewOutput(serializers.Serializer[Any]):
    policy = serializers.IntegerField(source="policy.number", help_text="The policy in force.")
    passes = serializers.BooleanField()
    problems = serializers.ListField(
        child=serializers.CharField(), help_text="Coin, gate, figure and threshold."
    )


class ReleaseDetail(RetrieveAPIView[Release]):
    """One release: its coins side by side, each with its gates and the files of its bundle."""

    @extend_schema_serializer(component_name="Release")
    class Output(serializers.ModelSerializer[Release]):
        @extend_schema_serializer(component_name="ReleaseCoin")
        class CoinOutput(serializers.ModelSerializer[ReleaseCoin]):
            @extend_schema_serializer(component_name="File")
            class File(serializers.ModelSerializer[Artifact]):
                url = serializers.SerializerMethodField()

                class Meta:
                    model = Artifact
                    fields: ClassVar = ["name", "sha256", "size", "url"]

                def get_url(self, artifact: Artifact) -> str:
                    return reverse("api:artifact", kwargs={"sha256": artifact.sha256})

            coin = serializers.CharField(source="coin.symbol")
            bundle = serializers.CharField(source="bundle.digest", default=None, allow_null=True)
            verdict = serializers.ChoiceField(
                [verdict.value for verdict in Verdict],
                source="diagnosis.verdict",
                default=None,
                allow_null=True,
            )
            second_run = serializers.SerializerMethodField(
                help_text="The run that trained its model again, where the launch asked for it."
            )
            statement = serializers.SerializerMethodField(
                help_text="The address of the signed statement that both runs gave the same model."
            )
            gates = GateOutput(source="diagnosis.results", many=True, default=[])
            files = File(source="bundle.artifacts", many=True, default=[])

            class Meta:
                model = ReleaseCoin
                fields: ClassVar = [
                    "coin", "dataset", "run", "second_run", "bundle", "statement", "diagnosis", "verdict", "gates",
                    "files",
                ]  # fmt: skip

            def get_second_run(self, release_coin: ReleaseCoin) -> int | None:
                return release_coin.second_run.pk if release_coin.second_run else None

            @extend_schema_field({"type": "string", "nullable": True})
            def get_statement(self, release_coin: ReleaseCoin) -> str | None:
                if release_coin.statement is None or release_coin.bundle is None:
                    return None
                return reverse("api:statement", kwargs={"digest": release_coin.bundle.digest})

        state = serializers.ChoiceField(STATES)
        reason = serializers.CharField(
            source="status.reason", help_text="Why it stands so: coin, gate, figure and threshold."
        )
        settled_at = serializers.DateTimeField(source="status.settled_at", allow_null=True)
        policy = serializers.IntegerField(source="policy.number")
        parameters = serializers.DictField(help_text="What was asked to differ from the recipe.")
        is_simulated = serializers.BooleanField()
        is_cancelled = serializers.BooleanField(
            help_text="Whether it was rejected because somebody cancelled it, and not by its gates."
        )
        allowed_actions = serializers.SerializerMethodField(help_text="What may be asked of it as it stands.")
        spent_usd = serializers.DecimalField(source="budget.spent_usd", max_digits=12, decimal_places=6)
        machine_usd = serializers.DecimalField(
            source="budget.machine_usd",
            max_digits=12,
            decimal_places=6,
            allow_null=True,
            help_text="What machines really cost for its runs.",
        )
        spending_limit_usd = serializers.DecimalField(
            source="budget.spending_limit_usd", max_digits=12, decimal_places=6
        )
        coins = CoinOutput(many=True)

        class Meta:
            model = Release
            fields: ClassVar = FIELDS

        def get_allowed_actions(self, release: Release) -> list[str]:
            return sorted(release.allowed_actions)

    @extend_schema_serializer(component_name="ReleaseSummary")
    class Summary(Output):
        """A row of the list: the verdict of each coin, and neither its gates nor its files."""

        @extend_schema_serializer(component_name="ReleaseCoinSummary")
        class CoinSummary(serializers.ModelSerializer[ReleaseCoin]):
            coin = serializers.CharField(source="coin.symbol")
            bundle = serializers.CharField(source="bundle.digest", default=None, allow_null=True)
            verdict = serializers.ChoiceField(
                [verdict.value for verdict in Verdict],
                source="diagnosis.verdict",
                default=None,
                allow_null=True,
            )

            class Meta:
                model = ReleaseCoin
                fields: ClassVar = ["coin", "dataset", "run", "bundle", "diagnosis", "verdict"]

        coins = CoinSummary(many=True)  # type: ignore[assignment]  # fewer fields than in Output

    @extend_schema_serializer(component_name="ReleaseDetail")
    class Whole(Output):
        policy_preview = serializers.SerializerMethodField(
            help_text="For a release that awaits approval and was judged under an older policy: what the policy in force"
            " decides about its stored measurements, as approving it would. Else null."
        )

        unchanged_coins = serializers.SerializerMethodField(
            help_text="The coins whose bundle the bots run already, while an approval or a restore is possible."
        )

        class Meta:
            model = Release
            fields: ClassVar = [*FIELDS, "policy_preview", "unchanged_coins"]

        def get_unchanged_coins(self, release: Release) -> list[str]:
            return list_unchanged_coins(release, pointer.get_current())

        @extend_schema_field(PolicyPreviewOutput(allow_null=True))
        def get_policy_preview(self, release: Release) -> dict[str, object] | None:
            preview = preview_policy(release) if release.state == ReleaseState.AWAITING_APPROVAL else None
            return None if preview is None else PolicyPreviewOutput(preview).data

    queryset = Release.objects.select_related("status", "policy", "budget").prefetch_related(
        "budget__runs",
        "coins__coin",
        "coins__dataset",
        "coins__bundle__artifacts",
        "coins__bundle__statement",
        "coins__run__reproductions",
        "coins__diagnosis__results",
    )
    serializer_class = Whole
    lookup_field = "id"


# Without the texts of diagnoses, datasets and bundles: five hundred releases would carry hundreds of megabytes.
_SUMMARY_COINS = ReleaseCoin.objects.select_related("coin", "dataset", "bundle", "diagnosis").only(
    "release", "run", "coin__symbol", "dataset__is_simulated", "bundle__digest", "diagnosis__verdict"
)


class Releases(ListAPIView[Release]):
    """Releases, newest first, with the verdict of each coin. One release by its number has its gates and files too."""

    class Filter(filters.FilterSet):
        line = filters.CharFilter()
        purpose = filters.ChoiceFilter(choices=[(p.value, p.value) for p in Purpose])
        state = filters.ChoiceFilter(
            field_name="status__state", choices=[(s.value, s.value) for s in ReleaseState]
        )
        launched_by = filters.CharFilter()
        ordering = filters.OrderingFilter(fields=["id"])

    @extend_schema_serializer(
        component_name="ReleaseLaunch",
        examples=[
            OpenApiExample("as the recipe says", {"line": "v7_fixed"}),
            OpenApiExample(
                "changed",
                {"line": "v7_fixed", "epochs": 20, "batch_size": 256, "seed": 7, "datasets": {"BTC": 3}},
            ),
        ],
    )
    class Input(RecipeInput):
        line = LineName()
        datasets = serializers.DictField(
            child=api_fields.Integer(min_value=1, max_value=api_fields.MAX_ID),
            required=False,
            help_text="A dataset's id by coin; the newest that passed its checks of each coin that is not named.",
        )
        bundles = serializers.DictField(
            child=api_fields.Text(),
            required=False,
            help_text="A bundle's digest by coin: that bundle is measured, and none is trained for the coin.",
        )
        study = api_fields.Integer(
            required=False,
            min_value=1,
            max_value=api_fields.MAX_ID,
            help_text="Train with parameters and seed of this study's best trial; give neither beside it.",
        )
        purpose = api_fields.Choice(
            [Purpose.CANDIDATE.value, Purpose.FALLBACK.value],
            default=Purpose.CANDIDATE.value,
            help_text="`fallback`: to be registered as what a pin holds the bots on.",
        )
        reproduce = api_fields.Boolean(
            default=False,
            help_text="Whether a second worker trains each model again, within the same limits, to compare the two.",
        )

    queryset = (
        Release.objects.select_related("status", "policy", "budget")
        .prefetch_related("budget__runs", Prefetch("coins", _SUMMARY_COINS))
        .order_by("-id")
    )
    serializer_class = ReleaseDetail.Summary
    filterset_class = Filter

    @extend_schema(operation_id="launch_release", request=Input, responses={201: ReleaseDetail.Output})
    def post(self, request: Request) -> Response:
        """Launch a release, as an operator: every required coin is trained, then measured and judged."""
        checked = self.Input.read(request)
        release = launch(
            checked["line"],
            actor=get_actor(request),
            parameters=self.Input.select_parameters(checked),
            datasets=_find_named(find_dataset, checked.get("datasets", {}), "datasets"),
            bundles=_find_named(find_bundle, checked.get("bundles", {}), "bundles"),
            seed=checked.get("seed"),
            purpose=Purpose(checked["purpose"]),
            reproduce=checked["reproduce"],
            study=_find_study(checked.get("study")),
        )
        location = reverse("api:release", kwargs={"id": release.pk})
        return Response(serialize_release(release), status=201, headers={"Location": location})


def _find_study(key: int | None) -> Study | None:
    try:
        return None if key is None else find_study(key)
    except NotFound as missing:
        raise InvalidInput(missing.message, field="study") from missing


def _find_named(find: Callable[[Any], Found], named: Mapping[str, Any], field: str) -> dict[str, Found]:
    try:
        return {symbol: find(name) for symbol, name in named.items()}
    except NotFound as missing:
        raise InvalidInput(missing.message, field=field) from missing


def serialize_release(release: Release) -> dict[str, Any]:
    """The release as it is now, for the API and for commands."""
    return dict(ReleaseDetail.Output(ReleaseDetail.queryset.get(pk=release.pk)).data)


def find_release(id: int) -> Release:
    """Raises NotFound."""
    release = Release.objects.select_related("status", "policy").filter(pk=id).first()
    if release is None:
        raise NotFound(f"There is no release {id}.")
    return release
