from typing import NoReturn

from drf_spectacular.utils import extend_schema
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.views import APIView

from common.errors import NotFound


@extend_schema(exclude=True)
class UnknownAddress(APIView):
    """Every address under `api/` that is none: a problem document, where Django would answer a page."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    @property
    def default_response_headers(self) -> dict[str, str]:
        """No `Allow`: what is not there has no methods."""
        return {}

    def initial(self, request: Request, *args: object, **kwargs: object) -> NoReturn:
        raise NotFound(
            "There is nothing at this address. /api/docs/ lists what there is; most end with a slash."
        )
