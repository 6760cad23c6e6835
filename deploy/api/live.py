"""Live windows: bots' counts of their own predictions."""

from collections.abc import Mapping
from io import BytesIO
from typing import Any

from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.authentication import IsBot, get_actor
from common import api_fields
from deploy.api.bots import INSTANCE
from deploy.bots import live_gates
from deploy.models import LiveWindow
from mlcore.confidence_bands import BANDS, EDGES
from mlcore.constants import N_FEATURES

MAX_PREDICTIONS = 100_000
"""In one window; the client sends a hundred at most."""
EXAMPLE = {
    "instance": "desk-1",
    "revision": 7,
    "coin": "BTC",
    "first_at": "2026-11-22T08:00:00Z",
    "last_at": "2026-11-22T08:00:59Z",
    "predictions": 100,
    "non_finite": 0,
    "class_counts": {"down": 34, "neutral": 31, "up": 35},
    "confidence": {"edges": list(EDGES), "counts": [0] * 10 + [20] * 5 + [0] * 20},
    "logits": {"min": -2.9, "max": 2.4},
    "out_of_range": 3,
}


def _create_count(**kwargs: Any) -> api_fields.Integer:
    return api_fields.Integer(min_value=0, max_value=MAX_PREDICTIONS, **kwargs)


class _Edges(serializers.ListField):
    """The expected list is taken as it is: validating each number of every window costs a web process most of its time."""

    def run_child_validation(self, data: Any) -> Any:
        is_expected = data == list(EDGES) and not any(edge is True for edge in data)
        return data if is_expected else super().run_child_validation(data)


class _Counts(serializers.ListField):
    """A list of sound counts is taken as it is, for the same reason; any other is validated number by number."""

    def run_child_validation(self, data: Any) -> Any:
        are_sound = all(type(count) is int and 0 <= count <= MAX_PREDICTIONS for count in data)
        return data if are_sound else super().run_child_validation(data)


class LiveWindows(APIView):
    permission_classes = [IsBot]
    throttle_scope = "bots"
    can_conflict = True

    @extend_schema_serializer(
        component_name="LiveWindow",
        examples=[OpenApiExample("a hundred predictions", EXAMPLE, request_only=True)],
    )
    class Input(api_fields.Input):
        @extend_schema_serializer(component_name="LiveClassCounts")
        class ClassCounts(api_fields.Input):
            down = _create_count()
            neutral = _create_count()
            up = _create_count()

        @extend_schema_serializer(component_name="LiveConfidence")
        class Confidence(api_fields.Input):
            edges = _Edges(
                child=api_fields.Number(min_value=0, max_value=1),
                min_length=BANDS + 1,
                max_length=BANDS + 1,
                help_text="0.30, 0.32 … 1.00: no others are accepted.",
            )
            counts = _Counts(child=_create_count(), min_length=BANDS, max_length=BANDS)

            def validate_edges(self, edges: list[float]) -> list[float]:
                if [round(edge, 6) for edge in edges] != list(EDGES):
                    raise serializers.ValidationError("The bands are those of 0.30, 0.32 … 1.00.")
                return edges

        @extend_schema_serializer(component_name="LiveLogits")
        class Logits(api_fields.Input):
            min = api_fields.Number(allow_null=True)
            max = api_fields.Number(allow_null=True)

        instance = api_fields.PatternText(INSTANCE, help_text="As in its heartbeats.")
        revision = api_fields.Integer(min_value=1, max_value=api_fields.MAX_ID)
        coin = api_fields.Text(max_length=12)
        first_at = serializers.DateTimeField(
            help_text="By the bot's clock; a window sent again has the same."
        )
        last_at = serializers.DateTimeField()
        predictions = api_fields.Integer(min_value=1, max_value=MAX_PREDICTIONS)
        non_finite = _create_count(help_text="Answers that were not finite.")
        class_counts = ClassCounts(help_text="How many finite answers predicted each direction.")
        confidence = Confidence(help_text="A histogram of the probability of the predicted direction.")
        logits = Logits(help_text="Both null if no answer was finite.")
        out_of_range = api_fields.Integer(
            min_value=0,
            max_value=N_FEATURES * MAX_PREDICTIONS,
            allow_null=True,
            help_text="Feature values outside the range seen in training; null if the bundle does not state the range.",
        )

    @extend_schema_serializer(component_name="LiveWindowAnswer")
    class Output(serializers.Serializer[Any]):
        breach = serializers.CharField(
            allow_blank=True,
            help_text="Breached tripwires, with their figures. Empty for an older revision, which is not judged.",
        )
        warning = serializers.CharField(allow_blank=True, help_text="Breached warnings, with their figures.")

    @extend_schema(
        operation_id="send_window",
        request=Input,
        responses={201: OpenApiResponse(Output, description="Stored, now or when it was first sent.")},
    )
    def post(self, request: Request) -> Response:
        """Report counts of this bot's predictions. If most live bots breach the live gates, the fallback is pinned.

        409 for an instance that has sent no heartbeat yet.
        """
        window = live_gates.receive_window(
            _create_posted_window(self.Input.read(request)), actor=get_actor(request)
        )
        return Response(build_window_answer(window), status=201)


_WINDOW = LiveWindows.Input()  # creating its fields takes longer than validating them


def parse_window(body: bytes) -> live_gates.PostedWindow | None:
    """Parse a window that the edge received; None for one that `LiveWindows` refuses, with the reason."""
    (parser,) = LiveWindows.parser_classes
    try:
        return _create_posted_window(_WINDOW.run_validation(parser().parse(BytesIO(body))))
    except APIException:
        return None


def build_window_answer(window: LiveWindow) -> dict[str, str]:
    return {"breach": window.breach, "warning": window.warning}


def _create_posted_window(checked: Mapping[str, Any]) -> live_gates.PostedWindow:
    window = LiveWindow(
        first_at=checked["first_at"],
        last_at=checked["last_at"],
        predictions=checked["predictions"],
        non_finite=checked["non_finite"],
        **checked["class_counts"],
        confidence=checked["confidence"]["counts"],
        logit_min=checked["logits"]["min"],
        logit_max=checked["logits"]["max"],
        out_of_range=checked["out_of_range"],
    )
    return live_gates.PostedWindow(checked["instance"], checked["revision"], checked["coin"], window)
