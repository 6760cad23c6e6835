"""The snapshot the bots fetch, releases, and the decisions that move the pointer."""

from collections.abc import Mapping
from typing import Any, ClassVar

from django.http import HttpResponse, HttpResponseBase
from django.utils.cache import get_conditional_response
from django_filters import rest_framework as filters
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiResponse,
    extend_schema,
    extend_schema_serializer,
)
from rest_framework import serializers
from rest_framework.generics import ListAPIView, RetrieveAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse
from rest_framework.views import APIView

from accounts import inputs
from accounts.authentication import CanServe, actor_of
from audit.errors import InvalidInput, NotFound
from deploy import services, snapshot
from deploy.models import PointerMove, Release, ReleaseCoin
from deploy.rules import MoveKind, Purpose, ReleaseState
from gates.api import GateOutput
from gates.rules import Verdict
from mlcore.recipes import RECIPES
from training import services as training
from training.api import RecipeInput
from training.models import Artifact, Dataset

BIGGEST_ID = 2**63 - 1

SNAPSHOT_EXAMPLE = {
    "service": "crpbot-4f2c…",
    "epoch": 7,
    "kind": "swap",
    "line": "v7_fixed",
    "release": 3,
    "moved_at": "2026-11-22T08:00:00Z",
    "moved_by": "anna",
    "reason": "every gate passed, figures checked",
    "simulated": False,
    "policy": {"number": 1, "loosened": []},
    "audit": {"seq": 412, "hash": "9b0c…"},
    "models": {
        "BTC": {
            "bundle": "sha256:51d7…",
            "simulated": False,
            "feature_schema": "relative72",
            "schema_digest": "sha256:c0aa…",
            "classes": ["down", "neutral", "up"],
            "files": {
                "model.onnx": {"sha256": "e3b0…", "size": 259624, "url": "/api/v1/artifacts/e3b0…"},
            },
        }
    },
}


class Active(APIView):
    """Behind Django's own servers; in production `deploy.edge` answers a bot's request with the same bytes."""

    permission_classes = (CanServe,)

    @extend_schema_serializer(component_name="Snapshot", examples=[OpenApiExample("live", SNAPSHOT_EXAMPLE)])
    class Output(serializers.Serializer[Any]):
        @extend_schema_serializer(component_name="SnapshotModel")
        class Model(serializers.Serializer[Any]):
            @extend_schema_serializer(component_name="SnapshotFile")
            class File(serializers.Serializer[Any]):
                sha256 = serializers.CharField()
                size = serializers.IntegerField(help_text="Bytes.")
                url = serializers.CharField(help_text="Where to fetch it, with the same token.")

            bundle = serializers.CharField(help_text="`sha256:…` over the manifest.")
            simulated = serializers.BooleanField()
            feature_schema = serializers.CharField()
            schema_digest = serializers.CharField()
            classes = serializers.ListField(child=serializers.CharField())
            files = serializers.DictField(child=File(), help_text="By name.")

        @extend_schema_serializer(component_name="SnapshotPolicy")
        class Policy(serializers.Serializer[Any]):
            number = serializers.IntegerField()
            loosened = serializers.ListField(child=serializers.CharField())

        @extend_schema_serializer(component_name="SnapshotEvent")
        class Event(serializers.Serializer[Any]):
            seq = serializers.IntegerField()
            hash = serializers.CharField()

        service = serializers.CharField(help_text="Tells this service's epochs from another's.")
        epoch = serializers.IntegerField(help_text="Grows by one with every move.")
        kind = serializers.ChoiceField([kind.value for kind in MoveKind])
        line = serializers.CharField(allow_null=True, help_text="Null when offline: answer neutral.")
        release = serializers.IntegerField(allow_null=True)
        moved_at = serializers.DateTimeField()
        moved_by = serializers.CharField()
        reason = serializers.CharField()
        simulated = serializers.BooleanField(help_text="Whether any of it was trained on a made-up market.")
        policy = Policy(allow_null=True)
        audit = Event(help_text="The move's own event in the audit chain.")
        models = serializers.DictField(child=Model(), help_text="By coin.")

    @extend_schema(responses={200: Output, 304: OpenApiResponse(description="You have the latest.")})
    def get(self, request: Request) -> HttpResponseBase:
        """What every bot must run now, all coins in one document.

        Send the last `ETag` as `If-None-Match`: 304 says that nothing moved.
        """
        latest = snapshot.current()
        response = HttpResponse(latest.body, content_type="application/json")
        response["ETag"] = latest.etag
        response["Cache-Control"] = "private, no-cache"
        return get_conditional_response(request, etag=latest.etag, response=response) or response


