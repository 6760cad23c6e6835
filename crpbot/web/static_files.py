"""Static files, sent as an ASGI server wants them."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from whitenoise.middleware import WhiteNoiseMiddleware  # type: ignore[import-untyped]


class StaticFiles(WhiteNoiseMiddleware):
    """WhiteNoise, whose answers are whole: under ASGI Django would gather the stream in one piece too, and warn of it."""

    @staticmethod
    def serve(static_file: Any, request: HttpRequest) -> HttpResponse:
        found = static_file.get_response(request.method, request.META)
        content = b""
        if found.file is not None:
            # Not by way of a streaming response: closing that would tell Django that this request is over.
            with found.file as file:
                content = file.read()
        whole = HttpResponse(content, status=int(found.status))
        del whole["Content-Type"]
        for name, value in found.headers:
            whole[name] = value
        return whole
