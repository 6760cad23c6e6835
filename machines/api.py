"""Machines over the API: their lives and bills, prices, and the monthly limit."""

from decimal import Decimal
from typing import ClassVar

from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.authentication import get_actor
from common import api_fields
from machines import services
from machines.models import Machine, MachinePrice, MachineUse, MonthlyLimit
from machines.rules import MAX_MONTHLY_USD, MAX_USD_PER_HOUR, MachineState, Market


class Machines(ListAPIView[Machine]):
    """Every life of a machine, newest first, with what it cost and for which runs."""

    class Filter(filters.FilterSet):
        state = filters.ChoiceFilter(choices=[(s.value, s.value) for s in MachineState])
        ordering = filters.OrderingFilter(fields=["id"])

    @extend_schema_serializer(component_name="Machine")
    class Output(serializers.ModelSerializer[Machine]):
        @extend_schema_serializer(component_name="MachineUse")
        class Use(serializers.ModelSerializer[MachineUse]):
            class Meta:
                model = MachineUse
                fields: ClassVar = ["run", "seconds", "estimate_usd", "share_usd"]

        uses = Use(many=True, help_text="What each run took of it, and its part of the bill.")

        class Meta:
            model = Machine
            fields: ClassVar = [
                "id", "state", "reason", "instance_id", "instance_type", "region", "market", "usd_per_hour",
                "allowed_seconds", "requested_by", "requested_at", "started_at", "ended_at", "is_end_exact", "is_reclaimed",
                "stop_asked_by", "stop_reason", "billed_seconds", "cost_usd", "uses",
            ]  # fmt: skip

    @extend_schema_serializer(component_name="MachineStart")
    class Input(api_fields.Input):
        reason = api_fields.Reason()

    can_conflict = True
    queryset = Machine.objects.prefetch_related("uses").order_by("-id")
    serializer_class = Output
    filterset_class = Filter

    @extend_schema(operation_id="start_machine", request=Input, responses={201: Output})
    def post(self, request: Request) -> Response:
        """Ask for a machine, as an operator; it starts within seconds, and stops when it is idle or at its bound."""
        machine = services.start_machine(actor=get_actor(request), **self.Input.read(request))
        return Response(self.Output(machine).data, status=201)


class StopMachine(APIView):
    can_conflict = True

    @extend_schema_serializer(component_name="MachineStop")
    class Input(api_fields.Input):
        reason = api_fields.Reason()

    @extend_schema(operation_id="stop_machine", request=Input, responses=Machines.Output)
    def post(self, request: Request, id: int) -> Response:
        """Stop a machine, as an operator or an approver; its runs resume from their checkpoints elsewhere."""
        checked = self.Input.read(request)
        machine = services.stop_machine(services.find_machine(id), actor=get_actor(request), **checked)
        return Response(Machines.Output(machine).data)


class MachinePrices(ListAPIView[MachinePrice]):
    """Every price that was set, newest first; of each type, region and market the newest counts."""

    class Filter(filters.FilterSet):
        instance_type = filters.CharFilter(help_text="As in `g5.xlarge`.")
        region = filters.CharFilter(help_text="As in `us-east-1`.")
        market = filters.ChoiceFilter(choices=[(m.value, m.value) for m in Market])
        ordering = filters.OrderingFilter(fields=["id"])

    @extend_schema_serializer(component_name="MachinePrice")
    class Output(serializers.ModelSerializer[MachinePrice]):
        class Meta:
            model = MachinePrice
            fields: ClassVar = [
                "id", "instance_type", "region", "market", "usd_per_hour", "set_by", "set_at", "reason",
            ]  # fmt: skip

    @extend_schema_serializer(component_name="MachinePriceSetting")
    class Input(api_fields.Input):
        instance_type = api_fields.PatternText(r"^[a-z0-9][a-z0-9.-]{0,31}$", help_text="As in `g5.xlarge`.")
        region = api_fields.PatternText(r"^[a-z0-9][a-z0-9.-]{0,31}$", help_text="As in `us-east-1`.")
        market = api_fields.Choice([m.value for m in Market])
        usd_per_hour = api_fields.Number(min_value=0.0001, max_value=float(MAX_USD_PER_HOUR))
        reason = api_fields.Reason()

    queryset = MachinePrice.objects.order_by("-id")
    serializer_class = Output
    filterset_class = Filter

    @extend_schema(operation_id="set_machine_price", request=Input, responses={201: Output})
    def post(self, request: Request) -> Response:
        """Set what an hour of a machine costs, as an approver."""
        checked = self.Input.read(request)
        usd = Decimal(str(checked.pop("usd_per_hour")))
        price = services.set_price(usd_per_hour=usd, actor=get_actor(request), **checked)
        return Response(self.Output(price).data, status=201)


class MonthlyLimits(ListAPIView[MonthlyLimit]):
    """Every monthly limit that was set, newest first; the newest counts, and before the first that of the settings."""

    class Filter(filters.FilterSet):
        ordering = filters.OrderingFilter(fields=["id"])

    @extend_schema_serializer(component_name="MonthlyLimit")
    class Output(serializers.ModelSerializer[MonthlyLimit]):
        class Meta:
            model = MonthlyLimit
            fields: ClassVar = ["id", "usd", "set_by", "set_at", "reason"]

    @extend_schema_serializer(component_name="MonthlyLimitSetting")
    class Input(api_fields.Input):
        usd = api_fields.Number(
            min_value=0, max_value=float(MAX_MONTHLY_USD), help_text="With 0, none is started."
        )
        reason = api_fields.Reason()

    queryset = MonthlyLimit.objects.order_by("-id")
    serializer_class = Output
    filterset_class = Filter

    @extend_schema(operation_id="set_monthly_limit", request=Input, responses={201: Output})
    def post(self, request: Request) -> Response:
        """Set what all machines of a month may cost, as an approver."""
        checked = self.Input.read(request)
        usd = Decimal(str(checked.pop("usd")))
        limit = services.set_monthly_limit(usd, actor=get_actor(request), **checked)
        return Response(self.Output(limit).data, status=201)
