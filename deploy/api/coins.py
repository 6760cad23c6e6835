"""Coins, to add one and to say which of them a release must carry; and candles, to withdraw them."""

from drf_spectacular.utils import extend_schema, extend_schema_serializer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.authentication import get_actor
from common import api_fields
from deploy.releases import coins
from deploy.releases.withdraw_dataset import withdraw_dataset
from training.api import datasets as training
from training.services.coins import find_coin
from training.services.datasets import find_dataset


class Coins(training.Coins):
    """The coins the bot trades; a release must carry every required one."""

    @extend_schema_serializer(component_name="CoinAddition")
    class Input(api_fields.Input):
        symbol = api_fields.PatternText(r"^[A-Za-z0-9]{1,12}$", help_text="As in `BTC`.")
        name = api_fields.OptionalText(max_length=60, required=False, default="", allow_blank=True)
        reason = api_fields.Reason()

    can_conflict = True

    @extend_schema(operation_id="add_coin", request=Input, responses={201: training.Coins.Output})
    def post(self, request: Request) -> Response:
        """Add a coin, as an operator, so that candles can be kept for it. No release need carry it yet."""
        coin = coins.add_coin(actor=get_actor(request), **self.Input.read(request))
        return Response(self.Output(coin).data, status=201)


class OneCoin(APIView):
    @extend_schema_serializer(component_name="CoinRequirement")
    class Input(api_fields.Input):
        is_required = api_fields.Boolean(help_text="Whether every release must carry it.")
        reason = api_fields.Reason()
        confirmed = api_fields.Boolean(
            default=False, help_text="Without it the answer is 409, and says what would follow."
        )

    can_conflict = True

    @extend_schema(operation_id="require_coin", request=Input, responses=training.Coins.Output)
    def patch(self, request: Request, symbol: str) -> Response:
        """Have every release carry this coin from now on, or none, as an approver."""
        checked = self.Input.read(request)
        coin = coins.set_required(
            find_coin(symbol), actor=get_actor(request), is_confirmed=checked.pop("confirmed"), **checked
        )
        return Response(training.Coins.Output(coin).data)


class WithdrawDataset(APIView):
    can_conflict = True

    @extend_schema_serializer(component_name="DatasetWithdrawal")
    class Input(api_fields.Input):
        reason = api_fields.Reason()

    @extend_schema(operation_id="withdraw_dataset", request=Input, responses=training.Datasets.Output)
    def post(self, request: Request, id: int) -> Response:
        """Say of candles that they were stored wrongly, as an operator or an approver; it is never undone.

        409 while a release that is undecided, live or the registered fallback stands on them.
        """
        dataset = withdraw_dataset(find_dataset(id), actor=get_actor(request), **self.Input.read(request))
        return Response(training.Datasets.Output(dataset).data)
