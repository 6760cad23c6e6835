"""How often somebody may ask: enough for everything that is meant, counted together, and never in the way of a pin."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.core.cache import caches
from django.test import Client, RequestFactory

from accounts import throttling
from accounts.models import User
from accounts.throttling import RequestLimit
from deploy.pointer import pointer
from tests import factories, scenarios
from tests.api.callers import Caller, assert_problem, with_token
from tests.api.operations import MATRIX, endpoints

pytestmark = pytest.mark.django_db


@pytest.fixture
def rates(settings: Any) -> Any:
    """rates(reads="3/day"): other rates than the service's, which stay as they are for the others."""

    def changed(**others: str) -> None:
        all_rates = {**settings.REST_FRAMEWORK["DEFAULT_THROTTLE_RATES"], **others}
        settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "DEFAULT_THROTTLE_RATES": all_rates}

    return changed


@pytest.fixture
def counted_by_redis(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(throttling, "_paused_until", 0.0)
    shared = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": settings.REDIS_URL,
        "OPTIONS": {"socket_timeout": 10, "socket_connect_timeout": 10},
    }
    settings.CACHES = {**settings.CACHES, "shared": shared}
    yield
    caches["shared"].close()


def test_who_asks_too_often_is_told_when_to_ask_again(
    as_viewer: Caller, as_approver: Caller, rates: Any
) -> None:
    rates(reads="3/day")
    assert [as_viewer.get("coins/").status_code for _ in range(3)] == [200] * 3
    response = as_viewer.get("runs/")
    problem = assert_problem(response, 429, "try again in")
    assert problem["title"] == "Too Many Requests"
    assert 1 <= int(response["Retry-After"]) <= 24 * 3600
    assert as_approver.get("coins/").status_code == 200, "another person is not held to it"


def test_a_persons_tokens_count_together_and_a_bots_apart(operator: User, rates: Any) -> None:
    rates(reads="2/day")
    one, other = with_token(operator, "operator"), with_token(operator, "operator")
    assert [caller.get("coins/").status_code for caller in (one, other, one)] == [200, 200, 429]
    assert with_token(operator, "bot").get("active/").status_code == 503, (
        "there is no pointer; it was not turned away"
    )


def test_reading_deciding_uploading_and_what_bots_say_are_counted_apart(
    as_operator: Caller, bot: Caller, rates: Any
) -> None:
    asked = {
        "reads": lambda: as_operator.get("coins/"),
        "decisions": lambda: as_operator.post("releases/", {"line": "v99"}),
        "uploads": lambda: as_operator.upload(),
        "bots": lambda: (bot.post("bots/windows/", {}), bot.post("bots/heartbeat/", {}))[1],
        "files": lambda: bot.get(f"artifacts/{'0' * 64}"),
    }
    unlimited = dict.fromkeys(asked, "")
    for scarce in asked:
        rates(**{**unlimited, scarce: "1/day"})
        again = {kind: [ask().status_code for _ in range(2)][1] for kind, ask in asked.items()}
        assert {kind for kind, status in again.items() if status == 429} == {scarce}
    assert bot.get("active/").status_code == 503, "there is no pointer; it was not turned away"


def test_nothing_is_without_a_limit_but_a_pin_and_what_bots_follow(rf: RequestFactory, settings: Any) -> None:
    scopes = {
        (method, name): RequestLimit().get_scope(rf.generic(method, "/"), view)
        for name, view in endpoints()
        for method in ("GET", "POST", "PATCH")
        if (method, name) in MATRIX
    }
    assert {operation for operation, scope in scopes.items() if scope is None} == {
        ("POST", "pin"),
        ("GET", "active"),
        ("GET", "active-signed"),
        ("GET", "active-stream"),
        ("GET", "active-keys"),
    }
    assert set(scopes.values()) - {None} <= set(settings.REST_FRAMEWORK["DEFAULT_THROTTLE_RATES"])
    assert {name for (_, name), scope in scopes.items() if scope == "uploads"} == {
        "datasets",
        "check-upload",
        "bundles",
    }


def test_a_pin_is_never_refused_for_being_asked_often(as_approver: Caller, rates: Any) -> None:
    rates(reads="1/day", decisions="1/day", unauthenticated="1/day")
    scenarios.service_in_use()
    for _ in range(3):
        as_approver.post("releases/1/decline/", {"reason": "no"})
    stranger = Caller(Client())
    assert [stranger.post("pointer/pin/", {}).status_code for _ in range(2)] == [401, 429]
    assert as_approver.post("pointer/pin/", {"reason": "odd predictions"}).status_code == 200
    now = pointer.get_current()
    assert now is not None
    assert now.kind == "pin"


def test_wrong_credentials_count_by_address_and_valid_ones_are_served(
    as_approver: Caller, rates: Any
) -> None:
    rates(unauthenticated="2/day")
    guesser = Caller(Client(), "crp_approver_guessed")
    assert_problem(guesser.get("coins/"), 401)
    assert_problem(Caller(Client()).get("coins/"), 401)
    response = guesser.get("coins/")
    assert_problem(response, 429, "try again")
    assert int(response["Retry-After"]) > 0
    assert as_approver.get("coins/").status_code == 200
    elsewhere = Caller(Client(REMOTE_ADDR="203.0.113.9"), "crp_approver_guessed")
    assert_problem(elsewhere.get("coins/"), 401)


def test_the_address_is_the_one_the_proxy_says_and_no_other(rates: Any, settings: Any) -> None:
    rates(unauthenticated="1/day")
    forged = {"X-Forwarded-For": "198.51.100.1"}
    assert_problem(Caller(Client()).get("coins/", headers=forged), 401)
    assert_problem(Caller(Client()).get("coins/", headers={"X-Forwarded-For": "198.51.100.2"}), 429)
    settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "NUM_PROXIES": 1}
    behind = [{"X-Forwarded-For": f"{forged}, 203.0.113.{last}"} for forged, last in ((1, 5), (2, 5), (3, 6))]
    codes = [Caller(Client()).get("coins/", headers=headers).status_code for headers in behind]
    assert codes == [401, 429, 401]


def test_the_admin_has_no_door_of_its_own(viewer: User) -> None:
    assert Client().get("/admin/login/?next=/admin/audit/")["Location"] == "/sign-in/?next=/admin/audit/"
    assert (
        Client().post("/admin/login/", {"username": "victor", "password": factories.PASSWORD}).status_code
        == 302
    )
    browser = Client()
    browser.force_login(viewer)
    assert browser.get("/admin/", follow=True).status_code == 403


def test_redis_counts_for_all_web_processes(
    broker: redis.Redis, counted_by_redis: None, as_viewer: Caller, rates: Any
) -> None:
    rates(reads="2/day")
    assert as_viewer.get("coins/").status_code == 200
    (key,) = [key for key in broker.scan_iter() if b"limit:reads" in key]
    assert broker.get(key) == b"1"
    assert broker.ttl(key) > 24 * 3600
    broker.incr(key)  # another process
    assert as_viewer.get("coins/").status_code == 429


def test_while_redis_is_away_each_process_counts_by_itself(
    counted_by_redis: None, settings: Any, as_viewer: Caller, rates: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.CACHES["shared"]["LOCATION"] = "unix:///nowhere/redis.sock"
    rates(reads="2/day")
    assert [as_viewer.get("coins/").status_code for _ in range(3)] == [200, 200, 429]
    assert caplog.text.count("Redis does not answer") == 1, "it is left alone for a while"
