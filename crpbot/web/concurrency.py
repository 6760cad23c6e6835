"""How many requests use the database, or hash a password, at a time: none of them takes what a pin or a bot needs."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.db import connections
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse

from common.errors import Unavailable
from common.metrics import TURN_SECONDS
from crpbot.api.problems import CONTENT_TYPE, build_problem
from crpbot.web.middleware import Handler

WAIT_SECONDS = 10.0
"""A request that gets no turn within this time is refused."""
PIN_SECONDS = 0.5
"""Other requests begin no earlier than a pin that arrived before them has ended, but wait for it no longer than this."""
MAX_WAITING_SIGN_INS = 64
"""More are refused at once: each that waits holds a thread."""
BUSY = Unavailable("The service is busy with other requests. Ask again shortly.")


class Turns:
    """So many at a time, while others wait up to WAIT_SECONDS; beyond `most_waiting`, none waits."""

    def __init__(self, count: int, *, most_waiting: int) -> None:
        self._turns = threading.BoundedSemaphore(count)
        self._places = threading.BoundedSemaphore(count + most_waiting)

    @contextmanager
    def take(self) -> Iterator[bool]:
        """Whether there was a turn within the time."""
        has_place = self._places.acquire(blocking=False)
        has_turn = has_place and self._turns.acquire(timeout=WAIT_SECONDS)
        try:
            yield has_turn
        finally:
            if has_turn:
                self._turns.release()
            if has_place:
                self._places.release()


class Pinning:
    """The pins under way. Each shares the interpreter with every request that runs, so new ones wait for it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0

    @contextmanager
    def take(self) -> Iterator[None]:
        with self._changed:
            self._count += 1
        try:
            yield
        finally:
            with self._changed:
                self._count -= 1
                self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Return once no pin is under way, and after this time at the latest."""
        with self._changed:
            self._changed.wait_for(lambda: self._count == 0, timeout=seconds)


class LimitConcurrency:
    """Lets DATABASE_POOL - DATABASE_POOL_RESERVED requests in at a time. A pin and the liveness check do not wait.

    The connection returns to the pool before the response is sent: a client that reads slowly keeps none.

    Of requests that check a password, one for two cores is let in at a time. Hashing a password takes a core for a good
    part of a second, and this process answers bots from memory with what is left. They wait for their turn before they
    wait for a connection.
    """

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response
        self.pins = frozenset((reverse("pin"), reverse("api:pin")))
        self.exempt = self.pins | {reverse("liveness")}
        self.pinning = Pinning()
        self.turns = threading.BoundedSemaphore(
            max(1, settings.DATABASE_POOL - settings.DATABASE_POOL_RESERVED)
        )
        self.hashing = frozenset((reverse("sign-in"), reverse("account_reauthenticate")))
        self.sign_ins = Turns(max(1, (os.cpu_count() or 1) // 2), most_waiting=MAX_WAITING_SIGN_INS)

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path not in self.hashing or request.method != "POST":
            return self._take_turn(request)
        with self.sign_ins.take() as has_turn:
            return self._take_turn(request) if has_turn else _refuse(request)

    def _take_turn(self, request: HttpRequest) -> HttpResponse:
        if not settings.DATABASE_POOL:
            return self.get_response(request)
        if request.path in self.pins:
            with self.pinning.take():
                return self._answer(request)
        if request.path in self.exempt:
            return self._answer(request)
        self.pinning.wait(PIN_SECONDS)
        began_at = time.perf_counter()
        has_turn = self.turns.acquire(timeout=WAIT_SECONDS)
        TURN_SECONDS.observe(time.perf_counter() - began_at)
        if not has_turn:
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
