"""Passwords are not guessed: neither of one person, nor one password of many, and nobody is locked out by others."""

from datetime import timedelta
from typing import Any

import pytest
from axes.models import AccessAttempt
from django.contrib.auth import authenticate
from django.test import Client, RequestFactory
from django.utils import timezone

from accounts.sign_in import get_address
from audit.models import AuditEvent
from tests import factories, scenarios

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql]

RIGHT = {"username": "anna", "password": factories.PASSWORD}
WRONG = {**RIGHT, "password": "a guess"}


@pytest.fixture(autouse=True)
def limit(settings: Any) -> None:
    settings.AXES_FAILURE_LIMIT = 3


@pytest.fixture
def anna() -> Any:
    return factories.person("anna", "approver")


def sign_in(form: dict[str, str], address: str = "192.0.2.1", browser: Client | None = None) -> int:
    return (browser or Client()).post("/sign-in/", form, REMOTE_ADDR=address).status_code


def test_many_passwords_of_one_name_from_one_address(anna: Any) -> None:
    assert [sign_in(WRONG) for _ in range(3)] == [400, 400, 429]
    refused = Client().post("/sign-in/", RIGHT, REMOTE_ADDR="192.0.2.1")
    assert refused.status_code == 429
    assert "Too many failed sign-ins with this name or from your address" in refused.content.decode()


def test_one_password_with_many_names_from_one_address(anna: Any) -> None:
    names = ["victor", "olivia", "maria"]
    assert [sign_in({**WRONG, "username": name}) for name in names] == [400, 400, 429]
    assert sign_in(RIGHT) == 429
    assert sign_in(RIGHT, "192.0.2.2") == 302, "another address"


def test_one_name_from_many_addresses(anna: Any) -> None:
    factories.person("victor", "viewer")
    assert [sign_in(WRONG, f"192.0.2.{last}") for last in (1, 2, 3)] == [400, 400, 429]
    assert sign_in(RIGHT, "192.0.2.9") == 429
    assert sign_in({**RIGHT, "username": "victor"}, "192.0.2.9") == 302, "another name"


def test_one_name_in_other_spellings_from_one_network(anna: Any) -> None:
    spellings = ["ANNA", "аnna", "ａｎｎａ"]
    guessed = [
        sign_in({**WRONG, "username": name}, f"2001:db8::{last}") for last, name in enumerate(spellings, 1)
    ]
    assert guessed == [400, 400, 429]
    assert sign_in(RIGHT, "192.0.2.9") == 429
    assert sign_in({**WRONG, "username": "victor"}, "2001:db8::77") == 429, "the same network"
    assert sign_in({**WRONG, "username": "victor"}, "2001:db8:0:1::77") == 400


def test_a_browser_that_the_person_used_before_is_not_locked_out(anna: Any) -> None:
    own = Client()
    assert sign_in(RIGHT, browser=own) == 302
    own.post("/sign-out/")
    for last in range(9):
        sign_in(WRONG, f"192.0.2.{last}")
        sign_in({**WRONG, "username": f"person{last}"})
    assert sign_in(RIGHT, "192.0.2.7") == 429
    assert sign_in(RIGHT, browser=own) == 302
    own.post("/sign-out/")
    assert [sign_in(WRONG, browser=own) for _ in range(3)] == [400, 400, 429], "it has a count of its own"


def test_a_known_browser_is_known_for_its_own_person_only(anna: Any) -> None:
    own = Client()
    assert sign_in(RIGHT, browser=own) == 302
    own.post("/sign-out/")
    factories.person("maria", "viewer")
    for last in range(3):
        sign_in({**WRONG, "username": "maria"}, f"192.0.2.{last}")
    assert sign_in({**RIGHT, "username": "maria"}, "192.0.2.9", browser=own) == 429
    (name,) = [name for name in own.cookies if name.startswith("known_browser")]
    invented = Client()
    invented.cookies[name] = "mark:1uXxXx:invented"
    assert [sign_in(WRONG, "192.0.2.8", browser=invented) for _ in range(3)] == [400, 400, 429]
    assert own.cookies[name]["httponly"] and own.cookies[name]["samesite"] == "Strict"


def test_a_refusal_ends_an_hour_after_the_last_counted_failure(anna: Any) -> None:
    for _ in range(3):
        sign_in(WRONG)
    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=59))
    assert sign_in(RIGHT) == 429, "and this one is not counted: nobody extends it"
    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=61))
    assert sign_in(RIGHT) == 302


def test_while_redis_is_away_wrong_passwords_count_all_the_same(anna: Any, settings: Any) -> None:
    settings.CACHES["shared"]["LOCATION"] = "unix:///nowhere/redis.sock"
    assert [sign_in(WRONG) for _ in range(3)] == [400, 400, 429]


@pytest.mark.slow
def test_an_approver_who_is_signed_in_pins_while_their_name_is_locked(anna: Any) -> None:
    scenarios.service_in_use()
    browser = Client()
    browser.force_login(anna)
    for _ in range(5):
        sign_in(WRONG)
    assert sign_in(RIGHT) == 429
    assert browser.post("/pin/", {"reason": "odd predictions"}, REMOTE_ADDR="192.0.2.1").status_code == 302
    assert AuditEvent.objects.filter(kind="pointer.pin").exists()


def test_failed_sign_ins_keep_no_password_and_write_no_event(anna: Any) -> None:
    before = AuditEvent.objects.count()
    for _ in range(9):
        sign_in(WRONG)
    assert AuditEvent.objects.count() == before
    kept = str(list(AccessAttempt.objects.values()))
    assert "a guess" not in kept and "anna" not in kept.replace("known", "")
    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(hours=2))
    sign_in({**WRONG, "username": "victor"}, "192.0.2.99")
    assert AccessAttempt.objects.count() == 1, "old ones are deleted"


def test_a_password_is_checked_for_a_request_only(anna: Any) -> None:
    """Without a request nothing would be counted."""
    with pytest.raises(Exception, match="requires a request"):
        authenticate(None, **RIGHT)


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1::"),
        ("::ffff:192.0.2.1", "::ffff:c000:201"),
        ("no address", "0.0.0.0"),
    ],
)
def test_the_address_of_a_network_counts_together(rf: RequestFactory, reported: str, expected: str) -> None:
    import ipaddress

    found = get_address(rf.get("/", REMOTE_ADDR=reported))
    assert ipaddress.ip_address(found) == ipaddress.ip_address(expected)
