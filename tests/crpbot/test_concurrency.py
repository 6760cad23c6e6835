"""Requests take turns at the database; a pin and the liveness check do not wait."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections
from django.http import HttpResponse
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
