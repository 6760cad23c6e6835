"""Taking back candles that were stored wrongly."""

from drf_spectacular.utils import extend_schema, extend_schema_serializer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.authentication import get_actor
from common import api_fields
from deploy.releases.withdraw import withdraw_dataset
from training.api.datasets import Datasets
from training.services.datasets import find_dataset


class WithdrawDataset(APIView):
    can_conflict = True

    @extend_schema_serializer(component_name="DatasetWithdrawal")
    class Input(api_fields.Input):
        reason = api_fields.Reason()

    @extend_schema(operation_id="withdraw_dataset", request=Input, responses=Datasets.Output)
    def post(self, request: Request, id: int) -> Response:
        """Say of candles that they were stored wrongly, as an operator or an approver; it is never undone.

        409 while a release that is undecided, live or the registered fallback stands on them.
        """
        checked = self.Input.read(request)
        dataset = withdraw_dataset(find_dataset(id), actor=get_actor(request), reason=checked["reason"])
        return Response(Datasets.Output(dataset).data)
