"""Sessions: where somebody is signed in, ending one, and those that nobody uses."""

import time
from typing import Any

import pytest
from django.test import Client

from accounts.identity import sessions
from accounts.models import Session, User
from audit.models import AuditEvent
from tests import factories

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql]


@pytest.fixture
def victor() -> User:
    return factories.person("victor", "viewer")


def open_session(user: User, browser: str = "Firefox", address: str = "192.0.2.1") -> Client:
    client = Client(HTTP_USER_AGENT=browser, REMOTE_ADDR=address)
    form = {"username": user.username, "password": factories.PASSWORD}
    assert client.post("/sign-in/", form)["Location"] == "/"
    return client


def set_back(client: Client, **seconds: float) -> None:
    session = client.session
    for name, value in seconds.items():
        session[name] = time.time() - value
    session.save()


def is_signed_in(client: Client) -> bool:
    return client.get("/tokens/").status_code == 200


def test_a_person_sees_their_sessions_and_ends_one_of_them(victor: User) -> None:
    own, other = open_session(victor), open_session(victor, "Chrome", "192.0.2.2")
    page = own.get("/account/").content.decode()
    assert "Firefox" in page and "Chrome" in page and "192.0.2.2" in page
    (row,) = [row for row in sessions.list_sessions(victor, own.session.session_key) if not row.is_own]
    assert str(own.session.session_key) not in page and str(other.session.session_key) not in page
    assert own.post(f"/account/sessions/{row.number}/end/").status_code == 302
    assert not is_signed_in(other) and is_signed_in(own)
    assert AuditEvent.objects.filter(kind="user.session_ended").exists()
    assert own.post(f"/account/sessions/{row.number}/end/").status_code == 404


def test_nobody_ends_the_session_of_another_person(victor: User) -> None:
    own, other = open_session(victor), open_session(factories.person("vera", "viewer"))
    (row,) = sessions.list_sessions(User.objects.get(username="vera"), None)
    assert own.post(f"/account/sessions/{row.number}/end/").status_code == 404
    assert is_signed_in(other)


def test_the_cookie_of_a_session_that_signed_out_opens_nothing(victor: User) -> None:
    client = open_session(victor)
    cookie = client.cookies["sessionid"].value
    client.post("/sign-out/")
    thief = Client()
    thief.cookies["sessionid"] = cookie
    assert not is_signed_in(thief)
    assert not Session.objects.filter(user=victor).exists()


def test_an_unused_session_ends_and_a_used_one_does_not(victor: User, settings: Any) -> None:
    settings.SESSION_IDLE_SECONDS = 1_800
    client = open_session(victor)
    set_back(client, seen_at=1_700)
    assert is_signed_in(client)
    assert time.time() - client.session["seen_at"] < 60, "and that was a use"
    set_back(client, seen_at=1_801)
    assert sessions.list_sessions(victor, None) == []
    assert not is_signed_in(client)
    assert client.get("/api/v1/coins/").status_code == 401


@pytest.mark.parametrize(
    "header", [{"HX-Request": "true"}, {"Sec-Fetch-Dest": "empty"}], ids=["htmx", "charts"]
)
def test_a_page_that_refreshes_itself_keeps_no_session_open(
    victor: User, settings: Any, header: dict[str, str]
) -> None:
    settings.SESSION_IDLE_SECONDS = 1_800
    client = open_session(victor)
    set_back(client, seen_at=1_700)
    assert client.get("/tokens/", headers=header).status_code == 200
    assert time.time() - client.session["seen_at"] > 1_600


def test_a_session_ends_with_its_lifetime_however_much_it_is_used(victor: User, settings: Any) -> None:
    settings.SESSION_COOKIE_AGE = 43_200
    client = open_session(victor)
    set_back(client, started_at=43_201, seen_at=1)
    assert not is_signed_in(client)


def test_without_an_idle_time_reading_writes_no_session(victor: User) -> None:
    client = open_session(victor)
    set_back(client, seen_at=90_000)
    assert is_signed_in(client)
    assert time.time() - client.session["seen_at"] > 80_000
