"""Bots: heartbeats, what each bot runs, and who has followed a move."""

import re
from collections.abc import Mapping
from io import BytesIO
from typing import Any, ClassVar

from django.conf import settings
from django.db.models import QuerySet
from django_filters import rest_framework as filters
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_field, extend_schema_serializer
from rest_framework import serializers
from rest_framework.exceptions import APIException
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.authentication import IsBot, get_actor
from common import api_fields
from common.errors import NotFound
from deploy.bots import fleet, heartbeat_checks, heartbeats
from deploy.bots.retirement import retire_bot
from deploy.models import Acknowledgement, Bot, PointerMove
from deploy.pointer import pointer
from deploy.rules import MAX_REQUIRED_COINS, BotState, Running
from deploy.serving import protocol

MAX_COINS = MAX_REQUIRED_COINS
MAX_TRUSTED_KEYS = 8
MAX_PROTOCOL = 32_767
INSTANCE = r"^[A-Za-z0-9._:@-]{1,64}$"
_COIN = r"^[A-Z0-9]{1,12}$"
_DIGEST = r"^sha256:[0-9a-f]{64}$"
_BUNDLES = {
    "type": "object",
    "maxProperties": MAX_COINS,
    "additionalProperties": {"type": "string", "pattern": _DIGEST},
}

HEARTBEAT_EXAMPLE = {
    "instance": "desk-1",
    "client_version": "0.1.0",
    "protocol": {"version": 2, "oldest_reader": 2},
    "service": "crpbot-4f2c…",
    "revision": 7,
    "line": "v7_fixed",
    "release": 3,
    "bundles": {"BTC": f"sha256:{'51d7' * 16}"},
    "prefetched_next": 4,
    "prefetched_fallback": 1,
    "audit_head": {"seq": 128, "hash": "9a0c" * 16},
    "trusted_keys": ["141d" * 16],
    "last_error": None,
    "stale_since": None,
    "sent_at": "2026-11-22T14:00:00.213Z",
}


@extend_schema_field(_BUNDLES)
class Bundles(serializers.Field[dict[str, str], Any, dict[str, str], Any]):
    """The bundle digest of each coin, at most MAX_COINS."""

    def to_internal_value(self, data: Any) -> dict[str, str]:
        if not isinstance(data, dict) or len(data) > MAX_COINS:
            raise serializers.ValidationError(f"Give an object of at most {MAX_COINS} coins.")
        for coin, digest in data.items():
            if not re.fullmatch(_COIN, coin):
                raise serializers.ValidationError("A coin has a name such as `BTC`.")
            if not isinstance(digest, str) or not re.fullmatch(_DIGEST, digest):
                raise serializers.ValidationError(
                    f"{coin}: give the bundle's digest, `sha256:` and 64 hex digits."
                )
        return data

    def to_representation(self, value: Mapping[str, str]) -> dict[str, str]:
        return dict(value)


class AuditHead(api_fields.Input):
    seq = api_fields.Integer(min_value=1, max_value=api_fields.MAX_ID)
    hash = api_fields.PatternText(r"^[0-9a-f]{64}$")


class Protocol(api_fields.Input):
    version = api_fields.Integer(min_value=1, max_value=MAX_PROTOCOL)
    oldest_reader = api_fields.Integer(min_value=1, max_value=MAX_PROTOCOL)


def _create_number(**options: Any) -> api_fields.Integer:
    """The field of a revision or release, or null."""
    return api_fields.Integer(min_value=1, max_value=api_fields.MAX_ID, allow_null=True, **options)


