"""How many requests use the database at a time, so that readers never take the connection that a pin needs."""

import threading

from django.conf import settings
from django.db import connections
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse

from common.errors import Unavailable
from crpbot.api.problems import CONTENT_TYPE, build_problem
from crpbot.web.middleware import Handler

WAIT_SECONDS = 10.0
"""A request that gets no turn within this time is refused."""
BUSY = Unavailable("The service is busy with other requests. Ask again shortly.")


class LimitConcurrency:
    """Lets DATABASE_POOL - DATABASE_POOL_RESERVED requests in at a time. A pin and the liveness check do not wait.

    The connection returns to the pool before the response is sent: a client that reads slowly keeps none.
    """

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response
        self.exempt = frozenset((reverse("pin"), reverse("api:pin"), reverse("liveness")))
        self.turns = threading.BoundedSemaphore(
            max(1, settings.DATABASE_POOL - settings.DATABASE_POOL_RESERVED)
        )

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not settings.DATABASE_POOL:
            return self.get_response(request)
        if request.path in self.exempt:
            return self._answer(request)
        if not self.turns.acquire(timeout=WAIT_SECONDS):
            return _refuse(request)
        try:
            return self._answer(request)
        finally:
            self.turns.release()

    def _answer(self, request: HttpRequest) -> HttpResponse:
        try:
            return self.get_response(request)
        finally:
            connections.close_all()


def _refuse(request: HttpRequest) -> HttpResponse:
    """A problem for the API, else plain text: a page would need the database that is busy."""
    document, headers = build_problem(BUSY)
    if request.path.startswith("/api/"):
        return JsonResponse(document, status=BUSY.status, headers=headers, content_type=CONTENT_TYPE)
    return HttpResponse(BUSY.message, status=BUSY.status, headers=headers, content_type="text/plain")
