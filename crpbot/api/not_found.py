from typing import NoReturn

from drf_spectacular.utils import extend_schema
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.views import APIView

from common.errors import NotFound


@extend_schema(exclude=True)
class UnknownAddress(APIView):
    """Any other address under `api/`: a problem document instead of Django's page."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    @property
    def default_response_headers(self) -> dict[str, str]:
        """No `Allow` header: an unknown address has no methods."""
        return {}

    def initial(self, request: Request, *args: object, **kwargs: object) -> NoReturn:
        raise NotFound(
            "There is nothing at this address. /api/docs/ lists all addresses; most end with a slash."
        )
