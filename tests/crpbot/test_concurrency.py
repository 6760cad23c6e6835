"""Requests take turns at the database; a pin and the liveness check do not wait."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack
from typing import Any

import pytest
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.urls import reverse

from crpbot.web import concurrency
from crpbot.web.concurrency import LimitConcurrency


@pytest.fixture
def busy(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], HttpResponse]:
    """Answers a request for an address while another request has the only turn."""
    settings.DATABASE_POOL = settings.DATABASE_POOL_RESERVED + 1
    monkeypatch.setattr(concurrency, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(connections, "close_all", lambda: None)  # the tests' own connection stays open
    limit = LimitConcurrency(lambda request: HttpResponse("answered"))
    limit.turns.acquire()
    return lambda path: limit(RequestFactory().get(path))


@pytest.mark.parametrize(
    ("path", "content_type"),
    [("/api/v1/coins/", "application/problem+json"), ("/releases/", "text/plain")],
)
def test_without_a_turn_a_request_is_asked_to_come_again(
    busy: Callable[[str], HttpResponse], path: str, content_type: str
) -> None:
    answer = busy(path)
    assert (answer.status_code, answer["Content-Type"]) == (503, content_type)
    assert answer["Retry-After"] == "2"
    assert "busy with other requests" in answer.content.decode()


@pytest.mark.parametrize("name", ["pin", "api:pin", "liveness"])
def test_a_pin_and_the_liveness_check_need_no_turn(busy: Callable[[str], HttpResponse], name: str) -> None:
    assert busy(reverse(name)).status_code == 200


def test_sign_ins_take_turns_and_keep_neither_pins_nor_pages_waiting(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.DATABASE_POOL = 0  # as on SQLite: the turns of sign-ins are there all the same
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(concurrency, "MAX_WAITING_SIGN_INS", 3)
    monkeypatch.setattr(connections, "close_all", lambda: None)
    hashing, go_on, most = list[int](), threading.Event(), list[int]()

    def answer(request: HttpRequest) -> HttpResponse:
        if request.method == "POST" and request.path == "/sign-in/":
            hashing.append(1)
            most.append(len(hashing))
            go_on.wait(30)
            hashing.pop()
        return HttpResponse("answered")

    limit = LimitConcurrency(answer)
    with ThreadPoolExecutor(8) as pool:
        sent = [pool.submit(limit, RequestFactory().post("/sign-in/")) for _ in range(6)]
        refused, waiting = wait(sent, timeout=30, return_when=FIRST_COMPLETED)
        assert [each.result().status_code for each in refused] == [503], (
            "two hash, three wait, one is refused"
        )
        assert limit(RequestFactory().post(reverse("pin"))).status_code == 200
        assert limit(RequestFactory().get("/sign-in/")).status_code == 200
        go_on.set()
        assert {each.result().status_code for each in waiting} == {200}
    assert max(most) == 2


def test_a_sign_in_without_a_turn_is_asked_to_come_again(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(concurrency, "WAIT_SECONDS", 0.01)
    limit = LimitConcurrency(lambda request: HttpResponse("answered"))
    with ExitStack() as held:
        while held.enter_context(limit.sign_ins.take()):
            pass
        assert limit(RequestFactory().post("/sign-in/")).status_code == 503
    assert limit(RequestFactory().post("/sign-in/")).status_code == 200
