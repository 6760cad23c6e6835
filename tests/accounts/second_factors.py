"""An authenticator app and browsers of the tests: what a person does with a second factor."""

import re
import time
from typing import Any

from allauth.account.authentication import AUTHENTICATION_METHODS_SESSION_KEY
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP, format_hotp_value, generate_totp_secret, hotp_value
from django.test import Client

from accounts.models import User
from tests import factories

PERIOD = 30


def set_up_app(user: User) -> str:
    """The secret of an app that this person has set up."""
    secret = generate_totp_secret()
    TOTP.activate(user, secret)
    return secret


def set_up_recovery_codes(user: User) -> list[str]:
    return [str(code) for code in RecoveryCodes.activate(user).generate_codes()]


def show_code(secret: str, periods: int = 0) -> str:
    """What the app shows so many half minutes from now."""
    return str(format_hotp_value(hotp_value(secret, int(time.time()) // PERIOD + periods)))


def give_password(user: User, browser: Client | None = None) -> Client:
    """A browser after the first step of signing in."""
    browser = browser or Client()
    form = {"username": user.username, "password": factories.PASSWORD}
    assert browser.post("/sign-in/", form).status_code == 302
    return browser


def sign_in(user: User, code: str) -> Client:
    """A browser of this person, signed in with the second factor."""
    browser = give_password(user)
    answer = browser.post("/sign-in/code/", {"code": code})
    assert answer.status_code == 302, answer.content.decode()
    return browser


def age(browser: Client, seconds: float) -> None:
    """As if the person had given the factors of this session that much earlier."""
    session = browser.session
    records: list[dict[str, Any]] = session[AUTHENTICATION_METHODS_SESSION_KEY]
    session[AUTHENTICATION_METHODS_SESSION_KEY] = [{**row, "at": row["at"] - seconds} for row in records]
    session.save()


def read_errors(answer: Any) -> str:
    """The sentences of an answer's alerts."""
    return " ".join(
        re.findall(
            r'class="(?:errorlist[^"]*|notice error)"[^>]*>(.*?)</', answer.content.decode(), re.DOTALL
        )
    )