class ReleaseDetail(RetrieveAPIView[Release]):
    """One release: its coins side by side, each with its gates and the files of its bundle."""

    @extend_schema_serializer(component_name="Release")
    class Output(serializers.ModelSerializer[Release]):
        @extend_schema_serializer(component_name="ReleaseCoin")
        class Place(serializers.ModelSerializer[ReleaseCoin]):
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
            gates = GateOutput(source="diagnosis.results", many=True, default=[])
            files = File(source="bundle.artifacts", many=True, default=[])

            class Meta:
                model = ReleaseCoin
                fields: ClassVar = [
                    "coin", "dataset", "run", "bundle", "diagnosis", "verdict", "gates", "files",
                ]  # fmt: skip

        state = serializers.ChoiceField([state.value for state in ReleaseState])
        reason = serializers.CharField(
            source="status.reason", help_text="Why it stands so: coin, gate, figure and threshold."
        )
        settled_at = serializers.DateTimeField(source="status.settled_at", allow_null=True)
        policy = serializers.IntegerField(source="policy.number")
        parameters = serializers.DictField(help_text="What was asked to differ from the recipe.")
        is_simulated = serializers.BooleanField()
        allowed_actions = serializers.SerializerMethodField(help_text="What may be asked of it as it stands.")
        spent_usd = serializers.DecimalField(source="budget.spent_usd", max_digits=12, decimal_places=6)
        spending_limit_usd = serializers.DecimalField(
            source="budget.spending_limit_usd", max_digits=12, decimal_places=6
        )
        coins = Place(many=True)

        class Meta:
            model = Release
            fields: ClassVar = [
                "id", "line", "purpose", "state", "reason", "allowed_actions", "policy", "parameters", "seed",
                "launched_by", "created_at", "deadline_at", "settled_at", "is_simulated",
                "spent_usd", "spending_limit_usd", "coins",
            ]  # fmt: skip

        def get_allowed_actions(self, release: Release) -> list[str]:
            return sorted(release.allowed_actions)

    queryset = Release.objects.select_related("status", "policy", "budget").prefetch_related(
        "budget__runs",
        "coins__coin",
        "coins__dataset",
        "coins__bundle__artifacts",
        "coins__diagnosis__results",
    )
    serializer_class = Output
    lookup_field = "id"


class Releases(ListAPIView[Release]):
    """Releases, newest first."""

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
        line = serializers.ChoiceField(list(RECIPES))
        datasets = serializers.DictField(
            child=inputs.Whole(min_value=1, max_value=BIGGEST_ID),
            required=False,
            help_text="A dataset's id by coin; the newest of each coin that is not named.",
        )
        purpose = serializers.ChoiceField(
            [Purpose.CANDIDATE.value, Purpose.FALLBACK.value],
            default=Purpose.CANDIDATE.value,
            help_text="`fallback`: to be registered as what a pin holds the bots on.",
        )

    queryset = ReleaseDetail.queryset.order_by("-id")
    serializer_class = ReleaseDetail.Output
    filterset_class = Filter

    @extend_schema(operation_id="launch_release", request=Input, responses={201: ReleaseDetail.Output})
    def post(self, request: Request) -> Response:
        """Launch a release, as an operator: every required coin is trained, then measured and judged."""
        checked = self.Input.read(request)
        release = services.launch(
            checked["line"],
            actor=actor_of(request),
            parameters=self.Input.parameters(checked),
            datasets=_named_datasets(checked.get("datasets", {})),
            seed=checked.get("seed"),
            purpose=Purpose(checked["purpose"]),
        )
        response = _release_answer(release, status=201)
        response["Location"] = reverse("api:release", kwargs={"id": release.pk})
        return response


def _named_datasets(ids: Mapping[str, int]) -> dict[str, Dataset]:
    try:
        return {symbol: training.find_dataset(pk) for symbol, pk in ids.items()}
    except NotFound as missing:
        raise InvalidInput(missing.message, field="datasets") from missing


def _release_answer(release: Release, status: int = 200) -> Response:
    fresh = ReleaseDetail.queryset.get(pk=release.pk)
    return Response(ReleaseDetail.Output(fresh).data, status=status)