class Heartbeat(APIView):
    permission_classes = [IsBot]
    throttle_scope = "bots"
    can_conflict = True

    @extend_schema_serializer(
        component_name="Heartbeat",
        examples=[OpenApiExample("on revision 7", HEARTBEAT_EXAMPLE, request_only=True)],
    )
    class Input(api_fields.Input):
        instance = api_fields.PatternText(
            INSTANCE, help_text="Distinguishes the bots of one token; it keeps its name over restarts."
        )
        client_version = api_fields.Text(max_length=64)
        protocol = Protocol(
            default=None,
            allow_null=True,
            help_text="In which it is written, and the oldest service that understands it; without it, 1. Fields that a"
            " version above the service's own added are left out.",
        )
        service = api_fields.Text(
            max_length=64, allow_null=True, help_text="As in the snapshot that it follows."
        )
        revision = _create_number()
        line = api_fields.Text(max_length=32, allow_null=True)
        release = _create_number()
        bundles = Bundles(help_text="What it decides with now: every coin of the release.")
        prefetched_next = _create_number(
            default=None, help_text="The announced release, once it is downloaded, verified and loaded."
        )
        prefetched_fallback = _create_number(
            default=None, help_text="The fallback's release, once it is downloaded, verified and loaded."
        )
        audit_head = AuditHead(
            default=None,
            allow_null=True,
            help_text="The highest audit head that it has seen signed: a chain that was cut short is detected by it.",
        )
        trusted_keys = serializers.ListField(
            child=api_fields.PatternText(r"^[0-9a-f]{64}$"),
            max_length=MAX_TRUSTED_KEYS,
            default=list,
            help_text="Ids of the signing keys that it trusts: `keys/` counts them.",
        )
        last_error = serializers.CharField(max_length=1000, allow_blank=True, allow_null=True, default=None)
        stale_since = serializers.DateTimeField(allow_null=True, default=None)
        sent_at = serializers.DateTimeField(
            allow_null=True,
            default=None,
            help_text="By the bot's clock, which is compared with the service's.",
        )
        is_stopping = api_fields.Boolean(
            default=False, help_text="Whether it is being stopped on purpose: its last heartbeat."
        )

        def to_internal_value(self, data: Any) -> Any:
            if isinstance(data, dict):
                if refusal := protocol.find_refusal(data.get("protocol")):
                    raise serializers.ValidationError({"protocol": [refusal]})
                data = protocol.drop_unknown(data, self.fields)
            return super().to_internal_value(data)

    @extend_schema_serializer(component_name="HeartbeatAnswer")
    class Output(serializers.Serializer[Any]):
        heartbeat_seconds = serializers.IntegerField(help_text="Seconds until the next heartbeat.")
        revision = serializers.IntegerField(
            allow_null=True, help_text="The pointer's; null before the first."
        )
        next = serializers.IntegerField(allow_null=True, help_text="The announced release, to prefetch.")

    @extend_schema(operation_id="send_heartbeat", request=Input, responses=Output)
    def post(self, request: Request) -> Response:
        """Report what this bot runs. The first report of a revision acknowledges it. 409 for a bot of another service."""
        heartbeat = _create_heartbeat(self.Input.read(request))
        answer = heartbeats.receive_heartbeat(heartbeat, actor=get_actor(request))
        return Response(build_heartbeat_answer(answer))


_HEARTBEAT = Heartbeat.Input()  # creating its fields takes longer than validating them


def parse_heartbeat(body: bytes) -> heartbeat_checks.Heartbeat | None:
    """Parse a heartbeat that the edge received; None for one that `Heartbeat` refuses, with the reason."""
    (parser,) = Heartbeat.parser_classes
    try:
        return _create_heartbeat(_HEARTBEAT.run_validation(parser().parse(BytesIO(body))))
    except APIException:
        return None


def build_heartbeat_answer(answer: heartbeats.HeartbeatAnswer) -> dict[str, int | None]:
    return {
        "heartbeat_seconds": settings.BOT_HEARTBEAT_SECONDS,
        "revision": answer.revision,
        "next": answer.next.pk if answer.next else None,
    }


def _create_heartbeat(checked: Mapping[str, Any]) -> heartbeat_checks.Heartbeat:
    running = {name: checked[name] for name in ("release", "line", "bundles")}
    others = {name: value for name, value in checked.items() if name not in running}
    others["last_error"] = checked["last_error"] or ""
    others["trusted_keys"] = tuple(sorted(checked["trusted_keys"]))
    stated = others.pop("protocol")
    others["protocol"] = stated["version"] if stated else protocol.FIRST_VERSION
    if head := others.pop("audit_head"):
        others |= {"audit_seq": head["seq"], "audit_hash": head["hash"]}
    return heartbeat_checks.Heartbeat(**others, running=Running(**running))


class Bots(ListAPIView[Bot]):
    """Every bot's last report, compared with what it must run; problems first."""

    class Filter(filters.FilterSet):
        name = filters.CharFilter()
        instance = filters.CharFilter()
        state = filters.ChoiceFilter(choices=[(s.value, s.value) for s in BotState])
        revision = api_fields.IntegerFilter()
        release = api_fields.IntegerFilter(field_name="release_number")
        prefetched_next = api_fields.IntegerFilter()
        prefetched_fallback = api_fields.IntegerFilter()

    @extend_schema_serializer(component_name="Bot")
    class Output(serializers.ModelSerializer[Bot]):
        state = serializers.ChoiceField(
            [state.value for state in BotState],
            help_text="`mixture`: not what its revision's release holds. `behind`: live, and not on the pointer's revision."
            " `moving`: the same, but the move is recent. `silent`: no heartbeat for three intervals. `gone`: stopped,"
            " retired, or no longer expected.",
        )
        release = serializers.IntegerField(source="release_number", allow_null=True)
        bundles = Bundles()
        acknowledged_seconds = serializers.FloatField(
            allow_null=True,
            help_text="From the move to its acknowledgement; null before, and for a bot that was first heard later.",
        )

        class Meta:
            model = Bot
            fields: ClassVar = [
                "name", "instance", "state", "acknowledged_seconds", "revision", "line", "release", "bundles", "mismatch",
                "prefetched_next", "prefetched_fallback", "client_version", "protocol", "last_error", "stale_since",
                "trusted_keys", "first_heard_at", "last_heard_at", "clock_error_seconds",
            ]  # fmt: skip

    serializer_class = Output
    filterset_class = Filter
    queryset = Bot.objects.none()

    def get_queryset(self) -> QuerySet[Bot]:
        return fleet.order_by_urgency(fleet.list_bots_with_state(pointer.get_current()))


