"""What is too large never gets as far as Django, and none of its body is taken."""

import asyncio
import json
from collections.abc import MutableMapping
from typing import Any, NoReturn

import pytest
from django.conf import settings
from django.urls import get_resolver
from django.urls.resolvers import RegexPattern, URLPattern, URLResolver
from rest_framework.parsers import MultiPartParser

from crpbot.asgi import application
from crpbot.web.limits import FORM_SLACK_BYTES, MAX_HEADER_BYTES, MAX_QUERY_BYTES, UPLOADS, RequestSizeLimits

Message = MutableMapping[str, Any]
SMALL = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
CANDLES = settings.DATASET_UPLOAD_LIMIT_BYTES + FORM_SLACK_BYTES
CHECKPOINT = settings.IMPORTED_MODEL_UPLOAD_LIMIT_BYTES + FORM_SLACK_BYTES


async def unread() -> NoReturn:
    raise AssertionError("the body was asked for")


def asked(
    path: str = "/api/v1/pointer/pin/",
    *,
    method: str = "POST",
    query: bytes = b"",
    app: Any = None,
    **headers: str,
) -> tuple[int, dict[bytes, bytes], bytes]:
    """The answer to a request of which nothing but its head has come; 299 where it was let through."""
    sent: list[Message] = []

    async def through(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 299, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(message: Message) -> None:
        sent.append(message)

    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "query_string": query, "headers": named}
    asyncio.run((app or RequestSizeLimits(through))(scope, unread, send))
    start, body = sent
    return start["status"], dict(start["headers"]), body["body"]


@pytest.mark.parametrize(
    ("path", "most"),
    [
        ("/api/v1/pointer/pin/", SMALL),
        ("/api/v1/bots/windows/", SMALL),
        ("/api/v1/releases/1/approve/", SMALL),
        ("/api/v1/datasets/", CANDLES),
        ("/datasets/", CANDLES),
        ("/api/v1/datasets/check/", CANDLES),
        ("/datasets/check/", CANDLES),
        ("/api/v1/bundles/", CHECKPOINT),
        ("/bundles/", CHECKPOINT),
        ("/api/v1/datasets/1/withdraw/", SMALL),
        ("/sign-in/", SMALL),
        ("/nowhere", SMALL),
    ],
)
def test_a_body_has_as_much_as_its_address_takes_and_no_byte_more(path: str, most: int) -> None:
    assert asked(path, content_length=str(most))[0] == 299
    assert asked(path, content_length=str(most + 1))[0] == 413


def test_a_refusal_is_a_problem_for_a_program_and_a_sentence_for_a_person() -> None:
    status, headers, body = asked(content_length="300000")
    assert (status, headers[b"content-type"], headers[b"connection"]) == (
        413,
        b"application/problem+json",
        b"close",
    )
    assert (
        json.loads(body)["detail"] == "A request here may have 262,144 bytes, and this one has 300,000 bytes."
    )
    _, headers, body = asked("/sign-in/", content_length="300000")
    assert headers[b"content-type"].startswith(b"text/plain")
    assert body.startswith(b"A request here may have")


@pytest.mark.parametrize(("path", "remedy"), [("/datasets/", "Parquet"), ("/bundles/", "only the weights")])
def test_a_browser_gets_a_page_with_limit_remedy_and_link_back(path: str, remedy: str) -> None:
    _, headers, body = asked(path, accept="text/html,*/*;q=0.8", content_length="83886080")
    page = body.decode()
    assert headers[b"content-type"] == b"text/html; charset=utf-8"
    assert b"default-src 'none'" in headers[b"content-security-policy"]
    assert "this one has 83,886,080 bytes (80.00 MiB)." in page
    assert remedy in page and f'href="{path}"' in page and "crpbot/gate.css" in page


def test_a_browser_gets_a_page_elsewhere_and_the_api_a_problem() -> None:
    _, _, page = asked("/sign-in/", accept="text/html", content_length="300000")
    assert b"may have 262,144 bytes, and this one has 300,000 bytes." in page and b"Back to" not in page
    assert (
        asked(accept="text/html", content_length="300000")[1][b"content-type"] == b"application/problem+json"
    )


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "BREW"])
def test_a_body_of_unannounced_length_is_not_read_whatever_it_comes_with(method: str) -> None:
    assert asked(method=method, transfer_encoding="chunked")[0] == 411
    assert asked("/datasets/", method=method, transfer_encoding="chunked")[0] == 411
    assert asked(method=method)[0] == 299


def test_a_head_without_end_is_refused() -> None:
    assert asked(method="GET", cookie="x" * MAX_HEADER_BYTES)[0] == 431
    assert asked(method="GET", query=b"x" * (MAX_QUERY_BYTES + 1))[0] == 414
    assert asked(method="GET", query=b"x" * MAX_QUERY_BYTES, cookie="x" * 20_000)[0] == 299


def test_the_web_process_stands_behind_these_limits() -> None:
    assert asked(app=application, content_length="300000")[0] == 413
    assert asked("/api/v1/bots/heartbeat/", app=application, transfer_encoding="chunked")[0] == 411


def test_every_route_that_takes_a_file_is_listed() -> None:
    """And no other: the JSON of a route that forgot its parser would have 64 MiB."""
    taking = {
        f"api:{name}" for name, view in _views() if MultiPartParser in getattr(view, "parser_classes", ())
    }
    assert {name for name in UPLOADS if name.startswith("api:")} == taking


def _views() -> list[tuple[str, Any]]:
    entries, found = list(get_resolver("crpbot.api.urls").url_patterns), []
    while entries:
        entry = entries.pop()
        if isinstance(entry, URLResolver):
            entries += entry.url_patterns
        elif isinstance(entry, URLPattern) and not isinstance(entry.pattern, RegexPattern):
            view: Any = entry.callback
            found.append((str(entry.name), getattr(view, "view_class", None) or view.cls))
    return found
