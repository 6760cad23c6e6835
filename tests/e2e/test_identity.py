"""Signing in in Chromium: an authenticator app, a security key (virtual), and single sign-on with a provider process."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from allauth.mfa.models import Authenticator
from playwright.sync_api import Browser, Page, expect

from accounts.models import User
from deploy.pointer import pointer
from tests.accounts.second_factors import show_code
from tests.e2e.browser import BROWSER_MARKS, chromium, sign_in
from tests.e2e.conftest import SERVE
from tests.factories import PASSWORD
from tests.loopback import answers, free_port
from tests.processes import start, wait_until

pytestmark = [*BROWSER_MARKS, pytest.mark.slow]


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    process = start(
        sys.executable, "-m", "oidc_provider_mock", "--port", str(port), log=tmp_path / "provider.log"
    )
    address = f"http://localhost:{port}"
    wait_until(
        lambda: answers(f"{address}/.well-known/openid-configuration"), what=f"the provider: {process.log}"
    )
    yield address
    process.stop()


@pytest.fixture
def strict_url(service_url: str, provider: str, tmp_path: Path) -> Iterator[str]:
    """A second web process, by a name that security keys accept, which requires second factors."""
    port = free_port()
    address = f"http://localhost:{port}"
    settings = {
        "CRPBOT_REQUIRE_SECOND_FACTOR": "1",
        "CRPBOT_OIDC_ISSUER": provider,
        "CRPBOT_OIDC_CLIENT_ID": "crpbot",
        "CRPBOT_OIDC_CLIENT_SECRET": "a secret",
        "CRPBOT_OIDC_ROLE_CLAIM": "groups",
        "CRPBOT_OIDC_ROLES": "gate-approvers=approver",
        "CRPBOT_OIDC_NAME": "the desk",
    }
    web = start(sys.executable, "-c", SERVE, str(port), log=tmp_path / "strict.log", **settings)
    wait_until(lambda: answers(f"{address}/healthz"), what=f"the web process: {web.log}")
    yield address
    web.stop()


@pytest.fixture
def browser(strict_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Browser]:
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")  # Playwright's own loop runs in this thread
    with chromium() as found:
        yield found


def open_page(browser: Browser) -> Page:
    page = browser.new_context().new_page()
    page.on("pageerror", lambda error: pytest.fail(f"{page.url}: {error}"))
    return page


def add_virtual_key(page: Page) -> Any:
    """A security key that Chromium simulates, as its DevTools offer it."""
    session = page.context.new_cdp_session(page)
    session.send("WebAuthn.enable")
    options = {"protocol": "ctap2", "transport": "usb", "hasResidentKey": False, "hasUserVerification": False}
    session.send("WebAuthn.addVirtualAuthenticator", {"options": options})
    return session


def pin(page: Page, address: str) -> None:
    page.goto(address)
    page.locator("summary", has_text="Pin the fallback").click()
    form = page.locator("form[action='/pin/']")
    form.get_by_label("Reason").fill("odd predictions")
    form.get_by_role("button").click()


def give_password(page: Page, address: str, name: str) -> None:
    page.goto(f"{address}/sign-in/")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()


def find_revision() -> int:
    now = pointer.get_current()
    assert now is not None
    return now.revision


@pytest.mark.long
def test_an_approver_sets_up_an_app_signs_in_with_it_and_pins(browser: Browser, strict_url: str) -> None:
    page = open_page(browser)
    sign_in(page, strict_url, "anna")
    page.get_by_role("link", name="Set one up").click()
    page.get_by_role("link", name="Set up").click()
    secret = page.locator("#app-key").inner_text()
    expect(page.get_by_role("img", name="The key as a picture")).to_be_visible()
    page.get_by_label("Authenticator code").fill(show_code(secret, -1))
    page.get_by_role("button", name="Set up").click()
    expect(page.get_by_role("heading", name="Recovery codes")).to_be_visible()
    recovery_code = page.locator(".codes code").first.inner_text()
    assert re.fullmatch(r"\d{8}", recovery_code)

    other = open_page(browser)
    give_password(other, strict_url, "anna")
    other.get_by_label("Code").fill("000000")
    other.get_by_role("button", name="Sign in").click()
    expect(other.get_by_text("wrong or was used already")).to_be_visible()
    other.get_by_label("Code").fill(recovery_code)
    other.get_by_role("button", name="Sign in").click()
    other.wait_for_url(f"{strict_url}/")
    before = find_revision()
    pin(other, strict_url)
    expect(other.get_by_text("Pinned: every bot must run")).to_be_visible()
    assert find_revision() == before + 1
    assert other.goto(f"{strict_url}/account/") is not None
    expect(other.get_by_role("button", name="End")).to_have_count(1)


@pytest.mark.long
def test_an_approver_signs_in_and_confirms_a_pin_with_a_security_key(
    browser: Browser, strict_url: str
) -> None:
    page = open_page(browser)
    key = add_virtual_key(page)
    sign_in(page, strict_url, "anna")
    page.goto(f"{strict_url}/account/keys/add/")
    page.get_by_label("Name").fill("the blue one")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("heading", name="Recovery codes")).to_be_visible()
    assert Authenticator.objects.filter(type="webauthn").count() == 1
    page.goto(f"{strict_url}/account/")
    expect(page.get_by_role("link", name="Remove the blue one")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()

    give_password(page, strict_url, "anna")
    page.get_by_role("button", name="Use a security key").click()
    page.wait_for_url(f"{strict_url}/")
    _age_sessions(400)
    before = find_revision()
    pin(page, strict_url)
    expect(page.get_by_role("heading", name="Confirm with your second factor")).to_be_visible()
    assert find_revision() == before
    if page.get_by_role("button", name="Use a security key").count() == 0:
        page.get_by_role("link", name="Use a security key").click()
    page.get_by_role("button", name="Use a security key").click()
    expect(page.get_by_text("Pinned: every bot must run")).to_be_visible()
    assert find_revision() == before + 1
    key.send("WebAuthn.disable")


@pytest.mark.long
def test_a_person_signs_in_with_the_provider(browser: Browser, strict_url: str, provider: str) -> None:
    claims = {"preferred_username": "olga", "groups": ["gate-approvers"]}
    httpx.put(f"{provider}/users/s-1", json=claims).raise_for_status()
    page = open_page(browser)
    page.goto(f"{strict_url}/sign-in/?next=/tokens/")
    page.get_by_role("link", name="Sign in with the desk").click()
    page.locator("input[name=sub]").fill("s-1")
    page.get_by_role("button", name="Authorize").click()
    page.wait_for_url(f"{strict_url}/tokens/")
    expect(page.get_by_role("link", name="olga")).to_be_visible()
    assert set(User.objects.get(username="olga").grants.values_list("role", flat=True)) == {"approver"}


def _age_sessions(seconds: float) -> None:
    """As if everybody had given their factors that much earlier."""
    from accounts.identity.session_store import SessionStore
    from accounts.models import Session

    for row in Session.objects.exclude(user=None):
        session = SessionStore(row.session_key)
        records = session["account_authentication_methods"]
        session["account_authentication_methods"] = [{**each, "at": each["at"] - seconds} for each in records]
        session.save()