class RetireBot(APIView):
    can_conflict = True
    names_object = True

    @extend_schema_serializer(component_name="BotRetirement")
    class Input(api_fields.Input):
        name = api_fields.Text(max_length=150, help_text="Of its token's user.")
        instance = api_fields.PatternText(INSTANCE)
        reason = api_fields.Reason()

    @extend_schema(operation_id="retire_bot", request=Input, responses=Bots.Output)
    def post(self, request: Request) -> Response:
        """Count a silent bot as gone, as an operator or an approver. Its next heartbeat brings it back.

        404 for a bot that never reported; 409 for one that reports now, or is gone already.
        """
        bot = retire_bot(actor=get_actor(request), **self.Input.read(request))
        return Response(Bots.Output(bot).data)


class MoveDetail(APIView):
    @extend_schema_serializer(component_name="MoveDetail")
    class Output(serializers.Serializer[Any]):
        revision = serializers.IntegerField()
        kind = serializers.CharField()
        line = serializers.CharField(source="release.line", default=None, allow_null=True)
        release = serializers.IntegerField(source="release_id", allow_null=True)
        moved_by = serializers.CharField()
        reason = serializers.CharField()
        moved_at = serializers.DateTimeField()
        is_current = serializers.BooleanField()
        acknowledged = serializers.IntegerField(
            help_text="Bots that acknowledged it at any time, as far as they are stored."
        )
        live = serializers.IntegerField(help_text="Bots that are live now.")
        has_converged = serializers.BooleanField(help_text="Whether every live bot ran it at some moment.")
        converged_at = serializers.DateTimeField(source="convergence.at", default=None, allow_null=True)
        bots = serializers.IntegerField(
            source="convergence.bots", default=None, allow_null=True, help_text="Live when it converged."
        )
        slowest_seconds = serializers.FloatField(
            source="convergence.slowest_seconds",
            default=None,
            allow_null=True,
            help_text="From the move to the last acknowledgement, of the bots that were there when it moved.",
        )

    @extend_schema(operation_id="show_move", responses=Output)
    def get(self, request: Request, revision: int) -> Response:
        """One move of the pointer, and whether every live bot has followed it."""
        move = PointerMove.objects.select_related("release", "convergence").filter(pk=revision).first()
        if move is None:
            raise NotFound(f"There is no revision {revision}.")
        is_current = move == pointer.get_current()
        extra = {
            "is_current": is_current,
            "acknowledged": move.acknowledgements.count(),
            "live": fleet.list_live_bots().count(),
            "has_converged": hasattr(move, "convergence")
            or (is_current and fleet.count_bots(move, None).has_converged),
        }
        for name, value in extra.items():
            setattr(move, name, value)
        return Response(self.Output(move).data)


class Acknowledgements(ListAPIView[Acknowledgement]):
    """Who acknowledged a move, the slowest first."""

    class Filter(filters.FilterSet):
        name = filters.CharFilter(field_name="bot__name")
        instance = filters.CharFilter(field_name="bot__instance")

    @extend_schema_serializer(component_name="Acknowledgement")
    class Output(serializers.ModelSerializer[Acknowledgement]):
        name = serializers.CharField(source="bot.name")
        instance = serializers.CharField(  # type: ignore[assignment]  # a field's name, not what is serialized
            source="bot.instance"
        )
        joined_later = serializers.SerializerMethodField(
            help_text="Whether the bot was first heard after the move: its seconds then do not measure its speed."
        )

        class Meta:
            model = Acknowledgement
            fields: ClassVar = ["name", "instance", "at", "seconds", "joined_later"]

        def get_joined_later(self, row: Acknowledgement) -> bool:
            return row.bot.first_heard_at > row.move.moved_at

    serializer_class = Output
    filterset_class = Filter
    queryset = Acknowledgement.objects.none()

    def get_queryset(self) -> QuerySet[Acknowledgement]:
        revision = self.kwargs.get("revision", 0)
        if not PointerMove.objects.filter(pk=revision).exists():
            raise NotFound(f"There is no revision {revision}.")
        rows = Acknowledgement.objects.filter(move_id=revision).select_related("bot", "move")
        return rows.order_by("-seconds", "-id")
