"""Who may use which operation. An operation without a row in MATRIX fails here."""

from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import NoReverseMatch, reverse
from django.utils import timezone

from accounts import services as accounts
from accounts.authentication import IsBot
from accounts.models import ApiToken, User
from accounts.roles import Role
from audit.models import AuditEvent
from deploy.pointer import pointer
from tests import factories
from tests.api.callers import Caller, assert_problem, csrf_token, signed_in, with_token
from tests.api.operations import CALLERS, MATRIX, METHODS, approve, endpoints, launch, operations, upload

pytestmark = pytest.mark.django_db

# Invalid credentials: each gets what a caller without credentials gets.
NOBODY = ("a revoked token", "an expired token", "a made-up token", "a token of a closed account")


def test_every_operation_has_its_row() -> None:
    assert operations() == set(MATRIX)


@pytest.fixture
def cast(
    anonymous: Caller, bot: Caller, viewer: User, as_operator: Caller, as_approver: Caller
) -> dict[str, Caller]:
    browser = signed_in(viewer)
    browser.csrf_token = csrf_token(browser)
    return dict(zip(CALLERS, (anonymous, bot, browser, as_operator, as_approver), strict=True))


@pytest.fixture
def nobodies(db: None) -> dict[str, Caller]:
    """Those whose token held once, or never; all of them were approvers."""
    was = factories.person("paula", "approver")
    callers = {who: with_token(was, "approver") for who in NOBODY[:2]}
    revoked, expired = ApiToken.objects.filter(user=was).order_by("id")
    accounts.revoke_token(revoked, actor="the tests")
    ApiToken.objects.filter(pk=expired.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    closed = factories.person("carl", "approver")
    made_up, of_closed = Caller(Client(), "crp_approver_made-up"), with_token(closed, "approver")
    accounts.close_account(closed, actor="the tests")
    return {**callers, **dict(zip(NOBODY[2:], (made_up, of_closed), strict=True))}


@pytest.mark.slow
@pytest.mark.parametrize(("method", "name"), MATRIX, ids=lambda value: str(value))
def test_an_operation_answers_only_those_it_is_for(
    method: str, name: str, cast: dict[str, Caller], nobodies: dict[str, Caller]
) -> None:
    statuses, prepare = MATRIX[method, name]
    request = prepare()
    for who, caller in nobodies.items():
        response = request.send(caller, method)
        assert (who, response.status_code) == (who, 401), response.content
        assert_problem(response, 401)
        assert response["WWW-Authenticate"].startswith("Bearer")
    newcomer = signed_in(factories.person("nina"))
    newcomer.csrf_token = csrf_token(newcomer)
    assert_problem(request.send(newcomer, method), 403)
    for (who, caller), status in zip(cast.items(), statuses, strict=True):
        response = request.send(caller, method)
        assert (who, response.status_code) == (who, status), response.content
        if status >= 400:
            assert_problem(response, status)


def test_somebody_without_any_role_is_told_to_ask_for_one(db: None) -> None:
    assert_problem(signed_in(factories.person("nina")).get("coins/"), 403, "needs a role")


def test_a_refused_decision_leaves_the_pointer_and_an_event(
    as_operator: Caller, operator: User, approver: User
) -> None:
    request = approve()
    assert_problem(
        request.send(as_operator, "POST"), 403, "olivia may not approve a release", "approver role"
    )
    now = pointer.get_current()
    assert now is not None
    assert now.revision == 1
    event = AuditEvent.objects.get(kind="release.approve.refused")
    assert (event.actor, event.reason) == ("olivia", "figures checked")


def test_a_role_that_was_withdrawn_is_gone_from_its_tokens_at_once(
    approver: User, as_approver: Caller
) -> None:
    assert as_approver.get("coins/").status_code == 200
    accounts.withdraw(approver, Role.APPROVER, actor="the tests")
    assert_problem(as_approver.get("coins/"), 403)


def test_a_revoked_and_an_expired_and_a_made_up_token_are_refused_alike(nobodies: dict[str, Caller]) -> None:
    said = [
        assert_problem(caller.get("coins/"), 401, "unknown, expired or revoked")
        for caller in nobodies.values()
    ]
    assert said == [said[0]] * len(NOBODY)


def test_a_persons_post_needs_the_csrf_token_of_their_browser(viewer: User, operator: User) -> None:
    request = launch()
    browser = signed_in(operator)
    assert_problem(request.send(browser, "POST"), 403, "CSRF")
    browser.csrf_token = csrf_token(browser)
    assert request.send(browser, "POST").status_code == 201


def test_an_upload_from_a_browser_needs_it_too(operator: User) -> None:
    request = upload()
    browser = signed_in(operator)
    assert_problem(request.send(browser, "POST"), 403, "CSRF")
    browser.csrf_token = csrf_token(browser)
    assert request.send(browser, "POST").status_code == 201


@pytest.mark.slow
def test_no_address_has_a_method_that_it_does_not_name(
    anonymous: Caller, bot: Caller, as_approver: Caller, settings: Any
) -> None:
    unlimited = dict.fromkeys(settings.REST_FRAMEWORK["DEFAULT_THROTTLE_RATES"], "")
    settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "DEFAULT_THROTTLE_RATES": unlimited}
    for name, view in endpoints():
        named = {method for method, of in MATRIX if of == name}
        for method in METHODS - named if named else ():
            assert_problem(anonymous.ask(method, _address_of(name)), 401)
            allowed = bot if IsBot in view.permission_classes else as_approver
            response = allowed.ask(method, _address_of(name))
            assert_problem(response, 405, method)
            assert set(response["Allow"].split(", ")) - {"HEAD", "OPTIONS"} == named, name


def _address_of(name: str) -> str:
    """Of anything: a method is refused before the thing is looked for."""
    for given in (
        {},
        {"id": 1},
        {"id": 1, "form": "csv"},
        {"number": 1},
        {"revision": 1},
        {"symbol": "BTC"},
        {"sha256": "0" * 64},
        {"key": "a"},
        {"digest": "0" * 64},
    ):
        with suppress(NoReverseMatch):
            return reverse(f"api:{name}", kwargs=given)
    raise AssertionError(f"what does the address of {name} take?")
