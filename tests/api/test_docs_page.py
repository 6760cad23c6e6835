"""The browsable page of the API, in a real browser under our content security policy, without a network."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from django.db import connections
from playwright.sync_api import Page, Route

from accounts.models import User
from tests.api.callers import signed_in
from tests.e2e.browser import chromium, find_chromium

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.browser,
    pytest.mark.skipif(
        find_chromium() is None, reason="no Chromium here: install it, or set CRPBOT_CHROMIUM"
    ),
]

ORIGIN = "http://gate.test"


@pytest.fixture
def page(operator: User, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """A browser whose every request is answered by the service in this process, as olivia's; none leaves it.

    Playwright runs an event loop in this very thread, where Django would refuse the database, or open it again.
    """
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    session, database = signed_in(operator).http, connections["default"]
    complaints: list[str] = []

    def answer(route: Route) -> None:
        request = route.request
        if not request.url.startswith(f"{ORIGIN}/"):
            complaints.append(f"asked for {request.url}")
            route.abort()
            return
        connections["default"] = database
        response = session.generic(
            request.method,
            urlsplit(request.url).path,
            request.post_data_buffer or b"",
            content_type=request.headers.get("content-type", ""),
            headers={"X-CSRFToken": request.headers.get("x-csrftoken", ""), "Host": "testserver"},
        )
        route.fulfill(status=response.status_code, headers=dict(response.items()), body=response.getvalue())

    with chromium() as browser:
        opened = browser.new_page()
        opened.route("**/*", answer)
        opened.on(
            "console", lambda said: complaints.append(said.text) if "security" in said.text.lower() else None
        )
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        yield opened
    assert complaints == []


def test_the_page_shows_every_operation_and_executes_one(page: Page) -> None:
    page.goto(f"{ORIGIN}/api/docs/")
    page.wait_for_selector(".opblock")
    assert page.locator(".opblock").count() > 20
    launch = page.locator("#operations-releases-launch_release")
    launch.click()
    launch.get_by_role("button", name="Try it out").click()
    launch.get_by_role("button", name="Execute").click()
    answered = launch.locator(".live-responses-table")
    answered.wait_for()
    # Past session, CSRF and role, as far as the service itself:
    assert "has no candles yet" in answered.inner_text()