def _release(id: int) -> Release:
    release = Release.objects.select_related("status").filter(pk=id).first()
    if release is None:
        raise NotFound(f"There is no release {id}.")
    return release


class Moves(ListAPIView[PointerMove]):
    """Every move of the pointer, newest first; the first row is where it stands."""

    class Filter(filters.FilterSet):
        epoch = inputs.WholeFilter()
        kind = filters.ChoiceFilter(choices=[(k.value, k.value) for k in MoveKind])
        line = filters.CharFilter(field_name="release__line")
        release = inputs.WholeFilter(field_name="release_id")
        moved_by = filters.CharFilter()
        after = filters.IsoDateTimeFilter(field_name="moved_at", lookup_expr="gte")
        before = filters.IsoDateTimeFilter(field_name="moved_at", lookup_expr="lt")
        ordering = filters.OrderingFilter(fields=["epoch"])

    @extend_schema_serializer(component_name="Move")
    class Output(serializers.ModelSerializer[PointerMove]):
        line = serializers.CharField(source="release.line", default=None, allow_null=True)
        policy = serializers.IntegerField(source="policy.number", default=None, allow_null=True)

        class Meta:
            model = PointerMove
            fields: ClassVar = [
                "epoch", "kind", "line", "release", "policy", "moved_by", "reason", "moved_at", "audit_seq",
            ]  # fmt: skip

    queryset = PointerMove.objects.select_related("release", "policy").order_by("-epoch")
    serializer_class = Output
    filterset_class = Filter


def _move_answer(move: PointerMove) -> Response:
    return Response(Moves.Output(move).data)


@extend_schema_serializer(component_name="Decision")
class Decision(inputs.Input):
    reason = inputs.Reason()


@extend_schema_serializer(component_name="DecisionAtEpoch")
class DecisionAtEpoch(Decision):
    epoch = inputs.Whole(
        min_value=1,
        max_value=BIGGEST_ID,
        help_text="The pointer's epoch that you saw; 409 if it moved since.",
    )


class Approve(APIView):
    Input = DecisionAtEpoch
    can_conflict = True

    @extend_schema(operation_id="approve_release", request=Input, responses=Moves.Output)
    def post(self, request: Request, id: int) -> Response:
        """Let the bots use a release that passed, as an approver who did not launch it."""
        checked = self.Input.read(request)
        return _move_answer(services.approve(_release(id), actor=actor_of(request), **checked))


class Restore(APIView):
    Input = DecisionAtEpoch
    can_conflict = True

    @extend_schema(operation_id="restore_release", request=Input, responses=Moves.Output)
    def post(self, request: Request, id: int) -> Response:
        """Bring back a release that was live before, as an approver, with every check anew."""
        checked = self.Input.read(request)
        return _move_answer(services.restore(_release(id), actor=actor_of(request), **checked))


class Decline(APIView):
    Input = Decision
    can_conflict = True

    @extend_schema(operation_id="decline_release", request=Input, responses=ReleaseDetail.Output)
    def post(self, request: Request, id: int) -> Response:
        """Refuse a release that passed, as an approver. The bots go to the fallback unless what they run has passed."""
        checked = self.Input.read(request)
        return _release_answer(services.decline(_release(id), actor=actor_of(request), **checked))


class Cancel(APIView):
    Input = Decision
    can_conflict = True

    @extend_schema(operation_id="cancel_release", request=Input, responses=ReleaseDetail.Output)
    def post(self, request: Request, id: int) -> Response:
        """Stop building a release, as an operator. It is rejected at once."""
        checked = self.Input.read(request)
        return _release_answer(services.cancel(_release(id), actor=actor_of(request), **checked))


class Register(APIView):
    Input = Decision
    can_conflict = True

    @extend_schema(operation_id="register_fallback", request=Input, responses=ReleaseDetail.Output)
    def post(self, request: Request, id: int) -> Response:
        """Make a standby release the fallback, as an approver who did not launch it."""
        checked = self.Input.read(request)
        registration = services.register_fallback(_release(id), actor=actor_of(request), **checked)
        return _release_answer(registration.release)


class Pin(APIView):
    Input = Decision
    can_conflict = True

    @extend_schema(operation_id="pin_fallback", request=Input, responses=Moves.Output)
    def post(self, request: Request) -> Response:
        """Hold every bot on the fallback at once, as an approver; *offline* when not even that is fit."""
        return _move_answer(services.pin(actor=actor_of(request), **self.Input.read(request)))
