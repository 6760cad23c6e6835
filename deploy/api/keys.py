"""The signing keys: their public halves, how many bots trust each, and the decisions about them."""

from typing import Any, ClassVar

from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.authentication import get_actor
from common import api_fields
from deploy.api.decisions import Decision
from deploy.bots import key_decisions
from deploy.bots.key_trust import FleetTrust, load_fleet_trust
from deploy.models import SigningKey
from deploy.rules import KeyState
from deploy.serving import keys


class Keys(ListAPIView[SigningKey]):
    """The keys that sign, signed or are to sign the snapshot, newest first: their public halves.

    To look at, and to compare with what a bot was given by hand; a bot that took its first key from here would trust anyone
    who answers.
    """

    class Filter(filters.FilterSet):
        state = filters.ChoiceFilter(choices=[(state.value, state.value) for state in KeyState])

    @extend_schema_serializer(component_name="SigningKey")
    class Output(serializers.ModelSerializer[SigningKey]):
        public = serializers.CharField(source="public_hex", help_text="Ed25519, 32 bytes in hex.")
        bots = serializers.SerializerMethodField(
            help_text="Bots that report, or did within the last day. The next two counts are of these."
        )
        trusted_by = serializers.SerializerMethodField(
            help_text="Bots that trust it, as their heartbeats say."
        )
        cut_off = serializers.SerializerMethodField(
            help_text="Bots that trust no other key that signs. While there are any, retiring it takes two people."
        )

        class Meta:
            model = SigningKey
            fields: ClassVar = [
                "key_id", "public", "state", "bots", "trusted_by", "cut_off", "retirement_proposed_by", "retirement_reason",
                "created_by", "created_at", "activated_at", "retired_at",
            ]  # fmt: skip

        def get_bots(self, key: SigningKey) -> int:
            return self._trust.count(key).bots

        def get_trusted_by(self, key: SigningKey) -> int:
            return self._trust.count(key).trusted_by

        def get_cut_off(self, key: SigningKey) -> int:
            return self._trust.count(key).cut_off

        @property
        def _trust(self) -> FleetTrust:
            trust: FleetTrust = self.context["trust"]
            return trust

    queryset = SigningKey.objects.order_by("-pk")
    serializer_class = Output
    filterset_class = Filter
    can_conflict = True

    def get_serializer_context(self) -> dict[str, Any]:
        return {**super().get_serializer_context(), "trust": load_fleet_trust()}

    @extend_schema(operation_id="create_key", request=Decision, responses={201: Output})
    def post(self, request: Request) -> Response:
        """Create a key, as an approver. Bots trust it from then on; it signs nothing until it is activated."""
        key = key_decisions.create_key(actor=get_actor(request), **Decision.read(request))
        return Response(serialize_key(key), status=201)


class ActivateKey(APIView):
    can_conflict = True

    @extend_schema(operation_id="activate_key", request=Decision, responses=Keys.Output)
    def post(self, request: Request, key: str) -> Response:
        """Let a key sign, beside the active one, as an approver."""
        checked = Decision.read(request)
        return Response(
            serialize_key(key_decisions.activate_key(keys.find(key), actor=get_actor(request), **checked))
        )


class RetireKey(APIView):
    can_conflict = True

    @extend_schema(operation_id="retire_key", request=Decision, responses=Keys.Output)
    def post(self, request: Request, key: str) -> Response:
        """Retire a key for good, as an approver. 409 while some bot trusts no other key that signs."""
        checked = Decision.read(request)
        return Response(
            serialize_key(key_decisions.retire_key(keys.find(key), actor=get_actor(request), **checked))
        )


class ProposeRetirement(APIView):
    can_conflict = True

    @extend_schema(operation_id="propose_key_retirement", request=Decision, responses=Keys.Output)
    def post(self, request: Request, key: str) -> Response:
        """Propose, as an approver, to retire a key that some bots need, such as a stolen one. Another one approves it."""
        checked = Decision.read(request)
        return Response(
            serialize_key(
                key_decisions.propose_retirement(keys.find(key), actor=get_actor(request), **checked)
            )
        )


class ApproveRetirement(APIView):
    can_conflict = True

    @extend_schema_serializer(component_name="KeyRetirementApproval")
    class Input(api_fields.Input):
        reason = api_fields.Reason()
        cut_off = api_fields.Integer(
            min_value=0,
            max_value=api_fields.MAX_ID,
            help_text="The bots that you saw would be cut off; 409 if they are more by now.",
        )

    @extend_schema(operation_id="approve_key_retirement", request=Input, responses=Keys.Output)
    def post(self, request: Request, key: str) -> Response:
        """Retire a key at once, as an approver other than the one who proposed it."""
        checked = self.Input.read(request)
        return Response(
            serialize_key(
                key_decisions.approve_retirement(keys.find(key), actor=get_actor(request), **checked)
            )
        )


def serialize_key(key: SigningKey) -> dict[str, Any]:
    """The key as `GET keys/` answers it."""
    return dict(Keys.Output(key, context={"trust": load_fleet_trust()}).data)
