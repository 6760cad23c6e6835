"""Static files come whole, with what WhiteNoise says of them, and without a warning about how they are sent."""

import asyncio
import warnings
from typing import Any

import pytest
from django.test import AsyncClient


@pytest.fixture(autouse=True)
def _as_it_is_served(settings: Any) -> None:
    settings.WHITENOISE_AUTOREFRESH = False


def get(path: str, **headers: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return asyncio.run(AsyncClient().get(path, headers=headers))


def test_a_static_file_comes_whole_under_asgi() -> None:
    answer = get("/static/crpbot/gate.css")
    assert (answer.status_code, answer["Content-Type"]) == (200, 'text/css; charset="utf-8"')
    assert len(answer.content) == int(answer["Content-Length"]) > 1000
    assert not answer.streaming


def test_what_the_browser_has_already_is_not_sent_again() -> None:
    first = get("/static/crpbot/gate.css")
    again = get("/static/crpbot/gate.css", **{"if-none-match": first["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(("asked", "status"), [("bytes=0-9", 206), ("bytes=99999999-", 416)])
def test_a_part_of_a_file_may_be_asked_for(asked: str, status: int) -> None:
    answer = get("/static/crpbot/gate.css", range=asked)
    assert answer.status_code == status
    assert len(answer.content) == (10 if status == 206 else 0)
