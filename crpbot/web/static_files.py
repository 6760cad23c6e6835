"""Static files for an ASGI server."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from whitenoise.middleware import WhiteNoiseMiddleware  # type: ignore[import-untyped]


class StaticFiles(WhiteNoiseMiddleware):
    """WhiteNoise with complete responses: under ASGI Django would collect the stream and warn about it."""

    @staticmethod
    def serve(static_file: Any, request: HttpRequest) -> HttpResponse:
        response = static_file.get_response(request.method, request.META)
        content = b""
        if response.file is not None:
            # Not a streaming response: closing it would tell Django that the request has ended.
            with response.file as file:
                content = file.read()
        whole = HttpResponse(content, status=int(response.status))
        del whole["Content-Type"]
        for name, value in response.headers:
            whole[name] = value
        return whole
